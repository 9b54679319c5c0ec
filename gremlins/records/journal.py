"""A gremlin's log: what happened, one dated line each, for a person to read."""

from __future__ import annotations

from pathlib import Path

from gremlins.clock import Clock, rfc3339
from gremlins.files import append_text


class Journal:
    """Appends to one gremlin's log. A log that cannot be written stops nothing."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self.clock = clock

    def __call__(self, line: str) -> None:
        text = " ".join(line.split())
        try:
            append_text(self.path, f"{rfc3339(self.clock.now())}  {text[:2000]}\n".encode(errors="replace"))
        except OSError:
            return
