"""The folder of a worktree: git works in it and nowhere else, and what is in it is asked about before it goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gremlins.errors import Conflict
from gremlins.repository import folder
from gremlins.repository.git import Git
from gremlins.repository.worktree import Worktree
from tests.conftest import Repo, make_repo

KEPT = "refs/gremlins/g/interrupted-1"


@pytest.fixture
def made(repo: Repo, tmp_path: Path) -> Worktree:
    return folder.create(repo.path, tmp_path / "worktrees" / "g", "gremlins/g", repo.head())


def inside(made: Worktree) -> Repo:
    return Repo(made.path)


@pytest.mark.parametrize("apart", [False, True])
def test_the_settings_of_a_repository_that_commands_made_run_nothing(made: Worktree, apart: bool) -> None:
    """As a submodule git would look into it: with its filters, outside of the sandbox."""
    ran, theirs = made.path.parent / "ran", make_repo(made.path / "sub")
    theirs.commit({".gitattributes": "* filter=x\n", "f": "1"})
    theirs.git("config", "filter.x.clean", f"touch '{ran}'; cat")
    theirs.git("config", "core.fsmonitor", f"touch '{ran}'")
    if apart:
        (made.path / "sub" / ".git").rename(made.path / "apart")
        (made.path / "sub" / ".git").write_text("gitdir: ../apart\n")
    outer = inside(made)
    outer.git("add", "sub")
    outer.git("commit", "--quiet", "-m", "a repository inside")
    theirs.write({"f": "2"})
    assert folder.unsaved(made).repositories == ("sub",) if not apart else "sub" in folder.unsaved(made).repositories
    assert "a repository inside" in refused(made, "sub").message
    assert not ran.exists()


def refused(made: Worktree, why: str, **options: bool) -> Conflict:
    """A removal is refused, with folder, registration and branch as they were."""
    before = sorted(made.path.rglob("*")), Repo(made.repo).git("worktree", "list"), made.tip()
    with pytest.raises(Conflict, match=why) as caught:
        folder.remove(made, delete_branch=True, **options)
    assert (sorted(made.path.rglob("*")), Repo(made.repo).git("worktree", "list"), made.tip()) == before
    return caught.value


# --- git works in it


def share_core_worktree(repo: Repo) -> None:
    repo.git("config", "core.repositoryFormatVersion", "1")
    repo.git("config", "extensions.worktreeConfig", "true")
    repo.git("config", "core.worktree", str(repo.path))


@pytest.mark.parametrize("when", ["before it is made", "before it is restored"])
def test_git_is_led_back_where_all_worktrees_share_a_core_worktree(repo: Repo, tmp_path: Path, when: str) -> None:
    made = Worktree(repo.path, tmp_path / "g", "gremlins/g", repo.head())
    if when == "before it is restored":
        folder.create(repo.path, made.path, made.branch, made.base)
        inside(made).write({"found.txt": "found\n"})
    share_core_worktree(repo)
    repo.write({"calc.py": "a person's own work\n"})
    configured = repo.git("config", "--list", "--local")
    if when == "before it is made":
        folder.create(repo.path, made.path, made.branch, made.base)
    else:
        assert folder.restore(made) == KEPT
        assert repo.git("show", f"{KEPT}:found.txt") == "found"
    assert inside(made).git("rev-parse", "--show-toplevel") == str(made.path)
    inside(made).git("reset", "--hard", "--quiet")
    assert repo.read("calc.py") == "a person's own work\n"
    assert inside(made).read("calc.py") != repo.read("calc.py")
    assert repo.git("config", "--list", "--local") == configured


def test_a_git_file_that_leads_to_the_persons_repository_is_not_followed(repo: Repo, made: Worktree) -> None:
    (made.path / ".git").write_text(f"gitdir: {repo.path / '.git'}\n")
    repo.write({"calc.py": "a person's own work\n"})
    assert not folder.is_whole(made)
    folder.restore(made)
    assert inside(made).git("symbolic-ref", "HEAD") == "refs/heads/gremlins/g"
    assert (repo.git("symbolic-ref", "HEAD"), repo.read("calc.py")) == ("refs/heads/main", "a person's own work\n")


# --- it is asked


def test_new_changed_and_staged_files_are_kept_and_named(repo: Repo, made: Worktree) -> None:
    there = inside(made)
    there.write({"README.md": "staged\n"})
    there.git("add", "README.md")
    there.write({"README.md": "changed\n", "new/æ.txt": "new\n", "patch.rej": "rejected\n", "a.log": "ignored\n"})
    there.write({"__pycache__/x.pyc": "made again\n"})
    (made.path / "calc.py").unlink()
    assert folder.unsaved(made).files == ("README.md", "new/æ.txt", "patch.rej")
    assert folder.remove(made, delete_branch=True) == KEPT
    assert not made.path.exists()
    assert repo.git("show", f"{KEPT}:README.md") == "changed"
    assert repo.git("show", f"{KEPT}^2:README.md") == "staged"
    assert repo.git("-c", "core.quotePath=false", "diff", "--name-only", made.base, KEPT).splitlines() == [
        "README.md", "calc.py", "new/æ.txt", "patch.rej",
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["clean", "only touched", "only deleted", "ignored"])
def test_nothing_is_kept_of_a_folder_that_has_nothing(repo: Repo, made: Worktree, what: str) -> None:
    if what == "only touched":
        inside(made).write({"calc.py": inside(made).read("calc.py")})
    if what == "only deleted":
        (made.path / "calc.py").unlink()
    if what == "ignored":
        inside(made).write({"ignored/x": "x", "a.log": "x"})
    assert folder.unsaved(made).files == ()
    assert folder.remove(made, delete_branch=True) is None
    assert repo.git("for-each-ref", "refs/gremlins") == ""


def test_commits_without_a_branch_are_kept(repo: Repo, made: Worktree) -> None:
    inside(made).git("checkout", "--quiet", "--detach")
    commit = inside(made).commit({"x.txt": "x\n"})
    assert folder.remove(made, delete_branch=True) == KEPT
    repo.git("merge-base", "--is-ancestor", commit, KEPT)


def test_a_folder_that_git_has_forgotten_is_kept_before_it_is_made_anew(repo: Repo, made: Worktree) -> None:
    inside(made).write({"found.txt": "found\n", "calc.py": "changed\n", "a.log": "ignored\n"})
    git_dir = Git(made.path).git_dir()
    (made.path / ".git").rename(made.path.parent / "aside")
    repo.git("worktree", "prune", "--expire=now")
    (made.path.parent / "aside").rename(made.path / ".git")
    assert not git_dir.exists()
    assert folder.restore(made) == KEPT
    assert inside(made).git("status", "--porcelain") == ""
    assert repo.git("diff", "--name-only", made.base, KEPT).splitlines() == ["calc.py", "found.txt"]
    assert repo.git("status", "--porcelain") == ""


@pytest.mark.parametrize("nested", ["its own", "new", "a submodule", "in place of ours"])
def test_a_repository_inside_is_not_removed(repo: Repo, tmp_path: Path, nested: str) -> None:
    if nested == "a submodule":
        library = make_repo(tmp_path / "library")
        library.commit({"a": "a\n"})
        repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library.path), "library")
        repo.commit({})
    made = folder.create(repo.path, tmp_path / "worktrees" / "g", "gremlins/g", repo.head())
    if nested == "a submodule":
        inside(made).git("-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init")
        assert folder.unsaved(made) == folder.Unsaved(())
        Repo(made.path / "library").commit({"b": "b\n"})
    elif nested == "in place of ours":
        (made.path / ".git").unlink()
        inside(made).git("init", "--quiet")
    else:
        make_repo(made.path / "inner").commit({"a": "a\n"} if nested == "its own" else {})
    refused(made, "a repository inside .* would be lost")
    folder.remove(made, delete_branch=True, force=True)
    assert not made.path.exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_locked_worktree_stays(repo: Repo, made: Worktree, there: bool) -> None:
    repo.git("worktree", "lock", "--reason", "on a stick", str(made.path))
    away = made.path.with_name("away")
    if not there:
        made.path.rename(away)
    assert "unlock" in (refused(made, "is locked: on a stick").hint or "")
    refused(made, "is locked", force=True)
    if not there:
        with pytest.raises(Conflict, match="is locked"):
            folder.restore(made)
        away.rename(made.path)
    assert folder.is_whole(made)


@pytest.mark.parametrize("operation", ["rebase", "bisect", "checkout"])
def test_a_branch_that_is_in_use_elsewhere_stays(repo: Repo, made: Worktree, operation: str) -> None:
    inside(made).commit({"calc.py": "theirs\n"})
    inside(made).git("checkout", "--quiet", "--detach")
    repo.git("checkout", "--quiet", made.branch)
    if operation == "bisect":
        repo.git("bisect", "start", "HEAD", "HEAD~1")
        repo.git("checkout", "--quiet", "--detach")
    if operation == "rebase":
        stop = {"GIT_SEQUENCE_EDITOR": "sed -i s/^pick/edit/"}
        repo.git("rebase", "--quiet", "--interactive", "HEAD~1", env=stop)
    refused(made, "is checked out in" if operation == "checkout" else f"is in a {operation} in")


def test_a_folder_of_others_is_not_taken_for_a_worktree(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    (tmp_path / "g/theirs.txt").write_text("theirs\n")
    with pytest.raises(Conflict, match="is there already"):
        folder.create(repo.path, tmp_path / "g", "gremlins/g", "main")
    assert (tmp_path / "g/theirs.txt").read_text() == "theirs\n"
    assert not Git(repo.path).branch_exists("gremlins/g")


def test_another_clone_cannot_tell_what_is_in_a_worktree(repo: Repo, made: Worktree, tmp_path: Path) -> None:
    inside(made).commit({"x.txt": "x\n"})
    repo.path.rename(tmp_path / "moved")
    make_repo(repo.path).commit({"other": "other\n"})
    refused_there = Worktree(made.repo, made.path, made.branch, made.base)
    with pytest.raises(Conflict, match="knows neither"):
        folder.remove(refused_there, delete_branch=True)
    assert inside(made).path.is_dir()
