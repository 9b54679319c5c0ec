"""A gremlin's batch calls, in-process: the simulator on a socket, the real SDK, urllib and files; a clock that only
moves when a call waits; simulated processes that can be killed between any two steps."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from gremlins.clients.account import Account
from gremlins.clients.base import Answer, Session, Wait
from gremlins.clients.batch.api import AnthropicBatchApi, Batch, BatchApi, Page
from gremlins.clients.batch.engine import BatchEngine
from gremlins.clients.next_step import AskLive
from gremlins.clients.transport import Transport, http_transport
from gremlins.clock import FakeClock, no_jitter
from gremlins.config import BatchSettings, Settings
from gremlins.files import make_private_dir
from gremlins.paths import GremlinPaths
from gremlins.records.calls import CallKey, CallRecord, Cost, Ledger
from gremlins.simulator import Simulator
from tests.kill_points import Killed, KillPoints
from tests.time_limit import DEADLINE

MODEL = "claude-sonnet-5-5"
PROMPT = "Write a plan for the orchard."
MOST_WAITS = 400
SETTINGS = BatchSettings(http_timeout=DEADLINE)
"""A POST that only a starved machine kept waiting would be sent again: the clock jumps over the search for it."""


class TooManyWaits(AssertionError):
    """The engine waited too often."""


class ProcessFaults(KillPoints):
    """The points of one simulated process; its disk may be full at some of them."""

    def __init__(self, at: int | str | None = None, *, disk_full_at: range = range(0)) -> None:
        super().__init__(at)
        self.disk_full_at = disk_full_at

    def reach(self, what: str, *, writes: bool = False) -> None:
        super().reach(what)
        if writes and len(self.reached) in self.disk_full_at:
            raise OSError(errno.ENOSPC, "No space left on device", what)


class KillableLedger(Ledger):
    """A ledger whose process may die just before or after each write."""

    def __init__(self, paths: GremlinPaths, faults: ProcessFaults) -> None:
        super().__init__(paths)
        self.faults = faults

    def put(self, record: CallRecord) -> CallRecord:
        self.faults.reach(f"before writing {record.status.state}", writes=True)
        super().put(record)
        self.faults.reach(f"after writing {record.status.state}")
        return record

    def save_raw(self, key: CallKey, data: bytes) -> str:
        self.faults.reach("before saving the raw result", writes=True)
        name = super().save_raw(key, data)
        self.faults.reach("after saving the raw result")
        return name


class KillableApi:
    """The real API client, in a process that may die just before or after each request."""

    def __init__(self, api: BatchApi, faults: ProcessFaults) -> None:
        self.api = api
        self.faults = faults

    @property
    def fingerprint(self) -> str:
        return self.api.fingerprint

    def warm_up(self) -> None:
        self.api.warm_up()

    def create(self, custom_id: str, params: dict[str, Any]) -> Batch:
        return self._do("create", lambda: self.api.create(custom_id, params))

    def retrieve(self, batch_id: str) -> Batch:
        return self._do("retrieve", lambda: self.api.retrieve(batch_id))

    def page(self, *, limit: int = 100, after: str | None = None) -> Page:
        return self._do("list", lambda: self.api.page(limit=limit, after=after))

    def results(self, batch_id: str) -> bytes:
        return self._do("results", lambda: self.api.results(batch_id))

    def cancel(self, batch_id: str) -> Batch:
        return self._do("cancel", lambda: self.api.cancel(batch_id))

    def model(self, model: str) -> dict[str, Any]:
        return self._do("model", lambda: self.api.model(model))

    def _do(self, what: str, request: Callable[[], Any]) -> Any:
        self.faults.reach(f"before {what}")
        answer = request()
        self.faults.reach(f"after {what}")
        return answer


def price(model: str, usage: Mapping[str, Any], *, batch: bool, at: datetime) -> Cost:
    """Three dollars a million tokens in, fifteen out; other models than Claude's have no price."""
    if not model.startswith("claude-"):
        return Cost(usd=None)
    live = usage.get("input_tokens", 0) * 3e-6 + usage.get("output_tokens", 0) * 15e-6
    return Cost(usd=live / 2 if batch else live, live_usd=live)


@dataclass
class BatchGremlin:
    """One gremlin, its spawn of now, and the account it works on."""

    root: Path
    simulator: Simulator
    clock: FakeClock
    key: str = ""
    base_url: str = ""
    batch: BatchSettings = SETTINGS
    spawn: int = 1
    gremlin_id: str = "g"
    live_available: bool = False
    faults: ProcessFaults = field(default_factory=ProcessFaults)
    waits: list[Wait] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    """Seconds of each wait."""
    lines: list[str] = field(default_factory=list)
    meanwhile: Callable[[Wait], None] = lambda _wait: None
    transport: Transport = http_transport
    claimed: Callable[[datetime], frozenset[str]] = lambda _since: frozenset()
    more: dict[str, Any] = field(default_factory=dict)
    http: Any = None
    """The SDK's HTTP client. Making one takes 20 ms, for its certificates."""

    def __post_init__(self) -> None:
        self.paths = GremlinPaths(self.root / self.gremlin_id)
        make_private_dir(self.paths.calls)

    @property
    def account(self) -> Account:
        key = self.key or self.simulator.key
        return Account(self.base_url or self.simulator.url, key, {"authorization": f"Bearer {key}"})

    def engine(self) -> BatchEngine:
        """A new process's view: everything from disk."""
        api = AnthropicBatchApi(
            self.account, timeout=self.batch.http_timeout, transport=self.transport, http_client=self.http
        )
        session = Session(
            gremlin_id=self.gremlin_id,
            ledger=KillableLedger(self.paths, self.faults),
            settings=Settings(batch=self.batch),
            clock=self.clock,
            env={},
            worktree=self.root,
            price=price,
            park=self._park,
            spawn=self.spawn,
            jitter=no_jitter,
            log=self.lines.append,
            claimed=lambda since: self.claimed(since),
            **self.more,
        )
        killable = KillableApi(api, self.faults)
        return BatchEngine(session, killable, client=f"claude:{MODEL}", model=MODEL, live_available=self.live_available)

    def _park(self, wait: Wait) -> None:
        self.waits.append(wait)
        seconds = (wait.until - self.clock.now()).total_seconds()  # monotonic from here on
        self.waited.append(round(seconds, 3))
        if len(self.waits) > MOST_WAITS:
            raise TooManyWaits(wait.why)
        self.meanwhile(wait)
        self.clock.advance(max(0.0, seconds))

    def ask(self, text: str = PROMPT, *, label: str = "plan", revision: int = 0) -> Answer | AskLive:
        """The call, from wherever its records stand to its end."""
        return self.engine().run(text, label=label, max_tokens=None, revision=revision)

    def text(self, **more: Any) -> str:
        """The reply's text."""
        answer = self.ask(**more)
        assert isinstance(answer, Answer)
        return answer.text

    def again(self, **changes: Any) -> BatchGremlin:
        """The next process of the same gremlin: brought back by a rescue."""
        changes = {"spawn": self.spawn + 1, "faults": ProcessFaults(), "waits": [], **changes}
        return replace(self, **changes)

    def woken(self, **changes: Any) -> BatchGremlin:
        """The next process of the same spawn: back from the waiter."""
        return self.again(spawn=self.spawn, **changes)

    def stop(self) -> int:
        """Settle everything as a stop does. Returns how often it had to wait."""
        engine, waited = self.engine(), 0
        for _ in range(MOST_WAITS):
            open_calls = [r for r in self.records if not r.settled]
            if not open_calls:
                return waited
            for record in open_calls:
                if engine.settle_stop(record) is not None:
                    waited += 1
                    self.clock.advance(1.0 if waited < 60 else 30.0)
        raise TooManyWaits("a stop")

    # ── what came of it ───────────────────────────────────────────────────────────────────────────────────────

    @property
    def records(self) -> list[CallRecord]:
        return Ledger(self.paths).records()

    @property
    def record(self) -> CallRecord:
        """The latest."""
        return self.records[-1]

    @property
    def cost(self) -> float:
        return Ledger(self.paths).total().total_usd

    @property
    def billed(self) -> float:
        """USD that the account pays for our calls, at the prices of this module."""
        at, mine = self.clock.now(), {record.custom_id for record in self.records}
        ours = [item for item in self.simulator.billed if item.custom_id in mine]
        return round(sum(price(item.model, item.usage, batch=True, at=at).usd or 0.0 for item in ours), 10)

    @property
    def ours(self) -> list[str]:
        """Ids of the batches that carry one of our calls, oldest first."""
        mine = {record.custom_id for record in self.records}
        return [b.id for b in self.simulator.batches if any(r.custom_id in mine for r in b.requests)]

    def everything_written(self) -> str:
        files = [path.read_text(errors="replace") for path in self.root.rglob("*") if path.is_file()]
        return "\n".join([*files, *self.lines])


@contextmanager
def until_killed() -> Iterator[None]:
    """The block ends without an error if the simulated process is killed in it."""
    with suppress(Killed):
        yield
