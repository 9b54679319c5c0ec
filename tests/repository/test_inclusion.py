"""Ignored files that are copied into a worktree are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from gremlins.repository.inclusion import include_files
from tests.conftest import Repo


def test_the_half_copy_that_a_kill_has_left_is_made_anew(repo: Repo, tmp_path: Path) -> None:
    """A file gets its name once it is whole, so a name that is there is not copied again."""
    repo.write({".gitignore": "*.env\n", "a.env": "A=1\n" * 1000, "sub/b.env": "B=1\n"})
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a.env.gremlins-copy").write_text("A=1\nA=")
    assert include_files(repo.path, tmp_path / "tree", ["*.env"]) == ["a.env", "sub/b.env"]
    found = {str(path.relative_to(tmp_path / "tree")): path for path in (tmp_path / "tree").rglob("*.*")}
    assert found.keys() == {"a.env", "sub/b.env"}
    assert found["a.env"].read_text() == "A=1\n" * 1000
