"""Ticks of dispatching: which projects the workers dispatch, and the one tick of a project that may write."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gremlins.cluster.database import ClusterDb
from gremlins.cluster.documents import FencedOut

LEASE = 300.0
"""Seconds from one write of a tick to the next. A tick that is silent for longer is over."""


@dataclass(frozen=True)
class Dispatching:
    """The way a project is dispatched. `launch`: pipeline and settings, as JSON; None: only single ticks were run."""

    project: str
    remote: str
    sha256: bool
    """Its objects are named by SHA-256."""
    launch: bytes | None
    options: str
    on: bool
    host: str | None
    """The host of the latest tick."""
    ticked_at: datetime | None
    said: str | None
    """The reason the latest tick could start nothing."""


@dataclass(frozen=True)
class TakenTick:
    """A tick that may write, until it is over or another one is taken."""

    project: str
    fence: int


_FREE = (
    "(busy_until IS NULL OR busy_until < now() OR (held_by IS NOT NULL AND NOT EXISTS (SELECT FROM "
    "procrastinate_workers w WHERE w.id = held_by AND w.last_heartbeat > now() - make_interval(secs => %(stale)s))))"
)


def look(db: ClusterDb, project: str) -> Dispatching | None:
    rows = db.rows(
        "SELECT project, remote, sha256, launch, options, next_tick IS NOT NULL, host, ticked_at, said "
        "FROM dispatching WHERE project = %(project)s",
        {"project": project},
    )
    return Dispatching(*rows[0]) if rows else None


def switch_on(
    db: ClusterDb, project: str, *, remote: str, sha256: bool, launch: bytes, options: str, queue: str
) -> None:
    """Let the workers of this queue dispatch the project, with this launch."""
    db.run(
        "INSERT INTO dispatching (project, remote, sha256, launch, options, queue, next_tick) "
        "VALUES (%(project)s, %(remote)s, %(sha256)s, %(launch)s, %(options)s, %(queue)s, now()) "
        "ON CONFLICT (project) DO UPDATE SET remote = excluded.remote, launch = excluded.launch, "
        "options = excluded.options, queue = excluded.queue, next_tick = now(), said = NULL",
        {"project": project, "remote": remote, "sha256": sha256, "launch": launch, "options": options, "queue": queue},
    )


def switch_off(db: ClusterDb, project: str) -> bool:
    """False: the workers did not dispatch it."""
    return bool(
        db.run(
            "UPDATE dispatching SET next_tick = NULL WHERE project = %(project)s AND next_tick IS NOT NULL",
            {"project": project},
        )
    )


def due(db: ClusterDb, *, stale: float) -> list[tuple[str, str]]:
    """The projects whose next tick is due, and the queues of their ticks."""
    sql = f"SELECT project, queue FROM dispatching WHERE next_tick <= now() AND {_FREE} ORDER BY next_tick"
    return [(project, queue) for project, queue in db.rows(sql, {"stale": stale})]


def take(
    db: ClusterDb, project: str, *, host: str, worker: int | None, stale: float, remote: str | None = None
) -> TakenTick | None:
    """Take the tick of a project. None: one is under way, or for a worker, none is due.

    remote: of a project that a person ticks, whether the workers dispatch it or not.
    """
    if remote is not None:
        db.run(
            "INSERT INTO dispatching (project, remote) VALUES (%(project)s, %(remote)s) ON CONFLICT DO NOTHING",
            {"project": project, "remote": remote},
        )
    wanted = "next_tick <= now()" if remote is None else "TRUE"
    found = db.value(
        "UPDATE dispatching SET fence = fence + 1, held_by = %(worker)s, host = %(host)s, "
        "busy_until = now() + make_interval(secs => %(lease)s) "
        f"WHERE project = %(project)s AND {wanted} AND {_FREE} RETURNING fence",
        {"project": project, "worker": worker, "host": host, "lease": LEASE, "stale": stale},
    )
    return None if found is None else TakenTick(project, found)


def keep(connection: Any, tick: TakenTick) -> None:
    """Prove within a transaction that a tick may write, and let it go on for another lease. Raises FencedOut."""
    kept = connection.execute(
        "UPDATE dispatching SET busy_until = now() + make_interval(secs => %(lease)s) "
        "WHERE project = %(project)s AND fence = %(fence)s",
        {"project": tick.project, "fence": tick.fence, "lease": LEASE},
    )
    if not kept.rowcount:
        raise FencedOut(f"the dispatching of {tick.project}")


def end(db: ClusterDb, tick: TakenTick, *, seconds: float, said: str | None) -> None:
    """Say that a tick is over, and in how many seconds the next one is due."""
    db.run(
        "UPDATE dispatching SET busy_until = NULL, held_by = NULL, ticked_at = now(), said = %(said)s, "
        "next_tick = CASE WHEN next_tick IS NOT NULL THEN now() + make_interval(secs => %(seconds)s) END "
        "WHERE project = %(project)s AND fence = %(fence)s",
        {"project": tick.project, "fence": tick.fence, "seconds": seconds, "said": said},
    )
