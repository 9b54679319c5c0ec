"""The bead store in SQLite: one connection per process."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from gremlins.errors import Conflict
from gremlins.fleet.beads.store import blocking
from gremlins.fleet.beads.store.database import Database, StaleChange
from gremlins.fleet.beads.store.interface import DependencyCircle, Notice, PutBead, StoreChange
from gremlins.fleet.beads.store.reads import Reader
from gremlins.fleet.beads.store.writes import Touched, apply, write_bead


class SqliteStore(Reader):
    """A `BeadStore` in one file, for one thread only. Methods are documented there."""

    def __init__(self, path: Path) -> None:
        super().__init__(Database(path))

    def commit(self, *changes: StoreChange) -> bool:
        try:
            with self.db.transaction():
                touched: Touched = {}
                for change in changes:
                    apply(self.db, change, touched)
                for project, ids in touched.items():
                    blocking.refresh(self.db, project, sorted(ids))
        except (StaleChange, sqlite3.IntegrityError):
            return False
        return True

    def replace_all(self, project: str, puts: Sequence[PutBead]) -> None:
        try:
            with self.db.transaction():
                ordering = [write_bead(self.db, put) for put in puts]
                if any(ordering) and (circles := blocking.all_circles(self.db, project)):
                    raise DependencyCircle(circles[0])
                blocking.refresh(self.db, project, [put.bead.id for put in puts])
        except (StaleChange, sqlite3.IntegrityError):
            raise Conflict("beads were changed meanwhile; nothing was written", hint="do it again") from None

    def take_notices(self, project: str) -> tuple[Notice, ...]:
        with self.db.reading():
            if not self.db.value("SELECT 1 FROM notices WHERE project = ? AND taken = 0 LIMIT 1", (project,)):
                return ()
        sql = "UPDATE notices SET taken = 1 WHERE project = ? AND taken = 0 RETURNING n, project, at, kind, payload"
        with self.db.transaction():
            rows = sorted(self.db.rows(sql, (project,)), key=lambda row: int(row["n"]))
        return tuple(Notice(row["project"], row["at"], row["kind"], json.loads(row["payload"])) for row in rows)

    def close(self) -> None:
        self.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
