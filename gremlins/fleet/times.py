"""Times: seconds since the epoch inside the program, RFC 3339 for people and files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gremlins.clock import parse_time, rfc3339

_LATEST = datetime(9999, 12, 31, tzinfo=UTC)


def text_of(moment: float) -> str:
    """`2026-11-21T10:00:00Z`. A moment beyond any calendar is shown as the last one."""
    try:
        return rfc3339(datetime.fromtimestamp(moment, UTC))
    except (OverflowError, ValueError, OSError):
        return rfc3339(_LATEST)


def seconds_of(text: str) -> float:
    """The inverse. Raises ValueError."""
    return parse_time(text).timestamp()


def day_of(moment: float) -> float:
    """The beginning of a moment's UTC day."""
    return moment - moment % 86400.0


def span(seconds: float) -> str:
    """A length of time as a person says it: `45 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    minutes, days = int(seconds // 60), int(seconds // 86400)
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    if minutes < 90:
        return f"{minutes} min"
    if days < 2:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{days} d {int(seconds % 86400 // 3600)} h"


def parse_when(text: str, now: datetime) -> str:
    """A moment as a person writes it: RFC 3339, a date, or `+2h`, `+3d`, `tomorrow`. Raises ValueError."""
    word = text.strip().lower()
    units = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
    if word == "tomorrow":
        return rfc3339(now + timedelta(days=1))
    if word.startswith("+") and word[-1:] in units:
        return rfc3339(now + timedelta(seconds=float(word[1:-1]) * units[word[-1]]))
    return rfc3339(parse_time(text.strip()))
