"""The bead store of one machine: a file of SQLite, one connection per process."""

from __future__ import annotations

from pathlib import Path

from gremlins.fleet.beads.store.sqlite_database import BUSY_SECONDS, SqliteDatabase
from gremlins.fleet.beads.store.writes import SqlStore


class SqliteStore(SqlStore):
    db: SqliteDatabase

    def __init__(self, path: Path, patience: float = BUSY_SECONDS) -> None:
        super().__init__(SqliteDatabase(path, patience))
