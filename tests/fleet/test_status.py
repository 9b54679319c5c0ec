"""The fleet as data: what `status --json` says, to the letter, and which gremlins a list shows."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gremlins.clock import rfc3339
from gremlins.errors import CorruptRecord, NotFound
from gremlins.fleet.status import FleetStatus, as_json, look, survey
from gremlins.records.calls import Submitted
from gremlins.records.gremlin import Bailed, CostSummary, Evidence, FailedGremlin, Finished, Landed, Parked
from tests.fleet.records import NOON, Root, ago, call, parked_call, record, state_root

PROOF = Evidence(kind="commits", base="0" * 40, tip="1" * 40, holds=True)

# Every name that scripts may rely on. More may be added; none of these may change or go.
OBJECT = {
    "id": str,
    "pipeline": str,
    "task": str,
    "bead_id": (str, type(None)),
    "project": str,
    "branch": str,
    "worktree": str,
    "stage": str,
    "mode": (str, type(None)),
    "client": (str, type(None)),
    "attempt": int,
    "liveness": dict,
    "batch": (dict, type(None)),
    "batches": list,
    "bail": (dict, type(None)),
    "cost": dict,
    "created_at": str,
    "updated_at": str,
    "ended_at": (str, type(None)),
}
LIVENESS = {"state", "since", "pid", "exit_code", "reason"}
BATCH = {
    "batch_id",
    "custom_id",
    "stage",
    "turn",
    "submitted_at",
    "expires_at",
    "processing_status",
    "polls",
    "next_poll_at",
}
COST = {"total_usd", "batch_usd", "live_usd", "saved_usd", "unpriced_calls"}


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return state_root(tmp_path)


def shown(root: Root, gremlin_id: str = "fix-add") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(as_json(look(root.home, gremlin_id, root.clock))))
    return found


def names(fleet: FleetStatus) -> list[str]:
    return [row.record.id for row in fleet.rows]


STATUSES = [
    None,
    Parked(since=ago(60), calls=(parked_call(),)),
    Finished(since=ago(60), evidence=PROOF),
    Landed(since=ago(60), sha="2" * 40, target="main", evidence=PROOF),
    Bailed(since=ago(60), stage="plan", kind="unclear", detail="which one?"),
    FailedGremlin(since=ago(60), stage="verify", failure="task", reason="3 tests fail", exit_code=2),
]


@pytest.mark.parametrize("status", STATUSES, ids=lambda s: s.state if s else "lost")
def test_the_object_has_every_name_that_scripts_rely_on(root: Root, status: Any) -> None:
    root.put(record(status=status))
    found = shown(root)
    for name, kind in OBJECT.items():
        assert isinstance(found[name], kind), name
    assert found["liveness"].keys() >= LIVENESS
    assert found["cost"].keys() >= COST
    assert all(batch.keys() >= BATCH for batch in found["batches"])


def test_a_parked_one_shows_its_batch_and_when_it_is_asked_about(root: Root) -> None:
    with root.alive(record(status=Parked(since=ago(60), calls=(parked_call(),)))):
        wait = {
            "until": (NOON + timedelta(seconds=90)).timestamp(),
            "polls": 3,
            "calls": [{"batch_id": "msgbatch_000001", "processing_status": "canceling"}],
        }
        root.home.gremlin("fix-add").wait.write_text(json.dumps(wait))
        found = shown(root)
    assert found["liveness"] == {
        "state": "parked",
        "since": rfc3339(ago(60)),
        "pid": 4242,
        "exit_code": None,
        "reason": None,
        "shown": "parked",
    }
    assert found["batch"] == found["batches"][0]
    assert found["batch"] == {
        "batch_id": "msgbatch_000001",
        "custom_id": "g-000001",
        "stage": "plan",
        "turn": 1,
        "submitted_at": rfc3339(ago(300)),
        "expires_at": rfc3339(ago(300 - 86400)),
        "processing_status": "canceling",
        "polls": 3,
        "next_poll_at": "2026-11-21T12:01:30Z",
    }


def test_a_batch_that_is_only_looked_for_has_no_id_and_no_status(root: Root) -> None:
    lost = replace(parked_call(), batch_id=None, submitted_at=None)
    with root.alive(record(status=Parked(since=ago(60), calls=(lost,)))):
        batch = shown(root)["batch"]
    assert (batch["batch_id"], batch["processing_status"], batch["submitted_at"]) == (None, None, None)


def test_a_detached_one_shows_its_batch_but_nobody_asks_about_it(root: Root) -> None:
    root.put(record(status=Parked(since=ago(60), calls=(parked_call(),))))
    root.home.gremlin("fix-add").wait.write_text(json.dumps({"until": NOON.timestamp() + 60, "calls": []}))
    found = shown(root)
    assert found["liveness"]["state"] == "detached"
    assert found["liveness"]["pid"] is None
    assert found["batch"]["next_poll_at"] is None


@pytest.mark.parametrize("until", [1e300, "soon", None, [], -1e300])
def test_a_wait_file_with_nonsense_in_it_stops_nothing(root: Root, until: Any) -> None:
    with root.alive(record(status=Parked(since=ago(60), calls=(parked_call(),)))):
        root.home.gremlin("fix-add").wait.write_text(json.dumps({"until": until, "polls": None, "calls": [1]}))
        assert shown(root)["batch"]["next_poll_at"] is None


def test_a_crash_between_submission_and_park_still_shows_the_batch(root: Root) -> None:
    root.put(record(), call(status=Submitted(), cost=None))
    found = shown(root)
    assert found["liveness"]["state"] == "detached"
    assert found["batch"]["batch_id"] == "msgbatch_plan_1"


def test_a_bail_is_class_detail_and_stage(root: Root) -> None:
    root.put(record(status=Bailed(since=ago(60), stage="plan", kind="unclear", detail="which one?")))
    found = shown(root)
    assert found["bail"] == {"class": "unclear", "detail": "which one?", "stage": "plan"}
    assert found["liveness"]["reason"] == "unclear: which one?"


def test_what_failed_says_its_exit_code_and_why(root: Root) -> None:
    root.put(
        record(status=FailedGremlin(since=ago(60), stage="verify", failure="task", reason="3 tests fail", exit_code=2))
    )
    life = shown(root)["liveness"]
    assert (life["state"], life["exit_code"], life["reason"], life["shown"]) == (
        "dead",
        2,
        "3 tests fail",
        "dead:exit 2",
    )


def test_cost_is_what_the_record_says(root: Root) -> None:
    root.put(
        record(
            cost=CostSummary(
                total_usd=0.03, batch_usd=0.01, live_usd=0.02, saved_usd=0.01, unpriced_calls=2, unknown_calls=3
            )
        )
    )
    assert shown(root)["cost"] == {
        "total_usd": 0.03,
        "batch_usd": 0.01,
        "live_usd": 0.02,
        "saved_usd": 0.01,
        "unpriced_calls": 2,
        "unknown_calls": 3,
    }


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_list_is_newest_first(root: Root) -> None:
    for age, name in ((30, "b"), (10, "c"), (90, "a")):
        root.put(record(name, created_at=ago(age)))
    assert names(survey(root.home, root.clock)) == ["c", "b", "a"]


def test_finished_and_landed_ones_are_shown_only_when_asked_for(root: Root) -> None:
    root.put(record("done", Finished(since=ago(60), evidence=PROOF)))
    root.put(record("landed", Landed(since=ago(60), sha="2" * 40, target="main", evidence=PROOF)))
    root.put(record("dead"))
    assert names(survey(root.home, root.clock)) == ["dead"]
    assert set(names(survey(root.home, root.clock, everything=True))) == {"done", "landed", "dead"}
    assert names(survey(root.home, root.clock, names=("don",))) == ["done"]


def test_one_repository_can_be_asked_for(root: Root) -> None:
    root.put(record("here", project="/a"))
    root.put(record("there", project="/b"))
    assert names(survey(root.home, root.clock, project=Path("/a"))) == ["here"]


def test_no_state_root_is_an_empty_fleet(tmp_path: Path) -> None:
    assert survey(state_root(tmp_path / "new").home, state_root(tmp_path).clock).rows == ()


def test_a_record_that_cannot_be_read_hides_no_other(root: Root) -> None:
    root.put(record("good"))
    root.put(record("bad"))
    root.home.gremlin("bad").state.write_text("{")
    found = survey(root.home, root.clock)
    assert names(found) == ["good"]
    assert [error.path.parent.name for error in found.unreadable] == ["bad"]


def test_naming_what_cannot_be_read_is_an_error(root: Root) -> None:
    root.put(record("bad"))
    root.home.gremlin("bad").state.write_text("{")
    with pytest.raises(CorruptRecord):
        survey(root.home, root.clock, names=("bad",))


def test_naming_what_is_not_there_is_an_error(root: Root) -> None:
    with pytest.raises(NotFound):
        survey(root.home, root.clock, names=("none",))


def test_one_that_is_just_being_launched_is_passed_over(root: Root) -> None:
    lock = root.store.claim("new")
    assert names(survey(root.home, root.clock)) == []
    lock.release()


def test_a_gremlins_own_idle_timeout_decides_whether_it_is_stalled(root: Root) -> None:
    with root.alive(record()):
        paths = root.home.gremlin("fix-add")
        root.clock.current = root.clock.now().replace(year=2030)
        assert look(root.home, "fix-add", root.clock).life.state == "stalled"
        paths.frozen.write_text(json.dumps({"settings": {"live": {"idle_timeout": 1e9}}}))
        assert look(root.home, "fix-add", root.clock).life.state == "running"
