"""Limits for things that could take for ever. They are far above the time needed: tests do not judge speed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

DEADLINE = 150.0
"""Seconds a real process may take for anything, on a busy machine too, before a test fails."""


def wait_until(condition: Callable[[], bool], what: str, more: Callable[[], str] = str) -> None:
    """Wait for something that another process or thread does. `more` adds to the message of a failure.

    Looking takes a fifth of a processor at most: what is waited for needs one, too.
    """
    ends = time.monotonic() + DEADLINE
    while True:
        before = time.thread_time()
        if condition():
            return
        assert time.monotonic() < ends, f"never saw: {what}\n{more()}"
        time.sleep(max(0.01, 4 * (time.thread_time() - before)))


def wait_until_idle(pid: int) -> None:
    """Wait until a process sleeps and has used no processor time for a while, or is over. Only Linux tells."""
    seen: list[tuple[str, ...]] = []

    def idle() -> bool:
        try:
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return True
        seen.append((words[0], words[11], words[12]))  # state, user and system time
        last = seen[-20:]
        return words[0] == "Z" or (words[0] == "S" and len(last) == 20 and len(set(last)) == 1)

    wait_until(idle, f"{pid} idle")


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
