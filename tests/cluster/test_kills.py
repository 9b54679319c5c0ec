"""kill -9 of a step's process anywhere in a call, again and again: one batch per call, and everything finishes."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.cluster.machines import Cluster
from tests.cluster.test_hosts import CHANGE, states_of

SEED = 20261128
SOAK = bool(os.environ.get("GREMLINS_SOAK"))
GREMLINS, KILLS = (8, 6) if SOAK else (1, 3)
POINTS = 220
"""Of the first step of a gremlin, about."""
LOADER = """
import os, sys
if "gremlins.worker.step" in sys.orig_argv:
    import socket, subprocess
    sys.path.insert(0, {root!r})
    from tests.kill_points import KillPoints, kill_this_process
    sys.path.pop(0)
    number = sys.orig_argv[sys.orig_argv.index("gremlins.worker.step") + 1]
    schedule = os.path.join({folder!r}, number)
    try:
        with open(schedule) as file:
            at, *rest = file.read().split()
        with open(schedule, "w") as file:
            file.write(" ".join(rest))
    except (FileNotFoundError, ValueError):
        at = None
    if at is not None:
        def end(what):
            with open(schedule + ".killed", "a") as file:
                print(at, what, file=file)
            kill_this_process(what)

        KillPoints(int(at), end=end).install()
"""


def test_a_step_that_is_killed_anywhere_is_taken_up_and_pays_once(cluster: Cluster, tmp_path: Path) -> None:
    cluster.found({"a.txt": "a\n"}, change=CHANGE)
    loader, schedules = tmp_path / "loader", tmp_path / "schedules"
    loader.mkdir()
    schedules.mkdir()
    root = str(Path(__file__).parents[2])
    (loader / "sitecustomize.py").write_text(LOADER.format(root=root, folder=str(schedules)))
    one = cluster.machine("one", PYTHONPATH=str(loader))
    desk = cluster.machine("desk")
    draw = random.Random(SEED)
    names = [f"g{number}" for number in range(GREMLINS)]
    for name in names:
        (schedules / name).write_text(" ".join(str(draw.randrange(1, POINTS)) for _ in range(KILLS)))
    cluster.simulator.change(latency=0.0)
    one.work()
    for name in names:
        desk.ok("launch", "change", "write hello.txt", "--id", name)

    def all_finished() -> bool:
        states = states_of(desk)
        for name, state in states.items():
            if state in ("dead", "detached"):  # killed too often in a row: a person decides
                desk.ok("rescue", name)
        return states == dict.fromkeys(names, "finished")

    cluster.until(all_finished, "all of them finished")
    killed = [line for path in schedules.glob("*.killed") for line in path.read_text().splitlines()]
    assert len(killed) >= GREMLINS, killed
    assert len(cluster.simulator.batches) == 2 * GREMLINS
    for name in names:
        desk.ok("land", name)
        assert (desk.repo.path / "hello.txt").read_text() == "hello\n"
        (desk.repo.path / "hello.txt").unlink()
        desk.repo.git("commit", "--quiet", "-am", "again")
