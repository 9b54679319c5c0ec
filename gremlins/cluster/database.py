"""A connection to the cluster's PostgreSQL: tried again where it drops, and translated into our errors."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gremlins.clock import Clock, SystemClock
from gremlins.cluster.schema import MIGRATIONS, VERSION
from gremlins.errors import Conflict, GremlinsError, NotReady
from gremlins.redaction import without_password

SCHEMA = "gremlins"
CONNECT_SECONDS = 10
PATIENCE = 60.0
"""Seconds for a database that has gone to come back."""
PAUSE = 0.2
LOCK = 7_218_551
"""The advisory lock of a migration."""

Values = Mapping[str, Any]
T = TypeVar("T")


class ClusterAway(GremlinsError):
    """The database cannot be reached."""


FORM = "it looks like postgresql://gremlins@db.example.org/gremlins; in a password, % is %25, @ is %40 and / is %2F"


def options(url: str) -> dict[str, Any]:
    """The arguments of every connection, the engine's too."""
    return {
        "conninfo": url,
        "options": f"-c search_path={SCHEMA}",
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "gremlins",
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }


def need_extra() -> None:
    """Raises NotReady where the extra is not installed."""
    if importlib.util.find_spec("psycopg") is None or importlib.util.find_spec("procrastinate") is None:
        raise NotReady(
            "a cluster is configured (cluster.url), and the extra `cluster` is not installed",
            hint="pip install 'gremlins-fleet[cluster]', or unset GREMLINS_CLUSTER__URL",
        )


class ClusterDb:
    """One connection, for several threads. Each statement is a transaction; it is sent again when the connection
    dropped, so it must be one that may run twice."""

    def __init__(self, url: str, *, patience: float = 0.0, clock: Clock | None = None) -> None:
        self._connection: Any = None
        need_extra()
        self.url = url
        self.patience = patience
        self.clock = clock or SystemClock()
        self._lock = threading.RLock()

    def rows(self, sql: str, values: Values | None = None) -> list[tuple[Any, ...]]:
        return self.again(lambda connection: list(connection.execute(sql, values).fetchall()))

    def value(self, sql: str, values: Values | None = None) -> Any:
        """The first column of the first row, or None."""
        found = self.rows(sql, values)
        return found[0][0] if found else None

    def run(self, sql: str, values: Values | None = None) -> int:
        """The number of rows that were changed."""
        return self.again(lambda connection: int(connection.execute(sql, values).rowcount))

    def again(self, work: Callable[[Any], T]) -> T:
        """Do something with the connection, from its beginning where that drops. Raises ClusterAway, GremlinsError."""
        deadline = self.clock.monotonic() + self.patience
        with self._lock:
            while True:
                try:
                    with self.translated():
                        return work(self.connection())
                except ClusterAway:
                    if self.clock.monotonic() >= deadline:
                        raise
                    self.clock.sleep(PAUSE)

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Raises the driver's errors as ours. A connection that dropped is closed."""
        import psycopg

        try:
            yield
        except psycopg.errors.LockNotAvailable:
            raise
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self.close()
            raise self._away(error) from error
        except psycopg.errors.UndefinedTable as error:
            raise _not_initialized() from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise NotReady(f"the database refuses: {_line(error)}", hint="see docs/cluster.md") from error

    @property
    def in_transaction(self) -> bool:
        """Within one that was begun by a statement."""
        from psycopg.pq import TransactionStatus

        within = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
        return self._connection is not None and self._connection.info.transaction_status in within

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        """One transaction, which is not tried again."""
        with self._lock:
            connection = self.connection()
            with connection.transaction():
                yield connection

    def connection(self) -> Any:
        """The open connection."""
        import psycopg

        if self._connection is None or self._connection.closed:
            try:
                self._connection = psycopg.connect(autocommit=True, **options(self.url))
            except psycopg.ProgrammingError:  # its words hold the address, or a part of the password
                raise NotReady("cluster.url is no database address", hint=FORM) from None
        return self._connection

    def close(self) -> None:
        with contextlib.suppress(Exception):
            if self._connection is not None:
                self._connection.close()
        self._connection = None

    def __del__(self) -> None:
        self.close()

    def _away(self, error: Exception) -> ClusterAway:
        return ClusterAway(
            f"the cluster's database cannot be reached: {without_password(_line(error))}",
            hint="nothing is lost: once cluster.url leads to the database again, what waits goes on",
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _not_initialized() -> NotReady:
    return NotReady("the database holds no fleet yet", hint="`gremlins cluster init` makes its tables")


def version(db: ClusterDb) -> tuple[int, str] | None:
    """The number of our migrations that it has, and the engine's last one. None: it is not initialized."""
    if db.value("SELECT to_regclass(%(name)s) IS NULL", {"name": f"{SCHEMA}.version"}):
        return None
    ours, engine = db.rows("SELECT version, engine FROM version")[0]
    return int(ours), str(engine)


def check_version(db: ClusterDb) -> None:
    """Raises NotReady for a database that this version does not know, or that has not been migrated to it."""
    found = version(db)
    if found is None:
        raise _not_initialized()
    if found[0] > VERSION:
        raise NotReady(f"the database was migrated by a newer gremlins (schema {found[0]})", hint="upgrade this one")
    if found[0] < VERSION or found[1] < _engine_migrations()[-1]:
        raise NotReady("the database has tables of an older gremlins", hint="`gremlins cluster migrate` renews them")


def migrate(db: ClusterDb, *, init: bool, scripts: Sequence[str] = MIGRATIONS) -> bool:
    """Bring the tables to this version. False: they are of it already. Raises Conflict, NotReady.

    init: only a database without our tables. Otherwise only one that has them. scripts: fewer for an older version.
    """
    found = version(db)
    if init and found is not None:
        raise Conflict("the database is initialized already", hint="`gremlins cluster migrate` renews its tables")
    if not init and found is None:
        raise _not_initialized()
    if found is not None and found[0] > VERSION:
        check_version(db)
    engine = _engine_migrations()
    with db.transaction() as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%(n)s)", {"n": LOCK})
        if init:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            connection.execute("CREATE TABLE version (version integer NOT NULL, engine text NOT NULL)")
            connection.execute("INSERT INTO version VALUES (0, '')")
        ours, last = connection.execute("SELECT version, engine FROM version FOR UPDATE").fetchone()
        if last == "":
            connection.execute((_engine_sql() / "schema.sql").read_text())
        else:
            for name in engine:
                if name > last:
                    connection.execute((_engine_sql() / "migrations" / name).read_text())
        for script in scripts[ours:]:
            connection.execute(script)
        connection.execute("UPDATE version SET version = %(v)s, engine = %(e)s", {"v": len(scripts), "e": engine[-1]})
    return (ours, last) != (len(scripts), engine[-1])


def _engine_sql() -> Path:
    """The engine's own tables and migrations, found without its import, which takes a third of a second."""
    found = importlib.util.find_spec("procrastinate")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "sql"


def _engine_migrations() -> list[str]:
    return sorted(each.name for each in (_engine_sql() / "migrations").iterdir() if each.name.endswith(".sql"))
