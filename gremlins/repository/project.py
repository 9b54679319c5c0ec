"""The project of a folder: its repository, however it is reached. All worktrees of a repository are one project."""

from __future__ import annotations

import os
from pathlib import Path

from gremlins.errors import Conflict, NotReady
from gremlins.repository.git import Git, error_of, readable_path
from gremlins.repository.worktree import branch_name


def find_project(start: Path) -> Path:
    """The path that names the repository around `start`, the same from each of its worktrees.

    It is the main working tree, or the git directory of a repository without a main one (bare, `.bare`) or with one
    that git cannot find from there (`--separate-git-dir`). Git runs in it. Raises NotReady if there is no repository.
    """
    git = Git(start)
    found = git.in_repository("--path-format=absolute", "--git-common-dir")
    if found is None:
        raise NotReady(
            f"{start} is not in a git repository",
            hint="beads belong to repositories: go to yours, or make one with `git init`",
        )
    common = readable_path(found.rstrip(b"\n"))
    if common.name == ".git":
        return common.parent
    tree = git.answer("config", "--file", str(common / "config"), "--get", "core.worktree")  # of a submodule
    return Path(os.path.normpath(common / tree)) if tree else common


def main_tree(start: Path, project: Path) -> Path:
    """The working tree that settings, pipelines and HEAD are read from: the main one, else that of `start`.

    Without either, the project's path.
    """
    for place in (project, start):
        done = Git(place).attempt("rev-parse", "--show-toplevel")
        if done.returncode == 0:
            return Path(os.fsdecode(done.stdout_bytes.rstrip(b"\n")))
        if "work tree" not in done.stderr:
            raise error_of(("rev-parse",), done)
    return project


def refuse_gremlins_own(tree: Path, worktrees: Path) -> None:
    """Raises Conflict if `tree` is the worktree of a gremlin: it is removed when that gremlin lands.

    worktrees: where those of this state root are. One of another state root is known by its branch.
    """
    branch = branch_name(tree.name)
    elsewhere = tree.parent.name == "worktrees" and Git(tree).branch() == branch
    if elsewhere or tree.parent.resolve() == worktrees.resolve():
        raise Conflict(
            f"{tree} is the worktree of a gremlin, `{tree.name}`, and is removed when that lands",
            hint=f"launch from {find_project(tree)}; `--base-ref {branch}` starts from its commits",
        )
