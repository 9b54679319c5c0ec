"""Keeps what a command prints in a file of bounded size: its beginning and its end."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from pathlib import Path
from typing import IO, Self

from gremlins.processes.interrupt import start_without_signals

MOST_OUTPUT = 15 * 2**20
"""Bytes of one command's output that are kept. Of more the middle is left out."""
CHUNK = 2**16
DRAINED = 2**20
"""Bytes read after the end of the command: as much as a pipe may hold. A process that escaped may go on writing."""


class BoundedOutput:
    """A pipe for a command's output, and a thread that copies it into a file. `fd` is the end to write to."""

    def __init__(self, path: Path) -> None:
        self._file = open_private(path)
        self._source, self.fd = os.pipe()
        self._over, self._end = os.pipe()
        self._last: deque[bytes] = deque()
        self._held = self._kept = self._left_out = 0
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._copy, name="command-output", daemon=True)

    def __enter__(self) -> Self:
        start_without_signals(self._thread)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """The command has ended. Raises OSError if the file could not be written."""
        os.close(self.fd)
        os.close(self._end)
        self._thread.join()
        with self._file:
            if self._left_out:
                self._write(f"\n… ({self._left_out} bytes are left out) …\n".encode())
            for chunk in self._last:
                self._write(chunk)
        os.close(self._source)
        os.close(self._over)
        if self._error is not None and kind is None:
            raise self._error

    def _copy(self) -> None:
        drained = 0
        while True:
            ready = select.select([self._source, self._over], [], [])[0]
            if self._over in ready and (self._source not in ready or drained > DRAINED):
                return
            chunk = os.read(self._source, CHUNK) if self._source in ready else b""
            if not chunk:
                return
            drained += len(chunk) if self._over in ready else 0
            self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        room = MOST_OUTPUT // 2 - self._kept
        if room > 0:
            self._kept += len(chunk[:room])
            self._write(chunk[:room])
            chunk = chunk[room:]
        if self._last and len(self._last[-1]) < CHUNK:  # a program may print byte by byte
            before = self._last.pop()
            self._held -= len(before)
            chunk = before + chunk
        self._last.append(chunk)
        self._held += len(chunk)
        while self._held - len(self._last[0]) > MOST_OUTPUT // 2:
            gone = len(self._last.popleft())
            self._held -= gone
            self._left_out += gone

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:  # the command goes on, or it would hang
            self._error = self._error or error


def open_private(path: Path) -> IO[bytes]:
    """A new file of mode 0600, or an old one emptied."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")
