"""Observations of real records: work and waiting."""

from __future__ import annotations

from pathlib import Path

import pytest

from gremlins.fleet.dispatch.observer import Observer
from gremlins.outcome import SpendingCap
from gremlins.records.gremlin import FailedGremlin, Running
from tests.fleet.records import ago, record, state_root


@pytest.mark.parametrize(
    ("status", "waits"),
    [
        (Running(since=ago(60)), False),
        (Running(since=ago(60), until=ago(-600), waiting_for="running `make`"), False),
        (Running(since=ago(60), until=ago(-600), waiting_for="asking again later", asleep=True), True),
        (Running(since=ago(60), until=ago(10), waiting_for="asking again later", asleep=True), False),
    ],
)
def test_a_running_command_is_work_and_a_wait_that_is_on_record_is_none(
    tmp_path: Path, status: Running, waits: bool
) -> None:
    root = state_root(tmp_path)
    with root.alive(record("g", status)):
        seen = Observer(root.home, root.clock, 360.0).observe("g")
    assert seen is not None
    assert (seen.alive, seen.waits) == (True, waits)


def test_a_record_that_cannot_be_read_is_neither_dead_nor_done(tmp_path: Path) -> None:
    root = state_root(tmp_path)
    with root.alive(record("g")):
        root.home.gremlin("g").state.write_text("{half")
        seen = Observer(root.home, root.clock, 360.0).observe("g")
        assert seen is not None
        assert (seen.state, seen.alive) == ("unreadable", True)
    seen = Observer(root.home, root.clock, 360.0).observe("g")
    assert seen is not None
    assert (seen.state, seen.alive) == ("unreadable", False)


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    root = state_root(tmp_path)
    assert Observer(root.home, root.clock, 360.0).observe("missing") is None


@pytest.mark.parametrize("later", [0, 180, 7 * 86400])
def test_a_gremlin_that_reached_our_cap_says_so_on_every_later_day(tmp_path: Path, later: float) -> None:
    root, cap = state_root(tmp_path), SpendingCap("spend.per_day", 25.0)
    ended = FailedGremlin(since=ago(0), stage="plan", failure="credit", reason="today has cost $25.01", cap=cap)
    root.put(record("g", ended))
    root.clock.advance(later)
    seen = Observer(root.home, root.clock, 360.0).observe("g")
    assert seen is not None
    assert (seen.failure, seen.cap) == ("credit", cap)
