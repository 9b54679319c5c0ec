"""The gremlin's record has one writer and is never half; foreign files are reported and left alone."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from gremlins.clock import FakeClock
from gremlins.errors import Conflict, CorruptRecord, NotFound
from gremlins.fleet.observe import ids, resolve
from gremlins.fleet.status import as_json, survey
from gremlins.paths import Home
from gremlins.processes.locks import GremlinLock
from gremlins.records.calls import BatchRef, CallRecord, Ended, Intent, Send, Submitted, Waste
from gremlins.records.gremlin import (
    Bailed,
    CostSummary,
    Evidence,
    FailedGremlin,
    Finished,
    Gremlin,
    Interrupted,
    Landed,
    Parked,
    ParkedCall,
    Queued,
    Running,
    RunStore,
    StageRun,
    Status,
    Stopped,
    read_record,
)
from tests.kill_points import killed_at, killed_everywhere
from tests.records.test_calls import mutated
from tests.records.test_calls import record as call_record

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
EVIDENCE = Evidence(kind="commits", base="a", tip="b", holds=True)
CALL = ParkedCall(stage="plan", custom_id="g_1", batch_id="msgbatch_1", submitted_at=NOW, expires_at=NOW)
STATUSES: tuple[Status, ...] = (
    Queued(since=NOW),
    Running(since=NOW, until=NOW, waiting_for="a command"),
    Parked(since=NOW, calls=(CALL, CALL)),
    Parked(since=NOW, calls=(), reason="the key was refused", failure="config"),
    Finished(since=NOW, evidence=EVIDENCE),
    Landed(since=NOW, sha="c", target="main", evidence=EVIDENCE),
    Bailed(since=NOW, stage="plan", kind="refused", detail="no"),
    FailedGremlin(since=NOW, stage="plan", failure="task", reason="it failed", exit_code=3),
    Interrupted(since=NOW, signal="SIGTERM"),
    Stopped(since=NOW, by="a person"),
)


def gremlin(gremlin_id: str = "g", status: Status = STATUSES[0], **more: Any) -> Gremlin:
    values: dict[str, Any] = {
        "id": gremlin_id,
        "uid": "00",
        "pipeline": "local",
        "task": "Fix it",
        "project": "/repo",
        "branch": f"gremlins/{gremlin_id}",
        "worktree": f"/w/worktrees/{gremlin_id}",
        "base": "a",
        "stage": "plan",
        "status": status,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Gremlin(**{**values, **more})


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(Home(tmp_path), FakeClock())


def put(store: RunStore, record: Gremlin) -> Gremlin:
    """A record, whether its folder is there already or not."""
    folder = store.paths(record.id).root
    lock = GremlinLock.acquire(store.paths(record.id).lock, "keeper") if folder.exists() else store.claim(record.id)
    with lock:
        return store.write(record, lock)


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", STATUSES, ids=lambda status: status.state)
def test_every_status_is_read_as_it_was_written(store: RunStore, status: Status) -> None:
    written = put(
        store, gremlin(status=status, stages=(StageRun(path="plan", type="plan", attempt=1, started_at=NOW),))
    )
    assert store.read("g") == written


def test_a_crash_at_any_boundary_of_a_write_leaves_the_old_record_or_the_new_one(store: RunStore) -> None:
    old = put(store, gremlin())
    new = replace(old, status=STATUSES[2], updated_at=store.clock.now())

    def prepare() -> Callable[[], Any]:
        put(store, old)
        return lambda: put(store, new)

    def check(died: bool) -> None:
        assert store.read("g") in ((old, new) if died else (new,))

    assert killed_everywhere(prepare, check) >= 6


def test_a_crash_at_any_boundary_of_a_launch_leaves_an_id_that_can_be_taken(tmp_path: Path) -> None:
    number = 0

    def fresh() -> RunStore:
        return RunStore(Home(tmp_path / str(number)), FakeClock())

    def prepare() -> Callable[[], Any]:
        nonlocal number
        number += 1
        return lambda: put(fresh(), gremlin())

    def check(died: bool) -> None:
        if died and not fresh().paths("g").state.exists():
            assert put(fresh(), gremlin()).id == "g"
        with pytest.raises(Conflict, match="already"):
            fresh().claim("g")

    assert killed_everywhere(prepare, check) >= 8


def test_an_id_that_is_being_launched_is_taken(store: RunStore) -> None:
    with store.claim("g"), pytest.raises(Conflict, match="already"):
        store.claim("g")


def test_folders_and_files_are_for_their_owner_only(store: RunStore) -> None:
    put(store, gremlin())
    for path in (store.home.gremlins, *store.home.gremlins.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


class Store(RuleBasedStateMachine):
    """The store against a plain dict, with writers that die and rubbish that lies about."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.store = RunStore(Home(self.root), FakeClock())
        self.model: dict[str, Gremlin] = {}

    ids = st.sampled_from(["a", "ab", "abc", "b-1"])
    statuses = st.sampled_from(STATUSES)

    @rule(gremlin_id=ids, status=statuses)
    def write(self, gremlin_id: str, status: Status) -> None:
        self.model[gremlin_id] = put(self.store, gremlin(gremlin_id, status))

    @rule(gremlin_id=ids, status=statuses, boundary=st.integers(1, 14))
    def die_while_writing(self, gremlin_id: str, status: Status, boundary: int) -> None:
        new = gremlin(gremlin_id, status)
        died = killed_at(boundary, lambda: put(self.store, new))
        try:
            found = self.store.read(gremlin_id)
        except NotFound:
            assert gremlin_id not in self.model
            assert died
            return
        assert found == self.model.get(gremlin_id) or found.status == status
        self.model[gremlin_id] = found

    @rule(name=st.sampled_from(["x.json", ".hidden", "UPPER", "a b"]))
    def leave_something_lying_about(self, name: str) -> None:
        self.store.home.gremlins.mkdir(exist_ok=True)
        (self.store.home.gremlins / name).write_text("{")

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def name_by_a_prefix(self, data: st.DataObject) -> None:
        known = sorted(ids(self.store.home))
        prefix = data.draw(st.sampled_from(["a", "ab", "abc", "b", "b-", "z"]))
        matches = [prefix] if prefix in known else [name for name in known if name.startswith(prefix)]
        if len(matches) == 1:
            assert resolve(self.store.home, prefix) == matches[0]
        else:
            with pytest.raises(NotFound):
                resolve(self.store.home, prefix)

    @invariant()
    def holds_what_was_written(self) -> None:
        for gremlin_id, record in self.model.items():
            assert self.store.read(gremlin_id) == record

    def teardown(self) -> None:
        shutil.rmtree(self.root)


Store.TestCase.settings = settings(max_examples=20, stateful_step_count=12, deadline=None)
TestStore = Store.TestCase


# ── reading what others left ────────────────────────────────────────────────────────────────────────────────────────

RUBBISH = [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema": 1}']


@pytest.mark.parametrize("content", RUBBISH, ids=["empty", "half", "a list", "null", "no text", "deep", "too little"])
def test_a_half_written_or_foreign_record_is_reported_and_stops_nothing_else(store: RunStore, content: bytes) -> None:
    put(store, gremlin("good"))
    put(store, gremlin("bad"))
    store.paths("bad").state.write_bytes(content)
    with pytest.raises(CorruptRecord):
        store.read("bad")
    fleet = survey(store.home, store.clock)
    assert [row.record.id for row in fleet.rows] == ["good"]
    assert [error.path.parent.name for error in fleet.unreadable] == ["bad"]
    assert store.paths("bad").state.read_bytes() == content


def test_a_record_of_a_newer_program_is_not_guessed_at(store: RunStore) -> None:
    put(store, gremlin())
    path = store.paths("g").state
    for more in ({}, {"status": {"state": "dreaming", "since": "2026-11-21T12:00:00Z"}}):
        path.write_text(json.dumps({**json.loads(path.read_text()), **more, "schema": 2}))
        with pytest.raises(CorruptRecord, match="newer gremlins"):
            store.read("g")


def test_a_record_that_was_copied_is_not_taken_for_another_gremlins(store: RunStore) -> None:
    put(store, gremlin("a"))
    put(store, gremlin("b"))
    store.paths("b").state.write_bytes(store.paths("a").state.read_bytes())
    with pytest.raises(CorruptRecord, match="another gremlin"):
        store.read("b")


@pytest.mark.parametrize("elsewhere", ["", "/", "/repo", "/w/worktrees", "/w/worktrees/other", "worktree/g"])
def test_no_folder_is_a_gremlins_worktree_because_a_damaged_record_says_so(store: RunStore, elsewhere: str) -> None:
    put(store, gremlin(worktree=elsewhere))
    with pytest.raises(CorruptRecord, match="not its own"):
        store.read("g")


def test_what_is_not_there_is_not_found_and_the_nearest_is_offered(store: RunStore) -> None:
    put(store, gremlin("fix-login"))
    with pytest.raises(NotFound) as caught:
        resolve(store.home, "fix-logon")
    assert "fix-login" in str(caught.value.hint)


PARTS = st.sampled_from(["", "status", "status", "stages", "cost", "attempts", "branch"])


def shown_or_reported(home: Home) -> None:
    """A gremlin whose files may say anything is in the list, or among what cannot be read."""
    fleet = survey(home, FakeClock(), everything=True)
    assert len(fleet.rows) + len(fleet.unreadable) == 1
    for row in fleet.rows:
        json.dumps(as_json(row))


@given(st.sampled_from(STATUSES), PARTS, st.data())
@settings(max_examples=120)
def test_whatever_is_done_to_a_record_it_is_shown_or_reported(status: Status, part: str, data: st.DataObject) -> None:
    stages = (StageRun(path="plan", type="plan", attempt=1, started_at=NOW),)
    whole = gremlin(status=status, stages=stages, attempts={"plan": 2}, cost=CostSummary(total_usd=1.0))
    changed = json.loads(msgspec.json.encode(whole))
    changed = {**changed, part: mutated(changed[part], data)} if part else mutated(changed, data)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        home.gremlin("g").root.mkdir(parents=True)
        home.gremlin("g").state.write_text(json.dumps(changed))
        with suppress(CorruptRecord):
            read_record(str(home.gremlin("g").root))
        shown_or_reported(home)


CALLS = (
    call_record(status=Submitted(), batch=BatchRef(batch_id="b", submitted_at=NOW)),
    call_record(status=Intent(), sends=(Send(began=NOW),)),
    call_record(status=Ended(raw="x"), waste=(Waste(batch_id="c"),)),
)


@given(st.sampled_from(CALLS), st.data())
@settings(max_examples=60)
def test_whatever_is_done_to_a_call_record_its_gremlin_is_shown(call: CallRecord, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Home(Path(folder)), FakeClock())
        put(store, gremlin(status=STATUSES[1]))
        changed = mutated(json.loads(msgspec.json.encode(call)), data)
        (store.paths("g").calls / call.key.filename).write_text(json.dumps(changed))
        shown_or_reported(store.home)


@given(st.data())
@settings(max_examples=60)
def test_whatever_a_parked_process_left_about_its_wait_is_shown_or_passed_over(data: st.DataObject) -> None:
    wait = {"until": 1.8e9, "polls": 3, "calls": [{"batch_id": "msgbatch_1", "processing_status": "in_progress"}]}
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Home(Path(folder)), FakeClock())
        put(store, gremlin(status=STATUSES[2]))
        store.paths("g").wait.write_text(json.dumps(mutated(wait, data)))
        shown_or_reported(store.home)


@pytest.mark.parametrize(
    ("label", "attempt"),
    [("plan", 1), ("loop", 3), ("loop[2]", 3), ("loop[2]/plan", 3), ("loop[1]/plan", 5), ("loop[1]/plan/fix[2]", 5)],
)
def test_a_call_has_the_attempt_of_the_nearest_stage_around_it(label: str, attempt: int) -> None:
    assert gremlin(attempts={"loop": 3, "loop[1]/plan": 5}).attempt_of(label) == attempt
