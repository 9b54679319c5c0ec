"""Repositories as people have them: each layout makes one, with two working trees on branches of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.conftest import Repo, make_repo

Files = Mapping[str, str | bytes]
Trees = tuple[Repo, Repo]


def linked(place: Path, files: Files) -> Trees:
    """An ordinary repository, and a linked worktree."""
    repo = make_repo(place / "project")
    repo.commit(files, "first")
    return repo, _linked(repo, place / "linked")


def dot_bare(place: Path, files: Files) -> Trees:
    """`.bare` beside its worktrees, as `git clone --bare` and `git worktree add` make it."""
    return _of_bare(place, files, ".bare")


def bare_git_folder(place: Path, files: Files) -> Trees:
    """A bare `.git` beside its worktrees."""
    return _of_bare(place, files, ".git")


def separate_git_dir(place: Path, files: Files) -> Trees:
    """A working tree whose git directory is elsewhere, and a linked worktree."""
    tree = Repo(place / "tree")
    tree.path.mkdir(parents=True)
    tree.git("init", "--quiet", "--initial-branch=main", f"--separate-git-dir={place / 'git-dir'}")
    tree.commit(files, "first")
    return tree, _linked(tree, place / "linked")


def submodule(place: Path, files: Files) -> Trees:
    """A submodule's checkout, and a linked worktree of it."""
    source = make_repo(place / "source")
    source.commit(files, "first")
    outer = make_repo(place / "outer")
    outer.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(source.path), "module")
    outer.commit({}, "with a module")
    inner = Repo(outer.path / "module")
    return inner, _linked(inner, place / "linked")


LAYOUTS: tuple[Callable[[Path, Files], Trees], ...] = (linked, dot_bare, bare_git_folder, separate_git_dir, submodule)


def _of_bare(place: Path, files: Files, name: str) -> Trees:
    source = make_repo(place / "source")
    source.commit(files, "first")
    source.git("clone", "--quiet", "--bare", ".", str(place / "project" / name))
    bare = Repo(place / "project" / name)
    bare.git("worktree", "add", "--quiet", str(place / "project/main"), "main")
    main = Repo(place / "project/main")
    return main, _linked(main, place / "project/other")


def _linked(repo: Repo, path: Path) -> Repo:
    repo.git("worktree", "add", "--quiet", "-b", "other", str(path))
    return Repo(path)
