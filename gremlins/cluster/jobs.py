"""Jobs for the engine: steps of gremlins and polls of accounts, handed over in the transaction that makes them due."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any

STEP, POLL, TEND, TICK = "step", "poll", "tend", "tick"
EVERYONE = "tend"
"""The queue of what any worker can do."""


@cache
def _app() -> Any:
    """The engine without a connection of its own."""
    import procrastinate

    return procrastinate.App(connector=procrastinate.SyncPsycopgConnector())


def defer_step(connection: Any, gremlin_id: str, queue: str, *, at: datetime | None = None) -> None:
    """One step of a gremlin, now or at a time of the database. Steps are ordered by the fencing number alone: they
    have no lock of the engine, which a future job would keep from a ready one."""
    job = _app().configure_task(name=STEP, queue=queue, schedule_at=at, connection=connection)
    job.defer(gremlin_id=gremlin_id)


def account_queue(fingerprint: str) -> str:
    return f"account-{fingerprint}"


def host_queue(host: str) -> str:
    return f"host-{host}"
