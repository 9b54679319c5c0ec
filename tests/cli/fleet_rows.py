"""Fleets for the views: rows in every state, without a disk."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from gremlins.errors import CorruptRecord
from gremlins.fleet.status import FleetStatus, Row
from gremlins.processes.locks import Holder
from gremlins.records.gremlin import (
    Bailed,
    CostSummary,
    DiffCount,
    Evidence,
    Finished,
    ParkedCall,
    Running,
    Status,
    Stopped,
)
from gremlins.records.liveness import Liveness, Observed, State
from gremlins.records.wait import WaitPlan
from tests.fleet.records import NOON, ago, record

REASONS: dict[str, str] = {
    "bailed": "needs_decision: the task asks for two things that exclude each other",
    "dead": "`make test` ended with 2",
    "detached": "the API refuses this key: invalid x-api-key",
    "stalled": "alive, but silent for 400 s",
    "stopped": "stop",
}


def row(name: str, state: State, *, since: float = 60, **changes: Any) -> Row:
    """One gremlin in this state; a parked one is polled in 90 seconds."""
    calls = (ParkedCall(stage="plan", batch_id=f"msgbatch_{name}", custom_id=name),) if state == "parked" else ()
    evidence = Evidence(kind="commits", base="0" * 40, tip="1" * 40, holds=True)
    status: Status = Running(since=ago(since))
    match state:
        case "stopped":
            status = Stopped(since=ago(since), by="a person", reason=REASONS["stopped"])
        case "finished":
            status = Finished(since=ago(since), evidence=evidence)
        case "bailed":
            kind, _, told = REASONS["bailed"].partition(": ")
            status = Bailed(since=ago(since), stage="plan", kind=kind, detail=told)
    fields: dict[str, Any] = {
        "diff": DiffCount(files=2, added=10, deleted=3),
        "client": "claude:m",
        "updated_at": ago(since),
        "cost": COST,
    }
    alive = state in ("running", "parked", "stalled", "stopping")
    observed = Observed(
        record(name, status, **{**fields, **changes}),
        f"/home/gremlins/{name}",
        Holder("runner", 4242) if alive else None,
        outstanding=calls,
        wait=WaitPlan(until=(NOON + timedelta(seconds=90)).timestamp()) if state == "parked" else None,
    )
    code = 2 if state == "dead" else None
    return Row(
        observed, Liveness(state, ago(since), pid=4242 if alive else None, exit_code=code, reason=REASONS.get(state))
    )


DIFF = DiffCount(files=2, added=10, deleted=3)
COST = CostSummary(total_usd=0.01, batch_usd=0.01, saved_usd=0.01)
EVERY_STATE: tuple[State, ...] = (
    "finished",
    "landed",
    "parked",
    "running",
    "stopping",
    "stopped",
    "stalled",
    "detached",
    "dead",
    "bailed",
)


def fleet(*rows: Row, unreadable: int = 0) -> FleetStatus:
    return FleetStatus(
        rows, tuple(CorruptRecord(Path(f"/home/gremlins/bad{n}/state.json"), "torn") for n in range(unreadable))
    )


def every_state() -> FleetStatus:
    return fleet(*(row(f"a-{state}-one", state) for state in EVERY_STATE))


def crowd(count: int = 200) -> FleetStatus:
    """Mostly parked, with long ids and texts."""
    states: list[State] = ["parked"] * (count - 20) + ["running"] * 5 + ["bailed"] * 9 + ["dead"] * 6
    return fleet(
        *(
            row(f"a-rather-long-id-of-a-gremlin-{n:04x}", state, stage="loop[3]/implement", title="words " * 12)
            for n, state in enumerate(states)
        )
    )
