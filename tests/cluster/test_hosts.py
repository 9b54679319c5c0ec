"""Gremlins over several hosts: real workers, with state roots and clones of their own."""

from __future__ import annotations

import contextlib
import json
from typing import Any
from urllib.parse import urlsplit

from gremlins.clock import SystemClock
from gremlins.cluster.database import ClusterDb
from gremlins.fleet.status import look, survey
from gremlins.paths import Home
from tests.cluster.conftest import FOREVER
from tests.cluster.machines import ASK, Cluster, Machine, soak

CHANGE = """
stages:
  - {type: agent, name: ask, prompt: .gremlins/prompts/summary.md, mode: batch}
  - {type: implement, mode: batch}
"""


def edit(text: str) -> dict[str, Any]:
    return {"edits": [{"path": "hello.txt", "content": f"{text}\n"}], "summary": f"F1: done, {text}"}


def end_batches(cluster: Cluster) -> None:
    cluster.simulator.change(latency=0.0)
    cluster.simulator.advance(FOREVER + 1)


def states_of(machine: Machine) -> dict[str, str]:
    """The whole fleet, as that host sees it; read without starting a process."""
    rows = survey(Home.from_env(machine.env), SystemClock(), everything=True).rows
    return {row.record.id: row.life.state for row in rows}


def is_so(machine: Machine, **states: str) -> bool:
    return states_of(machine) == states


def test_a_parked_gremlin_needs_no_process_and_goes_on_where_a_host_is_left(cluster: Cluster) -> None:
    cluster.found({"a.txt": "a\n"}, ask=ASK)
    one, two, desk = cluster.machine("one"), cluster.machine("two"), cluster.machine("desk")
    one.work()
    assert desk.ok("launch", "ask", "--id", "g") == "g\n"
    cluster.until(lambda: is_so(desk, g="parked"), "it parked")
    cluster.until(lambda: len(one.processes()) == 1, "no process but the worker")
    shown = desk.show("g")
    assert shown["batch"]["batch_id"] == cluster.simulator.batches[0].id
    assert shown["batch"]["next_poll_at"]
    assert shown["liveness"]["pid"] is None
    one.go_off()
    two.work(python=two.python)
    end_batches(cluster)
    cluster.until(lambda: is_so(desk, g="finished"), "the other host went on")
    assert len(cluster.simulator.batches) == 1
    assert desk.show("g")["cost"]["total_usd"] > 0


def test_every_verb_from_a_host_without_a_worker(cluster: Cluster, script: list[object]) -> None:
    cluster.found({"a.txt": "a\n"}, change=CHANGE, ask=ASK)
    one, desk = cluster.machine("one"), cluster.machine("desk")
    one.work(python=one.python)
    cluster.simulator.change(latency=0.0)
    script += ["BAIL: needs_human: which?", "BAIL: needs_human: still", edit("hello"), edit("hello again")]
    desk.ok("launch", "change", "write hello.txt", "--id", "g")
    cluster.until(lambda: is_so(desk, g="bailed"), "its question")
    assert "which?" in desk.ok("show", "g")
    assert desk.run("land", "g").code == 4
    assert desk.run("rescue", "nobody").code == 6
    desk.ok("answer", "g", "the first")
    cluster.until(lambda: len(cluster.simulator.batches) == 2 and is_so(desk, g="bailed"), "it asked again")
    desk.ok("ack", "g")
    assert "finished" in desk.ok("log", "g", "-f")
    assert "hello" in desk.ok("diff", "g")
    assert desk.run("rescue", "g").code == 4
    desk.ok("revise", "g", "once more")
    cluster.until(lambda: is_so(desk, g="finished"), "the round of revision")
    desk.ok("land", "g", "--dry-run")
    desk.ok("land", "g")
    assert (desk.repo.path / "hello.txt").read_text() == "hello again\n"
    assert desk.run("land", "g").code == 4
    assert len(cluster.simulator.batches) == 4
    health = json.loads(desk.run("doctor", "--json").out)
    assert [check["verdict"] for check in health["checks"] if check["name"] == "cluster"] == ["ok"]
    assert desk.run("cluster", "init").code == 4
    assert "worker: " in desk.ok("cluster", "status")


@soak
def test_what_is_parked_is_stopped_rescued_and_removed_from_elsewhere(cluster: Cluster) -> None:
    cluster.found({"a.txt": "a\n"}, ask=ASK)
    one, desk = cluster.machine("one"), cluster.machine("desk")
    one.work()
    desk.ok("launch", "ask", "--id", "h")
    cluster.until(lambda: is_so(desk, h="parked"), "it parked")
    for refused in (("rescue", "h"), ("rm", "h"), ("ack", "h"), ("launch", "ask", "--id", "h")):
        assert desk.run(*refused).code == 4, refused
    assert "h: stopped" in desk.ok("stop", "h")
    assert desk.ok("rescue", "h").startswith("h: was stopped")
    cluster.until(lambda: is_so(desk, h="parked"), "it parked once more")
    desk.ok("rm", "--force", "h")
    assert is_so(desk)
    assert cluster.remote.git("for-each-ref", "refs/gremlins") == ""
    assert [batch.status for batch in cluster.simulator.batches] == ["ended", "ended"]
    cost = json.loads(desk.ok("cost", "--json"))
    assert [row["key"] for row in cost["rows"]] in ([], ["h"])


def test_a_local_fleet_goes_over_parked_and_back_and_pays_nothing_again(cluster: Cluster) -> None:
    cluster.found({"a.txt": "a\n"}, ask=ASK)
    desk = cluster.machine("desk")
    alone = {"GREMLINS_CLUSTER__URL": ""}
    desk.ok("launch", "ask", "--id", "g", env=alone)
    local = Home.from_env({**desk.env, **alone})

    def parked_alone() -> bool:
        row = look(local, "g", SystemClock())
        return row.life.state == "parked" and bool(row.seen.outstanding)

    cluster.until(parked_alone, "it parked here alone")
    assert "going on" in desk.ok("cluster", "adopt", "g")
    assert desk.run("status", "g", env=alone).code == 6
    cluster.until(lambda: is_so(desk, g="parked"), "the cluster has it")
    assert "going on" in desk.ok("cluster", "adopt", "--all", "--back")
    assert is_so(desk)
    # Its record says parked before its process has gone on, and running for a moment then.
    cluster.until(lambda: desk.run("cluster", "adopt", "g").code == 0, "it is parked here again, and taken over")
    desk.work(python=desk.python)
    end_batches(cluster)
    cluster.until(lambda: is_so(desk, g="finished"), "it finished in the cluster")
    assert len(cluster.simulator.batches) == 1
    assert json.loads(desk.ok("cost", "--json"))["total_usd"] > 0


def test_a_worker_takes_only_what_its_host_can_pay_for_and_no_secret_is_stored(cluster: Cluster) -> None:
    cluster.found({"a.txt": "a\n"}, ask=ASK)
    bare, able = cluster.machine("bare", ANTHROPIC_API_KEY=""), cluster.machine("able")
    bare.work(python=bare.python)
    bare.ok("launch", "ask", "--id", "g")
    with contextlib.closing(ClusterDb(cluster.url)) as db:
        tends = "SELECT coalesce(max(defer_timestamp), 0) FROM procrastinate_periodic_defers"
        cluster.until(lambda: db.value(tends) > 0, "its first look for work")
        before = db.value(tends)
        cluster.until(lambda: db.value(tends) > before + 2, "the worker without a key looked for work")
        assert db.value("SELECT fence FROM gremlin") == 1
        able.work(python=able.python)
        cluster.until(lambda: is_so(bare, g="parked"), "the other took it")
        cluster.until(lambda: (db.value("SELECT requests FROM account") or 0) > 2, "some polls")
        end_batches(cluster)
        cluster.until(lambda: is_so(bare, g="finished"), "it finished")
        assert db.value("SELECT count(DISTINCT host) FROM gremlin") == 1
        password = urlsplit(cluster.url).password
        for secret in (cluster.simulator.key, password):
            for table in ("document", "line", "gremlin", "spending", "procrastinate_jobs", "account"):
                found = db.value(
                    f"SELECT count(*) FROM {table} t WHERE position(%(s)s in t::text) > 0 OR "
                    f"position(%(hex)s in t::text) > 0",
                    {"s": secret, "hex": str(secret).encode().hex()},
                )
                assert found == 0, (table, secret)


@soak
def test_many_workers_poll_an_account_once_an_interval(cluster: Cluster) -> None:
    cluster.found({"a.txt": "a\n"}, ask=ASK)
    slow = {"GREMLINS_BATCH__POLL_INITIAL": "2", "GREMLINS_BATCH__POLL_MAX": "2"}
    hosts = [cluster.machine(name, **slow) for name in ("one", "two", "three")]
    for host in hosts:
        host.work()
    for number in range(4):
        hosts[0].ok("launch", "ask", "--id", f"g{number}")
    names = [f"g{number}" for number in range(4)]
    cluster.until(lambda: is_so(hosts[0], **dict.fromkeys(names, "parked")), "all parked")
    with contextlib.closing(ClusterDb(cluster.url)) as db:
        asked = "SELECT requests, extract(epoch FROM polled_at)::float8 FROM account"
        cluster.until(lambda: db.rows(asked)[0][1] is not None, "a first poll")
        first, began = db.rows(asked)[0]
        cluster.until(lambda: db.rows(asked)[0][0] >= first + 3, "three more")
        more, ended = db.rows(asked)[0]
        assert (ended - began) / (more - first) >= 2.0
        assert db.value("SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'step' AND status = 'todo'") == 0
    end_batches(cluster)
    cluster.until(lambda: is_so(hosts[0], **dict.fromkeys(names, "finished")), "all finished")
    assert len(cluster.simulator.batches) == 4
