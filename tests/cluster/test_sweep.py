"""A host's copies of gremlins that were removed elsewhere go, and nothing goes that only this host has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="the extra `cluster` is not installed")
from gremlins.clock import FakeClock
from gremlins.cluster import rows
from gremlins.cluster.database import ClusterDb, migrate
from gremlins.fleet.sweep import sweep
from gremlins.paths import Home
from gremlins.processes.locks import GremlinLock
from gremlins.records.gremlin import Stopped
from gremlins.repository.remote_work import mirror
from tests.conftest import Repo, make_repo
from tests.fleet.records import Root, ago, record
from tests.postgres import PostgresServer


@dataclass
class Host:
    """A host with copies of gremlins, in a mirror of its project."""

    home: Home
    db: ClusterDb
    mirror: Repo
    base: str

    def copy(self, gremlin_id: str, files: dict[str, str]) -> Repo:
        """The copy of a gremlin that was stopped, with a commit, and with files in no commit."""
        tree = Repo(self.home.worktree(gremlin_id))
        branch = f"gremlins/{gremlin_id}"
        self.paid(gremlin_id)
        self.mirror.git("worktree", "add", "--quiet", "-b", branch, str(tree.path), self.base)
        tree.commit({"done.txt": "done\n"})
        tree.write(files)
        status = Stopped(since=ago(60), by="a person", reason="stop")
        Root(self.home).put(
            record(gremlin_id, status, base=self.base, project=str(self.mirror.path), worktree=str(tree.path))
        )
        return tree

    def paid(self, gremlin_id: str) -> None:
        """Its spending in the database, which outlives it."""
        self.db.run(
            "INSERT INTO spending (uid, call, gremlin, lines) VALUES (%(uid)s, 'a', %(id)s, '')",
            {"uid": f"uid-{gremlin_id}", "id": gremlin_id},
        )

    def sweep(self) -> list[str]:
        said: list[str] = []
        sweep(self.home, self.db, FakeClock(), said.append)
        return said

    def refs(self) -> list[str]:
        return self.mirror.git("for-each-ref", "--format=%(refname)").split()


@pytest.fixture
def host(tmp_path: Path, postgres: PostgresServer) -> Host:
    remote = make_repo(tmp_path / "remote")
    base = remote.commit({"a.txt": "a\n"})
    home = Home(tmp_path / "state", postgres.new_database())
    db = ClusterDb(home.cluster)
    migrate(db, init=True)
    place = Repo(mirror(home, remote.path.as_uri(), sha256_objects=False))
    place.git("fetch", "--quiet", "origin", base)
    return Host(home, db, place, base)


def test_the_copy_of_a_removed_gremlin_goes_and_others_stay(host: Host) -> None:
    gone, there = host.copy("gone", {}), host.copy("there", {})
    rows.create(host.db, "there", uid="uid-there", remote="file:///r", needs="anything")
    (host.home.gremlin("nothing").root).mkdir()
    assert [line.split()[0] for line in host.sweep()] == ["gone", "nothing"]
    assert [path.name for path in host.home.gremlins.iterdir()] == ["there"]
    assert not gone.path.exists()
    assert there.path.exists()
    assert host.refs() == ["refs/heads/gremlins/there"]
    assert host.sweep() == []


def test_what_the_database_never_knew_stays(host: Host) -> None:
    tree = host.copy("newer", {})
    host.db.run("DELETE FROM spending")  # an older database was restored, or it is another one
    assert host.sweep() == []
    assert host.home.gremlin("newer").state.exists()
    assert tree.path.exists()


def test_files_in_no_commit_are_kept_as_a_ref(host: Host) -> None:
    host.copy("gone", {"mine.txt": "a person's\n"})
    (said,) = host.sweep()
    (kept,) = host.refs()
    assert kept in said
    assert host.mirror.git("show", f"{kept}:mine.txt") == "a person's"


def test_a_copy_that_a_process_has_stays_until_it_ends(host: Host) -> None:
    tree = host.copy("gone", {})
    with GremlinLock.acquire(host.home.gremlin("gone").lock, "runner"):
        (said,) = host.sweep()
        assert said.startswith("warning: the copy of gone")
    assert tree.path.exists()
    host.sweep()
    assert not tree.path.exists()


def test_a_persons_own_clone_keeps_its_branch(host: Host, tmp_path: Path) -> None:
    clone = make_repo(tmp_path / "clone")
    base = clone.commit({"b.txt": "b\n"})
    clone.git("branch", "gremlins/gone")
    Root(host.home).put(
        record("gone", Stopped(since=ago(60), by="a person", reason="stop"), base=base, project=str(clone.path))
    )
    host.paid("gone")
    host.sweep()
    assert list(host.home.gremlins.iterdir()) == []
    assert clone.git("branch", "--list", "gremlins/gone").strip() == "gremlins/gone"
