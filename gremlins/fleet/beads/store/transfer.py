"""Everything of a project from one store to another: its beads, their attempts and history, breakers and pause."""

from __future__ import annotations

from typing import Any

from gremlins.errors import Conflict
from gremlins.fleet.beads.store import blocking
from gremlins.fleet.beads.store.reads import last_seq
from gremlins.fleet.beads.store.writes import SqlStore

ORDER = {
    "beads": "n",
    "deps": "issue_id, position",
    "attempts": "claimed_at, bead_id, number",
    "episodes": "scope, number",
    "events": "n",
    "notices": "n",
    "pauses": "project",
}
OF_THE_STORE = frozenset({"n", "rowid", "project"})
"""Columns that each store counts, or names, by itself."""

Rows = dict[str, list[dict[str, Any]]]


def hand_over(source: SqlStore, project: str, target: SqlStore, name: str) -> int:
    """Give the project to another store, where it is called `name`. Returns the number of beads.

    A kill in between leaves it in both; said again, it is finished. Raises Conflict where beads of the same ids are
    there, and these are not all of them, unchanged.
    """
    with source.db.reading():
        rows = _read(source, project)
    with target.db.transaction():
        there = {row["id"]: row for row in _read(target, name)["beads"]}
        twice = [row["id"] for row in rows["beads"] if row["id"] in there]
        if twice and any(there.get(row["id"]) != row for row in rows["beads"]):
            raise Conflict(
                f"{name} has beads of the same ids already: {', '.join(twice[:5])}",
                hint="export those of one of the two and delete them first",
            )
        if not twice:
            _write(target, name, rows)
    with source.db.transaction():
        if _read(source, project) != rows:
            raise Conflict("beads were changed meanwhile; they are in both stores", hint="do it again")
        for table in ORDER:
            source.db.run(f"DELETE FROM {table} WHERE project = ?", (project,))
    return len(rows["beads"])


def _read(store: SqlStore, project: str) -> Rows:
    found: Rows = {}
    for table, order in ORDER.items():
        rows = store.db.rows(f"SELECT * FROM {table} WHERE project = ? ORDER BY {order}", (project,))
        found[table] = [{key: row[key] for key in row.keys() if key not in OF_THE_STORE} for row in rows]  # noqa: SIM118
    for row in found["attempts"]:
        row["probe"] = bool(row["probe"])  # SQLite has no booleans
    return found


def _write(store: SqlStore, name: str, rows: Rows) -> None:
    """After what is there already: numbers of settlements and episodes go on."""
    settled = last_seq(store.db, name)
    number = store.db.value("SELECT COALESCE(MAX(number), 0) FROM episodes WHERE project = ?", (name,))
    later = {"settled_seq": settled, "since_seq": settled, "closed_seq": settled}
    for table, found in rows.items():
        if table == "pauses":
            store.db.run("DELETE FROM pauses WHERE project = ?", (name,))
        more = later | ({"number": number} if table == "episodes" else {})
        for row in found:
            moved = {key: row[key] + add for key, add in more.items() if row.get(key) is not None}
            store.db.insert(table, row | moved | {"project": name})
    blocking.refresh(store.db, name, [row["id"] for row in rows["beads"]])
