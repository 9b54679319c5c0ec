"""Who may write a gremlin's record: a kernel lock on its lock file, freed by the kernel when its holder dies.

The descriptor is handed from launcher to child and kept across exec, so there is no moment between start and end
at which the lock is free; no agent or command inherits it. The file's text names the holder; only the lock counts.
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
"""A runner is the gremlin, alive. A keeper is a command that writes the record where nobody lives."""

LOCK_FD_VARIABLE = "GREMLINS_LOCK_FD"


class Holder(NamedTuple):
    """Who holds a lock, as far as its file says. `pid` is null in the moment between start and first breath."""

    role: Role
    pid: int | None


class GremlinLock:
    """The exclusive right to write one gremlin's record, as an open descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def acquire(cls, path: Path, role: Role, *, clock: Clock | None = None, patience: float = 1.0) -> Self:
        """Take the lock or raise Conflict. `patience` (seconds) outlasts those who only look (see `holder_of`)."""
        clock = clock or SystemClock()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = clock.monotonic() + patience
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if clock.monotonic() >= deadline:
                    os.close(fd)
                    raise Conflict(f"{path.parent.name} is being worked on by another process") from None
                clock.sleep(0.02)
                continue
            lock = cls(fd)
            lock.sign(role, None if role == "runner" else os.getpid())
            return lock

    @classmethod
    def inherited(cls, fd: int) -> Self:
        """The lock a parent, or this process before an exec, already holds."""
        os.set_inheritable(fd, False)
        return cls(fd)

    def sign(self, role: Role, pid: int | None) -> None:
        """Write into the file who holds it. In place: the inode carries the lock."""
        text = json.dumps({"role": role, "pid": pid}).encode()
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, text, 0)

    def release(self) -> None:
        """Give the lock up, or only this process's copy of it where a child has another."""
        with contextlib.suppress(OSError):
            os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def holder_of(path: Path | str) -> Holder | None:
    """Who holds the lock now, or None. Looks through a shared lock held for microseconds; never creates the file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _signature(os.pread(fd, 4096, 0))
        return None
    finally:
        os.close(fd)


def _signature(text: bytes) -> Holder:
    """A half-written signature still means that somebody holds the lock."""
    try:
        found = json.loads(text)
        return Holder(role="keeper" if found["role"] == "keeper" else "runner", pid=found["pid"])
    except (ValueError, KeyError, TypeError):
        return Holder(role="runner", pid=None)


def hold_work_lock(path: Path) -> int:
    """Open the lock that agents and commands inherit, and hold it in this process too. Returns the descriptor."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def work_lock_is_free(path: Path) -> bool:
    """Whether nothing that a gremlin started in its worktree is left."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


@contextlib.contextmanager
def brief_lock(path: Path, *, clock: Clock, patience: float) -> Iterator[bool]:
    """Hold a lock for a moment; False when it could not be had within `patience` seconds.

    For the shared poll only, whose process must start quickly; elsewhere locks are `filelock`'s.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = clock.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
                break
            except BlockingIOError:
                if clock.monotonic() >= deadline:
                    held = False
                    break
            clock.sleep(0.05)
        yield held
    finally:
        os.close(fd)
