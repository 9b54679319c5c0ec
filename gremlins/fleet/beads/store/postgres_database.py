"""A connection to the beads of a cluster's PostgreSQL: the statements of the store, in its dialect."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from gremlins.cluster.database import ClusterDb
from gremlins.errors import Conflict
from gremlins.fleet.beads.store.database import Database, StaleChange, Values
from gremlins.fleet.beads.store.schema import StoredRow

LOCK = 7_218_554
"""The advisory lock of writers: flags and circles are looked up over many rows."""
_LIMITS = "SET LOCAL lock_timeout = '60s'; SET LOCAL idle_in_transaction_session_timeout = '30s'"
"""Of the wait for other writers, and of a writer's pause: then its transaction is undone."""


class PostgresDatabase(Database):
    """For one thread only."""

    TITLE = "doc ->> 'title'"

    def __init__(self, db: ClusterDb) -> None:
        self.db = db
        self.path = Path("beads")
        self.guard: Callable[[Any], None] = lambda _connection: None
        """Asked before each change; it may refuse by an error."""

    def rows(self, sql: str, values: Values = ()) -> list[StoredRow]:
        return list(self._execute(sql, values).fetchall())

    def run(self, sql: str, values: Values = ()) -> int:
        return int(self._execute(sql, values).rowcount)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        import psycopg

        with self._between(f"BEGIN; {_LIMITS}; SELECT pg_advisory_xact_lock({LOCK})"):
            self.guard(self.db.connection())
            try:
                yield
            except psycopg.IntegrityError as error:
                raise StaleChange from error
            self.db.connection().execute("COMMIT")

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        if self.db.in_transaction:
            yield
            return
        with self._between("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"):
            yield

    @contextlib.contextmanager
    def _between(self, begin: str) -> Iterator[None]:
        """A transaction, undone at the end where it was not committed. The beginning is sent again where the
        connection has dropped since it was used."""
        import psycopg

        try:
            self.db.again(lambda connection: connection.execute(begin))
            with self.db.translated():
                yield
        except psycopg.errors.LockNotAvailable as error:
            raise Conflict("another process keeps the beads of the cluster busy", hint="try again") from error
        finally:
            if self.db.in_transaction:
                self.db.connection().execute("ROLLBACK")

    def close(self) -> None:
        self.db.close()

    def _execute(self, sql: str, values: Values) -> Any:
        import psycopg

        cursor = psycopg.ClientCursor(self.db.connection(), row_factory=_by_name)
        cursor.adapters.register_loader("json", psycopg.types.string.TextLoader)
        return cursor.execute(in_dialect(sql).encode(), values)


class _NamedRow(tuple[Any, ...]):
    """As `sqlite3.Row`."""

    names: dict[str, int]

    def keys(self) -> list[str]:
        return list(self.names)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.names[key] if isinstance(key, str) else key)


def _by_name(cursor: Any) -> Any:
    columns = cursor.description or ()
    return type("_Row", (_NamedRow,), {"names": {column.name: place for place, column in enumerate(columns)}})


@lru_cache(256)
def in_dialect(sql: str) -> str:
    """A statement of the store as psycopg reads it. PostgreSQL plans without hints."""
    sql = re.sub(r"\bINDEXED BY \w+|\bNOT INDEXED\b", "", sql)
    sql = sql.replace("CROSS JOIN", "JOIN").replace("?", "%s")
    return re.sub(r"(?<!:):([a-z_]+)", r"%(\1)s", sql)
