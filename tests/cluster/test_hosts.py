"""Gremlins over several hosts: real workers, with state roots and clones of their own."""

from __future__ import annotations

import json
from typing import Any

from gremlins.clock import SystemClock
from gremlins.fleet.status import look, survey
from gremlins.paths import Home
from tests.cluster.conftest import FOREVER
from tests.cluster.machines import ASK, Cluster, Machine

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


def is_so(machine: Machine, **states: str) -> bool:
    """True if this is the whole fleet, as that host sees it; read without starting a process."""
    rows = survey(Home.from_env(machine.env), SystemClock(), everything=True).rows
    return {row.record.id: row.life.state for row in rows} == states


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
    two.work()
    end_batches(cluster)
    cluster.until(lambda: is_so(desk, g="finished"), "the other host went on")
    assert len(cluster.simulator.batches) == 1
    assert desk.show("g")["cost"]["total_usd"] > 0


def test_every_verb_from_a_host_without_a_worker(cluster: Cluster, script: list[object]) -> None:
    cluster.found({"a.txt": "a\n"}, change=CHANGE, ask=ASK)
    one, desk = cluster.machine("one"), cluster.machine("desk")
    one.work()
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
    cluster.until(parked_alone, "it is parked here again")
    desk.ok("cluster", "adopt", "g")
    desk.work()
    end_batches(cluster)
    cluster.until(lambda: is_so(desk, g="finished"), "it finished in the cluster")
    assert len(cluster.simulator.batches) == 1
    assert json.loads(desk.ok("cost", "--json"))["total_usd"] > 0
