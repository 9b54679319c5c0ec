"""The documents of a gremlin: a folder and rows of PostgreSQL keep to one contract, with a kill at every write."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gremlins.cluster import rows
from gremlins.cluster.database import ClusterAway, ClusterDb, Values, check_version, migrate
from gremlins.cluster.documents import Documents, FencedOut, FolderDocuments, PostgresDocuments
from gremlins.cluster.schema import MIGRATIONS
from gremlins.errors import Conflict, NotReady
from tests.postgres import PostgresServer
from tests.time_limit import DEADLINE

Make = Callable[[], Documents]


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> str:
    url = postgres.new_database()
    migrate(ClusterDb(url), init=True)
    return url


@pytest.fixture(params=["folder", "postgres"])
def documents(request: pytest.FixtureRequest, tmp_path: Path) -> Documents:
    if request.param == "folder":
        return FolderDocuments(tmp_path / "g")
    url = request.getfixturevalue("database")
    return in_rows(url, tmp_path.name)


def in_rows(url: str, name: str) -> PostgresDocuments:
    db = ClusterDb(url)
    taken = rows.create(db, name, uid=name, remote="file:///r", needs="anything")
    return PostgresDocuments(db, name, taken.fence)


def test_documents_are_what_was_written_last(documents: Documents) -> None:
    with pytest.raises(FileNotFoundError):
        documents.read("state.json")
    documents.write("state.json", b"one")
    documents.write("state.json", b"two \0 \xff")
    documents.write("calls/a b[1].json", b"")
    documents.append("log", b"first\n")
    documents.append("log", b"second\n")
    assert documents.read("state.json") == b"two \0 \xff"
    assert documents.all() == {
        "calls/a b[1].json": b"", "log": b"first\nsecond\n", "state.json": b"two \0 \xff",
    }  # fmt: skip
    documents.remove("calls/a b[1].json")
    documents.remove("calls/a b[1].json")
    documents.remove("never.json")
    assert sorted(documents.all()) == ["log", "state.json"]


WRITER = """
import os, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from gremlins.cluster.database import ClusterDb
from gremlins.cluster.documents import FolderDocuments, PostgresDocuments
kind, place, name, fence = sys.argv[1:]
documents = FolderDocuments(Path(place)) if kind == "folder" else PostgresDocuments(ClusterDb(place), name, int(fence))
sys.stdin.readline()
for n in range(10_000):
    documents.write("state.json", b"%06d" % n * 5000)
    documents.append("log", b"%06d\\n" % n)
    if n == 3:
        print("going", flush=True)
"""


def test_a_kill_at_any_write_leaves_the_old_or_the_new(documents: Documents, tmp_path: Path) -> None:
    if isinstance(documents, FolderDocuments):
        words = ["folder", str(documents.folder), "g", "0"]
    else:
        assert isinstance(documents, PostgresDocuments)
        words = ["postgres", documents.db.url, documents.gremlin_id, str(documents.fence)]
    root = str(Path(__file__).parents[2])
    for pause in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER.format(root=root), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(b"\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == b"going\n"
        for _ in range(pause):  # reading takes its time, so each kill meets another write
            documents.all()
        writer.kill()
        writer.wait(DEADLINE)
        writer.stdin.close()
        writer.stdout.close()
        state, log = documents.read("state.json"), documents.read("log")
        assert len(state) == 30_000
        assert len({state[i : i + 6] for i in range(0, 30_000, 6)}) == 1
        assert all(len(line) == 6 for line in log.splitlines())


def test_what_another_has_taken_is_written_no_more(database: str) -> None:
    mine = in_rows(database, "fenced")
    mine.write("state.json", b"mine")
    theirs = rows.take_over(mine.db, "fenced", host="there", stale=15)
    assert theirs.fence == mine.fence + 1
    for refused in (
        lambda: mine.write("state.json", b"late"),
        lambda: mine.append("log", b"late\n"),
        lambda: mine.remove("state.json"),
    ):
        with pytest.raises(FencedOut):
            refused()
    assert mine.all() == {"state.json": b"mine"}
    assert not rows.give_back(mine.db, rows.Taken("fenced", mine.fence, "", "", None))
    rows.remove(mine.db, theirs)
    with pytest.raises(FencedOut):
        PostgresDocuments(mine.db, "fenced", theirs.fence).write("state.json", b"gone")


def test_of_two_that_take_at_once_each_has_its_own_number(database: str) -> None:
    first, second = in_rows(database, "two").db, ClusterDb(database)
    with first.transaction() as connection:
        connection.execute("UPDATE gremlin SET fence = fence + 1 WHERE id = 'two'")
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; from gremlins.cluster import rows; "
             "from gremlins.cluster.database import ClusterDb; db = ClusterDb(sys.argv[1]); db.value('SELECT 1'); "
             "print('ready', flush=True); print(rows.take_over(db, 'two', host='there', stale=15).fence)", database],
            stdout=subprocess.PIPE, text=True, env={**os.environ},
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    assert child.stdout.readline() == "3\n"
    child.stdout.close()
    assert child.wait(DEADLINE) == 0
    assert second.value("SELECT fence FROM gremlin WHERE id = 'two'") == 3


def test_a_connection_that_drops_is_made_again_and_the_write_sent_once_more(database: str) -> None:
    mine = in_rows(database, "dropped")
    mine.append("log", b"before\n")
    mine.db.patience = DEADLINE
    killer = ClusterDb(database)
    for number in range(3):
        pid = mine.db.connection().info.backend_pid
        killer.value("SELECT pg_terminate_backend(%(pid)s)", {"pid": pid})
        mine.append("log", b"after %d\n" % number)
    assert mine.read("log") == b"before\nafter 0\nafter 1\nafter 2\n"
    mine.db.patience = 0.0
    killer.value("SELECT pg_terminate_backend(%(pid)s)", {"pid": mine.db.connection().info.backend_pid})
    with pytest.raises(ClusterAway):
        mine.write("state.json", b"x")


def test_tables_are_made_once_and_renewed_by_number(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    db = ClusterDb(url)
    with pytest.raises(NotReady, match="no fleet yet"):
        check_version(db)
    with pytest.raises(NotReady, match="no fleet yet"):
        migrate(db, init=False)
    assert migrate(db, init=True)
    with pytest.raises(Conflict, match="initialized already"):
        migrate(db, init=True)
    assert not migrate(db, init=False)
    check_version(db)
    db.run("UPDATE version SET version = %(v)s", {"v": len(MIGRATIONS) + 1})
    for refused in (lambda: check_version(db), lambda: migrate(db, init=False)):
        with pytest.raises(NotReady, match="newer gremlins"):
            refused()


def test_tables_of_the_first_version_become_those_of_a_new_database_with_what_they_hold(
    postgres: PostgresServer,
) -> None:
    old, new = ClusterDb(postgres.new_database()), ClusterDb(postgres.new_database())
    migrate(old, init=True, scripts=MIGRATIONS[:1])
    taken = rows.create(old, "g", uid="u", remote="file:///r", needs="anything")
    old.run("INSERT INTO document VALUES ('g', 'state.json', 'kept', 1)")
    with pytest.raises(NotReady, match="older gremlins"):
        check_version(old)
    assert migrate(old, init=False)
    check_version(old)
    migrate(new, init=True)
    shape = (
        "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns "
        "WHERE table_schema = 'gremlins' ORDER BY 1, 2"
    )
    assert old.rows(shape) == new.rows(shape)
    assert PostgresDocuments(old, "g", taken.fence).all() == {"state.json": b"kept"}


def test_a_worker_takes_nothing_from_tables_of_another_version(postgres: PostgresServer) -> None:
    db = ClusterDb(postgres.new_database())
    migrate(db, init=True)
    rows.create(db, "g", uid="u", remote="file:///r", needs="anything")
    rows.wake(db, "g")
    db.run("UPDATE version SET version = version + 1")
    assert rows.take_step(db, "g", worker=1, host="here", stale=15) is None
    db.run("UPDATE version SET version = version - 1")
    assert rows.take_step(db, "g", worker=1, host="here", stale=15) is not None


def test_what_is_the_same_here_is_not_sent_again(database: str) -> None:
    theirs = in_rows(database, "sent")
    for name in ("same", "other", "gone"):
        theirs.write(name, name.encode() * 100_000)
    sent = 0

    class Counting(ClusterDb):
        def rows(self, sql: str, values: Values | None = None) -> list[tuple[Any, ...]]:
            nonlocal sent
            found = super().rows(sql, values)
            sent += sum(len(each) for row in found for each in row if isinstance(each, bytes))
            return found

    mine = PostgresDocuments(Counting(database), "sent", theirs.fence)
    here = {"same": b"same" * 100_000, "other": b"else", "only here": b"x"}
    assert mine.all(here) == theirs.all()
    assert sent == len(b"other" + b"gone") * 100_000
