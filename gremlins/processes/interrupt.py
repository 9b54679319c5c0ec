"""SIGTERM as something a gremlin notices at points of its own choosing, never in the middle of a write."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from types import FrameType

from gremlins.clock import SystemClock

SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


class Terminated(BaseException):
    """The process was asked to end. Not an Exception: nothing that handles failures may swallow it."""

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name


class Interrupt:
    """Remembers that a signal came, and wakes every wait of every thread when it does."""

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def install(self) -> None:
        """Handle SIGTERM, SIGINT and SIGHUP, and let them in: an exec may have blocked them on the way here."""
        for number in SIGNALS:
            signal.signal(number, self._handle)
        self.let_in()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.trigger(signal.Signals(number).name)

    def trigger(self, signal_name: str) -> None:
        if self.signal_name is None:
            self.signal_name = signal_name
            os.write(self._write, b"!")  # never read: it stays readable, for every thread

    def hold(self) -> None:
        """Keep further signals back: they are delivered after `let_in`, or to whatever this process becomes."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def let_in(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def clear(self) -> None:
        """Go on after a signal that has been dealt with."""
        self.signal_name = None
        os.read(self._read, 4096)

    def check(self) -> None:
        """Raise Terminated if a signal came."""
        if self.signal_name is not None:
            raise Terminated(self.signal_name)

    def wait(self, seconds: float) -> bool:
        """Wait, at most so long; True at once when a signal came."""
        return bool(select.select([self._read], [], [], max(0.0, seconds))[0])

    @property
    def fd(self) -> int:
        """Readable once a signal came."""
        return self._read

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class InterruptibleClock(SystemClock):
    """The real clock, whose sleep ends with Terminated when a signal comes."""

    def __init__(self, interrupt: Interrupt) -> None:
        self.interrupt = interrupt

    def sleep(self, seconds: float) -> None:
        self.interrupt.wait(seconds)
        self.interrupt.check()


def nothing_to_check() -> None:
    """An interrupt check for those who cannot be interrupted."""


Check = Callable[[], None]
