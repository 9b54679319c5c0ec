"""A worker and its database: one outlives the other's restarts, and says once that it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

pytest.importorskip("psycopg", reason="the extra `cluster` is not installed")
import procrastinate
import psycopg

from gremlins.clock import FakeClock
from gremlins.cluster.database import ClusterAway
from gremlins.worker.engine import Connector
from gremlins.worker.tasks import LONGEST, work
from tests.postgres import PostgresServer
from tests.time_limit import DEADLINE

KILL_OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gremlins'"


class Scripted:
    """A worker that does as the next item says."""

    def __init__(self, item: Exception | None) -> None:
        self.item = item

    async def run(self) -> None:
        if self.item is not None:
            raise self.item


def away() -> ClusterAway:
    return ClusterAway("no answer")


def making(*items: Exception | Scripted) -> Callable[[], Scripted]:
    left = list(items)

    def make() -> Scripted:
        item = left.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    return make


def test_a_worker_without_its_database_begins_anew_ever_later_and_says_so_once() -> None:
    clock, said = FakeClock(), []
    began = clock.monotonic()
    lost = Scripted(procrastinate.exceptions.ConnectorException("gone"))
    assert work(making(lost, *(away() for _ in range(9)), Scripted(None)), clock, said.append) == 0
    assert [line.split(":")[0] for line in said] == ["warning", "the database is there again"]
    assert "gone" in said[0]
    assert clock.monotonic() - began > 3 * LONGEST


def test_a_second_absence_is_said_again() -> None:
    clock, said = FakeClock(), []
    assert work(making(Scripted(away()), Scripted(away()), Scripted(None)), clock, said.append) == 0
    assert [line.startswith("warning") for line in said] == [True, False, True, False]


def test_the_engine_outlives_the_end_of_all_its_connections(postgres: PostgresServer) -> None:
    url = postgres.new_database()

    async def outlive() -> None:
        heard = set()

        async def hear(*, channel: str, payload: str) -> None:
            heard.add(payload)

        connector = Connector(url)
        await connector.open_async()
        listening = asyncio.create_task(connector.listen_notify(hear, ["news"]))
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as other:
            for number in ("0", "1", "2"):
                while number not in heard:  # from when on it listens
                    await connector.execute_query_async("SELECT pg_notify('news', %(n)s)", n=number)
                    assert not listening.done()
                await other.execute(f"{KILL_OTHERS} AND datname = current_database()")
                assert await connector.execute_query_one_async("SELECT 1 AS one") == {"one": 1}
        listening.cancel()
        await connector.close_async()

    asyncio.run(asyncio.wait_for(outlive(), DEADLINE))
