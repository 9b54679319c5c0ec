"""Writes files of ours: atomic, durable, mode 0600, in folders of mode 0700. Reads files, bounded.

Where a folder has a keeper, the files in it are a copy: each write is the keeper's first, and then the file's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

LARGEST_FILE = 64 * 2**20
"""Bytes of a file that is read whole."""


class Keeper(Protocol):
    """Keeps the documents of one folder, by their names below it. A write that raises has changed no file."""

    def write(self, name: str, content: bytes) -> None: ...

    def append(self, name: str, line: bytes) -> None: ...

    def remove(self, name: str) -> None: ...

    def copy_failed(self, error: OSError) -> None:
        """Hear that it has the document, and the file could not be written."""

    def start(self) -> None:
        """Have the gremlin of this folder go on, in place of a process here."""


_keepers: dict[str, Keeper] = {}


@contextlib.contextmanager
def kept_by(folder: Path, keeper: Keeper) -> Iterator[None]:
    """Within the block the files of this folder, and in folders inside it, are a copy of what `keeper` has."""
    _keepers[str(folder)] = keeper
    try:
        yield
    finally:
        del _keepers[str(folder)]


def keeper_of(path: Path) -> tuple[Keeper, str] | None:
    """The keeper of the folder that a path is in, or names, and its name there."""
    if not _keepers:
        return None
    text = str(path)
    for folder, keeper in _keepers.items():
        if text == folder or text.startswith(f"{folder}/"):
            return keeper, text[len(folder) + 1 :]
    return None


def read_file(path: Path | str, limit: int = LARGEST_FILE) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises OSError, and at once: a device has no end, and opening a FIFO would wait for a writer.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if found.st_size > limit:
            raise OSError(errno.EFBIG, f"it is larger than {_size(limit)}", str(path))
        return os.read(fd, found.st_size)
    finally:
        os.close(fd)


def read_given(path: Path | str, limit: int) -> bytes:
    """The content of a file that a person names, which may be a pipe; `-` is standard input.

    Raises OSError above `limit` bytes.
    """
    with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
        found = file.read(limit + 1)
    if len(found) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {_size(limit)}", str(path))
    return found


def _size(limit: int) -> str:
    return f"{limit >> 20} MB" if limit >= 2**20 else f"{limit >> 10} kB"


def make_private_dir(path: Path) -> None:
    """Make a folder and its missing parents, mode 0700."""
    if not path.is_dir():
        make_private_dir(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)


def sync_dir(path: Path) -> None:
    """Sync a folder, so that renames and new names in it are durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace a file's content. Readers, and crashes, see the old content or the new one, never a part.

    Raises OSError; the old file is then still there.
    """
    raw = data.encode() if isinstance(data, str) else data
    if (kept := keeper_of(path)) is not None:
        kept[0].write(kept[1], raw)
        try:
            _replace(path, raw)
        except OSError as error:
            kept[0].copy_failed(error)
            raise
    else:
        _replace(path, raw)


def _replace(path: Path, raw: bytes) -> None:
    import tempfile  # 4 ms that reading verbs need not pay

    fd, temp = tempfile.mkstemp(prefix=f".{path.name[:60]}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    except BaseException:  # a signal too: no draft is left
        with contextlib.suppress(OSError):
            os.unlink(temp)
        raise
    sync_dir(path.parent)


def append_text(path: Path, text: bytes) -> None:
    """Append to a file in one write, not synced: for a log."""
    if (kept := keeper_of(path)) is not None:
        kept[0].append(kept[1], text)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def remove_file(path: Path) -> None:
    """Remove a file of ours, if it is there."""
    if (kept := keeper_of(path)) is not None:
        kept[0].remove(kept[1])
    path.unlink(missing_ok=True)


def sweep_drafts(folder: Path) -> None:
    """Remove temporary files of killed writers, in inner folders too. The caller must be the only writer."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of an indented JSON document."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def append_line(path: Path, line: str) -> None:
    """Append one line durably. One write, so that several writers never mix lines."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.rstrip("\n").encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)


def write_replacing(path: Path, text: str) -> None:
    """`write_atomic` without fsync, for data that can be made again."""
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temp, path)
