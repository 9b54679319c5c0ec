"""The engine's connections: a statement that a dropped one has cut short is sent again, for as long as a step waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import procrastinate
import psycopg
from procrastinate.connector import Notify
from procrastinate.exceptions import ConnectorException

from gremlins.cluster.database import PATIENCE, ClusterAway, options

AWAY = (ConnectorException, psycopg.OperationalError, ClusterAway)
"""Errors that end a worker which can begin anew."""
PAUSE = 0.5

T = TypeVar("T")


class Connector(procrastinate.PsycopgConnector):  # type: ignore[misc] # untyped here
    """Outlives a restart of the database. A job that was fetched, or finished, with an answer that was lost is one that
    `tend` hands out again, and a step that comes twice finds its gremlin not due."""

    def __init__(self, url: str) -> None:
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # it tells of each try to connect
        found = options(url)
        super().__init__(conninfo=found.pop("conninfo"), kwargs=found, min_size=1, max_size=4)

    async def execute_query_async(self, query: Any, **arguments: Any) -> None:
        try:
            await _again(lambda: super(Connector, self).execute_query_async(query, **arguments))
        except ConnectorException as error:  # the engine raises it where a job to be finished is there no more
            if not isinstance(error.__cause__, psycopg.errors.RaiseException):
                raise

    async def execute_query_one_async(self, query: Any, **arguments: Any) -> dict[str, Any]:
        return await _again(lambda: super(Connector, self).execute_query_one_async(query, **arguments))

    async def execute_query_all_async(self, query: Any, **arguments: Any) -> list[dict[str, Any]]:
        return await _again(lambda: super(Connector, self).execute_query_all_async(query, **arguments))

    async def listen_notify(self, on_notification: Notify, channels: Iterable[str]) -> None:
        names = list(channels)
        await _again(lambda: super(Connector, self).listen_notify(on_notification, names), patience=float("inf"))


async def _again(ask: Callable[[], Awaitable[T]], *, patience: float = PATIENCE) -> T:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while True:
        try:
            return await ask()
        except ConnectorException as error:
            if not isinstance(error.__cause__, psycopg.OperationalError) or loop.time() >= deadline:
                raise
            await asyncio.sleep(PAUSE)


def reason(error: BaseException) -> str:
    """One line that says why the database could not be used."""
    return str(error.__cause__ or error).strip().partition("\n")[0] or type(error).__name__
