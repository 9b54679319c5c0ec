"""Gremlins as the program itself would write them, for tests and benches that look at many of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gremlins.clock import FakeClock
from gremlins.files import make_private_dir
from gremlins.paths import Home
from gremlins.processes.locks import GremlinLock
from gremlins.records.calls import (
    BatchCall,
    BatchRef,
    CallKey,
    CallRecord,
    CallStatus,
    Collected,
    Cost,
    Ledger,
    LiveCall,
    Reply,
    Usage,
    hash_request,
    summarize,
)
from gremlins.records.gremlin import Gremlin, ParkedCall, Running, RunStore, StageRun, Status

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
MODEL = "claude-sonnet-5-5"


def ago(seconds: float) -> datetime:
    return NOON - timedelta(seconds=seconds)


def parked_call(n: int = 1, stage: str = "plan") -> ParkedCall:
    return ParkedCall(
        stage=stage,
        custom_id=f"g-{n:06d}",
        batch_id=f"msgbatch_{n:06d}",
        submitted_at=ago(300),
        expires_at=ago(300 - 86400),
    )


def record(gremlin_id: str = "fix-add", status: Status | None = None, **changes: Any) -> Gremlin:
    """A gremlin an hour old, at work on its plan."""
    made = Gremlin(
        id=gremlin_id,
        uid=f"uid-{gremlin_id}",
        pipeline="batch",
        task="Fix add: it subtracts",
        title="Fix add: it subtracts",
        project="/repo",
        branch=f"gremlins/{gremlin_id}",
        worktree=f"/home/worktrees/{gremlin_id}",
        base="0" * 40,
        stage="plan",
        mode="batch",
        client=f"claude:{MODEL}",
        stages=(StageRun(path="plan", type="plan", attempt=1, started_at=ago(3600)),),
        status=status or Running(since=ago(60)),
        created_at=ago(3600),
        updated_at=ago(60),
    )
    return replace(made, **changes)


def call(stage: str = "plan", *, turn: int = 1, status: CallStatus | None = None, **changes: Any) -> BatchCall:
    """A batch call that was collected and cost a cent."""
    batch = BatchRef(batch_id=f"msgbatch_{stage}_{turn}", submitted_at=ago(3000), ended_at=ago(2400))
    return BatchCall(**{**_fields(stage, turn, status), "batch": batch, **changes})


def live_call(stage: str = "plan", *, turn: int = 1, status: CallStatus | None = None, **changes: Any) -> LiveCall:
    """A live call that was collected and cost a cent."""
    return LiveCall(**{**_fields(stage, turn, status), **changes})


def _fields(stage: str, turn: int, status: CallStatus | None) -> dict[str, Any]:
    request = {"model": MODEL, "max_tokens": 1000, "messages": [{"role": "user", "content": "Plan it."}]}
    return {
        "key": CallKey(stage=stage, turn=turn),
        "custom_id": f"{stage}-{turn}",
        "client": f"claude:{MODEL}",
        "spawn": 1,
        "created_at": ago(3000),
        "updated_at": ago(2400),
        "ended_at": ago(2400),
        "request": request,
        "request_sha256": hash_request(request),
        "status": status or Collected(reply=Reply(text="A plan.", stop_reason="end_turn", model=MODEL)),
        "cost": Cost(usd=0.01, live_usd=0.02),
        "usage": Usage(input_tokens=1200, output_tokens=300),
    }


@dataclass
class Root:
    """A state root to fill."""

    home: Home
    clock: FakeClock = field(default_factory=lambda: FakeClock(NOON))

    def __post_init__(self) -> None:
        make_private_dir(self.home.gremlins)
        self.store = RunStore(self.home, self.clock)

    def put(self, gremlin: Gremlin, *calls: CallRecord, log: str = "") -> Gremlin:
        """Write a gremlin and its calls; no process holds its lock afterwards."""
        with self.alive(gremlin, *calls) as written:
            if log:
                self.store.paths(gremlin.id).log.write_text(log)
            return written

    @contextlib.contextmanager
    def alive(self, gremlin: Gremlin, *calls: CallRecord) -> Iterator[Gremlin]:
        """Write a gremlin, and hold its lock as its own process would."""
        cost = summarize(calls) if calls else gremlin.cost
        with self.store.claim(gremlin.id) as lock:
            hold_as_runner(lock)
            ledger = Ledger(self.store.paths(gremlin.id))
            for made in calls:
                ledger.put(made)
            changes = {"cost": cost, "total_cost_usd": cost.total_usd}
            yield self.store.write(replace(gremlin, **changes), lock)


def hold_as_runner(lock: GremlinLock, pid: int = 4242) -> None:
    lock.sign("runner", pid)


def state_root(path: Path) -> Root:
    return Root(Home(path / "state"))
