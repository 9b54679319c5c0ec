"""Finds the project of a folder: the main working tree of its repository, also from a linked worktree."""

from __future__ import annotations

import os
from pathlib import Path

from gremlins.errors import NotReady
from gremlins.repository.git import Git, error_of


def find_project(start: Path) -> Path:
    """The top of the main working tree of the repository around `start`. Raises NotReady if there is none."""
    done = Git(start).attempt("rev-parse", "--path-format=absolute", "--show-toplevel", "--git-common-dir")
    if done.returncode:
        if "not a git repository" in done.stderr or "work tree" in done.stderr:
            raise NotReady(
                f"{start} is not in a git repository",
                hint="beads belong to repositories: go to yours, or make one with `git init`",
            )
        raise error_of(("rev-parse",), done)
    top, common = (Path(os.fsdecode(line)) for line in done.stdout_bytes.split(b"\n")[:2])
    return common.parent if common.name == ".git" and common.parent.is_dir() else top
