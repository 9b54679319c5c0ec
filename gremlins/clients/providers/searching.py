"""Searches of a model's tools `grep` and `glob`, in a child process with limits: the model writes the patterns."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from gremlins.errors import GremlinsError
from gremlins.files import read_file

SECONDS = 60.0
MOST_SHOWN = 100_000
"""Characters."""
MOST_FILES, MOST_NAMES = 50_000, 200
LARGEST_FILE, LONGEST_LINE = 4 * 2**20, 2_000
_PASSED_OVER = {".git", "node_modules"}


def work(order: Mapping[str, Any]) -> str:
    """The child's part. order: `do` (grep or glob), `root`, `path`, `pattern`."""
    root = Path(order["root"]).resolve()
    start = (root / order["path"]).resolve()
    if not start.is_relative_to(root):
        raise GremlinsError(f"{order['path']} is not in the working directory")
    found = _grep(order["pattern"], start) if order["do"] == "grep" else _glob(order["pattern"], start, root)
    shown, left = [], MOST_SHOWN
    for line in found:
        left -= len(line) + 1
        if left < 0:
            shown.append("[there is more that is not shown]")
            break
        shown.append(line)
    return "\n".join(shown) or "no matches"


def _grep(pattern: str, start: Path) -> Iterator[str]:
    try:
        wanted = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise GremlinsError(f"the pattern is no regular expression: {error}") from None
    for path in islice(_files(start), MOST_FILES):
        raw = b""
        with suppress(OSError):  # gone, no regular file, too large
            raw = read_file(path, LARGEST_FILE)
        if b"\0" in raw[:512]:
            continue
        for number, line in enumerate(raw.decode(errors="replace").splitlines(), 1):
            if len(line) <= LONGEST_LINE and wanted.search(line):
                yield f"{path}:{number}:{line}"


def _files(start: Path) -> Iterator[Path]:
    """The files below, none through a link."""
    if start.is_file():
        yield start
    for folder, folders, names in os.walk(start):
        folders[:] = sorted(name for name in folders if name not in _PASSED_OVER)
        yield from (path for name in sorted(names) if not (path := Path(folder, name)).is_symlink())


def _glob(pattern: str, start: Path, root: Path) -> Iterator[str]:
    if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
        raise GremlinsError("the pattern must be relative, without `..`")
    try:
        named = (path for path in islice(start.glob(pattern), MOST_FILES) if not _PASSED_OVER & {*path.parts})
        found = [path for path in named if path.resolve().is_relative_to(root)]
    except (ValueError, NotImplementedError) as error:
        raise GremlinsError(f"the pattern cannot be used: {error}") from None
    yield from map(str, sorted(found, key=_changed_at, reverse=True)[:MOST_NAMES])


def _changed_at(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0
