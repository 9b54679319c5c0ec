"""Locks of a project's dispatching: one loop at a time, and one process at a time that claims and spawns.

Kernel locks, freed when their holder dies. Single ticks (`--once`) share the loop's lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from gremlins.clock import Clock
from gremlins.errors import Conflict
from gremlins.files import make_private_dir
from gremlins.paths import Home

LOOK_EVERY = 0.02
ONCE_PATIENCE = 30.0
CLAIM_PATIENCE = 300.0
"""Seconds. The holder starts a few gremlins at most."""


def loop_lock(home: Home, project: str) -> Path:
    return _file(home, project, "loop")


def claim_lock(home: Home, project: str) -> Path:
    return _file(home, project, "claim")


@contextlib.contextmanager
def only_loop(path: Path, clock: Clock) -> Iterator[None]:
    """Hold the loop's lock. Waits for single ticks. Raises Conflict if another loop runs."""
    fd = _open(path)
    try:
        deadline = clock.monotonic() + ONCE_PATIENCE
        while not _try(fd, fcntl.LOCK_EX):
            if not _try(fd, fcntl.LOCK_SH) or clock.monotonic() > deadline:
                raise _second_loop()
            fcntl.flock(fd, fcntl.LOCK_UN)
            clock.sleep(LOOK_EVERY)
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def beside_no_loop(path: Path, clock: Clock) -> Iterator[None]:
    """Share the loop's lock for a single tick. Raises Conflict if a loop runs."""
    fd = _open(path)
    try:
        deadline = clock.monotonic() + 0.5  # a second loop holds the lock for microseconds before it gives up
        while not _try(fd, fcntl.LOCK_SH):
            if clock.monotonic() > deadline:
                raise _second_loop()
            clock.sleep(LOOK_EVERY)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def claiming(path: Path, clock: Clock) -> Iterator[None]:
    """Hold the lock for claims and spawns. A claim without a gremlin then means that its process has died."""
    fd = _open(path)
    try:
        deadline = clock.monotonic() + CLAIM_PATIENCE
        while not _try(fd, fcntl.LOCK_EX):
            if clock.monotonic() > deadline:
                raise Conflict("another process has been starting gremlins for minutes", hint="see `gremlins status`")
            clock.sleep(LOOK_EVERY)
        yield
    finally:
        os.close(fd)


def loop_pid(path: Path) -> int | None:
    """The pid of the running loop."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _try(fd, fcntl.LOCK_SH):
            return None
        text = os.pread(fd, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(fd)


def _file(home: Home, project: str, kind: str) -> Path:
    return home.root / "dispatch" / f"{hashlib.sha256(project.encode()).hexdigest()[:16]}.{kind}.lock"


def _open(path: Path) -> int:
    make_private_dir(path.parent)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _second_loop() -> Conflict:
    return Conflict(
        "a dispatch loop runs for this project already", hint="`gremlins dispatch status` shows it, SIGTERM ends it"
    )
