"""Limits for things that could take for ever. They are far above the time needed: tests do not judge speed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

DEADLINE = 150.0
"""Seconds a real process may take for anything, on a busy machine too, before a test fails."""


def wait_until(condition: Callable[[], bool], what: str, more: Callable[[], str] = str) -> None:
    """Wait for something that another process or thread does. `more` adds to the message of a failure."""
    ends = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < ends, f"never saw: {what}\n{more()}"
        time.sleep(0.01)


@contextmanager
def must_end() -> Iterator[None]:
    """The block comes to an end, or the test fails there."""

    def hangs(*_: object) -> NoReturn:
        raise AssertionError("it does not end")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(int(DEADLINE))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
