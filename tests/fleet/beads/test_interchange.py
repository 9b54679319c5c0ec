"""Import and export of beads' own format."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gremlins.clock import FakeClock, SystemClock
from gremlins.errors import Conflict, GremlinsError
from gremlins.fleet.beads.bead import Bead
from gremlins.fleet.beads.edit import BeadEditor
from gremlins.fleet.beads.interchange import BadLine, Imported, exported, import_text
from gremlins.fleet.beads.store.interface import AddAttempt, Event, MoveBead, PutBead, Query
from gremlins.fleet.beads.store.sqlite import SqliteStore
from gremlins.processes.locks import locked
from gremlins.text import normalised, normalised_value
from tests.fleet.beads.test_store import attempt
from tests.fleet.project import PROJECT, issue
from tests.time_limit import must_end

NOW = "2026-11-21T10:00:00Z"
ODD = "a\0b\x1b[31mc\ud800"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "beads.db") as made:
        yield made


def row(bead_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": bead_id, "title": f"do {bead_id}", "created_at": NOW, "updated_at": NOW, **fields}


def bring_in(store: SqliteStore, *rows: dict[str, Any] | str) -> Imported:
    text = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows)
    return import_text(store, PROJECT, text, file="issues.jsonl", now=NOW, at=1.8e9)


def take_out(store: SqliteStore) -> dict[str, dict[str, Any]]:
    lines = exported(store.beads(PROJECT, Query()))
    return {row["id"]: row for row in map(json.loads, lines)}


def get(store: SqliteStore, bead_id: str) -> Bead:
    found = store.bead(PROJECT, bead_id)
    assert found is not None
    return found


def test_what_it_does_not_know_it_keeps(store: SqliteStore) -> None:
    strange = row(
        "bd-1",
        _type="issue",
        molecule={"deep": [1, {"er": None}]},
        dependencies=[{"issue_id": "bd-1", "depends_on_id": "bd-9", "type": "discovered-from", "thread_id": "x"}],
        comments=[{"id": 7, "issue_id": "bd-1", "author": "a", "text": "hi", "created_at": NOW, "mood": "good"}],
        created_at="2025-10-14T12:00:00.123456789-07:00",
    )
    bring_in(store, strange)
    out = take_out(store)["bd-1"]
    assert {key: out[key] for key in strange} == strange


def test_a_second_import_of_an_export_changes_nothing(store: SqliteStore) -> None:
    bring_in(
        store, row("bd-1", status="hooked"), row("bd-2", status="closed", closed_at=NOW), row("bd-3", labels=["x"])
    )
    before = take_out(store)
    done = bring_in(store, *exported(store.beads(PROJECT, Query())))
    assert (done.created, done.updated, len(done.unchanged)) == ([], [], 3)
    assert take_out(store) == before


def test_work_that_was_deleted_there_is_held_here(store: SqliteStore) -> None:
    """It was ready, and an agent was paid for it."""
    later = "2026-11-22T10:00:00Z"
    bring_in(store, row("bd-1", description="how"), row("bd-2", status="closed"))
    graves = [{"id": f"bd-{n}", "status": "tombstone", "updated_at": later, "deleted_at": later} for n in (1, 2, 3)]
    done = bring_in(store, *graves, row("bd-3"))
    assert (done.updated, done.held, done.created, done.skipped) == (["bd-1"], ["bd-1"], [], 2)
    out = take_out(store)
    assert (out["bd-1"]["status"], out["bd-1"]["description"]) == ("tombstone", "how")
    assert get(store, "bd-2").status == "closed"
    assert bring_in(store, *graves).unchanged == ["bd-1"]
    assert bring_in(store, row("bd-1")).older == ["bd-1"]
    bring_in(store, row("bd-1", updated_at="2026-11-23T10:00:00Z"))
    assert get(store, "bd-1").hold is None


def test_an_import_beside_a_loop_that_changes_beads_is_done_again(tmp_path: Path) -> None:
    class Busy(SqliteStore):
        def replace_all(self, project: str, puts: Sequence[PutBead]) -> None:
            bead = get(self, "bd-1")
            if bead.status == "open":
                assert self.commit(PutBead(replace(bead, status="in_progress"), bead.generation))
            super().replace_all(project, puts)

    with Busy(tmp_path / "beads.db") as store:
        store.commit(PutBead(Bead(PROJECT, issue("bd-1")), None))
        done = bring_in(store, row("bd-1", title="better words", updated_at="2026-11-22T10:00:00Z"), row("bd-2"))
        assert (done.updated, done.created) == (["bd-1"], ["bd-2"])
        assert (get(store, "bd-1").status, get(store, "bd-1").issue.title) == ("in_progress", "better words")


def test_schema_lines_tombstones_blank_lines_and_a_byte_order_mark_are_skipped(store: SqliteStore) -> None:
    text = "\ufeff" + json.dumps({"_schema": 3}) + "\n\n" + json.dumps(row("bd-1", status="tombstone")) + "\n"
    done = import_text(store, PROJECT, text + json.dumps(row("bd-2")), file="f", now=NOW, at=1.8e9)
    assert (done.created, done.skipped) == (["bd-2"], 2)


@pytest.mark.parametrize("status", ["hooked", "pinned", "in_progress", "blocked", "my-own", "failed"])
def test_a_status_we_do_not_have_is_held_and_exported_as_it_was(store: SqliteStore, status: str) -> None:
    bring_in(store, row("bd-1", status=status))
    bead = get(store, "bd-1")
    assert bead.status == "open"
    assert bead.hold is not None
    assert bead.hold.status == status
    assert take_out(store)["bd-1"]["status"] == status


KINDS = ["agent", "role", "rig", "message", "gate", "molecule", "merge-request", "merge_request", "event", "Convoy"]
FLAGS = [{"ephemeral": True}, {"ephemeral": 1}, {"pinned": True}, {"pinned": 1}, {"wisp": True}, {"is_template": 1}]


@pytest.mark.parametrize("fields", [*FLAGS, *({"issue_type": kind} for kind in KINDS)])
def test_what_is_no_work_is_kept_and_never_ready(store: SqliteStore, fields: dict[str, Any]) -> None:
    """110 of 115 ready ones in a backup file were records of this kind: there a flag is 1, and not true."""
    work = row("bd-2", ephemeral=0, pinned=False, is_template=0, wisp_type="", issue_type="spike")
    bring_in(store, row("bd-1", **fields), work)
    ready = [work.id for work in store.view(PROJECT, 1.8e9, fresh=9).works]
    assert ready == ["bd-2"]
    hold = get(store, "bd-1").hold
    assert hold is not None
    assert hold.kind == "not_work"
    out = take_out(store)["bd-1"]
    assert out["status"] == "open"
    assert {key: out[key] for key in fields} == fields
    assert bring_in(store, out).unchanged == ["bd-1"]


def test_no_verb_makes_it_ready_but_a_change_of_its_type_does(store: SqliteStore) -> None:
    bring_in(store, row("bd-1", issue_type="message"), row("bd-2", ephemeral=1))
    editor = BeadEditor(store, PROJECT, FakeClock(), "anna", lambda *_: ())
    for bead_id, verb in (("bd-1", "bead update bd-1 -t task"), ("bd-2", "bead create")):
        with pytest.raises(Conflict, match="not work") as caught:
            editor.release(bead_id)
        assert verb in (caught.value.hint or "")
    assert editor.update("bd-1", {}, "open").hold is not None
    assert editor.update("bd-1", {"issue_type": "task"}).hold is None
    assert editor.create("A note", issue_type="message").hold is not None


def test_empty_texts_and_repeated_dependencies_survive_a_round_trip(store: SqliteStore) -> None:
    needs = {"issue_id": "bd-1", "depends_on_id": "bd-9", "type": "blocks"}
    given_row = row(
        "bd-1", description="", notes="", assignee="", labels=["x", "x"], dependencies=[needs, {**needs, "thread": "t"}]
    ) | {"estimated_minutes": None, "deep": {"er": None}}
    bring_in(store, given_row, row("bd-2", status=""))
    out = take_out(store)
    assert {key: out["bd-1"].get(key, "absent") for key in given_row} == given_row
    assert "assignee" not in out["bd-2"]
    editor = BeadEditor(store, PROJECT, FakeClock(), "anna", lambda *_: ())
    editor.update("bd-1", {"priority": 1})
    assert take_out(store)["bd-1"]["dependencies"] == given_row["dependencies"]


def test_a_failed_bead_is_exported_as_blocked_with_a_label_and_comes_back_as_failed(store: SqliteStore) -> None:
    store.commit(PutBead(Bead(PROJECT, issue("bd-1", labels=("x",)), "failed"), None))
    out = take_out(store)["bd-1"]
    assert (out["status"], out["labels"]) == ("blocked", ["x", "gremlins:failed"])
    bring_in(store, out | {"updated_at": "2026-11-22T10:00:00Z", "id": "bd-2"})
    assert get(store, "bd-2").status == "failed"
    assert get(store, "bd-2").issue.labels == ("x",)


def test_rows_older_than_ours_are_left_alone(store: SqliteStore) -> None:
    bring_in(store, row("bd-1", title="newer"))
    done = bring_in(store, row("bd-1", title="older", updated_at="2026-11-20T10:00:00Z"))
    assert done.older == ["bd-1"]
    assert get(store, "bd-1").issue.title == "newer"
    bring_in(store, row("bd-1", title="newest", updated_at="2026-11-21T10:00:01+00:00"))
    assert get(store, "bd-1").issue.title == "newest"


def test_an_import_does_not_take_work_from_a_gremlin(store: SqliteStore) -> None:
    bring_in(store, row("bd-1"))
    work = store.works(PROJECT, ["bd-1"]).works[0]
    assert store.commit(MoveBead(work, "in_progress", NOW), AddAttempt(attempt("bd-1")))
    bring_in(store, row("bd-1", title="better words", updated_at="2026-11-22T10:00:00Z"))
    assert get(store, "bd-1").status == "in_progress"
    assert get(store, "bd-1").issue.title == "better words"
    bring_in(store, row("bd-1", status="closed", updated_at="2026-11-23T10:00:00Z"))
    assert get(store, "bd-1").status == "closed"


def test_a_bead_holds_no_order_anywhere_and_a_deep_one_is_named(store: SqliteStore) -> None:
    bring_in(store, row("bd-1", comments=[{"text": ODD}], molecule={ODD: [ODD]}, external_ref=ODD, issue_type=ODD))
    kept = json.dumps(take_out(store)["bd-1"])
    assert not [order for order in (r"\u001b", r"\u0000", r"\ud800") if order in kept]
    assert kept.count("[31m") == 0
    with pytest.raises(BadLine, match=r"issues\.jsonl:1: nested too deeply"):
        bring_in(store, json.dumps(row("bd-2"))[:-1] + ', "x": ' + "[" * 700 + "]" * 700 + "}")


def test_a_secret_in_the_history_of_a_bead_is_masked(store: SqliteStore) -> None:
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    assert store.commit(Event(PROJECT, "bd-1", 1.0, "closed", f"\x1b[31mwith {token}"))
    assert [event.text for event in store.events(PROJECT, "bd-1")] == ["with [masked secret]"]


def test_a_database_that_another_process_keeps_busy_is_waited_for_and_then_said(tmp_path: Path) -> None:
    path = tmp_path / "beads.db"
    with SqliteStore(path, patience=0.2) as ours:
        bring_in(ours, row("bd-1"))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert get(ours, "bd-1").status == "open", "readers do not wait"
        with must_end(), pytest.raises(GremlinsError, match=r"beads\.db: database is locked") as caught:
            bring_in(ours, row("bd-2"))
        assert caught.value.hint == "another process keeps the database busy; try again"
        other.execute("ROLLBACK")
        other.close()
        bring_in(ours, row("bd-2"))
    new = tmp_path / "new.db"
    with locked(tmp_path / "new.db.lock", clock=SystemClock(), patience=1) as mine:
        assert mine
        with must_end(), pytest.raises(Conflict, match="being created by another process"):
            SqliteStore(new, patience=0.2)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"id": "bd-2", "title": ', "not JSON"),
        ('["bd-2"]', "not a JSON object"),
        (json.dumps({"id": "bd-2"}), "title"),
        (json.dumps(row("bd-2") | {"title": "x" * 501}), "title"),
        (json.dumps(row("bd-2") | {"title": "  "}), "title"),
        (json.dumps({"title": "x"}), "id"),
        (json.dumps(row("bd-2", priority=5)), "priority"),
        (json.dumps(row("bd-2", priority="high")), "priority"),
        (json.dumps(row("bd-2", created_at="yesterday")), "created_at"),
        (json.dumps(row("bd-2", labels="one")), "labels"),
        (json.dumps(row("bd-2", score=float("nan"))), "NaN"),
        (json.dumps(row("bd-2"))[:-1] + ', "score": 1e999}', "1e999"),
        (json.dumps(row("bd-2", dependencies=[{"type": "blocks"}])), "depends_on_id"),
        ("[" * 100_000, "nested"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_imported(store: SqliteStore, line: str, why: str) -> None:
    with pytest.raises(BadLine, match=r"^issues\.jsonl:3: ") as caught:
        bring_in(store, row("bd-1"), "", line)
    assert why in caught.value.message
    assert store.ids(PROJECT) == []


def test_a_circle_is_refused_with_a_line_of_it(store: SqliteStore) -> None:
    needs_two = [{"issue_id": "bd-1", "depends_on_id": "bd-2", "type": "blocks"}]
    needs_one = [{"issue_id": "bd-2", "depends_on_id": "bd-1", "type": "conditional-blocks"}]
    with pytest.raises(BadLine, match=r"^issues\.jsonl:[12]: .*circle"):
        bring_in(store, row("bd-1", dependencies=needs_two), row("bd-2", dependencies=needs_one))
    assert store.ids(PROJECT) == []


def test_dependencies_on_what_is_not_here_are_kept(store: SqliteStore) -> None:
    bring_in(store, row("bd-1", dependencies=[{"issue_id": "bd-1", "depends_on_id": "gone-7", "type": "blocks"}]))
    assert not get(store, "bd-1").blocked
    assert take_out(store)["bd-1"]["dependencies"][0]["depends_on_id"] == "gone-7"


def test_closed_is_closed_at_and_nothing_else_is(store: SqliteStore) -> None:
    bring_in(store, row("bd-1", status="closed"), row("bd-2", closed_at=NOW))
    assert get(store, "bd-1").issue.closed_at == NOW
    assert get(store, "bd-2").issue.closed_at is None


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
STRANGE_KEYS = st.text(min_size=1, max_size=12).filter(lambda key: key not in row("x") and not key.startswith("_"))


@settings(max_examples=60)
@given(
    title=st.text(min_size=1, max_size=500).filter(str.strip),
    status=st.sampled_from(["open", "closed", "deferred", "hooked", "x y"]),
    priority=st.integers(0, 4),
    extra=st.dictionaries(STRANGE_KEYS.map(lambda key: "x_" + normalised(key)), JSON_VALUES, max_size=4),
    description=st.text(max_size=50),
)
def test_an_export_holds_all_that_was_imported(
    tmp_path_factory: pytest.TempPathFactory,
    title: str,
    status: str,
    priority: int,
    extra: dict[str, Any],
    description: str,
) -> None:
    with SqliteStore(tmp_path_factory.mktemp("round") / "beads.db") as store:
        given_row = row("bd-1", title=title, status=status, priority=priority, description=description, **extra)
        if status == "closed":
            given_row["closed_at"] = NOW
        bring_in(store, given_row)
        out = take_out(store)["bd-1"]
        stored = {key: value if key == "id" else normalised_value(value) for key, value in given_row.items()}
        assert {key: out.get(key, "absent") for key in given_row} == stored
