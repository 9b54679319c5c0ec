"""Ending what a dead gremlin left running in its worktree, so that two agents never edit one tree."""

from __future__ import annotations

import os
import signal

from gremlins.clock import Clock
from gremlins.errors import Conflict
from gremlins.paths import GremlinPaths
from gremlins.processes.children import holders
from gremlins.processes.locks import work_lock_is_free

PATIENCE = 30.0
"""Seconds for leftovers to end: half for SIGTERM, half for SIGKILL."""


def end_leftovers(paths: GremlinPaths, clock: Clock, patience: float = PATIENCE) -> None:
    """Signal whoever still holds the gremlin's work lock, and wait until it is free.

    Only for who holds the gremlin's own lock. Raises Conflict, naming the pids, when they will not go.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = clock.monotonic() + patience / 2
        signalled: set[int] = set()
        while not work_lock_is_free(paths.work_lock):
            for pid in set(holders(paths.work_lock)) - signalled:
                signalled.add(pid)
                _signal(pid, number)
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


def _signal(pid: int, number: signal.Signals) -> None:
    """To the whole group where the process leads one: an agent's own children hold no descriptor of ours."""
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return
