"""Fills a worktree's submodules from the repository's own store. Nothing is fetched, no setting of a person changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gremlins.repository.git import Git


def fill_submodules(git: Git) -> list[str]:
    """Check out the empty submodules of a worktree. Returns those of which the store has nothing. Raises GitError."""
    empty, missing = set(git.empty_submodules()), []
    for name, path in _submodules(git):
        if path not in empty:
            continue
        store = _store(git, name)
        if store is None:
            missing.append(path)
            continue
        known = {
            f"submodule.{name}.url": str(store),
            f"submodule.{name}.active": "true",
            "protocol.file.allow": "always",
        }
        options = [part for key, value in known.items() for part in ("-c", f"{key}={value}")]
        git.raw(*options, "submodule", "--quiet", "update", "--init", "--", path)
    return missing


def _submodules(git: Git) -> Iterator[tuple[str, str]]:
    """Name and path of each submodule in `.gitmodules`."""
    listed = git.attempt("config", "--file", ".gitmodules", "-z", "--get-regexp", r"^submodule\..*\.path$")
    for entry in filter(None, listed.stdout.split("\0")):
        key, _, path = entry.partition("\n")
        yield key.removeprefix("submodule.").removesuffix(".path"), path


def _store(git: Git, name: str) -> Path | None:
    modules = git.common_dir() / "modules"
    store = (modules / name).resolve()
    return store if store.is_relative_to(modules) and (store / "HEAD").exists() else None
