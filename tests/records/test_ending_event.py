from __future__ import annotations

import json

import pytest

from gremlins.records.ending_event import ending_event
from gremlins.records.gremlin import (
    Bailed,
    Evidence,
    FailedGremlin,
    Finished,
    Interrupted,
    Parked,
    Running,
    Status,
    Stopped,
)
from tests.fleet.records import NOON, ago, parked_call, record

PROOF = Evidence(kind="commits", base="0", tip="1", holds=True)
ENDINGS: list[tuple[Status, str, str | None]] = [
    (Finished(since=ago(1), evidence=PROOF), "finished", None),
    (Bailed(since=ago(1), stage="plan", kind="unclear", detail="which?"), "bailed", "unclear: which?"),
    (FailedGremlin(since=ago(1), stage="verify", failure="task", reason="3 fail", exit_code=2), "dead", "3 fail"),
    (Interrupted(since=ago(1), signal="SIGTERM"), "dead", "ended by SIGTERM"),
    (Parked(since=ago(1), calls=(parked_call(),), reason="bad key", failure="config"), "detached", "bad key"),
]


@pytest.mark.parametrize(("status", "event", "reason"), ENDINGS)
def test_what_is_told_of_an_ending(status: Status, event: str, reason: str | None) -> None:
    found = ending_event(record(status=status), NOON)
    assert found is not None
    assert (found["event"], found["reason"], found["id"]) == (event, reason, "fix-add")
    json.dumps(found)


@pytest.mark.parametrize(
    "status", [Running(since=ago(1)), Parked(since=ago(1), calls=()), Stopped(since=ago(1), by="a person")]
)
def test_nothing_is_told_of_what_goes_on_or_was_stopped(status: Status) -> None:
    assert ending_event(record(status=status), NOON) is None
