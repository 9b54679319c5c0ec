"""Fleets that are parked: real processes, real HTTP to the simulator. What they hold, what they use, how they wake up.

They are launched from a process that has the SDK in memory already, or a fleet of a thousand would take half an hour to
make. What is measured, the waiter and the runner it becomes, is started as always.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.lives import pss_mb
from bench.timing import clean_env
from gremlins.clock import SystemClock
from gremlins.fleet.status import as_json, look
from gremlins.paths import Home
from gremlins.processes.locks import holder_of
from gremlins.simulator import Options, Simulator
from gremlins.simulator.demo_repository import make_project
from tests.acceptance.fork_server import ForkServer

COUNTS = (1, 10, 100, 200)
WATCHED = 60.0
"""Seconds for which the processor's time and the requests are counted."""
EARLY, LATER = 20.0, 90.0
"""Seconds between polls of a batch that was just submitted, by default; and of one that is ten minutes old."""
LONG = 3600.0
PATIENCE = 1800.0
PIPELINE = "stages:\n  - {type: agent, name: summary, prompt: .gremlins/prompts/summary.md, mode: batch}\n"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Fleet:
    """What so many parked gremlins of one account were seen to need."""

    count: int
    interval: float
    """Seconds to the first poll; later ones come at 15 % of a batch's age."""
    pss_mb: float
    """Of each, the median."""
    core: float
    """Per cent of one core, all together, polls included."""
    requests: float
    """To the API in a minute, all together."""
    status_ms: float
    awake_after: float
    """Seconds from the end of all batches to the end of the last gremlin."""


class Parked:
    """One project, one account, one state root, and so many gremlins."""

    def __init__(self, folder: Path, simulator: Simulator, python: str, interval: float) -> None:
        self.home = Home(folder / "home")
        self.python = python
        self.project = folder / "project"
        self.simulator = simulator
        make_project(self.project)
        prompt = self.project / ".gremlins/prompts/summary.md"
        prompt.parent.mkdir(parents=True, exist_ok=True)
        prompt.write_text("Say in one line what this project does.\n")
        (self.project / ".gremlins/pipelines").mkdir(parents=True, exist_ok=True)
        (self.project / ".gremlins/pipelines/ask.yaml").write_text(PIPELINE)
        self.env = clean_env(
            GREMLINS_HOME=str(self.home.root),
            ANTHROPIC_BASE_URL=simulator.url,
            ANTHROPIC_API_KEY=simulator.key,
            GREMLINS_BATCH__POLL_INITIAL=str(interval),
            GREMLINS_SPEND__PER_DAY="none",  # a thousand calls are more than a day's cap has room for
        )
        self.pids: list[int] = []

    def launch(self, gremlin_id: str) -> None:
        argv = [self.python, "-m", "gremlins", "launch", "ask", "--id", gremlin_id]
        done = subprocess.run(
            argv, cwd=self.project, env=self.env, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        if done.returncode:
            raise SystemExit(f"a launch ended with {done.returncode}: {done.stderr}")

    def park(self, count: int) -> None:
        """Launch them, and wait until each has become the waiter."""
        self.launch("g-0")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self.launch, [f"g-{number}" for number in range(1, count)]))
        self._until(lambda: len(self._waiters()) == count, "that all are parked")
        self.pids = self._waiters()

    def _waiters(self) -> list[int]:
        found = []
        for folder in self.home.gremlins.iterdir():
            holder = holder_of(folder / "lock")
            with suppress(FileNotFoundError, ProcessLookupError):  # it ended at this moment
                if holder and holder.pid and b"waiter.py" in Path(f"/proc/{holder.pid}/cmdline").read_bytes():
                    found.append(holder.pid)
        return found

    def processor(self) -> float:
        """Seconds of processor time so far: each waiter's own, and that of the children it has had ask."""
        return sum(sum(map(int, _stat(pid)[11:15])) for pid in self.pids) / TICKS

    @property
    def requests(self) -> int:
        return sum(self.simulator.requests.values())

    def wake(self, count: int) -> float:
        """All batches end now. Seconds until the last gremlin has finished."""
        began = time.perf_counter()
        self.simulator.change(latency=0.0)
        self.simulator.advance(LONG + 1)
        names = {f"g-{number}" for number in range(count)}

        def all_over() -> bool:
            names.difference_update([name for name in names if holder_of(self.home.gremlins / name / "lock") is None])
            return not names

        self._until(all_over, "that all have finished")
        seconds = time.perf_counter() - began
        rows = [as_json(look(self.home, f"g-{number}", SystemClock())) for number in range(count)]
        states = {row["liveness"]["state"] for row in rows}
        if states != {"finished"}:
            raise SystemExit(f"not all of them finished: {states}")
        return seconds

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"never saw {what}")
            time.sleep(0.05)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def measure_parked(folder: Path, command: Sequence[str], counts: Sequence[int] = COUNTS) -> list[Fleet]:
    """Fleets of these sizes, one after the other. `command`: what is timed as `gremlins`. Linux only."""
    (folder / "fork_server").mkdir(parents=True)
    fork_server = ForkServer.start(folder / "fork_server", runners_python=sys.executable)
    try:
        cases = [(count, EARLY) for count in counts] + [(max(counts), LATER)]
        return [
            _fleet(folder / f"fleet-{number}", *case, fork_server.python, command) for number, case in enumerate(cases)
        ]
    finally:
        fork_server.close()


def _fleet(folder: Path, count: int, interval: float, python: str, command: Sequence[str]) -> Fleet:
    with Simulator(Options(latency=LONG)) as simulator:
        parked = Parked(folder, simulator, python, interval)
        parked.park(count)
        time.sleep(2.0)  # a process gives memory back just after it has parked
        sizes = [pss_mb(pid) for pid in parked.pids]
        used, asked, began = parked.processor(), parked.requests, time.perf_counter()
        time.sleep(WATCHED)
        seconds = time.perf_counter() - began
        core, requests = (parked.processor() - used) / seconds * 100, (parked.requests - asked) / seconds * 60
        began = time.perf_counter()
        subprocess.run([*command, "status"], env=parked.env, check=True, capture_output=True, timeout=PATIENCE)
        status = (time.perf_counter() - began) * 1000
        awake = parked.wake(count)
        if len(simulator.batches) != count:
            raise SystemExit(f"{len(simulator.batches)} batches were made for {count} calls")
    return Fleet(count, interval, statistics.median(sizes), core, requests, status, awake)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        for fleet in measure_parked(
            Path(name), [str(Path(sys.prefix) / "bin" / "gremlins")], [int(word) for word in sys.argv[1:]] or COUNTS
        ):
            print(fleet)
