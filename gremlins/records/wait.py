"""`wait.json`: the plan of a process that waits, written by the runner and kept up by the waiter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from gremlins.files import read_file
from gremlins.records.format import Record

Epoch = Annotated[float, msgspec.Meta(ge=0, lt=2.5e11)]
"""Seconds since 1970 that a date can hold."""


class WatchedBatch(Record, frozen=True):
    """An outstanding batch, and its status at the last poll."""

    batch_id: str
    submitted_at: Epoch = 0.0
    processing_status: str = "in_progress"
    overdue_at: Epoch | None = None
    """The time at which the runner looks at it itself: it should have ended long ago."""


class WaitPlan(Record, frozen=True):
    """Everything the waiter needs. It runs without our package and reads the same fields as plain JSON."""

    until: Epoch
    polls: int = 0
    calls: tuple[WatchedBatch, ...] = ()
    longest: float = 0.0
    """Seconds of the longest wait possible; a later `until` is a clock that was set back."""
    pollable: bool = False
    why: str = ""
    poll_initial: float = 0.0
    poll_max: float = 0.0
    http_timeout: float = 0.0
    answer: str = ""
    """Path of the shared poll's latest answer."""
    lock_fd: int = -1
    poll: tuple[str, ...] = ()
    runner: tuple[str, ...] = ()
    turns: tuple[str, ...] = ()
    """Lock files; a process holds one of them while it wakes up."""
    turn_variable: str = ""
    fork_server: tuple[str, ...] = ()
    """Started when all turns are taken; in its folder is its socket."""
    fork_folder: str = ""
    descriptors: tuple[str, ...] = ()
    """Variables that hold descriptors, which a fork inherits."""
    gave_up: str = ""
    """The reason the waiter ended although nothing had ended that it waited for."""


_DECODER = msgspec.json.Decoder(WaitPlan)


def read_wait(path: Path | str) -> WaitPlan | None:
    """The plan, or None: nothing depends on it but what `status` shows."""
    try:
        return _DECODER.decode(read_file(path))
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        return None
