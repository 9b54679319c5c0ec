"""A process that dies between two calls to the operating system: a forked child, counted calls, no clean-up."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from typing import Any

BOUNDARIES = ("open", "replace", "rename", "fsync", "unlink", "mkdir", "ftruncate", "pwrite", "write")
"""What a store does to the disk."""
DIED, ENDED, FAILED = 9, 0, 1


def steps(stride: int, most: int = 80) -> range:
    """Numbers of steps to be killed at, from 1: each in the soak, one in `stride` in the suite, which has minutes."""
    return range(1, most, 1 if os.environ.get("GREMLINS_SOAK") else stride)


def die_at(boundary: int, action: Callable[[], Any]) -> bool:
    """Do something in a child that is gone, without another word, at its boundary of that number (from 1).

    True when it came so far; False when it had ended before.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: this child only writes files
        pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            _count(boundary)
            action()
            os._exit(ENDED)
        os._exit(FAILED)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (DIED, ENDED), "the action failed in the child"
    return code == DIED


def _count(boundary: int) -> None:
    """From here on every call counts, in this process only; the one of that number does not happen any more."""
    left = boundary

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                os._exit(DIED)
            return real(*args, **more)

        return call

    for name in BOUNDARIES:
        setattr(os, name, counted(getattr(os, name)))


def die_everywhere(prepare: Callable[[], Callable[[], Any]], check: Callable[[bool], None]) -> int:
    """Prepare, die at one boundary, check; for every boundary there is. Returns how many there are."""
    boundary = 0
    while True:
        boundary += 1
        died = die_at(boundary, prepare())
        check(died)
        if not died:
            return boundary - 1
