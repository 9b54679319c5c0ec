"""Locks of a project's dispatching: one loop at a time, and one process at a time that claims and spawns.

Kernel locks, freed when their holder dies. Single ticks (`--once`) share the loop's lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gremlins.clock import Clock
from gremlins.errors import Conflict
from gremlins.files import make_private_dir
from gremlins.paths import Home
from gremlins.processes.locks import locked, open_lock, try_flock

LOOK_EVERY = 0.02
ONCE_PATIENCE = 30.0
LOOP_START = 0.5
"""Seconds. A second loop holds the lock for microseconds before it gives up."""
CLAIM_PATIENCE = 300.0
"""Seconds. The holder starts a few gremlins at most."""


def loop_lock(home: Home, project: str) -> Path:
    return _file(home, project, "loop")


def claim_lock(home: Home, project: str) -> Path:
    return _file(home, project, "claim")


@contextlib.contextmanager
def only_loop(path: Path, clock: Clock, options: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Hold the loop's lock, with the options that override its settings. Waits for single ticks.

    Raises Conflict if another loop runs.
    """
    fd = open_lock(path)
    try:
        deadline = clock.monotonic() + ONCE_PATIENCE
        while not try_flock(fd):
            if not try_flock(fd, fcntl.LOCK_SH) or clock.monotonic() > deadline:
                raise _second_loop()
            fcntl.flock(fd, fcntl.LOCK_UN)
            clock.sleep(LOOK_EVERY)
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps({"pid": os.getpid(), "options": dict(options or {})}).encode(), 0)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def beside_no_loop(path: Path, clock: Clock) -> Iterator[None]:
    """Share the loop's lock for a single tick. Raises Conflict if a loop runs."""
    with locked(path, clock=clock, patience=LOOP_START, kind=fcntl.LOCK_SH) as held:
        if not held:
            raise _second_loop()
        yield


@contextlib.contextmanager
def claiming(path: Path, clock: Clock) -> Iterator[None]:
    """Hold the lock for claims and spawns. A claim without a gremlin then means that its process has died."""
    with locked(path, clock=clock, patience=CLAIM_PATIENCE) as held:
        if not held:
            raise Conflict("another process has been starting gremlins for minutes", hint="see `gremlins status`")
        yield


@dataclass(frozen=True)
class RunningLoop:
    """The loop that runs: its pid if it has signed, and the options that override its settings."""

    pid: int | None
    options: Mapping[str, Any]


def running_loop(path: Path) -> RunningLoop | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if try_flock(fd, fcntl.LOCK_SH):
            return None
        found = json.loads(os.pread(fd, 4096, 0) or b"{}")
        # A loop of an earlier version wrote its pid alone.
        return RunningLoop(found, {}) if isinstance(found, int) else RunningLoop(found.get("pid"), found["options"])
    except (ValueError, KeyError, AttributeError):
        return RunningLoop(None, {})
    finally:
        os.close(fd)


def loop_pid(path: Path) -> int | None:
    """The pid of the running loop."""
    found = running_loop(path)
    return found.pid if found is not None else None


def _file(home: Home, project: str, kind: str) -> Path:
    folder = home.root / "dispatch"
    make_private_dir(folder)
    return folder / f"{hashlib.sha256(project.encode()).hexdigest()[:16]}.{kind}.lock"


def _second_loop() -> Conflict:
    return Conflict(
        "a dispatch loop runs for this project already", hint="`gremlins dispatch status` shows it, SIGTERM ends it"
    )
