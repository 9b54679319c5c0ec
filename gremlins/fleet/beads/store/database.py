"""A database of beads as the statements of the store see it. They are written as SQLite reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from gremlins.fleet.beads.store.schema import StoredRow

Values = Sequence[Any] | Mapping[str, Any]


class StaleChange(Exception):
    """A row has changed since the change was decided."""


class Database(ABC):
    """One connection. Values are marked by `?`, or by `:name`."""

    TITLE: ClassVar[str]
    """The title of a bead in its `doc`, if that can be read."""
    path: Path
    """Its place, for messages."""

    @abstractmethod
    def rows(self, sql: str, values: Values = ()) -> list[StoredRow]: ...

    @abstractmethod
    def run(self, sql: str, values: Values = ()) -> int:
        """The number of rows that were changed."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Alone in writing. Commits at the end, rolls back on an error. Raises StaleChange where a key is taken."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[None]:
        """One consistent snapshot for several queries. May be nested in a transaction."""

    @abstractmethod
    def close(self) -> None: ...

    def value(self, sql: str, values: Values = ()) -> Any:
        """The first column of the first row, or None."""
        found = self.rows(sql, values)
        return found[0][0] if found else None

    def one(self, sql: str, values: Values) -> None:
        """Change exactly one row, or raise StaleChange."""
        if self.run(sql, values) != 1:
            raise StaleChange

    def insert(self, table: str, row: Mapping[str, Any]) -> None:
        columns, marks = ", ".join(row), ", ".join(f":{key}" for key in row)
        self.run(f"INSERT INTO {table} ({columns}) VALUES ({marks})", row)
