"""kill -9 of `cluster adopt` anywhere, both ways: said again it goes on, and nothing is paid twice."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gremlins.clock import SystemClock
from gremlins.fleet.observe import ids
from gremlins.fleet.status import look
from gremlins.paths import Home
from tests.cluster.machines import ASK, Cluster, Machine, soak
from tests.cluster.test_hosts import end_batches, is_so

SEED = 20261128
KILLS = 10
"""Each way."""
POINTS = 90
LOADER = """
import os, sys
if "adopt" in sys.orig_argv:
    sys.path.insert(0, {root!r})
    from tests.kill_points import KillPoints, kill_this_process
    sys.path.pop(0)
    KillPoints(int(os.environ["ADOPT_DIES_AT"]), end=kill_this_process).install()
"""
ALONE = {"GREMLINS_CLUSTER__URL": ""}


class Desk:
    """A host whose `adopt` is killed."""

    def __init__(self, machine: Machine, loader: Path) -> None:
        self.machine, self.killed = machine, replace(machine, python=sys.executable)
        self.loader = {"PYTHONPATH": str(loader)}
        self.local, self.cluster = Home.from_env({**machine.env, **ALONE}), Home.from_env(machine.env)

    def adopt(self, *words: str, until: Callable[[], bool], dies_at: int) -> bool:
        """Say it, killed once, until the gremlin is there. True if it was killed."""
        killed = self.killed.run("cluster", "adopt", *words, "g", env={**self.loader, "ADOPT_DIES_AT": str(dies_at)})
        while "g" in ids(self.local if "--back" not in words else self.cluster):
            self.machine.ok("cluster", "adopt", *words, "g")
        assert until(), killed.err
        return killed.code == -signal.SIGKILL

    def is_in_cluster(self) -> bool:
        return [*ids(self.cluster)] == ["g"] and not [*ids(self.local)]

    def is_alone(self) -> bool:
        return [*ids(self.local)] == ["g"] and not [*ids(self.cluster)]


@soak
def test_an_adopt_that_is_killed_anywhere_goes_on_when_it_is_said_again(cluster: Cluster, tmp_path: Path) -> None:
    cluster.found({"a.txt": "a\n"}, ask=ASK)
    loader = tmp_path / "loader"
    loader.mkdir()
    (loader / "sitecustomize.py").write_text(LOADER.format(root=str(Path(__file__).parents[2])))
    machine = cluster.machine("desk")
    desk = Desk(machine, loader)
    machine.ok("launch", "ask", "--id", "g", env=ALONE)

    def parked_alone() -> bool:
        row = look(desk.local, "g", SystemClock())
        if row.life.state == "detached":  # it was killed after its last write, before it started the process that waits
            machine.ok("rescue", "g", env=ALONE)
        return row.life.state == "parked" and bool(row.seen.outstanding)

    draw, killed = random.Random(SEED), 0
    for _ in range(KILLS):
        cluster.until(parked_alone, "it is parked alone")
        killed += desk.adopt(until=desk.is_in_cluster, dies_at=draw.randrange(1, POINTS))
        killed += desk.adopt("--back", until=desk.is_alone, dies_at=draw.randrange(1, POINTS))
    assert killed >= KILLS
    cluster.until(parked_alone, "it is parked alone")
    machine.ok("cluster", "adopt", "g")
    machine.work()
    end_batches(cluster)
    cluster.until(lambda: is_so(machine, g="finished"), "it finished in the cluster")
    assert len(cluster.simulator.batches) == 1
