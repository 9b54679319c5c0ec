"""Call records are whole after a kill at any point; foreign files are reported and left alone."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gremlins.errors import CorruptRecord
from gremlins.files import make_private_dir
from gremlins.paths import GremlinPaths
from gremlins.records.calls import (
    BatchCall,
    BatchRef,
    CallFailed,
    CallKey,
    CallRecord,
    CallStatus,
    Collected,
    Cost,
    Ended,
    Intent,
    Ledger,
    LiveCall,
    Reply,
    Send,
    Submitted,
    Waste,
    hash_request,
    read_call,
    storable,
    summarize,
)
from tests.kill_points import killed_at, killed_everywhere

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


def record(key: CallKey | None = None, status: CallStatus | None = None, *, live: bool = False, **more: Any) -> Any:
    request = more.pop("request", {"model": "claude-sonnet-5-5", "messages": []})
    values: dict[str, Any] = {
        "key": key or CallKey(stage="plan"),
        "custom_id": "g_1",
        "client": "claude:claude-sonnet-5-5",
        "spawn": 1,
        "created_at": NOW,
        "updated_at": NOW,
        "request": request,
        "request_sha256": hash_request(request),
        "status": status or Intent(),
    }
    return (LiveCall if live else BatchCall)(**{**values, **more})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    paths = GremlinPaths(tmp_path / "g")
    make_private_dir(paths.calls)
    return Ledger(paths)


def file_of(ledger: Ledger, one: CallRecord) -> Path:
    return ledger.paths.calls / one.key.filename


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_written_is_read_again(ledger: Ledger) -> None:
    one = record(status=Collected(reply=Reply(text="a plan 🍊", blocks=({"type": "text"},))), cost=Cost(usd=0.1))
    assert ledger.put(one) == one
    assert ledger.records() == [one]


def test_a_crash_at_any_boundary_of_a_write_leaves_the_old_record_or_the_new_one(ledger: Ledger) -> None:
    old, new = record(), record(status=Submitted())

    def prepare() -> Callable[[], Any]:
        ledger.put(old)
        return lambda: ledger.put(new)

    def check(died: bool) -> None:
        (found,) = ledger.records()
        assert found in ((old, new) if died else (new,))

    assert killed_everywhere(prepare, check) >= 4


def test_a_raw_result_is_whole_or_not_there(ledger: Ledger) -> None:
    one = record()
    raw = ledger.paths.calls / "plan.a1.t1.r1.raw.jsonl"

    def prepare() -> Callable[[], Any]:
        raw.unlink(missing_ok=True)
        return lambda: ledger.save_raw(one.key, b"line\n" * 10_000)

    def check(died: bool) -> None:
        assert died or raw.exists()
        assert not raw.exists() or raw.read_bytes() == b"line\n" * 10_000
        assert ledger.records() == []

    assert killed_everywhere(prepare, check) >= 4


class Store(RuleBasedStateMachine):
    """The ledger against a plain dict, with writers that die."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        paths = GremlinPaths(self.root / "g")
        make_private_dir(paths.calls)
        self.ledger = Ledger(paths)
        self.model: dict[CallKey, CallRecord] = {}
        self.maybe: dict[CallKey, CallRecord] = {}
        self.written = 0

    keys = st.builds(
        CallKey,
        stage=st.sampled_from(["plan", "loop[3]/plan", "loop[3]/plän", "a.a1.t1", "x" * 130, "verify/fix"]),
        attempt=st.integers(1, 2),
        turn=st.integers(1, 2),
        try_=st.integers(1, 2),
    )
    statuses = st.sampled_from([Intent(), Submitted(), Ended(raw="x"), Collected(reply=Reply(text="t"))])

    def fresh(self, key: CallKey, status: CallStatus) -> CallRecord:
        self.written += 1
        return record(key, status, updated_at=NOW + timedelta(seconds=self.written))

    @rule(key=keys, status=statuses)
    def put(self, key: CallKey, status: CallStatus) -> None:
        self.model[key] = self.ledger.put(self.fresh(key, status))
        self.maybe.pop(key, None)

    @rule(key=keys, status=statuses, boundary=st.integers(1, 9))
    def die_while_putting(self, key: CallKey, status: CallStatus, boundary: int) -> None:
        one = self.fresh(key, status)
        if killed_at(boundary, lambda: self.ledger.put(one)):
            self.maybe[key] = one
        else:
            self.model[key] = one
            self.maybe.pop(key, None)
        self.settle(key)

    def settle(self, key: CallKey) -> None:
        """A killed writer leaves the old record or the new one, and that one stays."""
        found = next((r for r in self.ledger.records() if r.key == key), None)
        if key in self.maybe and found == self.maybe[key]:
            self.model[key] = found
        assert found == self.model.get(key)

    @rule(name=st.sampled_from(["notes.txt", ".plan.a1.t1.r1.json.x.tmp", "plan.a1.t1.r1.raw.jsonl"]))
    def leave_something_lying_about(self, name: str) -> None:
        (self.ledger.paths.calls / name).write_text("{")

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def read_one_call(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.model, key=str)))
        mine = [r for k, r in self.model.items() if (k.stage, k.attempt) == (key.stage, key.attempt)]
        expected = sorted(mine, key=lambda r: (r.key.turn, r.key.try_))
        assert self.ledger.of_call(key.stage, key.attempt) == expected

    @invariant()
    def holds_what_was_put(self) -> None:
        assert {r.key: r for r in self.ledger.records()} == self.model

    def teardown(self) -> None:
        shutil.rmtree(self.root)


Store.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
TestStore = Store.TestCase


def test_a_record_is_read_once_and_again_when_its_file_was_replaced(ledger: Ledger) -> None:
    """Each turn of a long conversation read every turn before it, several times."""
    one, other = record(CallKey(stage="one")), record(CallKey(stage="other"))
    ledger.put(one)
    ledger.put(other)
    before = ledger.records()
    assert [id(found) for found in ledger.readable()[0]] == [id(found) for found in before]
    changed = Ledger(ledger.paths).put(msgspec.structs.replace(one, cost=Cost(usd=1.0)))
    assert ledger.of_call("one", 1) == [changed]
    file_of(ledger, other).write_text("{")
    assert [len(found) for found in ledger.readable()] == [1, 1]


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────────

stages = st.text(min_size=1, max_size=200)


@given(st.lists(st.builds(CallKey, stage=stages, attempt=st.integers(1, 99)), min_size=2, max_size=2, unique=True))
def test_no_two_calls_share_a_file_and_no_name_leaves_the_folder(keys: list[CallKey]) -> None:
    first, second = (key.filename for key in keys)
    assert first != second
    assert "/" not in first
    assert "\0" not in first
    assert not first.startswith(".")
    assert len(first.encode()) < 200


# ── reading what others left ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema": 1}', b'"' + b"x" * 10_000],
    ids=["empty", "half", "a list", "null", "no text", "deep", "too little", "a half string"],
)
def test_a_half_written_or_foreign_file_is_reported_and_left_alone(ledger: Ledger, content: bytes) -> None:
    good = ledger.put(record(CallKey(stage="good")))
    foreign = ledger.paths.calls / "other.a1.t1.r1.json"
    foreign.write_bytes(content)
    found, bad = ledger.readable()
    assert found == [good]
    assert [error.path for error in bad] == [foreign]
    assert foreign.read_bytes() == content


def test_a_file_of_another_call_stops_no_call_but_its_own(ledger: Ledger) -> None:
    good = ledger.put(record(CallKey(stage="good")))
    (ledger.paths.calls / "other.a1.t1.r1.json").write_text("{")
    assert ledger.of_call("good", 1) == [good]
    with pytest.raises(CorruptRecord):
        ledger.of_call("other", 1)


def test_a_record_of_a_newer_program_is_not_guessed_at(ledger: Ledger) -> None:
    one = ledger.put(record())
    newer = {**json.loads(file_of(ledger, one).read_text()), "schema": 2}
    file_of(ledger, one).write_text(json.dumps(newer))
    with pytest.raises(CorruptRecord, match="newer gremlins"):
        ledger.records()


def test_a_record_under_another_calls_name_is_not_taken_for_it(ledger: Ledger) -> None:
    one = ledger.put(record())
    file_of(ledger, one).rename(ledger.paths.calls / "plan.a1.t1.r2.json")
    with pytest.raises(CorruptRecord, match="another call"):
        ledger.records()


def test_a_request_that_somebody_changed_is_not_sent(ledger: Ledger) -> None:
    one = ledger.put(record())
    changed = json.loads(file_of(ledger, one).read_text())
    changed["request"]["model"] = "claude-dearer"
    file_of(ledger, one).write_text(json.dumps(changed))
    with pytest.raises(CorruptRecord, match="hash"):
        ledger.records()


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert Ledger(GremlinPaths(tmp_path / "missing")).readable() == ([], [])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def mutated(value: Any, data: st.DataObject) -> Any:
    """A JSON document with one part replaced or taken away."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 3)):
        key = data.draw(st.sampled_from(sorted(value)))
        if data.draw(st.booleans()):
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: mutated(value[key], data)}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        return [mutated(value[0], data), *value[1:]]
    return data.draw(json_values)


@given(st.data())
@settings(max_examples=150)
def test_whatever_is_done_to_a_record_it_is_read_or_reported(data: st.DataObject) -> None:
    whole = record(
        status=Collected(reply=Reply(text="t", blocks=({"type": "text"},))),
        batch=BatchRef(batch_id="b", submitted_at=NOW),
        sends=(Send(began=NOW, outcome="accepted"),),
        waste=(Waste(batch_id="c", cost=Cost(usd=1.0)),),
        cost=Cost(usd=0.5),
    )
    changed = mutated(json.loads(msgspec.json.encode(whole)), data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / whole.key.filename
        path.write_text(json.dumps(changed))
        try:
            found = read_call(path)
        except CorruptRecord:
            return
        summarize([found])
        assert isinstance(found, LiveCall) or found.parked()


# ── what a record says ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "sends", "outstanding"),
    [
        (Intent(), (), False),
        (Intent(), (Send(began=NOW),), True),
        (Intent(), (Send(began=NOW, outcome="ambiguous"),), True),
        (Intent(), (Send(began=NOW, outcome="unsent"),), False),
        (Intent(), (Send(began=NOW, outcome="refused"),), False),
        (Intent(), (Send(began=NOW, outcome="absent"),), False),
        (Submitted(), (), True),
        (Ended(raw="x"), (), True),
        (Collected(reply=Reply(text="")), (), False),
        (CallFailed(failure="task", kind="x", message="x"), (), False),
    ],
)
def test_a_call_is_outstanding_until_it_is_known_what_it_cost(
    status: CallStatus, sends: tuple[Send, ...], outstanding: bool
) -> None:
    assert record(status=status, sends=sends).outstanding == outstanding


def test_a_call_waits_for_its_second_batch_once_its_own_has_ended() -> None:
    batch = BatchRef(batch_id="first", submitted_at=NOW)
    one = record(status=Ended(raw="x"), batch=batch, waste=(Waste(batch_id="second"),))
    assert one.outstanding
    assert one.parked().batch_id == "second"
    settled = record(status=Ended(raw="x"), batch=batch, waste=(Waste(batch_id="second", settled=True),))
    assert settled.parked().batch_id == "first"


# ── cost ────────────────────────────────────────────────────────────────────────────────────────────────────────────

costs = st.none() | st.builds(Cost, usd=st.none() | st.floats(0, 100), live_usd=st.none() | st.floats(0, 200))


@given(st.lists(st.tuples(costs, st.booleans(), st.lists(costs, max_size=2)), max_size=6))
def test_the_total_is_the_sum_of_what_is_known_and_the_unknown_is_counted(rows: list[Any]) -> None:
    records = [
        record(cost=cost, live=live, **({} if live else {"waste": tuple(Waste(batch_id="w", cost=c) for c in waste)}))
        for cost, live, waste in rows
    ]
    every = [c for cost, live, waste in rows for c in (cost, *(() if live else waste)) if c is not None]
    total = summarize(records)
    # Sums are rounded to a ten-billionth of a dollar, so a difference below that is none.
    assert total.total_usd == pytest.approx(sum(c.usd for c in every if c.usd is not None), abs=1e-9)
    assert total.total_usd == pytest.approx(total.batch_usd + total.live_usd, abs=1e-9)
    assert total.unpriced_calls == sum(c.usd is None for c in every)


def test_waste_is_paid_for_and_told_apart() -> None:
    total = summarize([record(cost=Cost(usd=1.0), waste=(Waste(batch_id="w", cost=Cost(usd=0.5)),))])
    assert (total.total_usd, total.wasted_usd) == (1.5, 0.5)


def test_the_order_of_records_changes_no_sum() -> None:
    records = [record(cost=Cost(usd=n / 7)) for n in range(20)]
    assert summarize(records) == summarize(records[::-1])


# ── what can be kept ────────────────────────────────────────────────────────────────────────────────────────────────


@given(json_values)
def test_ordinary_values_are_kept_as_they_are(value: Any) -> None:
    assert storable(value) == value


@pytest.mark.parametrize(
    ("value", "kept"),
    [("a\ud800", "a?"), (float("inf"), None), (float("nan"), None), ((1, 2), [1, 2]), ({1: "x"}, {"1": "x"})],
)
def test_what_no_file_could_hold_is_replaced(value: Any, kept: Any) -> None:
    assert storable(value) == kept
