"""One poll of an account: its requests do not grow with what is parked, and no batch is left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gremlins.clients.batch.api import Batch, Page
from gremlins.clients.transport import ApiFailure

pytest.importorskip("psycopg", reason="the extra `cluster` is not installed")
from gremlins.clients.account import find_account
from gremlins.cluster import rows
from gremlins.cluster.database import ClusterDb, migrate
from gremlins.config import BatchSettings
from gremlins.simulator import Simulator
from gremlins.worker.polling import BY_NAME, look, poll_account
from tests.postgres import PostgresServer

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


@dataclass
class Listed:
    """An API whose batches, newest first, are ten seconds apart. `hidden` are in no list."""

    count: int
    ended: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    no_list: bool = False
    requests: int = 0

    def __post_init__(self) -> None:
        self.at = {f"b{number:05}": NOON - timedelta(seconds=10 * number) for number in range(self.count)}

    @property
    def wanted(self) -> dict[str, float]:
        return {name: at.timestamp() for name, at in self.at.items()}

    def retrieve(self, batch_id: str) -> Batch:
        self.requests += 1
        return Batch(batch_id, "ended" if batch_id in self.ended else "in_progress", self.at[batch_id], None, None, 1)

    def page(self, *, limit: int = 100, after: str | None = None) -> Page:
        self.requests += 1
        if self.no_list or (after is not None and after not in self.at):
            raise ApiFailure("no such thing", phase="answered", status=404)
        shown = [name for name in self.at if name not in self.hidden and (after is None or name > after)]
        found = [
            Batch(name, "ended" if name in self.ended else "in_progress", self.at[name], None, None, 1)
            for name in shown[:limit]
        ]
        return Page(tuple(found), len(shown) > limit, None)


def polls(api: Any, wanted: dict[str, float], count: int, listed_to: str | None = None) -> list[dict[str, str]]:
    found = []
    for turn in range(count):
        seen = look(api, wanted, listed_to, turn)
        listed_to = seen.listed_to
        found.append(seen.statuses)
    return found


def test_ten_thousand_are_looked_at_in_two_requests_a_poll_and_all_within_nine() -> None:
    api = Listed(10_000, ended={"b00007", "b09999"})
    found = polls(api, api.wanted, 9)
    assert api.requests == 2 * 9
    assert set().union(*found) == set(api.at)
    assert all(each["b00007"] == "ended" for each in found)
    assert found[-1]["b09999"] == "ended"
    again = polls(api, api.wanted, 1, look(api, api.wanted, "b08999", 9).listed_to)
    assert "b01000" in again[0]  # from the newest on again


def test_the_ended_batches_of_others_cost_no_more() -> None:
    api = Listed(10_000)
    wanted = {name: at for name, at in api.wanted.items() if name[-3:] == "999"}
    found = polls(api, wanted, 10)
    assert api.requests == 20
    assert set().union(*found) == set(wanted)


def test_a_batch_that_the_list_should_have_is_asked_for_by_name() -> None:
    hidden = {f"b{number:05}" for number in range(2500, 2500 + 2 * BY_NAME)}
    api = Listed(4000, hidden=hidden)
    found = polls(api, api.wanted, 12)
    assert api.requests <= 12 * (2 + BY_NAME)
    assert set().union(*found) == set(api.at)


def test_without_a_list_all_are_asked_for_by_name_some_at_a_time() -> None:
    api = Listed(3 * BY_NAME, no_list=True)
    assert set().union(*polls(api, api.wanted, 3)) == set(api.at)
    assert api.requests == 3 * (1 + BY_NAME)


def test_a_list_that_cannot_go_on_begins_again() -> None:
    api = Listed(3000)
    found = polls(api, api.wanted, 3, listed_to="deleted")
    assert set().union(*found) == set(api.at)


def test_a_poll_waits_as_long_as_the_api_asks_for(postgres: PostgresServer) -> None:
    db = ClusterDb(postgres.new_database())
    migrate(db, init=True)
    with Simulator() as simulator:
        account = find_account(simulator.env).fingerprint
        taken = rows.create(db, "g", uid="g", remote="file:///r", needs="anything")
        batch = rows.AwaitedBatch("none", NOON)
        rows.park(db, taken, NOON, now=NOON, account=account, batches=[batch])
        simulator.fault("retrieve", "error", status=429, retry_after=1000.0)
        settings = BatchSettings(poll_initial=1.0, poll_max=1.0)
        assert poll_account(db, account, simulator.env, settings) == 0
        assert db.value("SELECT next_poll > now() + interval '900 s' FROM account") is True
        assert poll_account(db, account, simulator.env, settings) == 0
        assert simulator.requests == {"retrieve": 1}
