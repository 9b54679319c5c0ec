"""A connection to `beads.db`.

WAL mode: readers never wait. Each change is one immediate transaction, synced before it returns; writers wait for
each other.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from gremlins.clock import SystemClock
from gremlins.errors import Conflict, CorruptRecord, GremlinsError
from gremlins.files import make_private_dir
from gremlins.fleet.beads.store.database import Database, StaleChange, Values
from gremlins.fleet.beads.store.schema import TABLES, VERSION, StoredRow
from gremlins.processes.locks import locked

BUSY_SECONDS = 60.0
"""The longest wait for other writers."""


class SqliteDatabase(Database):
    """The open file. For one thread only."""

    TITLE = "CASE WHEN json_valid(doc) THEN json_extract(doc, '$.title') END"

    def __init__(self, path: Path, patience: float = BUSY_SECONDS) -> None:
        """patience: seconds to wait for other writers."""
        self.path = path
        self.patience = patience
        with self._translated():
            make_private_dir(path.parent)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            self.connection = sqlite3.connect(path, timeout=patience, isolation_level=None)
            try:
                self.connection.row_factory = sqlite3.Row
                self.connection.execute("PRAGMA synchronous = FULL")
                if self._version() != VERSION:
                    self._create()
            except BaseException:  # Ctrl-C too: the connection is in no hands yet that close it
                self.connection.close()
                raise

    def rows(self, sql: str, values: Values = ()) -> list[StoredRow]:
        return self.connection.execute(sql, values).fetchall()

    def run(self, sql: str, values: Values = ()) -> int:
        return self.connection.execute(sql, values).rowcount

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self._translated():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:  # Ctrl-C too: nothing half written stays
                if self.connection.in_transaction:  # a full disk may have ended it
                    self.connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        with self._translated():
            if self.connection.in_transaction:
                yield
                return
            self.connection.execute("BEGIN")
            try:
                yield
            finally:
                self.connection.execute("COMMIT")

    def close(self) -> None:
        self.connection.close()

    def _version(self) -> int:
        return int(self.value("PRAGMA user_version"))

    def _create(self) -> None:
        # A lock of our own: switching to WAL ignores the busy timeout.
        with locked(self.path.with_name(self.path.name + ".lock"), clock=SystemClock(), patience=self.patience) as held:
            if not held:
                raise Conflict(f"{self.path} is being created by another process", hint="try again")
            if self._version() > VERSION:
                raise GremlinsError(f"{self.path} was written by a newer gremlins", hint="upgrade this one")
            if self._version() < VERSION:
                self.connection.execute("PRAGMA journal_mode = WAL")
                self.connection.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Raises SQLite's errors as StaleChange, GremlinsError or CorruptRecord."""
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise StaleChange from error
        except sqlite3.OperationalError as error:
            raise GremlinsError(f"{self.path}: {error}", hint=_hint(error)) from error
        except sqlite3.DatabaseError as error:
            raise CorruptRecord(self.path, str(error)) from error
        except OSError as error:
            raise GremlinsError(f"{self.path}: {error.strerror or error}") from error


def _hint(error: sqlite3.OperationalError) -> str | None:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return {
        sqlite3.SQLITE_BUSY: "another process keeps the database busy; try again",
        sqlite3.SQLITE_FULL: "the disk is full; make room and try again",
        sqlite3.SQLITE_READONLY: "the state folder is not writable; GREMLINS_HOME names another one",
        sqlite3.SQLITE_CANTOPEN: "is the state folder there, and yours? GREMLINS_HOME names another one",
    }.get(code)
