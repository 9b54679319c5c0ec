from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gremlins.clock import spread
from gremlins.retry import (
    bead_backoff,
    exponential,
    honoured,
    parse_retry_after,
    poll_interval,
    seconds_until,
)

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


def test_backoff_doubles_up_to_its_maximum() -> None:
    assert [exponential(n, initial=30, maximum=600) for n in range(1, 7)] == [30, 60, 120, 240, 480, 600]


def test_a_very_long_series_of_failures_stays_at_the_maximum() -> None:
    assert exponential(10**9, initial=30, maximum=600) == 600


def test_a_ceiling_below_the_first_interval_wins() -> None:
    assert exponential(1, initial=30, maximum=0.05) == 0.05
    assert poll_interval(0, initial=20, maximum=0.05) == 0.05


@pytest.mark.parametrize(
    ("age", "seconds"), [(-5, 20), (0, 20), (100, 20), (200, 30), (3600, 540), (4000, 600), (86_400, 600)]
)
def test_polls_come_after_a_share_of_the_batchs_age(age: float, seconds: float) -> None:
    assert poll_interval(age, initial=20, maximum=600) == pytest.approx(seconds)


def test_a_day_of_polling_takes_about_170_polls() -> None:
    age, polls = 0.0, 0
    while age < 86_400:
        age += poll_interval(age, initial=20, maximum=600)
        polls += 1
    assert 150 <= polls <= 190


@given(age=st.floats(0, 1e6))
def test_jitter_moves_a_poll_by_a_fifth_at_most(age: float) -> None:
    plain = poll_interval(age, initial=20, maximum=600)
    assert 0.8 * plain <= poll_interval(age, initial=20, maximum=600, jitter=spread(0.2)) <= 1.2 * plain


@pytest.mark.parametrize(
    ("own", "asked", "waits"),
    [(30, None, 30), (30, 5, 30), (30, 120, 120), (30, 10**9, 3600), (30, math.inf, 3600), (30, math.nan, 30)],
)
def test_a_servers_wish_is_honoured_above_our_own_backoff_up_to_an_hour(
    own: float, asked: float | None, waits: float
) -> None:
    assert honoured(own, asked) == waits


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17),
        (" 1.5 ", 1.5),
        ("0", 0),
        ("-3", 0),
        ("Sat, 21 Nov 2026 10:02:00 GMT", 120),
        ("Sat, 21 Nov 2026 11:02:00 +0100", 120),
        ("Sat, 21 Nov 2026 09:00:00 GMT", 0),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("Sat, 99 Nov 2026 09:00:00 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_a_retry_after_header_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, NOW) == seconds


@given(text=st.text(max_size=60))
def test_no_header_is_too_strange_to_read(text: str) -> None:
    seconds = parse_retry_after(text, NOW)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


@given(bead=st.text(max_size=20), attempt=st.integers(1, 50))
def test_a_beads_backoff_is_the_same_each_time_and_within_a_fifth(bead: str, attempt: int) -> None:
    waits = bead_backoff(bead, attempt, initial=30, maximum=1800)
    plain = min(30 * 2 ** (attempt - 1), 1800)
    assert waits == bead_backoff(bead, attempt, initial=30, maximum=1800)
    assert 0.8 * plain <= waits <= 1.2 * plain * (1 + 1e-12)


def test_beads_that_failed_together_come_back_spread_over_the_whole_width() -> None:
    waits = sorted(bead_backoff(f"g-{n}", 1, initial=30, maximum=1800) for n in range(200))
    assert waits[0] < 25
    assert waits[-1] > 35
    assert len(set(waits)) == 200


def test_a_beads_backoff_keeps_its_value_from_version_to_version() -> None:
    assert bead_backoff("g-1", 1, initial=30, maximum=1800) == pytest.approx(30.64185, abs=1e-5)


@pytest.mark.parametrize(("off", "seconds"), [(-60, 0), (0, 0), (45, 45), (600, 600), (86_400, 600)])
def test_a_stored_time_further_off_than_the_longest_interval_is_clamped(off: float, seconds: float) -> None:
    assert seconds_until(NOW + timedelta(seconds=off), NOW, longest=600) == seconds
