"""Files outside the cone of a sparse checkout exist: they are shown, edits of them work, nothing replaces them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gremlins.repository.folder import create
from gremlins.repository.git import Git
from gremlins.repository.sparse import left_out, read_left_out
from gremlins.repository.worktree import Worktree, commit_all, commit_aside
from gremlins.stages.context.pack import Subject, build_pack
from gremlins.stages.edits.answer import Edit, Replace, Write
from gremlins.stages.edits.checking import EditsReady, Mismatched, check_edits
from tests.conftest import Repo

FAR = "def far(a):\n    return a\n"


@pytest.fixture
def worktree(repo: Repo, tmp_path: Path) -> Worktree:
    """A gremlin's worktree of a person's sparse one, in which `far/` is not checked out."""
    repo.commit({"far/away.py": FAR, "far/other.py": FAR, "far/big.bin": b"\0" * 5000})
    repo.git("sparse-checkout", "set", "tests")
    made = create(repo.path, tmp_path / "worktrees/g", "gremlins/g", repo.head())
    assert not (made.path / "far").exists()
    return made


def apply(worktree: Worktree, *edits: Edit) -> None:
    checked = check_edits(worktree.path, edits, shown="")
    assert isinstance(checked, EditsReady)
    assert commit_aside(worktree, checked.changes, message="edits", trailer="Gremlins-Call: c")


def test_they_are_read_from_the_index_up_to_a_size(worktree: Worktree) -> None:
    found = read_left_out(worktree.git, 1000)
    assert found == {"far/away.py": FAR.encode(), "far/other.py": FAR.encode()}


def test_a_checkout_that_is_not_sparse_leaves_nothing_out(repo: Repo) -> None:
    assert read_left_out(Git(repo.path), 1000) == {}


def test_in_a_partial_clone_they_are_not_fetched_one_by_one(worktree: Worktree) -> None:
    worktree.git.raw("config", "remote.origin.promisor", "true")
    assert read_left_out(worktree.git, 1000) == {}
    assert "far/away.py" in left_out(worktree.git)


def test_they_are_shown_to_a_model_that_has_no_tools(worktree: Worktree) -> None:
    pack = build_pack(worktree.path, Subject("Change far/away.py"), budget=20_000)
    assert FAR in pack.text


def test_an_edit_changes_what_is_there_and_nothing_else(worktree: Worktree) -> None:
    apply(
        worktree,
        Replace(path="far/away.py", old="return a", new="return -a"),
        Replace(path="calc.py", old="a - b", new="a + b"),
    )
    assert (worktree.path / "far/away.py").read_text() == FAR.replace("return a", "return -a")
    assert worktree.git.changed_paths(worktree.base, worktree.ref) == ["calc.py", "far/away.py"]
    assert worktree.git.dirty_paths() == []


def test_an_edit_that_does_not_fit_is_sent_back_and_an_empty_old_is_no_new_file(worktree: Worktree) -> None:
    for edit in (Replace(path="far/away.py", old="not there", new="x"), Replace(path="far/away.py", old="", new="x")):
        assert isinstance(check_edits(worktree.path, [edit], shown=""), Mismatched)


def test_a_content_replaces_none_that_was_not_shown_whole(worktree: Worktree) -> None:
    edits = [Write(path="far/away.py", content=f"{FAR}# more\n")]
    assert isinstance(check_edits(worktree.path, edits, shown=""), Mismatched)
    shown = build_pack(worktree.path, Subject("Change far/away.py"), budget=20_000).text
    assert isinstance(check_edits(worktree.path, edits, shown), EditsReady)


def test_a_commit_of_an_agents_changes_deletes_none_of_them(worktree: Worktree) -> None:
    (worktree.path / "calc.py").write_text("changed\n")
    assert commit_all(worktree, message="changes", trailer="Gremlins-Call: c")
    assert worktree.git.changed_paths(worktree.base, worktree.ref) == ["calc.py"]
