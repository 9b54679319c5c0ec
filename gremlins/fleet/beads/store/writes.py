"""The bead store in SQL, for SQLite and PostgreSQL. Each change is one statement that names the row it expects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Self, assert_never

from gremlins.errors import Conflict
from gremlins.fleet.beads.attempts import Attempt, Episode
from gremlins.fleet.beads.store import blocking
from gremlins.fleet.beads.store.database import Database, StaleChange
from gremlins.fleet.beads.store.interface import (
    AddAttempt,
    ChangeAttempt,
    DependencyCircle,
    Event,
    MoveBead,
    Notice,
    PutBead,
    PutEpisode,
    SetPaused,
    SettleAttempt,
    StoreChange,
)
from gremlins.fleet.beads.store.reads import Reader, last_seq
from gremlins.fleet.beads.store.schema import SPAWN_COLUMNS, attempt_row, bead_row, dump_hold
from gremlins.masking import mask
from gremlins.text import normalised

Touched = dict[str, set[str]]
"""Beads whose status or dependencies changed, by project."""


class SqlStore(Reader):
    """A `BeadStore`, for one thread only. Methods are documented there."""

    def commit(self, *changes: StoreChange) -> bool:
        try:
            with self.db.transaction():
                touched: Touched = {}
                for change in changes:
                    _apply(self.db, change, touched)
                for project, ids in touched.items():
                    blocking.refresh(self.db, project, sorted(ids))
        except StaleChange:
            return False
        return True

    def replace_all(self, project: str, changes: Sequence[PutBead | Event]) -> None:
        puts = [change for change in changes if isinstance(change, PutBead)]
        try:
            with self.db.transaction():
                ordering = [_write_bead(self.db, put) for put in puts]
                for event in changes:
                    if isinstance(event, Event):
                        _apply(self.db, event, {})
                if any(ordering) and (circles := blocking.all_circles(self.db, project)):
                    raise DependencyCircle(circles[0])
                blocking.refresh(self.db, project, [put.bead.id for put in puts])
        except StaleChange:
            raise Conflict("beads were changed meanwhile; nothing was written", hint="do it again") from None

    def take_notices(self, project: str) -> tuple[Notice, ...]:
        with self.db.reading():
            if not self.db.value("SELECT 1 FROM notices WHERE project = ? AND taken = 0 LIMIT 1", (project,)):
                return ()
        sql = "UPDATE notices SET taken = 1 WHERE project = ? AND taken = 0 RETURNING n, project, at, kind, payload"
        with self.db.transaction():
            rows = sorted(self.db.rows(sql, (project,)), key=lambda row: int(row["n"]))
        return tuple(Notice(row["project"], row["at"], row["kind"], json.loads(row["payload"])) for row in rows)

    def rename_project(self, old: Sequence[str], new: str) -> int:
        """Give everything of these projects to another, in one transaction. Returns the number of beads.

        The numbers of settlements and episodes go on after those of the other. Raises Conflict if both have a bead.
        """
        with self.db.transaction():
            both = "SELECT id FROM beads WHERE project = ? INTERSECT SELECT id FROM beads WHERE project = ?"
            for name in old:
                if found := [row["id"] for row in self.db.rows(both, (name, new))]:
                    raise Conflict(
                        f"{new} has beads of the same ids already: {', '.join(found[:5])}",
                        hint="export those of one of the two and delete them first",
                    )
            return sum(self._rename_project(name, new) for name in old)

    def _rename_project(self, old: str, new: str) -> int:
        settled = last_seq(self.db, new)
        episode = self.db.value("SELECT COALESCE(MAX(number), 0) FROM episodes WHERE project = ?", (new,))
        self.db.run(
            "DELETE FROM pauses WHERE project = ? AND EXISTS (SELECT 1 FROM pauses WHERE project = ?)", (old, new)
        )
        count = self.db.run("UPDATE beads SET project = ? WHERE project = ?", (new, old))
        self.db.run(
            "UPDATE attempts SET project = ?, settled_seq = settled_seq + ? WHERE project = ?", (new, settled, old)
        )
        self.db.run(
            "UPDATE episodes SET project = ?, number = number + ?, since_seq = since_seq + ?,"
            " closed_seq = closed_seq + ? WHERE project = ?",
            (new, episode, settled, settled, old),
        )
        for table in ("deps", "events", "notices", "pauses"):
            self.db.run(f"UPDATE {table} SET project = ? WHERE project = ?", (new, old))
        return count

    def close(self) -> None:
        self.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _apply(db: Database, change: StoreChange, touched: Touched) -> None:
    """Write one change in a transaction. Raises StaleChange or DependencyCircle."""
    match change:
        case PutBead(bead):
            may_circle = _write_bead(db, change)
            touched.setdefault(bead.project, set()).add(bead.id)
            if may_circle and (circle := blocking.circle_through(db, bead.project, bead.id)):
                raise DependencyCircle(circle)
        case MoveBead(work):
            _move(db, change)
            touched.setdefault(work.project, set()).add(work.id)
        case AddAttempt() | SettleAttempt() | ChangeAttempt():
            _change_attempt(db, change)
        case PutEpisode(episode):
            _put_episode(db, episode)
        case Event():
            db.insert("events", {**vars(change), "text": mask(normalised(change.text))})
        case Notice(project, at, kind, payload):
            text = json.dumps(dict(payload), ensure_ascii=False)
            db.insert("notices", {"project": project, "at": at, "kind": kind, "payload": text})
        case SetPaused(project, reason):
            db.run("DELETE FROM pauses WHERE project = ?", (project,))
            if reason is not None:
                db.insert("pauses", {"project": project, "reason": reason})
        case _:
            assert_never(change)


def _write_bead(db: Database, put: PutBead) -> bool:
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
    db.run("DELETE FROM deps WHERE project = ? AND issue_id = ?", key)
    for position, dep in enumerate(bead.issue.dependencies):
        doc = dep.model_dump(mode="json", exclude_unset=True) | {"issue_id": bead.id}
        db.run(
            "INSERT INTO deps VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (project, issue_id, depends_on_id, type)"
            " DO UPDATE SET position = excluded.position, doc = excluded.doc",
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


def _change_attempt(db: Database, change: AddAttempt | SettleAttempt | ChangeAttempt) -> None:
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
        case ChangeAttempt(before, after):
            old, new = attempt_row(before), attempt_row(after)
            respawned = after.spawns != before.spawns
            changed = {key: new[key] for key in new if new[key] != old[key] or (respawned and key in SPAWN_COLUMNS)}
            ends = after.ending is not None and before.ending is None
            _update_attempt(db, before, changed or {"probe": after.probe}, "ending_at IS NULL" if ends else "TRUE")
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


def _assignments(row: dict[str, Any]) -> str:
    return ", ".join(f"{key} = :{key}" for key in row)
