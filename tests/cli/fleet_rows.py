"""Fleets for the views: rows in every state, without a disk."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from gremlins.errors import CorruptRecord
from gremlins.fleet.liveness import Liveness, State
from gremlins.fleet.observe import Glance, Sighting
from gremlins.fleet.status import Fleet, Row
from gremlins.processes.locks import Holder
from tests.fleet.records import NOON, ago

REASONS: dict[str, str] = {
    "bailed": "needs_decision: the task asks for two things that exclude each other",
    "dead": "`make test` ended with 2",
    "detached": "the API refuses this key: invalid x-api-key",
    "stalled": "alive, but silent for 400 s",
    "stopped": "stop",
}


def row(name: str, state: State, *, since: float = 60, **changes: Any) -> Row:
    """One gremlin in this state; a parked one is asked about in 90 seconds."""
    calls = ({"stage": "plan", "batch_id": f"msgbatch_{name}", "custom_id": name},) if state == "parked" else ()
    fields: dict[str, Any] = {
        "id": name,
        "pipeline": "batch",
        "task": "Fix add: it subtracts",
        "title": "Fix add: it subtracts",
        "bead_id": None,
        "project": "/repo",
        "branch": f"gremlins/{name}",
        "worktree": "/w",
        "stage": "plan",
        "mode": "batch",
        "client": "claude:m",
        "attempt": 1,
        "status": {"state": state, "since": ago(since).isoformat(), "by": "a person"},
        "cost": {"total_usd": 0.01, "batch_usd": 0.01, "live_usd": 0.0, "saved_usd": 0.01, "unpriced_calls": 0},
        "created_at": ago(3600),
        "updated_at": ago(since),
        "ended_at": None,
    }
    alive = state in ("running", "parked", "stalled", "stopping")
    sighting = Sighting(
        Glance(**{**fields, **changes}),
        f"/home/gremlins/{name}",
        Holder("runner", 4242) if alive else None,
        outstanding=calls,
        wait={"until": (NOON + timedelta(seconds=90)).timestamp()} if state == "parked" else {},
    )
    code = 2 if state == "dead" else None
    return Row(
        sighting, Liveness(state, ago(since), pid=4242 if alive else None, exit_code=code, reason=REASONS.get(state))
    )


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


def fleet(*rows: Row, unreadable: int = 0) -> Fleet:
    return Fleet(
        rows, tuple(CorruptRecord(Path(f"/home/gremlins/bad{n}/state.json"), "torn") for n in range(unreadable))
    )


def every_state() -> Fleet:
    return fleet(*(row(f"a-{state}-one", state) for state in EVERY_STATE))


def crowd(count: int = 200) -> Fleet:
    """Mostly parked, with long ids and texts."""
    states: list[State] = ["parked"] * (count - 20) + ["running"] * 5 + ["bailed"] * 9 + ["dead"] * 6
    return fleet(
        *(
            row(f"a-rather-long-id-of-a-gremlin-{n:04x}", state, stage="loop[3]/implement", title="words " * 12)
            for n, state in enumerate(states)
        )
    )
