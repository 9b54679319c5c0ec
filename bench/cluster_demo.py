"""`make cluster-demo`: two hosts and parked gremlins. One host loses its power, and the other finishes everything.

PostgreSQL, git, processes and HTTP are real; the model is simulated.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from gremlins.simulator import RulesModel, Simulator
from gremlins.simulator.demo_repository import FILES, RULE, TASK, TEST_COMMAND, run_tests
from tests.cluster.machines import Cluster, Machine
from tests.postgres import MISSING, server

COUNT = 4
LONG = 3600.0


def main() -> int:
    postgres = server()
    if postgres is None:
        print(f"error: {MISSING}", file=sys.stderr)
        return 5
    try:
        with (
            tempfile.TemporaryDirectory(prefix="gremlins-cluster.") as folder,
            Simulator(latency=LONG, model=RulesModel([RULE])) as simulator,
        ):
            cluster = Cluster(Path(folder), postgres.new_database(), simulator, {"GREMLINS_CLUSTER__HEARTBEAT": "2"})
            try:
                return _play(cluster)
            finally:
                cluster.end()
    finally:
        postgres.end()


def _play(cluster: Cluster) -> int:
    print("This is a demo. The database, the git work, the processes and the HTTP are real; the model is SIMULATED.")
    cluster.found({**FILES, ".gremlins/config.toml": f"verify = ['{TEST_COMMAND}']\n"})
    anna, bert = cluster.machine("anna"), cluster.machine("bert")
    print(
        "\nTwo hosts, anna and bert: each has a state folder and a clone of its own. They share PostgreSQL and a remote."
    )
    _start(anna)
    ids = [f"fix-{number}" for number in range(1, COUNT + 1)]
    for gremlin_id in ids:
        anna.ok("launch", "batch", TASK, "--id", gremlin_id)
        print(f"anna$ gremlins launch batch '…' --id {gremlin_id}")
    cluster.until(lambda: set(anna.states().values()) == {"parked"} and len(anna.processes()) == 1, "all parked")
    _tell(anna, f"all {COUNT} are parked")
    _start(bert)
    print("\nanna$ # kill -9 of every process: the power is off")
    anna.go_off()
    off = time.monotonic()
    cluster.simulator.change(latency=0.2)
    cluster.simulator.advance(LONG)
    print("      # and the batches end")
    cluster.until(lambda: set(bert.states().values()) == {"finished"} and len(bert.processes()) == 1, "all finished")
    _tell(bert, f"all {COUNT} are finished, {time.monotonic() - off:.0f} s later")
    calls = len(set(cluster.simulator.custom_ids))
    batches = len(cluster.simulator.batches)
    print(f"\n{batches} batches for {calls} calls: {batches / calls:.1f} batches per call")
    print(f"\nbert$ gremlins land {ids[0]}\n{bert.ok('land', ids[0]).strip()}")
    passed, line = run_tests(bert.repo.path)
    print(f"bert$ python -m unittest          # {'passes' if passed else 'fails'}: {line}")
    return 0 if passed and batches == calls else 1


def _start(machine: Machine) -> None:
    machine.work("--slots", "2")
    print(f"{machine.name}$ gremlins worker --slots 2 &")


def _tell(machine: Machine, line: str) -> None:
    own = len(machine.processes())
    print(f"{machine.name}$ gremlins status             # {line}; processes of {machine.name}: {own}, its worker")


if __name__ == "__main__":
    sys.exit(main())
