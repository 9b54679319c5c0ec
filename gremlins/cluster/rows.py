"""The row of a gremlin: who has it, when it goes on, and what wakes it. Every time is the database's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gremlins.cluster.database import ClusterDb
from gremlins.cluster.documents import FencedOut
from gremlins.cluster.jobs import defer_step
from gremlins.cluster.schema import VERSION
from gremlins.errors import Conflict, NotFound

CRASHES = 3
"""Ends of its process without a word, one after the other, before a person decides."""


@dataclass(frozen=True)
class Taken:
    """A gremlin in our hands, until another process takes it. `host`: who had it before."""

    id: str
    fence: int
    remote: str
    needs: str
    host: str | None
    crashes: int = 0
    """Ends of its process in a row that left the record as it was."""


@dataclass(frozen=True)
class AwaitedBatch:
    """An outstanding batch that a poll may tell the end of."""

    batch_id: str
    submitted_at: datetime


def create(db: ClusterDb, gremlin_id: str, *, uid: str, remote: str, needs: str) -> Taken:
    """Make the row of a new gremlin, which nothing wakes yet. Raises Conflict if the id is taken.

    A row whose launch did not come to its record is taken over: that launch counts no more.
    """
    # Sent again after an answer that was lost, it finds its own row, known by its uid.
    fence = db.value(
        "INSERT INTO gremlin (id, uid, remote, needs) VALUES (%(id)s, %(uid)s, %(remote)s, %(needs)s) "
        "ON CONFLICT (id) DO UPDATE SET uid = excluded.uid, remote = excluded.remote, needs = excluded.needs, "
        "fence = gremlin.fence + 1 WHERE gremlin.uid = excluded.uid OR NOT EXISTS "
        "(SELECT FROM document d WHERE d.gremlin = gremlin.id AND d.name = 'state.json') RETURNING fence",
        {"id": gremlin_id, "uid": uid, "remote": remote, "needs": needs},
    )
    if fence is None:
        raise Conflict(
            f"there is already a gremlin `{gremlin_id}`",
            hint=f"choose another --id, or `gremlins rm {gremlin_id}` first",
        )
    return Taken(gremlin_id, fence, remote, needs, None)


_ALIVE = (
    "EXISTS (SELECT FROM procrastinate_workers w WHERE w.id = gremlin.held_by "
    "AND w.last_heartbeat > now() - make_interval(secs => %(stale)s))"
)


def take_step(db: ClusterDb, gremlin_id: str, *, worker: int, host: str, stale: float) -> Taken | None:
    """Take a gremlin that is due, for a step. None: it is not due, or another worker that lives has it; or the tables
    are not of this version any more."""
    before = db.value("SELECT host FROM gremlin WHERE id = %(id)s", {"id": gremlin_id})
    rows = db.rows(
        "UPDATE gremlin SET fence = fence + 1, held_by = %(worker)s, host = %(host)s, parked = false "
        "WHERE id = %(id)s AND due <= now() + interval '0.5 s' AND (SELECT version FROM version) = %(version)s "
        f"AND (held_by IS NULL OR NOT {_ALIVE}) RETURNING fence, remote, needs, crashes",
        {"id": gremlin_id, "worker": worker, "host": host, "stale": stale, "version": VERSION},
    )
    if not rows:
        return None
    fence, remote, needs, crashes = rows[0]
    return Taken(gremlin_id, fence, remote, needs, before, crashes)


def take_over(db: ClusterDb, gremlin_id: str, *, host: str, stale: float) -> Taken:
    """Take a gremlin that no worker has, for a command. Raises Conflict, NotFound."""
    before = db.value("SELECT host FROM gremlin WHERE id = %(id)s", {"id": gremlin_id})
    rows = db.rows(
        "UPDATE gremlin SET fence = fence + 1, held_by = NULL, host = %(host)s "
        f"WHERE id = %(id)s AND (held_by IS NULL OR NOT {_ALIVE}) RETURNING fence, remote, needs",
        {"id": gremlin_id, "host": host, "stale": stale},
    )
    if rows:
        fence, remote, needs = rows[0]
        return Taken(gremlin_id, fence, remote, needs, before)
    if db.value("SELECT 1 FROM gremlin WHERE id = %(id)s", {"id": gremlin_id}) is None:
        raise NotFound(f"no gremlin `{gremlin_id}`")
    raise Conflict(f"{gremlin_id} is being worked on by another process")


def park(
    db: ClusterDb, taken: Taken, until: datetime, *, now: datetime, account: str | None, batches: Sequence[AwaitedBatch]
) -> None:
    """Say when the gremlin goes on, and for which batches of which account it waits. Raises FencedOut.

    until, now: by the clock of this host; the database counts from its own.
    """
    seconds = max(0.0, (until - now).total_seconds())
    found = db.rows(
        "WITH own AS (UPDATE gremlin SET due = now() + make_interval(secs => %(seconds)s), account = %(account)s, "
        "crashes = 0, parked = true WHERE id = %(id)s AND fence = %(fence)s RETURNING id), "
        "gone AS (DELETE FROM waiting USING own WHERE gremlin = own.id AND NOT batch_id = ANY(%(batches)s)), "
        "new AS (INSERT INTO waiting (gremlin, batch_id, account, submitted_at) "
        "SELECT own.id, b.id, %(account)s, b.at "
        "FROM own, unnest(%(batches)s::text[], %(ats)s::timestamptz[]) b(id, at) "
        "ON CONFLICT (gremlin, batch_id) DO UPDATE SET account = excluded.account), "
        "known AS (INSERT INTO account (fingerprint) SELECT %(account)s WHERE %(account)s::text IS NOT NULL "
        "ON CONFLICT DO NOTHING) SELECT id FROM own",
        {
            "id": taken.id,
            "fence": taken.fence,
            "seconds": seconds,
            "account": account,
            "batches": [batch.batch_id for batch in batches],
            "ats": [batch.submitted_at for batch in batches],
        },
    )
    if not found:
        raise FencedOut(taken.id)


def wake(db: ClusterDb, gremlin_id: str, *, fence: int | None = None) -> bool:
    """The gremlin goes on now; one that is being worked on, once more after that. False: there is none.

    fence: only if it has this number, which is given back with it.
    """

    def both(connection: Any) -> bool:
        with connection.transaction():
            row = connection.execute(
                "UPDATE gremlin SET due = now(), account = NULL, crashes = 0 WHERE id = %(id)s "
                "AND (%(fence)s::bigint IS NULL OR fence = %(fence)s) RETURNING needs",
                {"id": gremlin_id, "fence": fence},
            ).fetchone()
            if row is not None:
                defer_step(connection, gremlin_id, row[0])
            return row is not None

    return db.again(both)


def give_back(db: ClusterDb, taken: Taken) -> bool:
    """Give back a gremlin that its own process has parked or ended. False: another has it now.

    One that was asked to stop meanwhile goes on at once.
    """

    def both(connection: Any) -> bool:
        with connection.transaction():
            row = connection.execute(
                "UPDATE gremlin SET held_by = NULL, due = CASE WHEN due > now() AND EXISTS (SELECT FROM "
                "document d WHERE d.gremlin = gremlin.id AND d.name = 'stop.json') THEN now() ELSE due END "
                "WHERE id = %(id)s AND fence = %(fence)s RETURNING due, needs, account IS NOT NULL AND due > now()",
                {"id": taken.id, "fence": taken.fence},
            ).fetchone()
            if row is not None and row[0] is not None and not row[2]:
                defer_step(connection, taken.id, row[1], at=row[0])
            return row is not None

    return db.again(both)


def ended(db: ClusterDb, taken: Taken) -> bool:
    """Give back a gremlin that does not go on by itself. False: another has it now."""
    return bool(
        db.run(
            "UPDATE gremlin SET held_by = NULL, due = NULL, account = NULL, crashes = 0 "
            "WHERE id = %(id)s AND fence = %(fence)s",
            {"id": taken.id, "fence": taken.fence},
        )
    )


def again(db: ClusterDb, taken: Taken, *, seconds: float, limit: int, queue: str | None = None) -> bool:
    """Give back a gremlin whose process could not write its record, to be tried again. False: not once more.

    queue: of the host that alone has its commits.
    """

    def both(connection: Any) -> bool:
        with connection.transaction():
            row = connection.execute(
                "UPDATE gremlin SET held_by = NULL, crashes = crashes + 1, due = CASE "
                "WHEN crashes < %(limit)s THEN now() + make_interval(secs => %(seconds)s) END "
                "WHERE id = %(id)s AND fence = %(fence)s RETURNING due, needs",
                {"id": taken.id, "fence": taken.fence, "limit": limit, "seconds": seconds},
            ).fetchone()
            if row is not None and row[0] is not None:
                defer_step(connection, taken.id, queue or row[1], at=row[0])
            return row is not None and row[0] is not None

    return db.again(both)


def take_away(db: ClusterDb, gremlin_id: str) -> None:
    """Take the gremlin from whichever worker has it, which then ends its process. It does not go on by itself."""
    db.run(
        "UPDATE gremlin SET fence = fence + 1, held_by = NULL, due = NULL, account = NULL WHERE id = %(id)s",
        {"id": gremlin_id},
    )


def lost(db: ClusterDb, held: Sequence[Taken]) -> list[str]:
    """Those of the gremlins in our hands that another process has taken since."""
    rows = db.rows(
        "SELECT t.id FROM unnest(%(ids)s::text[], %(fences)s::bigint[]) t(id, fence) "
        "LEFT JOIN gremlin g ON g.id = t.id AND g.fence = t.fence WHERE g.id IS NULL",
        {"ids": [each.id for each in held], "fences": [each.fence for each in held]},
    )
    return [row[0] for row in rows]


def overdue(db: ClusterDb, *, late: float, stale: float) -> list[str]:
    """Gremlins that should have gone on and that no living worker has: their job was lost."""
    rows = db.rows(
        "SELECT id FROM gremlin WHERE due < now() - make_interval(secs => %(late)s) "
        f"AND (held_by IS NULL OR NOT {_ALIVE}) "
        "AND NOT EXISTS (SELECT FROM procrastinate_jobs j WHERE j.task_name = 'step' AND j.status = 'todo' "
        "AND j.args ->> 'gremlin_id' = gremlin.id AND coalesce(j.scheduled_at, now()) <= now()) LIMIT 1000",
        {"late": late, "stale": stale},
    )
    return [row[0] for row in rows]


def remove(db: ClusterDb, taken: Taken) -> None:
    """Remove the gremlin with its documents; its spending stays. Raises FencedOut."""
    if not db.run(
        "DELETE FROM gremlin WHERE id = %(id)s AND fence = %(fence)s", {"id": taken.id, "fence": taken.fence}
    ):
        raise FencedOut(taken.id)
