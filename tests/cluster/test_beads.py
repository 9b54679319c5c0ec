"""Beads of a cluster: one list of work for every host."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from gremlins.clock import SystemClock
from gremlins.cluster import rows
from gremlins.cluster.books import ClusterBooks
from gremlins.cluster.database import ClusterDb, migrate
from gremlins.config import Settings, SpendSettings
from gremlins.fleet.rescue import _with_commands_of_now
from gremlins.fleet.status import look
from gremlins.outcome import Failed
from gremlins.paths import Home
from gremlins.pipeline.freezing import FrozenLaunch
from gremlins.records.caps import Granted, Occupied
from gremlins.records.gremlin import DiffCount, Gremlin, Queued
from gremlins.records.spend import SpendLine
from tests.cluster.machines import ASK, Cluster
from tests.postgres import PostgresServer

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_every_host_has_the_same_beads(cluster: Cluster) -> None:
    cluster.found({"a.txt": "a\n"}, ask=ASK)
    one, two = cluster.machine("one"), cluster.machine("two")
    one.ok("bead", "create", "Say it", "--id", "remote-git-a1", "-d", "in one line")
    two.ok("bead", "create", "Say more", "--id", "remote-git-b2", "--deps", "remote-git-a1")
    assert [bead["id"] for bead in json.loads(one.ok("bead", "ready", "--json"))] == ["remote-git-a1"]
    two.ok("bead", "close", "a1", "-r", "said")
    shown = json.loads(one.ok("bead", "show", "b2", "--json"))
    assert (shown["title"], shown["gremlins"]["bucket"]) == ("Say more", "ready")
    exported = one.place / "issues.jsonl"
    exported.write_text(two.ok("bead", "export"))
    alone = {"GREMLINS_CLUSTER__URL": ""}
    assert json.loads(one.ok("bead", "list", "--json", env=alone)) == []
    assert "2 created" in one.ok("bead", "import", str(exported), env=alone)
    assert one.ok("bead", "export", env=alone) == exported.read_text()


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    url = postgres.new_database()
    with closing(ClusterDb(url)) as db:
        migrate(db, init=True)
    return url


def gremlin(name: str, bead_id: str | None = None) -> Gremlin:
    return Gremlin(
        id=name, uid=f"u-{name}", pipeline="ask", task="", title="", bead_id=bead_id, project="/p", branch="",
        worktree="/w", base="0" * 40, stage="", mode=None, client=None, diff=DiffCount(), status=Queued(since=NOW),
        created_at=NOW, updated_at=NOW,
    )  # fmt: skip


def book(db: ClusterDb, record: Gremlin, *, usd: float = 0.0, reserved: float = 0.0, days: int = 0) -> None:
    """As the write of a call's record does."""
    at = NOW - timedelta(days=days)
    line = SpendLine(record.id, record.uid, "c", at, "ask", usd, bead_id=record.bead_id)
    db.run(
        "INSERT INTO spending (uid, call, gremlin, bead_id, lines, reserved_usd, at) "
        "VALUES (%(uid)s, %(call)s, %(id)s, %(bead)s, %(lines)s, %(reserved)s, %(at)s)",
        {"uid": record.uid, "call": f"{usd}-{days}", "id": record.id, "bead": record.bead_id,
         "lines": msgspec.json.encode([line] if usd else []), "reserved": reserved, "at": at},
    )  # fmt: skip


def test_caps_count_what_every_host_has_spent_and_reserved(database: str) -> None:
    a, b = gremlin("a", "bead-1"), gremlin("b", "bead-1")
    day = SpendSettings(per_attempt=None, per_day=1.0)
    with closing(ClusterDb(database)) as one, closing(ClusterDb(database)) as two:
        for record in (a, b):
            rows.create(one, record.id, uid=record.uid, remote="file:///r", needs="anything")
        here, there = ClusterBooks(one, "a"), ClusterBooks(two, "b")
        with here.room(a, day, 0.7, NOW) as granted:
            assert isinstance(granted, Granted)
            locked = two.value("SELECT pg_try_advisory_lock(7218552)")
            assert not locked, "the other host decides after this one has written its reservation"
            book(one, a, reserved=0.7)
        with there.room(b, day, 0.7, NOW) as refused:
            assert isinstance(refused, Occupied)
        with there.room(b, day, 0.3, NOW) as fits:
            assert isinstance(fits, Granted)
        book(one, a, usd=0.9)
        one.run("UPDATE spending SET reserved_usd = 0")
        with there.room(b, day, 0.2, NOW) as spent:
            assert isinstance(spent, Failed)
        with there.room(b, day, 0.2, NOW + timedelta(days=1)) as tomorrow:
            assert isinstance(tomorrow, Granted)
        bead = SpendSettings(per_attempt=None, per_day=None, per_bead=1.0)
        book(one, a, usd=0.5, days=9)
        with there.room(b, bead, 0.05, NOW) as capped:
            assert isinstance(capped, Failed), "a bead's attempts count, on whichever host and day"
        with here.room(a, SpendSettings(per_attempt=2.0, per_day=None), 0.5, NOW) as own:
            assert isinstance(own, Granted)
        with there.room(b, SpendSettings(per_attempt=0.4, per_day=None), 0.3, NOW) as other:
            assert isinstance(other, Granted), "another gremlin's calls are not this one's"


def test_beads_go_over_with_the_fleet_and_back_and_wait_for_their_gremlin(cluster: Cluster) -> None:
    settings = {".gremlins/config.toml": '[dispatch]\npipeline = "ask"\n'}
    cluster.found({"a.txt": "a\n", **settings}, ask=ASK)
    desk, alone = cluster.machine("desk"), {"GREMLINS_CLUSTER__URL": ""}
    desk.ok("bead", "create", "Say it", "--id", "b1", env=alone)
    [started] = json.loads(desk.ok("dispatch", "--once", "--json", env=alone))["spawned"]
    local = Home.from_env({**desk.env, **alone})
    cluster.until(lambda: look(local, started["gremlin"], SystemClock()).life.state == "parked", "it parked here")
    said = desk.ok("cluster", "adopt", "--all")
    assert f"{started['gremlin']}: in the cluster" in said
    assert "1 beads of this project: in the cluster" in said
    assert json.loads(desk.ok("bead", "list", "--json", env=alone)) == []
    assert (
        json.loads(desk.ok("bead", "show", "b1", "--json"))["gremlins"]["history"][0]["gremlin_id"]
        == started["gremlin"]
    )
    report = json.loads(desk.ok("dispatch", "--once", "--json"))
    assert (report["spawned"], report["settled"], report["closed"]) == ([], [], [])
    assert "1 beads of this project: back on this host" in desk.ok("cluster", "adopt", "--all", "--back")
    assert json.loads(desk.ok("bead", "list", "--json")) == []
    assert len(cluster.simulator.batches) == 1
    desk.ok("rm", "--force", started["gremlin"], env=alone)


def test_a_rescue_without_a_clone_leaves_commands_and_settings_as_they_were_launched(tmp_path: Path) -> None:
    home = Home(tmp_path, "postgresql://elsewhere/x")
    frozen = FrozenLaunch.model_construct(settings=Settings(verify=["make test"]), pipeline=None)
    record = replace(gremlin("g"), project=str(home.mirrors / "r.git"))
    assert _with_commands_of_now(frozen, record, home, {}) == (frozen, "")
