"""Turns SIGTERM, SIGINT and SIGHUP into checks at chosen points, so that no write is interrupted."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from types import FrameType

from gremlins.clock import SystemClock

SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def start_without_signals(thread: threading.Thread) -> None:
    """Start a thread that takes no signals: they are for the main thread, which may hold them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Terminated(BaseException):
    """A signal asked the process to end. Not an Exception, so that no failure handler catches it."""

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name


class Interrupt:
    """Records the first signal and wakes the waits of every thread."""

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def install(self) -> None:
        """Handle the signals and unblock them: they may be blocked from before an exec."""
        for number in SIGNALS:
            signal.signal(number, self._handle)
        self.let_in()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.trigger(signal.Signals(number).name)

    def trigger(self, signal_name: str) -> None:
        if self.signal_name is None:
            self.signal_name = signal_name
            os.write(self._write, b"!")  # not read until `clear`: it stays readable for every thread

    def hold(self) -> None:
        """Block signals until `let_in`, or until the program that this process becomes unblocks them."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def let_in(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def clear(self) -> None:
        """Forget a signal that was handled."""
        self.signal_name = None
        os.read(self._read, 4096)

    def check(self) -> None:
        """Raise Terminated if a signal came."""
        if self.signal_name is not None:
            raise Terminated(self.signal_name)

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`. Returns True as soon as a signal has come."""
        return bool(select.select([self._read], [], [], max(0.0, seconds))[0])

    @property
    def fd(self) -> int:
        """A descriptor that is readable once a signal has come."""
        return self._read

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class InterruptibleClock(SystemClock):
    """The system clock; a signal ends `sleep` with Terminated."""

    def __init__(self, interrupt: Interrupt) -> None:
        self.interrupt = interrupt

    def sleep(self, seconds: float) -> None:
        self.interrupt.wait(seconds)
        self.interrupt.check()


def nothing_to_check() -> None:
    """No-op interrupt check."""


InterruptCheck = Callable[[], None]
