"""Waits for the end of other processes, and ends those that a dead gremlin left at work in its worktree."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Sequence
from pathlib import Path

from gremlins.clock import Clock
from gremlins.errors import Conflict
from gremlins.paths import GremlinPaths
from gremlins.processes.children import holders, signal_process
from gremlins.processes.locks import holder_of, work_lock_is_free

PATIENCE = 30.0
"""Seconds for processes to end: half after SIGTERM, half after SIGKILL."""
UNSIGNED_POLL = 0.1
"""Seconds between looks at a lock whose holder has not signed its pid yet."""
POLL_WITHOUT_PIDFD = 0.5
"""Seconds between looks where the system has no descriptors for processes."""


def wait_for_end(locks: Sequence[Path], seconds: float, clock: Clock, interrupt_fd: int | None) -> None:
    """Return when a holder of one of these locks has ended, a signal has come, or `seconds` have passed."""
    deadline = clock.monotonic() + max(0.0, seconds)
    while (left := deadline - clock.monotonic()) > 0:
        if not _wait_once(locks, left, interrupt_fd):
            return


def _wait_once(locks: Sequence[Path], left: float, interrupt_fd: int | None) -> bool:
    """Wait once. True if nothing has happened and the holders have to be looked at again."""
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
                look_again = UNSIGNED_POLL if holder.pid is None else POLL_WITHOUT_PIDFD
                continue
            stack.callback(os.close, fd)
            poll.register(fd, select.POLLIN)
        patience = left if look_again is None else min(left, look_again)
        return not poll.poll(patience * 1000) and look_again is not None


def _open_pid(pid: int | None) -> int | None:
    """A descriptor that becomes readable when the process ends; None if the system gives none."""
    if pid is None or not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def end_worktree_processes(paths: GremlinPaths, clock: Clock, patience: float = PATIENCE) -> None:
    """End every process that holds the gremlin's work lock, so that two agents never edit one worktree.

    The caller must hold the gremlin's own lock. Raises Conflict, naming the pids, if they do not end in time.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = clock.monotonic() + patience / 2
        signalled: set[int] = set()
        while not work_lock_is_free(paths.work_lock):
            for pid in set(holders(paths.work_lock)) - signalled:
                signalled.add(pid)
                signal_process(pid, number)
            if clock.monotonic() > deadline:
                break
            clock.sleep(0.05)
        else:
            return
    pids = ", ".join(map(str, sorted(holders(paths.work_lock)))) or "unknown"
    raise Conflict(
        f"something {paths.root.name} started is still at work in its worktree (pids: {pids})",
        hint="end it, then rescue again",
    )
