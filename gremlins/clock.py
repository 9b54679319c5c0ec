"""Time and chance as arguments: everything that waits or dates takes a `Clock`, everything that jitters a `Jitter`."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

Jitter = Callable[[], float]
"""Returns a factor around 1.0 to multiply an interval by."""


class Clock(Protocol):
    def now(self) -> datetime:
        """Wall time, UTC. Only for records and for what people read; it can jump."""

    def monotonic(self) -> float:
        """Seconds that never jump. Only differences mean anything."""

    def sleep(self, seconds: float) -> None:
        """Wait. May return early when the process is asked to end; callers look again at what they wait for."""


class SystemClock:
    """The real clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))


class FakeClock:
    """A clock that moves only when told to or slept on. For tests, ours and others'."""

    def __init__(self, start: datetime = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)) -> None:
        self.current = start
        self.ticks = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self.current

    def monotonic(self) -> float:
        return self.ticks

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.current += timedelta(seconds=seconds)
        self.ticks += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back without time passing, as NTP or a person does."""
        self.current += timedelta(seconds=seconds)


def rfc3339(moment: datetime) -> str:
    """`2026-11-21T10:00:00Z`, always UTC."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return f"{utc.isoformat(timespec='seconds')[:-6]}Z"


def parse_time(text: str) -> datetime:
    """The inverse of `rfc3339`, for any RFC 3339 time. Raises ValueError."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def spread(fraction: float = 0.2) -> Jitter:
    """A jitter of ±`fraction`, evenly spread."""
    import random  # with its hashes 2 ms, and only what waits jitters

    return lambda: random.uniform(1 - fraction, 1 + fraction)


def no_jitter() -> float:
    return 1.0
