"""Dispatching in a cluster: any worker runs the ticks of a project, one at a time, and starts nothing twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest

from gremlins.clock import FakeClock
from gremlins.cluster import ticks
from gremlins.cluster.database import ClusterDb, migrate
from gremlins.cluster.documents import FencedOut, PostgresDocuments
from gremlins.cluster.host_copy import decode_state
from gremlins.fleet.beads.store.postgres import PostgresStore
from gremlins.paths import STATE, Home
from gremlins.worker.dispatching import Ticks
from tests.cluster.machines import ASK, Cluster, Machine, soak
from tests.cluster.test_hosts import edit, end_batches, states_of
from tests.fleet.project import PROJECT, Project
from tests.postgres import PostgresServer

CHANGE = "stages:\n  - {type: implement, mode: batch}\n"
WORK = ASK.replace("name: summary", "name: ask")
SLOW = FakeClock()
"""The clock of every host here is long behind."""
SETTINGS = {".gremlins/config.toml": '[dispatch]\npipeline = "work"\ninterval = 0.5\n'}


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    url = postgres.new_database()
    with closing(ClusterDb(url)) as db:
        migrate(db, init=True)
    return url


@pytest.fixture
def two(database: str) -> Iterator[tuple[ClusterDb, ClusterDb]]:
    with closing(ClusterDb(database)) as one, closing(ClusterDb(database)) as other:
        yield one, other


def take(db: ClusterDb, host: str) -> ticks.TakenTick | None:
    return ticks.take(db, PROJECT, host=host, worker=None, stale=60.0, remote="file:///r")


def over(db: ClusterDb) -> None:
    """As if the tick under way had been silent for the whole of its lease."""
    db.run("UPDATE dispatching SET busy_until = now() - interval '1 s'")


def test_of_two_ticks_at_once_one_is_taken(two: tuple[ClusterDb, ClusterDb]) -> None:
    one, other = two
    first = take(one, "one")
    assert first is not None
    assert take(other, "other") is None
    ticks.end(one, first, seconds=5.0, said=None)
    of_a_dead_worker = ticks.take(one, PROJECT, host="one", worker=99, stale=60.0, remote="file:///r")
    assert of_a_dead_worker is not None
    assert take(other, "other") == ticks.TakenTick(PROJECT, first.fence + 2)


def test_a_tick_that_was_paused_for_long_claims_nothing(two: tuple[ClusterDb, ClusterDb]) -> None:
    one, other = two
    paused, present = Project(PostgresStore(one)), Project(PostgresStore(other))
    present.add("a-1", "a-2")
    for db, project in ((one, paused), (other, present)):
        taken = take(db, "host")
        assert taken is not None
        project.store.db.guard = partial(ticks.keep, tick=taken)  # type: ignore[attr-defined]
        over(other)
    with pytest.raises(FencedOut):
        paused.tick()
    assert paused.fleet.table == {}
    assert present.store.under_way(PROJECT).works == ()
    present.tick()
    assert len(present.store.under_way(PROJECT).works) == 2


def tick_on(machine: Machine, db: ClusterDb, **env: str) -> list[str]:
    """Run a due tick as this host's worker does. Returns its warnings."""
    home, said = Home.from_env(machine.env), list[str]()
    db.run("UPDATE dispatching SET next_tick = now()")
    [(project,)] = db.rows("SELECT project FROM dispatching")
    with closing(Ticks(home, {**machine.env, **env}, machine.name, 60.0, said.append, SLOW)) as of_host:
        of_host.run(db, project, 1)
    return said


def test_ticks_of_two_hosts_start_a_bead_once_and_say_what_is_missing(cluster: Cluster) -> None:
    cluster.found({"a.txt": "a\n", **SETTINGS}, work=WORK)
    one, two = cluster.machine("one"), cluster.machine("two")
    one.ok("bead", "create", "Say it", "--id", "b1")
    assert one.run("dispatch", "--land").code == 5
    assert one.run("dispatch", "--until-idle").code == 2
    assert "the cluster's workers dispatch" in one.ok("dispatch")
    with closing(ClusterDb(cluster.url)) as db:
        assert tick_on(one, db, ANTHROPIC_API_KEY="") == []
        assert "nothing is started: " in one.ok("dispatch", "status")
        assert tick_on(two, db) == tick_on(one, db) == tick_on(two, db) == []
        assert db.value("SELECT count(*) FROM attempts WHERE spawned_at IS NOT NULL") == 1
        assert db.value("SELECT abs(claimed_at - extract(epoch FROM now())) < 3600 FROM attempts"), (
            "the database's time"
        )
        assert db.rows("SELECT held_by, due <= now() FROM gremlin") == [(None, True)]
    assert "the loop ends" in two.ok("dispatch", "stop")
    assert "no loop runs" in one.ok("dispatch", "stop")


@soak
def test_a_dependent_starts_from_work_that_only_the_remote_has(cluster: Cluster, script: list[object]) -> None:
    cluster.found({"a.txt": "a\n", **SETTINGS}, change=CHANGE)
    second = {"edits": [{"path": "more.txt", "content": "second\n"}], "summary": "F1: done"}
    script += [edit("first"), second]
    one, two, desk = cluster.machine("one"), cluster.machine("two"), cluster.machine("desk")
    desk.ok("bead", "create", "Say it", "--id", "b1")
    desk.ok("bead", "create", "Say more", "--id", "b2", "--deps", "b1")
    assert "it may start" in desk.ok("dispatch", "--explain", "b1", "--pipeline", "change")
    cluster.simulator.change(latency=0.0)
    one.work()
    report = json.loads(desk.ok("dispatch", "--once", "--json", "--pipeline", "change"))
    [first] = [each["gremlin"] for each in report["spawned"]]
    cluster.until(lambda: states_of(desk) == {first: "finished"}, "the first is done")
    one.go_off()
    two.work()
    desk.ok("dispatch", "--pipeline", "change")
    with closing(ClusterDb(cluster.url)) as db:
        cluster.until(lambda: db.value("SELECT count(*) FROM beads WHERE status = 'closed'") == 2, "both are done")
        gremlin_id = db.value("SELECT gremlin_id FROM attempts WHERE bead_id = 'b2'")
        record = decode_state(PostgresDocuments(db, gremlin_id, 0).read(STATE), gremlin_id)
    assert record.builds_on == (first,)
    assert cluster.remote.git("show", f"{record.base}:hello.txt") == "first"
    assert len(cluster.simulator.batches) == 2
    assert "last tick" in desk.ok("dispatch", "status")


@soak
def test_a_worker_that_is_killed_leaves_no_bead_undone_and_none_done_twice(cluster: Cluster) -> None:
    cluster.found({"a.txt": "a\n", **SETTINGS}, work=WORK)
    one, two, desk = cluster.machine("one"), cluster.machine("two"), cluster.machine("desk")
    for number in range(4):
        desk.ok("bead", "create", f"Say {number}", "--id", f"b{number}")
    one.work()
    desk.ok("dispatch")
    with closing(ClusterDb(cluster.url)) as db:
        cluster.until(lambda: db.value("SELECT count(*) FROM attempts") > 0, "a tick claimed some")
        one.go_off()
        two.work()
        end_batches(cluster)
        cluster.until(lambda: db.value("SELECT count(*) FROM beads WHERE status = 'closed'") == 4, "all are done")
        assert db.value("SELECT count(*) FROM attempts") == 4
        assert db.value("SELECT count(*) FROM gremlin") == 4
    assert len(cluster.simulator.batches) == 4
