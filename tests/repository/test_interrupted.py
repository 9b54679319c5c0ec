"""After killed commands the tree is restored, and their changes are kept under a ref."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from gremlins.repository.folder import create
from gremlins.repository.interrupted import snapshot_around_commands, undo_killed_commands
from gremlins.repository.worktree import Worktree
from tests.conftest import Repo
from tests.kill_points import killed_at, steps


class Cut(BaseException):
    """As a signal cuts a stage short."""


@pytest.fixture
def worktree(repo: Repo, tmp_path: Path) -> Worktree:
    return create(repo.path, tmp_path / "worktree", "gremlins/g", repo.head())


def cut_short(worktree: Worktree, made: dict[str, str]) -> None:
    with contextlib.suppress(Cut), snapshot_around_commands(worktree):
        for name, text in made.items():
            (worktree.path / name).write_text(text)
        raise Cut


def status(worktree: Worktree) -> list[str]:
    return worktree.git.text("status", "--porcelain").splitlines()


def test_commands_that_end_leave_what_they_made(worktree: Worktree) -> None:
    with snapshot_around_commands(worktree):
        (worktree.path / "made.txt").write_text("whole\n")
    assert undo_killed_commands(worktree) is None
    assert status(worktree) == ["?? made.txt"]
    assert worktree.git.text("for-each-ref", "refs/gremlins") == ""


def test_what_was_half_made_is_kept_and_taken_back(worktree: Worktree) -> None:
    cut_short(worktree, {"made.txt": "half\n", "calc.py": "# changed\n"})
    ref = undo_killed_commands(worktree)
    assert ref == "refs/gremlins/g/interrupted-1"
    assert worktree.git.text("show", f"{ref}:made.txt") == "half"
    assert worktree.git.text("show", f"{ref}:calc.py") == "# changed"
    assert status(worktree) == []


def test_what_earlier_commands_had_left_is_as_they_left_it(worktree: Worktree) -> None:
    (worktree.path / "before.txt").write_text("left\n")
    (worktree.path / "README.md").unlink()
    (worktree.path / "calc.py").write_text("# by an earlier one\n")
    was = status(worktree)
    cut_short(
        worktree, {"before.txt": "spoilt\n", "calc.py": "# spoilt\n", "README.md": "back\n", "made.txt": "half\n"}
    )
    assert undo_killed_commands(worktree) is not None
    assert sorted(status(worktree)) == sorted(was)
    assert (worktree.path / "before.txt").read_text() == "left\n"
    assert (worktree.path / "calc.py").read_text() == "# by an earlier one\n"


def test_commits_of_a_command_that_was_cut_short_are_kept_and_taken_back(worktree: Worktree) -> None:
    start = worktree.tip()
    with contextlib.suppress(Cut), snapshot_around_commands(worktree):
        (worktree.path / "made.txt").write_text("half\n")
        worktree.git.raw("add", "--all")
        worktree.git.raw("-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "--quiet", "-m", "by itself")
        raise Cut
    ref = undo_killed_commands(worktree)
    assert worktree.tip() == start
    assert worktree.git.text("show", f"{ref}:made.txt") == "half"


def test_one_that_had_changed_nothing_leaves_no_trace(worktree: Worktree) -> None:
    cut_short(worktree, {})
    assert undo_killed_commands(worktree) is None
    assert worktree.git.text("for-each-ref", "refs/gremlins") == ""


def test_ignored_files_and_tools_droppings_stay(worktree: Worktree) -> None:
    (worktree.path / "ignored").mkdir()
    cut_short(worktree, {"ignored/x": "1", "run.log": "2", "made.txt": "half\n"})
    undo_killed_commands(worktree)
    assert (worktree.path / "ignored/x").read_text() == "1"
    assert (worktree.path / "run.log").read_text() == "2"


def test_killed_while_it_is_undone_the_next_one_finishes_it(worktree: Worktree) -> None:
    (worktree.path / "before.txt").write_text("left\n")
    for point in steps(7, 300):
        cut_short(worktree, {"made.txt": "half\n", "before.txt": "spoilt\n"})
        killed = killed_at(point, lambda: undo_killed_commands(worktree))
        undo_killed_commands(worktree)
        assert status(worktree) == ["?? before.txt"]
        assert (worktree.path / "before.txt").read_text() == "left\n"
        if not killed:
            break
    else:
        raise AssertionError("there is no end to it")
    kept = worktree.git.text("for-each-ref", "--format=%(refname)", "refs/gremlins").split()
    assert all(worktree.git.text("show", f"{ref}:made.txt") == "half" for ref in kept[:1])
