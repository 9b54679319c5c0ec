"""Under any order of faults, each call makes one batch and one booking, and comes to an end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from hypothesis import given, note, settings

from gremlins.clock import FakeClock
from gremlins.simulator import Simulator
from tests.clients.batch.fault_schedules import SCHEDULES, Schedule, ScheduleRun
from tests.time_limit import DEADLINE

EXAMPLES = int(os.environ.get("GREMLINS_SOAK_EXAMPLES", "10000")) if os.environ.get("GREMLINS_SOAK") else 80
CHANGE_AFTER = 200
"""Schedules on one simulator: it keeps every batch there ever was."""


class ScheduleRunner:
    """Runs schedules, each in a new folder and a new workspace; a simulator is shared by some."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.played = 0
        self.simulator = Simulator(clock=FakeClock())
        limits = httpx2.Limits(max_keepalive_connections=0)
        self.http = httpx2.Client(limits=limits, follow_redirects=False, timeout=DEADLINE)

    def run(self, schedule: Schedule) -> None:
        if self.played % CHANGE_AFTER == 0:
            self.close()
            self.clock = FakeClock()
            self.simulator = Simulator(clock=self.clock).start()
        self.played += 1
        self.simulator.faults.clear()
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            running = ScheduleRun(Path(folder), self.simulator, self.clock, self.http, schedule)
            try:
                running.run()
                running.check()
            finally:
                for actor in running.actors:
                    note("\n".join([f"--- {actor.gremlin.gremlin_id}: {actor.over}", *actor.gremlin.lines]))

    def close(self) -> None:
        self.simulator.stop()


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScheduleRunner]:
    made = ScheduleRunner(tmp_path_factory.mktemp("schedules"))
    yield made
    made.close()
    made.http.close()
    print(f"{made.played} schedules")


@settings(max_examples=EXAMPLES)
@given(schedule=SCHEDULES)
def test_any_schedule_of_faults_soak(runner: ScheduleRunner, schedule: Schedule) -> None:
    runner.run(schedule)
