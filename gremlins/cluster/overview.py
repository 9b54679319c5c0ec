"""The fleet of a cluster as it is observed: one query for all of it. Only reads."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from gremlins.clock import Clock
from gremlins.cluster.database import ClusterDb, check_version
from gremlins.cluster.documents import PostgresDocuments
from gremlins.cluster.host_copy import decode_state
from gremlins.cluster.schema import VERSION
from gremlins.errors import CorruptRecord, GremlinsError, NotFound
from gremlins.paths import Home
from gremlins.processes.locks import Holder
from gremlins.records.calls import CallRecord, outstanding, summarize
from gremlins.records.gremlin import Gremlin, Parked, ParkedCall, Running
from gremlins.records.liveness import Observed
from gremlins.records.wait import WaitPlan, WatchedBatch
from gremlins.redaction import without_password
from gremlins.repository.git import Git
from gremlins.repository.remote_work import address_of, project_of

_SEEN = """
SELECT g.id, s.content, g.remote, g.held_by IS NOT NULL, g.due, extract(epoch FROM a.next_poll)::float8,
    EXISTS (SELECT FROM document d WHERE d.gremlin = g.id AND d.name = 'stop.json')
FROM gremlin g JOIN document s ON s.gremlin = g.id AND s.name = 'state.json'
LEFT JOIN account a ON a.fingerprint = g.account
"""


def observe_all(home: Home, db: ClusterDb, names: Iterable[str] | None = None) -> tuple[list[Observed], list[Any]]:
    """Every gremlin of the cluster, or these; and the errors of records that cannot be read."""
    if names is None:
        rows = db.rows(_SEEN)
    else:
        rows = db.rows(_SEEN + "WHERE g.id = ANY(%(ids)s)", {"ids": list(names)})
    found: list[Observed] = []
    unreadable: list[CorruptRecord] = []
    for row in rows:
        try:
            found.append(_observed(home, db, *row))
        except CorruptRecord as error:
            unreadable.append(error)
    return found, unreadable


def observe_one(home: Home, db: ClusterDb, gremlin_id: str) -> Observed:
    """Raises NotFound, CorruptRecord."""
    found, unreadable = observe_all(home, db, [gremlin_id])
    if unreadable:
        raise unreadable[0]
    if not found:
        raise NotFound(f"no gremlin `{gremlin_id}`")
    return found[0]


def _observed(
    home: Home, db: ClusterDb, gremlin_id: str, content: bytes, remote: str, held: bool, due: datetime | None,
    next_poll: float | None, stop_wanted: bool,
) -> Observed:  # fmt: skip
    record = replace(decode_state(bytes(content), gremlin_id), project=remote, worktree=str(home.worktree(gremlin_id)))
    folder = str(home.gremlin(gremlin_id).root)
    # A gremlin that something will wake is alive, though no process is: the cluster has it.
    holder = Holder("runner", None) if (held or due is not None) and not record.over() else None
    if record.over():
        return Observed(record, folder, None)
    waiting: tuple[ParkedCall, ...] = ()
    if isinstance(record.status, Parked | Running):
        waiting = record.status.calls
    if holder is None and not isinstance(record.status, Parked):
        record, waiting = _as_booked(db, record)
    return Observed(
        record,
        folder,
        holder,
        stop_wanted=stop_wanted,
        outstanding=waiting,
        wait=_plan(waiting, next_poll if next_poll is not None else due.timestamp() if due and not held else None),
        idle_timeout=math.inf,  # the worker of its host watches over its process
    )


def _plan(calls: tuple[ParkedCall, ...], until: float | None) -> WaitPlan | None:
    batches = tuple(WatchedBatch(call.batch_id) for call in calls if call.batch_id is not None)
    return None if until is None else WaitPlan(until=max(0.0, until), calls=batches)


def _as_booked(db: ClusterDb, record: Gremlin) -> tuple[Gremlin, tuple[ParkedCall, ...]]:
    """The gremlin of a process that ended without a word: its calls tell more than its record."""
    calls = []
    for name, content in PostgresDocuments(db, record.id, 0).all().items():
        if name.startswith("calls/") and name.endswith(".json"):
            calls.append(msgspec.json.decode(content, type=CallRecord))
    cost = max(summarize(calls), record.cost, key=lambda known: known.total_usd)
    parked = tuple(call.parked() for call in outstanding(calls))
    return replace(record, cost=cost, total_cost_usd=cost.total_usd), parked


def ids(db: ClusterDb) -> list[str]:
    return [row[0] for row in db.rows("SELECT id FROM gremlin ORDER BY id")]


def open_fleet(home: Home) -> ClusterDb:
    """The database of the cluster, of this version. Raises NotReady, ClusterAway."""
    db = ClusterDb(home.cluster)
    check_version(db)
    return db


def remote_name(project: Path | str) -> str | None:
    """The name of a project by its folder here, or by the address of its remote; None for a folder without one."""
    try:
        address = project if isinstance(project, str) else address_of(Git(project))
        return project_of(address)
    except GremlinsError:
        return None


def cluster_status(home: Home, clock: Clock) -> dict[str, Any]:
    """The cluster as data: its database, its workers, what they have, and polls of accounts."""
    with contextlib.closing(open_fleet(home)) as db:
        before = clock.now()
        there = db.value("SELECT now()")
        held, due, parked, total = db.rows(
            "SELECT count(*) FILTER (WHERE held_by IS NOT NULL), "
            "count(*) FILTER (WHERE held_by IS NULL AND due <= now()), "
            "count(*) FILTER (WHERE held_by IS NULL AND due > now()), count(*) FROM gremlin"
        )[0]
        workers = db.rows(
            "SELECT coalesce(max(g.host), w.id::text), count(g.id), "
            "extract(epoch FROM now() - w.last_heartbeat)::float8 FROM procrastinate_workers w "
            "LEFT JOIN gremlin g ON g.held_by = w.id GROUP BY w.id, w.last_heartbeat ORDER BY w.id"
        )
        accounts = db.rows("SELECT fingerprint, requests FROM account ORDER BY fingerprint")
    return {
        "database": without_password(home.cluster),
        "schema": VERSION,
        "clock_ahead_seconds": round((there - before).total_seconds(), 3),
        "gremlins": {"at work": held, "due": due, "waiting": parked, "over": total - held - due - parked},
        "workers": [{"name": name, "steps": steps, "last_sign_seconds": sign} for name, steps, sign in workers],
        "accounts": [{"account": fingerprint, "polls": polls} for fingerprint, polls in accounts],
    }
