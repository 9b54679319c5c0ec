"""Copies a person's ignored files into a fresh worktree: those that `.worktreeinclude` or a setting names.

The file has the syntax of `.gitignore`. Only what git ignores and does not track is copied; nothing is overwritten, and
nothing becomes a link into the person's tree.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from gremlins.repository.git import Git

INCLUDE = ".worktreeinclude"
FICLONE = 0x40049409
"""The ioctl of Linux that copies a file by reference."""


def include_files(repo: Path, worktree: Path, patterns: Sequence[str]) -> list[str]:
    """Copy what the patterns and `.worktreeinclude` name. Returns the paths that were copied. Raises OSError."""
    git = Git(repo)
    chosen = [f"--exclude={pattern}" for pattern in patterns]
    if (repo / INCLUDE).is_file():
        chosen.append(f"--exclude-from={repo / INCLUDE}")
    if not chosen:
        return []
    named = git.names("ls-files", "-z", "--others", "--ignored", *chosen)
    ignored = set(git.names("ls-files", "-z", "--others", "--ignored", "--exclude-standard"))
    return [name for name in named if name in ignored and _copy(repo / name, worktree / name, repo)]


def _copy(source: Path, target: Path, repo: Path) -> bool:
    """Copy one file, a link by what it points to unless that is beside it. False if the target is there already."""
    if os.path.lexists(target) or not source.is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    link = os.readlink(source) if source.is_symlink() else "/"
    if not os.path.isabs(link) and source.resolve().is_relative_to(repo.resolve()):
        target.symlink_to(link)
        return True
    draft = target.with_name(f"{target.name[:200]}.gremlins-copy")  # a kill leaves no half of a file under its name
    _copy_content(source, draft)
    shutil.copymode(source, draft)
    draft.replace(target)
    return True


def _copy_content(source: Path, target: Path) -> None:
    with contextlib.suppress(OSError), source.open("rb") as old, target.open("wb") as new:
        fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
        return
    shutil.copyfile(source, target)
