"""Files of Git LFS that a gremlin has committed: git pushes their pointers only, their content is pushed apart."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gremlins.processes.children import Completed
from gremlins.repository.git import Git

POINTER_LIMIT = 1024
"""Bytes of the longest pointer, by Git LFS's specification."""
TIMEOUT = 600.0

_POINTER = re.compile(rb"version https?://\S+/spec/v1\n(?:.*\n)*?oid sha256:([0-9a-f]{64})\n")


def push_files(git: Git, address: str, tips: Iterable[str], known: Iterable[str]) -> Completed | None:
    """Push the content that the commits from `known` to `tips` name and that is here. None: there is none."""
    here = [oid for oid in _named(git, [*tips], known) if (git.common_dir() / _place(oid)).exists()]
    return git.attempt("lfs", "push", "--object-id", address, *here, timeout=TIMEOUT) if here else None


def _place(oid: str) -> str:
    return f"lfs/objects/{oid[:2]}/{oid[2:4]}/{oid}"


def _named(git: Git, tips: list[str], known: Iterable[str]) -> list[str]:
    """The objects that the pointers of these commits name."""
    if not any(git.answer("grep", "-q", "filter=lfs", tip, "--", "*.gitattributes") is not None for tip in tips):
        return []
    small = git.raw(
        "rev-list", "--objects", "--no-object-names", f"--filter=blob:limit={POINTER_LIMIT}", *tips, "--not", *known
    )
    return sorted({oid.decode() for oid in _POINTER.findall(git.raw("cat-file", "--batch=%(objecttype)", input=small))})
