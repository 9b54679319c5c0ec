"""File locks: `flock` with a deadline, and the lock that gives one process the right to write a gremlin's record.

The kernel frees a lock when its holder dies. A launcher hands a gremlin's lock to the child as a descriptor, which is
kept across exec, so the lock is never free between start and end; no agent or command inherits it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Self

from gremlins.clock import Clock, SystemClock
from gremlins.errors import Conflict

Role = Literal["runner", "keeper"]
"""A runner is the gremlin's own process. A keeper is a command that writes the record of a gremlin without one."""

LOCK_FD_VARIABLE = "GREMLINS_LOCK_FD"


def open_lock(path: Path) -> int:
    """Open a lock file, made if missing. No child inherits the descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_flock(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Take a lock if it is free. kind: `fcntl.LOCK_EX` or `fcntl.LOCK_SH`."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def flock_until(fd: int, kind: int, *, clock: Clock, patience: float, poll: float = 0.02) -> bool:
    """Take a lock, trying every `poll` seconds for at most `patience` seconds. False: another process kept it."""
    deadline = clock.monotonic() + patience
    while not try_flock(fd, kind):
        if clock.monotonic() >= deadline:
            return False
        clock.sleep(poll)
    return True


@contextlib.contextmanager
def locked(path: Path, *, clock: Clock, patience: float, kind: int = fcntl.LOCK_EX) -> Iterator[bool]:
    """Hold the lock of a file for the block. Yields False if it was not free within `patience` seconds."""
    fd = open_lock(path)
    try:
        yield flock_until(fd, kind, clock=clock, patience=patience)
    finally:
        os.close(fd)


class Holder(NamedTuple):
    """The process that holds a gremlin's lock. `pid` is None until a new runner has signed."""

    role: Role
    pid: int | None


class GremlinLock:
    """The exclusive right to write one gremlin's record, as an open descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def acquire(cls, path: Path, role: Role, *, clock: Clock | None = None, patience: float = 1.0) -> Self:
        """Take the lock or raise Conflict. `patience` (seconds) outlasts the checks of `holder_of`."""
        fd = open_lock(path)
        if not flock_until(fd, fcntl.LOCK_EX, clock=clock or SystemClock(), patience=patience):
            os.close(fd)
            raise Conflict(f"{path.parent.name} is being worked on by another process")
        lock = cls(fd)
        lock.sign(role, None if role == "runner" else os.getpid())
        return lock

    @classmethod
    def inherited(cls, fd: int) -> Self:
        """The lock that the parent, or this process before an exec, already holds."""
        os.set_inheritable(fd, False)
        return cls(fd)

    def sign(self, role: Role, pid: int | None) -> None:
        """Write the holder into the file, in place because the inode carries the lock."""
        text = json.dumps({"role": role, "pid": pid}).encode()
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, text, 0)

    def release(self) -> None:
        """Close this process's descriptor. The lock stays held where a child has inherited it."""
        with contextlib.suppress(OSError):
            os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def holder_of(path: Path | str) -> Holder | None:
    """The current holder of a gremlin's lock. Takes a shared lock for microseconds; never creates the file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if try_flock(fd, fcntl.LOCK_SH) else _signature(os.pread(fd, 4096, 0))
    finally:
        os.close(fd)


def _signature(text: bytes) -> Holder:
    """A half-written signature still means that a process holds the lock."""
    try:
        found = json.loads(text)
        return Holder(role="keeper" if found["role"] == "keeper" else "runner", pid=found["pid"])
    except (ValueError, KeyError, TypeError):
        return Holder(role="runner", pid=None)


def hold_work_lock(path: Path) -> int:
    """Hold the lock that agents and commands inherit. Returns the descriptor."""
    fd = open_lock(path)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def work_lock_is_free(path: Path) -> bool:
    """True if no agent or command of the gremlin is left."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return try_flock(fd)
    finally:
        os.close(fd)
