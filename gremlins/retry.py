"""Computes backoffs and poll intervals, in seconds. Pure functions; nothing here waits."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from gremlins.clock import Jitter, no_jitter

RETRY_AFTER_CEILING = 3600.0
"""Longest `retry-after`, in seconds, that is honoured. A wrong header must not park a call for a year."""

POLL_SHARE = 0.15
"""The poll interval as a share of the age, so that the end is seen within about a tenth of the age."""

BEAD_SPREAD = 0.2


def exponential(n: int, *, initial: float, maximum: float, jitter: Jitter = no_jitter) -> float:
    """Seconds before try `n` + 1, where `n` counts failures from 1: `initial`·2ⁿ⁻¹, at most `maximum`, jittered."""
    return _doubled(n, initial, maximum) * jitter()


def poll_interval(age: float, *, initial: float, maximum: float, jitter: Jitter = no_jitter) -> float:
    """Seconds to the next poll of something `age` seconds old. A negative age (a clock set back) counts as 0."""
    return min(max(initial, POLL_SHARE * age), maximum) * jitter()


def honoured(own: float, retry_after: float | None, *, ceiling: float = RETRY_AFTER_CEILING) -> float:
    """The longer of our own backoff and the server's `retry_after`, the latter at most `ceiling`."""
    if retry_after is None or math.isnan(retry_after):
        return own
    return max(own, min(retry_after, ceiling))


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds of a `retry-after` header, a number or an HTTP date. None: missing or not readable."""
    text = (value or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        return _seconds_to_date(text, now)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def bead_backoff(bead_id: str, attempt: int, *, initial: float, maximum: float) -> float:
    """Seconds a bead waits after its failed attempt number `attempt`, from 1: exponential, ±20 %.

    The jitter is a hash of bead and attempt, so that every process computes the same time, and beads that failed
    together retry at different times.
    """
    digest = hashlib.sha256(f"{bead_id}\0{attempt}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / (2**64 - 1)
    return _doubled(attempt, initial, maximum) * (1 - BEAD_SPREAD + 2 * BEAD_SPREAD * position)


def seconds_until(moment: datetime, now: datetime, *, longest: float) -> float:
    """Seconds until a stored moment, clamped to 0 … `longest`: the clock may have been set back."""
    return min(max(0.0, (moment - now).total_seconds()), longest)


def _doubled(n: int, initial: float, maximum: float) -> float:
    if n > 1000:  # 2.0**1024 does not fit a float
        return maximum
    return min(initial * 2.0 ** (max(n, 1) - 1), maximum)


def _seconds_to_date(text: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())
