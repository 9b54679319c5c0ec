"""A fleet of waiters on a simulated clock: the waiter's own code and the shared poll's, real HTTP to the simulator.

Only the processes are left out, so that days of a whole fleet pass in seconds.
"""

from __future__ import annotations

import heapq
import json
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.timing import Figure
from gremlins.clients.account import Account as Credentials
from gremlins.clients.account import find_account
from gremlins.clients.base import Wait
from gremlins.clients.batch.api import AnthropicBatchApi
from gremlins.clients.batch.become_waiter import account_here, write_plan
from gremlins.clients.batch.shared_poll import AccountPoll, ask
from gremlins.clients.batch.waiter import FRESH_SHARE, NOTHING_LEARNED, NOTHING_NEW, SOMETHING_TO_DO, Waiter
from gremlins.clients.transport import ApiFailure
from gremlins.clock import FakeClock, Jitter, spread
from gremlins.config import BatchSettings
from gremlins.files import make_private_dir
from gremlins.paths import GremlinPaths
from gremlins.records.gremlin import ParkedCall
from gremlins.retry import poll_interval
from gremlins.simulator import Simulator

REQUEST = {"model": "claude-sonnet-5-5", "max_tokens": 10, "messages": [{"role": "user", "content": "a plan"}]}


class SimulatedWaiter(Waiter):
    """A waiter whose time is the fleet's, and whose polling child is a function call."""

    def __init__(self, folder: Path, clock: FakeClock, api: AnthropicBatchApi, account: AccountPoll) -> None:
        super().__init__(str(folder))
        self.clock = clock
        self.api = api
        self.account = account
        self.looks = 0
        self.asked = 0
        self.hang = False
        """The child it starts hangs until it is given up."""

    def now(self) -> float:
        return self.clock.now().timestamp()

    def ticks(self) -> float:
        return self.clock.monotonic()

    def ask(self) -> int:
        self.asked += 1
        if self.hang:
            return NOTHING_LEARNED
        mine = {call["batch_id"]: call["submitted_at"] for call in self.plan["calls"]}
        fresh = self.plan["poll_initial"] * FRESH_SHARE
        try:
            over = ask(self.account, self.api, Path(self.folder).name, mine, fresh, self.clock)
        except ApiFailure:
            return NOTHING_LEARNED
        return SOMETHING_TO_DO if over else NOTHING_NEW


@dataclass(frozen=True)
class Seen:
    """When a batch ended and when its gremlin saw it, in seconds from submission."""

    ended: float
    seen: float
    looks: int

    @property
    def delay(self) -> float:
        """As a share of the batch's age when it ended."""
        return (self.seen - self.ended) / self.ended


@dataclass
class WaitingFleet:
    """Gremlins of one account, each parked on a batch of its own."""

    home: Path
    simulator: Simulator
    clock: FakeClock
    settings: BatchSettings = field(default_factory=BatchSettings)
    jitter: Jitter = field(default_factory=spread)
    seen: list[Seen] = field(default_factory=list)
    due: list[tuple[float, int, SimulatedWaiter]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.credentials: Credentials = find_account(self.simulator.env)
        self.api = AnthropicBatchApi(self.credentials, timeout=30)

    def park(self, count: int, *, apart: float = 0.0) -> None:
        """Submit so many batches, so many seconds apart, and park their gremlins."""
        for number in range(count):
            self._park(f"g{len(self.due)}")
            if apart and number < count - 1:
                self.run(apart)

    def _park(self, gremlin_id: str) -> None:
        batch_id = self._create(gremlin_id)
        paths = GremlinPaths(self.home / "gremlins" / gremlin_id)
        make_private_dir(paths.root)
        now = self.clock.now()
        call = ParkedCall(stage="plan", custom_id=gremlin_id, batch_id=batch_id, submitted_at=now)
        first = poll_interval(0, initial=self.settings.poll_initial, maximum=self.settings.poll_max, jitter=self.jitter)
        wait = Wait(now + timedelta(seconds=first), calls=(call,))
        write_plan(paths, wait, self.settings, -1, self.simulator.env)
        account = account_here(paths, self.simulator.env)
        assert account is not None
        waiter = SimulatedWaiter(paths.root, self.clock, self.api, account)
        heapq.heappush(self.due, (self.clock.monotonic() + first, len(self.due), waiter))

    def _create(self, custom_id: str) -> str:
        """A batch, made without the SDK's weight."""
        body = json.dumps({"requests": [{"custom_id": custom_id, "params": REQUEST}]}).encode()
        headers = {"x-api-key": self.simulator.key, "anthropic-version": "2026-10-21"}
        asked = urllib.request.Request(f"{self.simulator.url}/v1/messages/batches", body, headers)
        with urllib.request.urlopen(asked, timeout=30) as reply:
            return str(json.loads(reply.read())["id"])

    def run(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass. Who sees the end of its batch is parked no longer."""
        end = self.clock.monotonic() + seconds
        while self.due and self.due[0][0] <= end and not until():
            due, number, waiter = heapq.heappop(self.due)
            self.clock.advance(max(0.0, due - self.clock.monotonic()))
            waiter.looks += 1
            if waiter.poll():
                self._wake(waiter)
            else:
                heapq.heappush(self.due, (self.clock.monotonic() + waiter.plan_next(), number, waiter))
        if not until():
            self.clock.advance(max(0.0, end - self.clock.monotonic()))

    def _wake(self, waiter: SimulatedWaiter) -> None:
        waiter.account.leave(Path(waiter.folder).name)
        call = waiter.plan["calls"][0]
        ended = self.simulator.store.find(call["batch_id"]).ended_at
        assert ended is not None
        submitted = datetime.fromtimestamp(call["submitted_at"], UTC)
        self.seen.append(
            Seen((ended - submitted).total_seconds(), (self.clock.now() - submitted).total_seconds(), waiter.looks)
        )

    @property
    def requests(self) -> int:
        """Polls, as the API counts them."""
        return self.simulator.requests.get("retrieve", 0) + self.simulator.requests.get("list", 0)


COUNTS = (1, 10, 100, 200)
DAY = 86_400.0
LIVES = 200
"""Batches whose end is looked for, of ages from three minutes to twelve hours."""


def measure() -> list[Figure]:
    """Polls of fleets over a day in which nothing ends, and how soon an end is seen."""
    figures = []
    with tempfile.TemporaryDirectory() as name:
        for count in COUNTS:
            figures.append(Figure(f"requests in 24 h, {count} parked for all of it", _a_day(Path(name), count), ""))
        shares = [_delay(Path(name) / f"one-{n}", 180 * 240 ** (n / LIVES)) for n in range(LIVES)]
    mean, worst = sum(shares) / len(shares) * 100, max(shares) * 100
    figures.append(Figure("from a batch's end to its gremlin's waking, of the batch's age, on average", mean, "%"))
    figures.append(Figure("the same at worst", worst, "%"))
    return figures


def _a_day(folder: Path, count: int) -> int:
    clock = FakeClock()
    with Simulator(clock=clock, latency=float("inf")) as simulator:
        waiting = WaitingFleet(folder / f"day-{count}", simulator, clock)
        waiting.park(count, apart=7.0)
        before = waiting.requests
        waiting.run(DAY - 7.0 * count - 60.0)
        return waiting.requests - before


def _delay(folder: Path, latency: float) -> float:
    clock = FakeClock()
    with Simulator(clock=clock, latency=latency) as simulator:
        waiting = WaitingFleet(folder, simulator, clock)
        waiting.park(1)
        waiting.run(DAY)
        return waiting.seen[0].delay


if __name__ == "__main__":
    for figure in measure():
        print(figure)
