"""Costs of dispatching: idle ticks, claims by many processes, and the delay from a gremlin's end to the next tick.

`python -m bench.dispatch`. Beads are put into a store of their own; gremlins are a file lock held by a sleeping child.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path

from bench.timing import Figure
from gremlins.clock import SystemClock
from gremlins.fleet.beads.attempts import Attempt
from gremlins.fleet.beads.bead import Bead, BeadStatus, Dependency, Issue
from gremlins.fleet.beads.store.interface import AddAttempt, MoveBead, PutBead, Query
from gremlins.fleet.beads.store.schema import attempt_row
from gremlins.fleet.beads.store.sqlite import SqliteStore
from gremlins.fleet.dispatch.observation import Missing, Observation, SpawnOrder
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.dispatch.spending import Spending
from gremlins.fleet.dispatch.tick import Dispatcher
from gremlins.fleet.start_point import StartPoint
from gremlins.fleet.times import text_of
from gremlins.processes.ending import wait_for_end

PROJECT = "/bench/project"
STAMP = "2026-11-21T10:00:00Z"
SIZES = (1_000, 10_000, 100_000)
PROCESSES = 8
CLAIMS = 800


class NoFleet:
    """No gremlins at all."""

    def observe(self, gremlin_id: str) -> Observation | None:
        return None

    def scopes(self) -> tuple[str, ...]:
        return ("claude:bench",)

    def start_point(self, gremlin_ids: tuple[str, ...]) -> StartPoint:
        return StartPoint()

    def spending(self) -> Spending:
        return Spending()

    def first_call_usd(self) -> float:
        return 0.0

    def preflight(self, *, fresh: bool) -> Missing | None:
        return Missing("it is a bench")

    def landing_state(self, gremlin_id: str) -> object:
        return None

    def spawn(self, order: SpawnOrder) -> None: ...

    def rescue(self, gremlin_id: str) -> None: ...

    def terminate(self, gremlin_id: str, reason: str) -> None: ...

    def kill(self, gremlin_id: str) -> None: ...

    def land(self, gremlin_id: str) -> str:
        return ""

    def wait(self, gremlin_ids: Collection[str], seconds: float) -> None: ...


def issue(number: int, needs: str | None = None) -> Issue:
    dependencies = (Dependency(issue_id=f"b-{number}", depends_on_id=needs),) if needs else ()
    return Issue(
        id=f"b-{number}", title=f"Bead {number}", description="Something to do. " * 20, created_at=STAMP,
        updated_at=STAMP, priority=number % 5, dependencies=dependencies,
    )  # fmt: skip


def fill(store: SqliteStore, count: int, status: BeadStatus, *, blocked: bool) -> None:
    """Beads that are closed, or open and blocked by one that waits until tomorrow."""
    first = Issue(id="gate", title="Gate", created_at=STAMP, updated_at=STAMP, defer_until="2100-01-01T00:00:00Z")
    puts = [PutBead(Bead(PROJECT, first), None)]
    puts += [PutBead(Bead(PROJECT, issue(n, "gate" if blocked else None), status), None) for n in range(count)]
    store.replace_all(PROJECT, puts)


def milliseconds(work: Callable[[], object], rounds: int = 9) -> float:
    """The median."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def ticks(folder: Path) -> list[Figure]:
    figures = []
    for count in SIZES:
        for status, blocked in (("closed", False), ("open", True)):
            with SqliteStore(folder / f"{status}-{count}.db") as store:
                fill(store, count, status, blocked=blocked)  # type: ignore[arg-type]
                loop = Dispatcher(
                    store, NoFleet(), SystemClock(), PROJECT, Policy, task=lambda bead_id: (bead_id, bead_id)
                )
                what = f"a tick with nothing to do, {count:,} beads {'blocked' if blocked else 'closed'}"
                figures.append(Figure(what, milliseconds(loop.tick), "ms"))
                if blocked:
                    whole = milliseconds(lambda loop=loop: loop.tick(everything=True), 3)  # type: ignore[misc]
                    figures.append(Figure(f"… and saying of each why it waits (`--once`), {count:,}", whole, "ms"))
                    listed = milliseconds(lambda store=store: list(store.beads(PROJECT, Query())), 3)  # type: ignore[misc]
                    figures.append(Figure(f"reading all of {count:,} beads", listed, "ms"))
    return figures


def tried(folder: Path) -> list[Figure]:
    """Beads that were all tried today, and all wait for tomorrow. A loop reads them all in its first tick only."""
    figures = []
    for count in SIZES[:2]:
        with SqliteStore(folder / f"tried-{count}.db") as store:
            fill(store, count, "open", blocked=False)
            now = time.time()
            with store.db.transaction():
                store.db.run("UPDATE beads SET tried = 1 WHERE id != 'gate'")
                for number in range(count):
                    row = attempt_row(new_attempt(f"b-{number}", f"g-{number}", now - 1))
                    settled = {"settled_seq": number + 1, "settled_at": now, "failure": "capacity", "reason": "busy"}
                    store.db.insert("attempts", row | settled | {"retry_at": now + 86400.0, "cost_usd": 0.1})
            loop = Dispatcher(store, NoFleet(), SystemClock(), PROJECT, Policy, task=lambda bead_id: (bead_id, bead_id))
            what = f"a tick with nothing to do, {count:,} beads that wait for another try"
            figures.append(Figure(what, milliseconds(loop.tick, 5), "ms"))
    return figures


def new_attempt(bead_id: str, gremlin_id: str, at: float) -> Attempt:
    return Attempt(PROJECT, bead_id, 1, 1, gremlin_id, "fresh", "local", None, (), False, 1.0, at)


def claim_some(path: Path, number: int, queue: multiprocessing.Queue[int], start: object) -> None:
    """Try to claim every bead, beginning somewhere else than the others, and say how many were won."""
    won = 0
    with SqliteStore(path) as store:
        works = store.works(PROJECT).works
        first = number * len(works) // PROCESSES
        start.wait()  # type: ignore[attr-defined]
        for work in (*works[first:], *works[:first]):
            attempt = new_attempt(work.id, f"g-{number}", time.time())
            won += store.commit(MoveBead(work, "in_progress", text_of(time.time())), AddAttempt(attempt))
    queue.put(won)


def claims(folder: Path) -> list[Figure]:
    path = folder / "claims.db"
    with SqliteStore(path) as store:
        store.replace_all(PROJECT, [PutBead(Bead(PROJECT, issue(n)), None) for n in range(CLAIMS)])
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[int] = context.Queue()
    start = context.Event()
    workers = [context.Process(target=claim_some, args=(path, n, queue, start)) for n in range(PROCESSES)]
    for worker in workers:
        worker.start()
    began = time.perf_counter()
    start.set()
    won = sum(queue.get() for _ in workers)
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join()
    with SqliteStore(path) as store:
        doubles = won - len({a.bead_id for a in store.unsettled_attempts()})
    what = f"claims a second, {PROCESSES} processes on one store ({won} claims, {doubles} double)"
    return [Figure(what, won / seconds, "/s")]


HOLDER = """
import fcntl, json, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
os.write(fd, json.dumps({"role": "runner", "pid": os.getpid()}).encode())
print("held", flush=True)
sys.stdin.read()
print(time.time(), flush=True)
"""


def wake_up(folder: Path) -> list[Figure]:
    """From the last thing a process does to the return of the wait."""
    delays = []
    for number in range(9):
        lock = folder / f"gremlin-{number}.lock"
        child = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        child.stdin.close()
        wait_for_end([lock], 30.0, SystemClock(), None)
        delays.append((time.time() - float(child.stdout.readline())) * 1000)
        child.wait()
    return [Figure("from a gremlin's last breath to the loop's waking", statistics.median(delays), "ms")]


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [*ticks(folder), *tried(folder), *claims(folder), *wake_up(folder)]


def main() -> None:
    figures = measure()
    if "--json" in sys.argv:
        print(json.dumps([vars(figure) for figure in figures], indent=2))
        return
    for figure in figures:
        print(figure)


if __name__ == "__main__":
    main()
