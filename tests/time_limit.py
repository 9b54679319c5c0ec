"""Against code that would run for ever on the wrong input. How long it takes otherwise is for the bench to say."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

FOR_EVER = 60
"""Seconds: a hundred times what the slowest of them needs."""


@contextmanager
def must_end() -> Iterator[None]:
    """The block comes to an end, or the test fails there."""

    def hangs(*_: object) -> NoReturn:
        raise AssertionError("it does not end")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(FOR_EVER)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
