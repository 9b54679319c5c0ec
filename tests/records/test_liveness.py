"""Judging what a gremlin is, as a table: its record, who holds its lock, and how long it has been silent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from gremlins.clock import rfc3339
from gremlins.processes.locks import Holder
from gremlins.records.gremlin import ParkedCall, Status
from gremlins.records.liveness import ALIVE, RESCUABLE, Liveness, Observed, liveness
from gremlins.records.wait import WaitPlan
from tests.fleet.records import record

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
IDLE = 360.0
RUNNER, STARTING, KEEPER = Holder("runner", 4242), Holder("runner", None), Holder("keeper", 7)
CALL = ParkedCall(stage="plan", batch_id="msgbatch_1", custom_id="c")
EVIDENCE = {"kind": "none", "base": "", "tip": "", "holds": True}
NEEDED: dict[str, dict[str, Any]] = {
    "parked": {"calls": []},
    "finished": {"evidence": EVIDENCE},
    "landed": {"evidence": EVIDENCE, "sha": "", "target": ""},
    "stopped": {"by": "a person"},
    "bailed": {"stage": "plan"},
    "failed": {"stage": "plan", "failure": "task"},
}
"""Fields without which a status is none."""


def at(seconds_ago: float) -> str:
    return rfc3339(NOW - timedelta(seconds=seconds_ago))


def judge(
    state: str, holder: Holder | None, *, silent: float = 0, status: dict[str, Any] | None = None, **seen: Any
) -> Liveness:
    fields = {"state": state, "since": at(3600), **NEEDED.get(state, {}), **(status or {})}
    early = NOW - timedelta(hours=2)
    gremlin = record("g", msgspec.convert(fields, Status), created_at=early, updated_at=early)
    observed = Observed(gremlin, "/nowhere/g", holder, last_sign=NOW - timedelta(seconds=silent), **seen)
    return liveness(observed, NOW, IDLE)


HISTORIES = [
    # launched, and its process has not said anything yet
    ("queued", STARTING, {}, "running"),
    ("queued", RUNNER, {}, "running"),
    # at work, heard of lately
    ("running", RUNNER, {"silent": 359}, "running"),
    # silent for longer than a live agent may be
    ("running", RUNNER, {"silent": 361}, "stalled"),
    ("queued", RUNNER, {"silent": 361}, "stalled"),
    # a command within its timeout, or a backoff that ends later, may be silent
    ("running", RUNNER, {"silent": 5000, "status": {"until": at(-60)}}, "running"),
    ("running", RUNNER, {"silent": 5000, "status": {"until": at(60)}}, "running"),
    ("running", RUNNER, {"silent": 5000, "status": {"until": at(121)}}, "stalled"),
    # parked is decided before any stall rule
    ("parked", RUNNER, {"silent": 90_000}, "parked"),
    ("parked", RUNNER, {"status": {"calls": [{"stage": "plan", "custom_id": "c"}]}}, "parked"),
    # asked to stop, and alive
    ("running", RUNNER, {"stop_wanted": True}, "stopping"),
    ("parked", RUNNER, {"stop_wanted": True}, "stopping"),
    ("running", RUNNER, {"stop_wanted": True, "silent": 5000}, "stopping"),
    # a batch is or may be outstanding, and no process
    ("parked", None, {"outstanding": (CALL,)}, "detached"),
    ("running", None, {"outstanding": (CALL,)}, "detached"),
    ("parked", KEEPER, {"outstanding": (CALL,)}, "detached"),
    ("parked", None, {"outstanding": (CALL,), "stop_wanted": True}, "detached"),
    # asked to stop, and gone before it was settled
    ("running", None, {"stop_wanted": True}, "detached"),
    # gone without a word
    ("running", None, {}, "dead"),
    ("queued", None, {}, "dead"),
    ("running", KEEPER, {}, "dead"),
    # its own last word counts, even while the process is still on its way out
    ("finished", None, {}, "finished"),
    ("finished", RUNNER, {"silent": 5000}, "finished"),
    ("landed", None, {}, "landed"),
    ("stopped", None, {"stop_wanted": True}, "stopped"),
    ("bailed", None, {"status": {"kind": "unclear", "detail": "which one?"}}, "bailed"),
    ("failed", None, {"status": {"exit_code": 3, "reason": "tests fail"}}, "dead"),
    ("interrupted", None, {"status": {"signal": "SIGTERM"}}, "dead"),
]


@pytest.mark.parametrize(("state", "holder", "world", "expected"), HISTORIES)
def test_what_a_gremlin_is(state: str, holder: Holder | None, world: dict[str, Any], expected: str) -> None:
    assert judge(state, holder, **world).state == expected


@pytest.mark.parametrize(("state", "holder", "world", "expected"), HISTORIES)
def test_a_pid_is_shown_only_of_what_is_alive(
    state: str, holder: Holder | None, world: dict[str, Any], expected: str
) -> None:
    life = judge(state, holder, **world)
    assert (life.pid is not None) == (expected in ALIVE and holder == RUNNER)


@pytest.mark.parametrize(("state", "holder", "world", "expected"), HISTORIES)
def test_a_reason_is_given_whenever_a_person_is_needed(
    state: str, holder: Holder | None, world: dict[str, Any], expected: str
) -> None:
    if expected in ("bailed", "dead", "stalled", "detached"):
        assert judge(state, holder, **world).reason


@pytest.mark.parametrize(
    ("state", "status", "shown"),
    [
        ("failed", {"exit_code": 3, "reason": "x"}, "dead:exit 3"),
        ("failed", {"reason": "x"}, "dead:exit 1"),
        ("interrupted", {"signal": "SIGTERM"}, "dead:signal SIGTERM"),
        ("running", {}, "dead:lost"),
        ("finished", {}, "finished"),
    ],
)
def test_how_an_end_is_shown(state: str, status: dict[str, Any], shown: str) -> None:
    assert judge(state, None, status=status).shown == shown


GAVE_UP = WaitPlan(until=0.0, gave_up="its program /old/python cannot be started: No such file or directory")


@pytest.mark.parametrize(
    ("state", "status", "told"),
    [("parked", {}, True), ("running", {"asleep": True}, True), ("running", {}, False)],
)
def test_a_waiter_that_gave_up_tells_why_until_the_next_process_works(
    state: str, status: dict[str, Any], told: bool
) -> None:
    life = judge(state, None, status=status, outstanding=(CALL,), wait=GAVE_UP)
    assert life.state == "detached"
    assert ("/old/python" in (life.reason or "")) == told


def test_what_can_be_rescued_is_neither_well_nor_being_stopped() -> None:
    assert not RESCUABLE & {"running", "parked", "stopping", "finished", "landed"}
