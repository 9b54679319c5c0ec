"""The queries of a store in SQL. A row that cannot be read is skipped or reported; the others are returned."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gremlins.errors import CorruptRecord
from gremlins.fleet.beads.attempts import Attempt, Episode, Work
from gremlins.fleet.beads.bead import Bead, prefix_of
from gremlins.fleet.beads.store import blocking
from gremlins.fleet.beads.store.database import Database
from gremlins.fleet.beads.store.interface import Event, Listed, Query, View
from gremlins.fleet.beads.store.schema import (
    BEAD_COLUMNS,
    WORK_COLUMNS,
    BadRow,
    StoredRow,
    attempt_of,
    bead_of,
    episode_of,
    work_of,
)

CHUNK = 500
"""Ids per query; SQLite has a limit."""
PAGE = 50
"""Rows per query where a few of them may be enough."""
FEWEST_RECENT = 20
AVERAGED = 50
"""Attempts whose cost is averaged."""
BEYOND = "\U0010ffff"
"""Sorts after every character of an id."""


class Reader:
    """The queries of a `BeadStore`, documented there."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def bead(self, project: str, bead_id: str) -> Bead | None:
        with self.db.reading():
            rows = self.db.rows(f"SELECT {BEAD_COLUMNS} FROM beads WHERE project = ? AND id = ?", (project, bead_id))
            dependencies = self._dependencies(project, [bead_id]).get(bead_id, [])
        try:
            return bead_of(rows[0], dependencies) if rows else None
        except BadRow as error:
            raise CorruptRecord(self.db.path, str(error)) from error

    def beads(self, project: str, query: Query) -> Iterator[Bead]:
        condition, values = _where(project, query)
        with self.db.reading():
            rows = self.db.rows(
                f"SELECT {BEAD_COLUMNS} FROM beads WHERE {condition} ORDER BY priority, created_at, n", values
            )
            dependencies = self._dependencies(project, [row["id"] for row in rows] if len(rows) <= CHUNK else None)
        left = query.limit if query.limit is not None else len(rows)
        for row in rows:
            with contextlib.suppress(BadRow):
                bead = bead_of(row, dependencies.get(row["id"], []))
                if left > 0 and set(query.labels) <= set(bead.issue.labels):
                    left -= 1
                    yield bead

    def listing(self, project: str, query: Query) -> tuple[list[Listed], tuple[str, ...]]:
        condition, values = _where(project, query)
        limit = "" if query.limit is None else f" LIMIT {query.limit}"
        with self.db.reading():
            rows = self.db.rows(
                f"SELECT {WORK_COLUMNS}, issue_type, {self.db.TITLE} AS title FROM beads WHERE {condition}"
                f" ORDER BY priority, created_at, n{limit}",
                values,
            )
            words = {row["id"]: (str(row["title"] or ""), str(row["issue_type"])) for row in rows}
            view = self._with_attempts(project, rows, None)
        return [Listed(work, *words[work.id]) for work in view.works], view.bad

    def matching(self, project: str, text: str) -> list[str]:
        with self.db.reading():
            if self.db.value("SELECT 1 FROM beads WHERE project = ? AND id = ?", (project, text)):
                return [text]
            for start in (text, f"{prefix_of(project)}-{text}") if text else ():
                sql = "SELECT id FROM beads WHERE project = ? AND id >= ? AND id < ? ORDER BY id LIMIT 50"
                if rows := self.db.rows(sql, (project, start, start + BEYOND)):
                    return [row["id"] for row in rows]
        return []

    def ids_beginning(self, prefix: str) -> list[str]:
        with self.db.reading():
            rows = self.db.rows("SELECT id FROM beads WHERE id >= ? AND id < ?", (prefix, prefix + BEYOND))
        return [row["id"] for row in rows]

    def ids(self, project: str) -> list[str]:
        with self.db.reading():
            return [row["id"] for row in self.db.rows("SELECT id FROM beads WHERE project = ?", (project,))]

    def projects(self) -> list[str]:
        with self.db.reading():
            return [row["project"] for row in self.db.rows("SELECT DISTINCT project FROM beads ORDER BY project")]

    def count(self, project: str) -> dict[str, int]:
        with self.db.reading():
            rows = self.db.rows("SELECT status, COUNT(*) FROM beads WHERE project = ? GROUP BY status", (project,))
        return {row[0]: row[1] for row in rows}

    def blockers(self, project: str, bead_id: str) -> list[tuple[str, str, str]]:
        with self.db.reading():
            return blocking.blockers(self.db, project, bead_id)

    def all_blockers(self, project: str) -> dict[str, list[tuple[str, str, str]]]:
        with self.db.reading():
            return blocking.all_blockers(self.db, project)

    def done_by(self, project: str, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        with self.db.reading():
            return blocking.done_by(self.db, project, ids)

    def dependents(self, project: str, bead_id: str) -> list[tuple[str, str]]:
        sql = "SELECT issue_id, type FROM deps INDEXED BY deps_backwards WHERE project = ? AND depends_on_id = ?"
        with self.db.reading():
            return sorted((row["issue_id"], row["type"]) for row in self.db.rows(sql, (project, bead_id)))

    def circles(self, project: str) -> list[list[str]]:
        with self.db.reading():
            return blocking.all_circles(self.db, project)

    def events(self, project: str, bead_id: str) -> tuple[Event, ...]:
        sql = "SELECT project, bead_id, at, kind, text FROM events WHERE project = ? AND bead_id = ? ORDER BY n"
        with self.db.reading():
            return tuple(Event(*row) for row in self.db.rows(sql, (project, bead_id)))

    def view(self, project: str, now: float, *, fresh: int, without: Mapping[str, int] | None = None) -> View:
        with self.db.reading():
            rows = self._unsettled(project)
            rows += self._tried(project, without or {})
            startable, bad = self._startable(project, now, fresh)
            rows += startable
            next_deferred = self.db.value(
                "SELECT MIN(defer_at) FROM beads WHERE project = ? AND defer_at > ? AND status IN ('open', 'deferred')",
                (project, now),
            )
            view = self._with_attempts(project, rows, next_deferred)
        return replace(view, bad=(*view.bad, *bad))

    def under_way(self, project: str) -> View:
        with self.db.reading():
            return self._with_attempts(project, self._unsettled(project), None)

    def work(self, project: str, bead_id: str) -> Work | None:
        return next(iter(self.works(project, [bead_id]).works), None)

    def works(self, project: str, ids: Sequence[str] | None = None) -> View:
        select = f"SELECT {WORK_COLUMNS} FROM beads WHERE project = ?"
        with self.db.reading():
            if ids is None:
                alive = select.replace("FROM beads", "FROM beads INDEXED BY beads_alive")
                condition = "status NOT IN ('closed', 'failed') ORDER BY priority, created_at, n"
                rows = self.db.rows(f"{alive} AND {condition}", (project,))
            else:
                rows = [
                    row
                    for chunk in _chunks(ids)
                    for row in self.db.rows(f"{select} AND id IN ({_marks(chunk)})", (project, *chunk))
                ]
            return self._with_attempts(project, rows, None)

    def recent(self, project: str, since: float) -> tuple[Attempt, ...]:
        found: list[Attempt] = []
        sql = "SELECT * FROM attempts WHERE project = ? AND settled_seq IS NOT NULL ORDER BY settled_seq DESC"
        with self.db.reading():
            for row in self._paged(sql, (project,)):
                if len(found) >= FEWEST_RECENT and row["settled_at"] < since:
                    break
                found.extend(_readable(row))
        return tuple(reversed(found))

    def attempt_of(self, gremlin_id: str) -> Attempt | None:
        sql = "SELECT * FROM attempts WHERE gremlin_id = ? ORDER BY number DESC LIMIT 1"
        with self.db.reading():
            return next((a for row in self.db.rows(sql, (gremlin_id,)) for a in _readable(row)), None)

    def episodes(self, project: str, since_seq: int = 0) -> tuple[Episode, ...]:
        sql = (
            "SELECT * FROM episodes e WHERE project = ? AND (closed_seq IS NULL OR closed_seq >= ? OR number ="
            " (SELECT MAX(number) FROM episodes WHERE project = e.project AND scope = e.scope)) ORDER BY scope, number"
        )
        with self.db.reading():
            return tuple(episode_of(row) for row in self.db.rows(sql, (project, since_seq)))

    def last_seq(self, project: str) -> int:
        with self.db.reading():
            return last_seq(self.db, project)

    def unsettled_attempts(self) -> tuple[Attempt, ...]:
        with self.db.reading():
            rows = self.db.rows("SELECT * FROM attempts WHERE settled_seq IS NULL")
        return tuple(a for row in rows for a in _readable(row))

    def average_usd(self, pipeline: str) -> float | None:
        sql = (
            "SELECT AVG(cost_usd) FROM (SELECT cost_usd FROM attempts NOT INDEXED WHERE pipeline = ? AND cost_usd > 0"
            " ORDER BY rowid DESC LIMIT ?) AS latest"  # without sorting all
        )
        with self.db.reading():
            found = self.db.value(sql, (pipeline, AVERAGED))
        return None if found is None else float(found)

    def paused(self, project: str) -> str | None:
        with self.db.reading():
            found = self.db.value("SELECT reason FROM pauses WHERE project = ?", (project,))
        return None if found is None else str(found)

    def _tried(self, project: str, without: Mapping[str, int]) -> list[StoredRow]:
        where = "FROM beads WHERE project = ? AND tried > 0 AND status NOT IN ('closed', 'failed')"
        if not without:
            return self.db.rows(f"SELECT {WORK_COLUMNS} {where}", (project,))
        known = self.db.rows(f"SELECT id, generation {where}", (project,))
        ids = [row[0] for row in known if without.get(row[0]) != row[1]]
        return [
            row
            for chunk in _chunks(ids)
            for row in self.db.rows(
                f"SELECT {WORK_COLUMNS} FROM beads WHERE project = ? AND id IN ({_marks(chunk)})", (project, *chunk)
            )
        ]

    def _unsettled(self, project: str) -> list[StoredRow]:
        return self.db.rows(
            f"SELECT {WORK_COLUMNS} FROM beads WHERE project = ?"
            " AND id IN (SELECT bead_id FROM attempts WHERE project = ? AND settled_seq IS NULL)",
            (project, project),
        )

    def _startable(self, project: str, now: float, wanted: int) -> tuple[list[StoredRow], list[str]]:
        """The first `wanted` rows whose text can be read, and a line for each unreadable row before them."""
        sql = (
            "SELECT * FROM beads WHERE project = ? AND status IN ('open', 'deferred') AND blocked = 0"
            " AND hold IS NULL AND tried = 0 AND (defer_at <= ? OR (defer_at IS NULL AND status = 'open'))"
            " ORDER BY priority, created_at, n"
        )
        rows: list[StoredRow] = []
        bad: list[str] = []
        for row in self._paged(sql, (project, now)) if wanted else ():
            if len(rows) >= wanted:
                break
            try:
                work_of(row, []), bead_of(row, [])
                rows.append(row)
            except BadRow as error:
                bad.append(str(error))
        return rows, bad

    def _paged(self, sql: str, values: tuple[Any, ...]) -> Iterator[StoredRow]:
        """The rows as they are wanted, not all at once."""
        start = 0
        while True:
            page = self.db.rows(f"{sql} LIMIT ? OFFSET ?", (*values, PAGE, start))
            yield from page
            if len(page) < PAGE:
                return
            start += PAGE

    def _with_attempts(self, project: str, rows: Sequence[StoredRow], next_deferred: float | None) -> View:
        unique = {row["id"]: row for row in rows}
        attempts: dict[str, list[StoredRow]] = {}
        for chunk in _chunks(list(unique)):
            sql = f"SELECT * FROM attempts WHERE project = ? AND bead_id IN ({_marks(chunk)}) ORDER BY number"
            for found in self.db.rows(sql, (project, *chunk)):
                attempts.setdefault(found["bead_id"], []).append(found)
        works: list[Work] = []
        bad: list[str] = []
        for bead_id, row in unique.items():
            try:
                works.append(work_of(row, attempts.get(bead_id, [])))
            except BadRow as error:
                bad.append(str(error))
        return View(tuple(works), tuple(bad), next_deferred)

    def _dependencies(self, project: str, ids: Sequence[str] | None) -> dict[str, list[dict[str, Any]]]:
        """The dependencies of these beads, or of all."""
        select = "SELECT issue_id, doc FROM deps WHERE project = ?"
        if ids is None:
            rows = self.db.rows(f"{select} ORDER BY position", (project,))
        else:
            rows = self.db.rows(f"{select} AND issue_id IN ({_marks(ids)}) ORDER BY position", (project, *ids))
        found: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            with contextlib.suppress(ValueError):
                found.setdefault(row["issue_id"], []).append(json.loads(row["doc"]))
        return found


def last_seq(db: Database, project: str) -> int:
    """`seq` of the project's latest settlement."""
    sql = "SELECT MAX(settled_seq) FROM attempts WHERE project = ? AND settled_seq IS NOT NULL"
    return int(db.value(sql, (project,)) or 0)


def _readable(row: StoredRow) -> list[Attempt]:
    """The attempt of a row, if it can be read; `_with_attempts` reports those that cannot."""
    try:
        return [attempt_of(row)]
    except (ValueError, TypeError):
        return []


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values)) or "NULL"


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK]


def _where(project: str, query: Query) -> tuple[str, list[Any]]:
    conditions, values = ["project = ?"], [project]
    columns: tuple[tuple[str, Sequence[Any]], ...] = (
        ("status", query.statuses),
        ("issue_type", query.issue_types),
        ("priority", query.priorities),
    )
    for column, wanted in columns:
        if wanted:
            conditions.append(f"{column} IN ({_marks(wanted)})")
            values.extend(wanted)
    if query.blocked is not None:
        conditions.append(f"blocked = {int(query.blocked)}")
    if query.assignee is not None:
        conditions.append("assignee = ?")
        values.append(query.assignee)
    return " AND ".join(conditions), values
