"""The documents of one gremlin behind one interface: a folder, or rows of PostgreSQL whose every change is fenced."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from gremlins.cluster.database import ClusterDb
from gremlins.errors import Conflict
from gremlins.files import append_text, make_private_dir, read_file, remove_file, write_atomic
from gremlins.records.calls import RAW_LIMIT

NOT_DOCUMENTS = frozenset({"lock", "work.lock", "activity", "output", "wait.json", "relocation.json"})
"""Files of a host, in a gremlin's folder."""


class FencedOut(Conflict):
    """The gremlin was taken by another process since, or is removed: what this one says counts no more."""

    def __init__(self, gremlin_id: str) -> None:
        super().__init__(f"{gremlin_id} has been taken over by another process, or removed")


class Documents(Protocol):
    """Documents by name (`calls/plan.a1.t1.r1.json`). A reader, or a crash, sees the old content or the new one."""

    def write(self, name: str, content: bytes) -> None: ...

    def append(self, name: str, line: bytes) -> None: ...

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""

    def remove(self, name: str) -> None: ...

    def all(self) -> dict[str, bytes]:
        """Every document, by its name."""


class FolderDocuments:
    """Files below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        make_private_dir(path.parent)
        write_atomic(path, content)

    def append(self, name: str, line: bytes) -> None:
        make_private_dir(self.folder)
        append_text(self.folder / name, line)

    def read(self, name: str) -> bytes:
        return read_file(self.folder / name, RAW_LIMIT)

    def remove(self, name: str) -> None:
        remove_file(self.folder / name)

    def all(self) -> dict[str, bytes]:
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and not path.is_symlink() and name not in NOT_DOCUMENTS and not _is_draft(path):
                found[name] = read_file(path, RAW_LIMIT)
        return found


def _is_draft(path: Path) -> bool:
    return path.name.endswith(".tmp")


_FENCED = "WITH own AS (SELECT id FROM gremlin WHERE id = %(id)s AND fence = %(fence)s FOR SHARE) "


class PostgresDocuments:
    """Rows of one gremlin. Each change is one statement that holds only while the fencing number is the present one."""

    def __init__(self, db: ClusterDb, gremlin_id: str, fence: int) -> None:
        self.db = db
        self.gremlin_id = gremlin_id
        self.fence = fence

    def write(self, name: str, content: bytes) -> None:
        self._change(
            "INSERT INTO document (gremlin, name, content, fence) "
            "SELECT id, %(name)s, %(content)s, %(fence)s FROM own "
            "ON CONFLICT (gremlin, name) DO UPDATE SET content = excluded.content, fence = excluded.fence, at = now()",
            name=name,
            content=content,
        )

    def append(self, name: str, line: bytes) -> None:
        # The key makes a line that is sent again, because its commit was not heard of, the same line.
        self._change(
            "INSERT INTO line (gremlin, name, key, content) SELECT id, %(name)s, %(key)s, %(content)s FROM own "
            "ON CONFLICT (key) DO UPDATE SET content = excluded.content",
            name=name,
            key=uuid.uuid4(),
            content=line,
        )

    def remove(self, name: str) -> None:
        if not self.db.run(
            _FENCED + ", gone AS (DELETE FROM document USING own WHERE gremlin = own.id AND name = %(name)s) "
            "SELECT id FROM own",
            {"id": self.gremlin_id, "fence": self.fence, "name": name},
        ):
            raise FencedOut(self.gremlin_id)

    def read(self, name: str) -> bytes:
        found = self.db.value(
            "SELECT content FROM document WHERE gremlin = %(id)s AND name = %(name)s",
            {"id": self.gremlin_id, "name": name},
        )
        if found is None:
            found = self._lines().get(name)
        if found is None:
            raise FileNotFoundError(name)
        return bytes(found)

    def all(self, here: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
        """Every document, by its name. Those that are the same here are not sent."""
        here = here or {}
        rows = self.db.rows(
            "SELECT d.name, CASE WHEN sha256(d.content) IS DISTINCT FROM h.digest THEN d.content END FROM document d "
            "LEFT JOIN unnest(%(names)s::text[], %(digests)s::bytea[]) h(name, digest) ON h.name = d.name "
            "WHERE d.gremlin = %(id)s",
            {"id": self.gremlin_id, "names": [*here], "digests": [sha256(each).digest() for each in here.values()]},
        )
        found = {name: here[name] if content is None else bytes(content) for name, content in rows}
        return dict(sorted({**found, **self._lines()}.items()))

    def _lines(self) -> dict[str, bytes]:
        rows = self.db.rows(
            "SELECT name, string_agg(content, ''::bytea ORDER BY n) FROM line WHERE gremlin = %(id)s GROUP BY name",
            {"id": self.gremlin_id},
        )
        return {name: bytes(content) for name, content in rows}

    def _change(self, sql: str, **values: object) -> None:
        if not self.db.run(_FENCED + sql, {"id": self.gremlin_id, "fence": self.fence, **values}):
            raise FencedOut(self.gremlin_id)
