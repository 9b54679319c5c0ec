"""Writes changes: each statement names the row it expects."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, assert_never

from gremlins.fleet.beads.attempts import Attempt, Episode
from gremlins.fleet.beads.store import blocking
from gremlins.fleet.beads.store.database import Database
from gremlins.fleet.beads.store.interface import (
    AddAttempt,
    CountSpawn,
    DependencyCircle,
    Event,
    MarkEnding,
    MarkProbe,
    MarkSpawned,
    MoveBead,
    Notice,
    PutBead,
    PutEpisode,
    SetPaused,
    SettleAttempt,
    StoreChange,
)
from gremlins.fleet.beads.store.schema import attempt_row, bead_row, dump_hold

Touched = dict[str, set[str]]
"""Beads whose status or dependencies changed, by project."""


def apply(db: Database, change: StoreChange, touched: Touched) -> None:
    """Write one change in a transaction. Raises StaleChange, sqlite3.IntegrityError or DependencyCircle."""
    match change:
        case PutBead(bead):
            may_circle = write_bead(db, change)
            touched.setdefault(bead.project, set()).add(bead.id)
            if may_circle and (circle := blocking.circle_through(db, bead.project, bead.id)):
                raise DependencyCircle(circle)
        case MoveBead(work):
            _move(db, change)
            touched.setdefault(work.project, set()).add(work.id)
        case AddAttempt() | SettleAttempt() | CountSpawn() | MarkSpawned() | MarkProbe() | MarkEnding():
            _change_attempt(db, change)
        case PutEpisode(episode):
            _put_episode(db, episode)
        case Event():
            db.insert("events", vars(change))
        case Notice(project, at, kind, payload):
            text = json.dumps(dict(payload), ensure_ascii=False)
            db.insert("notices", {"project": project, "at": at, "kind": kind, "payload": text})
        case SetPaused(project, reason):
            db.execute("DELETE FROM pauses WHERE project = ?", (project,))
            if reason is not None:
                db.insert("pauses", {"project": project, "reason": reason})
        case _:
            assert_never(change)


def write_bead(db: Database, put: PutBead) -> bool:
    """True if the bead may have closed a circle of dependencies."""
    bead = put.bead
    row = bead_row(bead)
    if put.expect is None:
        db.insert("beads", row | {"generation": 1, "blocked": 0})
    else:
        row["generation"] = put.expect + 1
        db.one(
            f"UPDATE beads SET {_assignments(row)} WHERE project = :project AND id = :id AND generation = :expect",
            row | {"expect": put.expect},
        )
    key = (bead.project, bead.id)
    known = {
        tuple(row) for row in db.rows("SELECT depends_on_id, type FROM deps WHERE project = ? AND issue_id = ?", key)
    }
    db.execute("DELETE FROM deps WHERE project = ? AND issue_id = ?", key)
    for position, dep in enumerate(bead.issue.dependencies):
        doc = dep.model_dump(mode="json", exclude_unset=True) | {"issue_id": bead.id}
        db.execute(
            "INSERT OR REPLACE INTO deps VALUES (?, ?, ?, ?, ?, ?)",
            (*key, dep.depends_on_id, dep.type, position, json.dumps(doc, ensure_ascii=False)),
        )
    # Other beads may already depend on a new bead.
    news = [dep for dep in bead.issue.dependencies if dep.orders and (dep.depends_on_id, dep.type) not in known]
    return bool(news) or put.expect is None


def _move(db: Database, move: MoveBead) -> None:
    work, closed = move.work, move.status == "closed"
    db.one(
        "UPDATE beads SET status = :status, generation = generation + 1, updated_at = :at, hold = :hold,"
        " closed_at = :closed_at, close_reason = :reason, started_at = COALESCE(started_at, :started_at)"
        " WHERE project = :project AND id = :id AND generation = :generation AND status = :before",
        {
            "status": move.status,
            "at": move.at,
            "hold": dump_hold(move.hold),
            "closed_at": move.at if closed else None,
            "reason": move.reason if closed else "",
            "started_at": move.at if move.status == "in_progress" else None,
            "project": work.project,
            "id": work.id,
            "generation": work.generation,
            "before": work.status,
        },
    )


def _change_attempt(
    db: Database, change: AddAttempt | SettleAttempt | CountSpawn | MarkSpawned | MarkProbe | MarkEnding
) -> None:
    match change:
        case AddAttempt(attempt):
            db.insert("attempts", attempt_row(attempt))
            db.one(
                "UPDATE beads SET tried = ? WHERE project = ? AND id = ?",
                (attempt.number, attempt.project, attempt.bead_id),
            )
        case SettleAttempt(attempt, end):
            values = {
                "settled_at": end.at,
                "settled_seq": last_seq(db, attempt.project) + 1,
                "failure": end.failure,
                "reason": end.reason,
                "exit_code": end.exit_code,
                "retry_at": end.retry_at,
                "cost_usd": end.cost_usd,
                "cap_name": end.cap.name if end.cap else None,
                "cap_usd": end.cap.usd if end.cap else None,
            }
            _update_attempt(db, attempt, values)
        case CountSpawn(attempt):
            names = ("spawns", "spawned_at", "base_spawn", "base_replies", "base_parked", "probe")
            before = replace(attempt, spawns=attempt.spawns - 1)
            _update_attempt(db, before, {name: getattr(attempt, name) for name in names})
        case MarkSpawned(attempt, at):
            _update_attempt(db, attempt, {"spawned_at": at})
        case MarkProbe(attempt):
            _update_attempt(db, attempt, {"probe": True})
        case MarkEnding(attempt, ending):
            _update_attempt(db, attempt, {"ending_reason": ending.reason, "ending_at": ending.at}, "ending_at IS NULL")
        case _:
            assert_never(change)


def _update_attempt(db: Database, attempt: Attempt, values: dict[str, Any], expecting: str = "TRUE") -> None:
    """Change an unsettled attempt whose spawns have not changed."""
    where = {"p": attempt.project, "b": attempt.bead_id, "n": attempt.number, "s": attempt.spawns}
    db.one(
        f"UPDATE attempts SET {_assignments(values)} WHERE project = :p AND bead_id = :b AND number = :n"
        f" AND settled_seq IS NULL AND spawns = :s AND {expecting}",
        values | where,
    )


def _put_episode(db: Database, episode: Episode) -> None:
    row = vars(episode)
    if episode.version == 1:
        db.insert("episodes", row)
        return
    db.one(
        f"UPDATE episodes SET {_assignments(row)} WHERE project = :project AND scope = :scope AND number = :number"
        " AND version = :version - 1",
        row,
    )


def last_seq(db: Database, project: str) -> int:
    """`seq` of the project's latest settlement."""
    sql = "SELECT MAX(settled_seq) FROM attempts WHERE project = ? AND settled_seq IS NOT NULL"
    return int(db.value(sql, (project,)) or 0)


def _assignments(row: dict[str, Any]) -> str:
    return ", ".join(f"{key} = :{key}" for key in row)
