"""Waiting for the end of other people's processes: the kernel says when, where it can; else we look often."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Sequence
from pathlib import Path

from gremlins.clock import Clock
from gremlins.processes.locks import holder_of

SETTLING = 0.1
"""Seconds before a process that has not said its pid yet is looked at again."""
WITHOUT_KERNEL = 0.5
"""Seconds between looks where the system has no descriptors for processes."""


def wait_for_end(locks: Sequence[Path], seconds: float, clock: Clock, interrupt_fd: int | None) -> None:
    """Return when a holder of one of these locks has ended, a signal has come, or after so many seconds."""
    deadline = clock.monotonic() + max(0.0, seconds)
    while (left := deadline - clock.monotonic()) > 0:
        if not _wait_once(locks, left, interrupt_fd):
            return


def _wait_once(locks: Sequence[Path], left: float, interrupt_fd: int | None) -> bool:
    """Wait in one go. True: nothing has happened, there was only somebody to look at again."""
    with contextlib.ExitStack() as stack:
        poll = select.poll()
        if interrupt_fd is not None:
            poll.register(interrupt_fd, select.POLLIN)
        look_again: float | None = None
        for lock in locks:
            holder = holder_of(lock)
            if holder is None:
                return False
            fd = _open_pid(holder.pid)
            if fd is None:
                look_again = SETTLING if holder.pid is None else WITHOUT_KERNEL
                continue
            stack.callback(os.close, fd)
            poll.register(fd, select.POLLIN)
        patience = left if look_again is None else min(left, look_again)
        return not poll.poll(patience * 1000) and look_again is not None


def _open_pid(pid: int | None) -> int | None:
    """A descriptor that becomes readable when the process ends; None where it cannot be had."""
    if pid is None or not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
