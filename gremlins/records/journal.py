"""A gremlin's log: what happened, one dated line each, for a person to read."""

from __future__ import annotations

import os
from pathlib import Path

from gremlins.clock import Clock, rfc3339


class Journal:
    """Appends to one gremlin's log. A log that cannot be written stops nothing."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self.clock = clock

    def __call__(self, line: str) -> None:
        text = " ".join(line.split())
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        with os.fdopen(fd, "ab", buffering=0) as file:
            try:
                file.write(f"{rfc3339(self.clock.now())}  {text[:2000]}\n".encode())
            except OSError:
                return
