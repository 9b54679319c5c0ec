"""A connection to `beads.db`.

WAL mode: readers never wait. Each change is one immediate transaction, synced before it returns; writers wait for
each other.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gremlins.clock import SystemClock
from gremlins.errors import Conflict, CorruptRecord, GremlinsError
from gremlins.files import make_private_dir
from gremlins.fleet.beads.store.schema import TABLES, VERSION
from gremlins.processes.locks import locked

BUSY_SECONDS = 60.0
"""The longest wait for other writers."""

Values = Sequence[Any] | Mapping[str, Any]


class StaleChange(Exception):
    """A row has changed since the change was decided."""


class Database:
    """The open file. For one thread only."""

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

    def execute(self, sql: str, values: Values = ()) -> sqlite3.Cursor:
        return self.connection.execute(sql, values)

    def rows(self, sql: str, values: Values = ()) -> list[sqlite3.Row]:
        return self.connection.execute(sql, values).fetchall()

    def value(self, sql: str, values: Values = ()) -> Any:
        """The first column of the first row, or None."""
        row = self.connection.execute(sql, values).fetchone()
        return None if row is None else row[0]

    def one(self, sql: str, values: Values) -> None:
        """Change exactly one row, or raise StaleChange."""
        if self.connection.execute(sql, values).rowcount != 1:
            raise StaleChange

    def insert(self, table: str, row: Mapping[str, Any]) -> None:
        columns, marks = ", ".join(row), ", ".join(f":{key}" for key in row)
        self.connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", row)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits at the end, rolls back on an error. sqlite3.IntegrityError and StaleChange pass through."""
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
        """One consistent snapshot for several queries. May be nested in a transaction."""
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
        """Raises SQLite's errors as GremlinsError or CorruptRecord."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise
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
