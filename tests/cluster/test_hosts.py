"""Gremlins over several hosts: real workers, with state roots and clones of their own."""

from __future__ import annotations

from tests.cluster.conftest import FOREVER
from tests.cluster.machines import ASK, Cluster, Machine


def end_batches(cluster: Cluster) -> None:
    cluster.simulator.change(latency=0.0)
    cluster.simulator.advance(FOREVER + 1)


def is_so(machine: Machine, **states: str) -> bool:
    return machine.states() == states


def test_a_parked_gremlin_needs_no_process_and_goes_on_where_a_host_is_left(cluster: Cluster) -> None:
    cluster.found({"a.txt": "a\n"}, ask=ASK)
    one, two, desk = cluster.machine("one"), cluster.machine("two"), cluster.machine("desk")
    one.work()
    assert desk.ok("launch", "ask", "--id", "g") == "g\n"
    cluster.until(lambda: is_so(desk, g="parked"), "it parked")
    cluster.until(lambda: len(one.processes()) == 1, "no process but the worker")
    shown = desk.show("g")
    assert shown["batch"]["batch_id"] == next(iter(cluster.simulator.batches)).id
    assert shown["batch"]["next_poll_at"]
    assert shown["liveness"]["pid"] is None
    one.go_off()
    two.work()
    end_batches(cluster)
    cluster.until(lambda: is_so(desk, g="finished"), "the other host went on")
    assert len(cluster.simulator.batches) == 1
    assert desk.show("g")["cost"]["total_usd"] > 0
