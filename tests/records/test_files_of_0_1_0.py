"""Files that version 0.1.0 wrote are read. The fixtures are its own output, with the paths of a person's machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gremlins.paths import GremlinPaths, Home
from gremlins.pipeline.freezing import read_frozen
from gremlins.records.calls import BatchCall, LiveCall, Send, read_call
from gremlins.records.gremlin import read_record
from gremlins.records.spend import all_spending
from gremlins.records.stop_request import read_stop
from gremlins.records.wait import read_wait

HOME = Home(Path(__file__).parents[1] / "fixtures" / "0.1.0")
CALLS = sorted(HOME.gremlins.glob("*/calls/*.json"))
STATES = sorted(HOME.gremlins.glob("*/state.json"))


@pytest.mark.parametrize("path", STATES, ids=lambda path: path.parent.name)
def test_a_record_says_what_its_file_says(path: Path) -> None:
    record, said = read_record(str(path.parent)), json.loads(path.read_bytes())
    assert (record.id, record.task, record.stage) == (said["id"], said["task"], said["stage"])
    assert (record.status.state, record.cost.total_usd) == (said["status"]["state"], said["total_cost_usd"])
    assert [run.path for run in record.stages] == [run["path"] for run in said["stages"]]


def test_every_kind_of_end_is_among_them() -> None:
    states = {read_record(str(path.parent)).status.state for path in STATES}
    assert states == {"bailed", "failed", "finished", "interrupted", "landed", "parked", "stopped"}


@pytest.mark.parametrize("path", CALLS, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_a_call_says_what_its_file_says(path: Path) -> None:
    call, said = read_call(path), json.loads(path.read_bytes())
    assert (call.mode, call.status.state, call.custom_id) == (said["mode"], said["status"]["state"], said["custom_id"])
    assert (call.cost.usd if call.cost else None) == (said["cost"]["usd"] if said["cost"] else None)
    match call:
        case BatchCall():
            assert (call.batch and call.batch.batch_id) == (said["batch"] and said["batch"]["batch_id"])
            assert len(call.waste) == len(said["waste"])
            assert call.sends == tuple(Send(**{**send, **_times(send)}) for send in said["sends"])
        case LiveCall():
            assert call.session_id == said["session_id"]


def _times(send: dict[str, str | None]) -> dict[str, object]:
    from gremlins.clock import parse_time

    return {name: parse_time(send[name]) if send[name] else None for name in ("began", "failed")}


def test_what_a_process_waited_for_is_read() -> None:
    wait = read_wait(HOME.gremlin("two-parked").wait)
    assert wait is not None
    assert len(wait.calls) == 2
    assert wait.runner[-1] == "two-parked"


def test_a_stop_request_is_read() -> None:
    stop = read_stop(HOME.gremlin("stopped"))
    assert stop is not None
    assert stop.by != "unknown"


@pytest.mark.parametrize("name", ["finished", "live"])
def test_what_was_frozen_is_read(name: str) -> None:
    assert read_frozen(GremlinPaths(HOME.gremlins / name).frozen).pipeline.stages[0].type == "plan"


def test_what_removed_gremlins_cost_is_read() -> None:
    lines, problems = all_spending(HOME)
    assert not problems
    assert [line.usd for line in lines if line.gremlin_id == "removed"] == [0.02]
