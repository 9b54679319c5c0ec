"""The quick look reads the same files as the typed record, and must never say anything else."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gremlins.clock import rfc3339
from gremlins.errors import CorruptRecord, NotFound
from gremlins.fleet.observe import ids, outstanding_call, read_glance, resolve, sight
from gremlins.paths import GremlinPaths
from gremlins.records.calls import (
    BatchRef,
    CallFailed,
    CallRecord,
    Collected,
    Cost,
    Ended,
    Intent,
    Reply,
    Send,
    Submitted,
    Waste,
)
from gremlins.records.gremlin import (
    OVER,
    Bailed,
    CostSummary,
    Evidence,
    Failed,
    Finished,
    Gremlin,
    Interrupted,
    Landed,
    Parked,
    Queued,
    Running,
    Status,
    Stopped,
)
from tests.fleet.records import NOON, Root, call, parked_call, record, state_root

moments = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))
words = st.text(st.characters(codec="utf-8"), max_size=30)
dollars = st.floats(0, 1e6)
evidence = st.builds(
    Evidence, kind=st.sampled_from(["commits", "none", "nothing_to_do"]), base=words, tip=words, holds=st.booleans()
)
statuses: st.SearchStrategy[Status] = st.one_of(
    st.builds(Queued, since=moments),
    st.builds(Running, since=moments, until=st.none() | moments, waiting_for=st.none() | words),
    st.builds(Parked, since=moments, calls=st.just((parked_call(),)), reason=st.none() | words),
    st.builds(Finished, since=moments, evidence=evidence),
    st.builds(Landed, since=moments, sha=words, target=words, evidence=evidence),
    st.builds(Bailed, since=moments, stage=words, kind=words, detail=words),
    st.builds(Failed, since=moments, stage=words, failure=st.just("task"), reason=words, exit_code=st.integers(0, 255)),
    st.builds(Interrupted, since=moments, signal=words),
    st.builds(Stopped, since=moments, by=words, reason=words),
)
stages = st.sampled_from(["plan", "loop[3]/implement", "loop[1]/verify", "a/b/c", ""])
gremlins = st.builds(
    Gremlin,
    id=st.just("g"),
    uid=words,
    pipeline=words,
    task=words,
    title=words,
    bead_id=st.none() | words,
    project=words,
    branch=words,
    worktree=words,
    base=words,
    stage=stages,
    mode=st.sampled_from([None, "live", "batch"]),
    client=st.none() | words,
    attempts=st.dictionaries(
        st.sampled_from(["plan", "loop", "loop[3]", "loop[3]/implement", "a/b", "a"]), st.integers(1, 9)
    ),
    cost=st.builds(CostSummary, total_usd=dollars, batch_usd=dollars, live_usd=dollars, saved_usd=dollars),
    status=statuses,
    created_at=moments,
    updated_at=moments,
    ended_at=st.none() | moments,
    parked_seconds=dollars,
)


@given(gremlins)
def test_the_quick_look_and_the_typed_record_agree(tmp_path_factory: pytest.TempPathFactory, gremlin: Gremlin) -> None:
    paths = GremlinPaths(tmp_path_factory.getbasetemp() / "glance" / "g")
    paths.root.mkdir(parents=True, exist_ok=True)
    paths.state.write_text(gremlin.model_dump_json(by_alias=True), encoding="utf-8")
    seen = read_glance(paths)
    same = ("id", "pipeline", "task", "title", "bead_id", "project", "branch", "worktree", "stage", "mode", "client")
    times = ("created_at", "updated_at", "ended_at", "parked_seconds")
    for name in (*same, *times):
        assert getattr(seen, name) == getattr(gremlin, name), name
    assert seen.attempt == gremlin.attempt_of(gremlin.stage)
    assert seen.is_over == isinstance(gremlin.status, OVER)
    assert (seen.state, seen.since) == (gremlin.status.state, gremlin.status.since)
    assert dict(seen.status) == gremlin.status.model_dump(mode="json")
    whole = gremlin.cost.model_dump()
    assert seen.cost == {name: whole[name] for name in seen.cost}


sends = st.lists(
    st.builds(
        Send, began=moments, outcome=st.sampled_from([None, "accepted", "unsent", "refused", "ambiguous", "absent"])
    ),
    max_size=3,
).map(tuple)
calls = st.builds(
    lambda mode, status, sends, batch, waste: call(status=status, mode=mode, sends=sends, batch=batch, waste=waste),
    st.sampled_from(["live", "batch"]),
    st.one_of(
        st.just(Intent()),
        st.just(Submitted()),
        st.just(Ended(raw="x.jsonl")),
        st.just(Collected(reply=Reply(text="t"))),
        st.just(CallFailed(failure="task", kind="k", message="m")),
    ),
    sends,
    st.none()
    | st.builds(BatchRef, batch_id=st.just("msgbatch_1"), submitted_at=moments, expires_at=st.none() | moments),
    st.lists(
        st.builds(Waste, batch_id=st.just("msgbatch_2"), settled=st.booleans(), cost=st.none() | st.just(Cost(usd=1))),
        max_size=2,
    ).map(tuple),
)


@given(calls)
def test_both_agree_on_which_calls_are_outstanding(tmp_path_factory: pytest.TempPathFactory, made: CallRecord) -> None:
    path = tmp_path_factory.getbasetemp() / "call.json"
    path.write_text(made.model_dump_json(by_alias=True))
    seen = outstanding_call(path)
    assert (seen is not None) == made.outstanding
    if seen is not None:
        assert {**seen} == made.parked().model_dump(mode="json")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return state_root(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"id": "fix-add"}', '{"id": "another"}', "\x00\x01", "[" * 5000],
)
def test_a_half_written_or_foreign_record_is_reported_and_left_alone(root: Root, text: str) -> None:
    root.put(record())
    paths = root.home.gremlin("fix-add")
    paths.state.write_text(text)
    with pytest.raises(CorruptRecord, match="fix-add"):
        sight(paths)
    assert paths.state.read_text() == text


def test_what_outlives_its_process_is_found_in_its_calls(root: Root) -> None:
    outstanding = call(status=Submitted(), cost=None)
    root.put(record(), outstanding, call("verify"))
    seen = sight(root.home.gremlin("fix-add"))
    assert [found["batch_id"] for found in seen.outstanding] == ["msgbatch_plan_1"]


def test_a_call_that_cannot_be_read_hides_no_other(root: Root) -> None:
    root.put(record(), call(status=Submitted(), cost=None))
    (root.home.gremlin("fix-add").calls / "broken.json").write_text("{")
    assert len(sight(root.home.gremlin("fix-add")).outstanding) == 1


def test_whoever_holds_the_lock_is_seen(root: Root) -> None:
    with root.alive(record()):
        seen = sight(root.home.gremlin("fix-add"))
        assert seen.holder is not None
        assert seen.holder.pid == 4242
    assert sight(root.home.gremlin("fix-add")).holder is None


def test_the_last_sign_of_life_is_the_newest_file(root: Root) -> None:
    with root.alive(record()):
        paths = root.home.gremlin("fix-add")
        paths.activity.touch()
        os.utime(paths.activity, (0, NOON.timestamp() + 10 * 365 * 86400))
        seen = sight(paths)
    assert seen.last_sign is not None
    assert rfc3339(seen.last_sign).startswith("2036")


def test_a_gremlin_brings_its_own_idle_timeout(root: Root) -> None:
    with root.alive(record()):
        paths = root.home.gremlin("fix-add")
        paths.frozen.write_text(json.dumps({"settings": {"live": {"idle_timeout": 1.5}}}))
        assert sight(paths).idle_timeout == 1.5


def test_a_foreign_folder_is_no_gremlin(root: Root) -> None:
    root.put(record())
    (root.home.gremlins / "Not An Id").mkdir()
    (root.home.gremlins / "a-file").write_text("x")
    assert list(ids(root.home)) == ["fix-add"]


def test_a_unique_beginning_names_a_gremlin(root: Root) -> None:
    for name in ("fix-add", "fix-mul", "other"):
        root.put(record(name))
    assert resolve(root.home, "oth") == "other"
    with pytest.raises(NotFound) as several:
        resolve(root.home, "fix-")
    assert several.value.hint == "one of: fix-add, fix-mul"
    with pytest.raises(NotFound) as none:
        resolve(root.home, "fix-adt")
    assert none.value.hint == "did you mean `fix-add`?"


def test_a_whole_id_wins_over_longer_ones(root: Root) -> None:
    for name in ("fix", "fix-add"):
        root.put(record(name))
    assert resolve(root.home, "fix") == "fix"


@pytest.mark.parametrize("name", ["../../etc", "", "Fix", "a/b", "."])
def test_a_name_that_is_none_reaches_no_file(root: Root, name: str) -> None:
    root.put(record())
    with pytest.raises(NotFound):
        resolve(root.home, name)
