"""Gremlins that live, against the simulator: how long a launch takes to return and a stop to be settled, the memory of
one that is parked, and the price of a whole pipeline in batch mode and live."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.timing import clean_env
from gremlins.simulator import Options, Simulator
from gremlins.simulator.demo_repository import RULE, TASK, make_project
from tests.live.tool_user import ToolUser

PATIENCE = 120.0


@dataclass
class Lives:
    """Seconds of each launch and each stop, megabytes of each parked process, dollars of a pipeline in each mode."""

    launch: list[float]
    stop: list[float]
    parked_mb: list[float]
    batch_usd: float
    live_usd: float


class Bench:
    """A project, a state root, and the command that works in them."""

    def __init__(self, command: str, folder: Path, simulator: Simulator) -> None:
        self.command = command
        self.project = folder / "project"
        make_project(self.project)
        self.env: Mapping[str, str] = clean_env(
            GREMLINS_HOME=str(folder / "home"),
            ANTHROPIC_BASE_URL=simulator.url,
            ANTHROPIC_API_KEY=simulator.key,
            GREMLINS_BATCH__POLL_INITIAL="0.2",
            GREMLINS_BATCH__POLL_MAX="1",
        )

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [self.command, *words],
            cwd=self.project,
            env=dict(self.env),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        if done.returncode:
            raise SystemExit(f"`gremlins {' '.join(words)}` ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def status(self, gremlin_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", gremlin_id, "--json"))[0]
        return found

    def until(self, gremlin_id: str, state: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while (found := self.status(gremlin_id))["liveness"]["state"] != state:
            if time.monotonic() > deadline:
                raise SystemExit(f"{gremlin_id} is {found['liveness']} and not {state}")
            time.sleep(0.05)
        return found


def timed(bench: Bench, *words: str) -> float:
    began = time.perf_counter()
    bench.run(*words)
    return time.perf_counter() - began


def measure_lives(command: str, folder: Path, rounds: int) -> Lives:
    """Launch some, let them park, look at their memory, stop them; then run whole pipelines."""
    launches, stops, sizes = [], [], []
    with Simulator(Options(latency=float("inf"))) as simulator:
        bench = Bench(command, folder / "parked", simulator)
        names = [f"parked-{number}" for number in range(rounds)]
        for name in names:
            launches.append(timed(bench, "launch", "batch", TASK, "--id", name))
        for name in names:
            bench.until(name, "parked")
        time.sleep(1.0)  # the process gives its memory back just after it has parked
        sizes = [pss_mb(bench.status(name)["liveness"]["pid"]) for name in names]
        for name in names:
            stops.append(timed(bench, "stop", name))
    with Simulator(Options(), model=ToolUser([RULE])) as simulator:
        bench = Bench(command, folder / "whole", simulator)
        bench.run("launch", "batch", TASK, "--id", "in-batch", "--wait")
        bench.run(
            "launch",
            "local",
            TASK,
            "--id",
            "live",
            "--mode",
            "live",
            "--client",
            "anthropic:claude-sonnet-5-5",
            "--wait",
        )
        costs = [bench.status(name)["cost"]["total_usd"] for name in ("in-batch", "live")]
    return Lives(launches, stops, sizes, *costs)


def pss_mb(pid: int) -> float:
    """A process's share of memory: its own pages, and its part of those that it shares. Linux only."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    raise SystemExit(f"no Pss of {pid}")
