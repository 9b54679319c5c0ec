"""Costs outlive the gremlin: nothing is lost when its folder goes, and nothing is counted twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gremlins.records.calls import CallFailed, Cost, Waste
from gremlins.records.gremlin import Gremlin
from gremlins.records.spend import SpendLine, all_spending, archive, unreadable_lines
from tests.fleet.records import Root, call, live_call, record, state_root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return state_root(tmp_path)


def spent(root: Root) -> list[SpendLine]:
    return all_spending(root.home)[0]


def usd(root: Root) -> float:
    return round(sum(line.usd or 0.0 for line in spent(root)), 10)


def remove(root: Root, gremlin: Gremlin) -> None:
    archive(root.home, gremlin)
    shutil.rmtree(root.home.gremlin(gremlin.id).root)


def test_removing_a_gremlin_changes_no_cost(root: Root) -> None:
    gremlin = root.put(record(bead_id="gr-1"), call(), live_call("verify", cost=Cost(usd=0.5, live_usd=0.5)))
    before = spent(root)
    remove(root, gremlin)
    assert sorted(spent(root), key=lambda line: line.call) == sorted(before, key=lambda line: line.call)
    assert usd(root) == 0.51


def test_a_removal_that_was_cut_off_counts_nothing_twice(root: Root) -> None:
    gremlin = root.put(record(), call())
    archive(root.home, gremlin)
    assert usd(root) == 0.01  # archived, and still there
    remove(root, gremlin)  # done again
    assert usd(root) == 0.01
    assert len(root.home.spend.read_text().splitlines()) == 1


def test_a_later_gremlin_of_the_same_id_is_another_one(root: Root) -> None:
    remove(root, root.put(record(uid="first"), call()))
    remove(root, root.put(record(uid="second"), call()))
    assert usd(root) == 0.02


def test_a_second_batch_of_a_call_is_a_line_of_its_own(root: Root) -> None:
    twice = call(waste=(Waste(batch_id="msgbatch_2", cost=Cost(usd=0.01, live_usd=0.02), settled=True),))
    remove(root, root.put(record(), twice))
    assert [(line.batch_id, line.wasted) for line in spent(root)] == [("msgbatch_plan_1", False), ("msgbatch_2", True)]
    assert usd(root) == 0.02


def test_a_call_without_a_price_is_counted_and_never_free(root: Root) -> None:
    remove(root, root.put(record(), call(cost=Cost(usd=None))))
    assert [line.usd for line in spent(root)] == [None]


def test_a_call_that_was_not_billed_is_no_line(root: Root) -> None:
    failed = call(cost=None, status=CallFailed(failure="capacity", kind="overloaded", message="overloaded"))
    remove(root, root.put(record(), failed))
    assert spent(root) == []


def test_a_call_that_cannot_be_read_is_one_of_unknown_cost(root: Root) -> None:
    gremlin = root.put(record(), call())
    (root.home.gremlin("fix-add").calls / "plan.a1.t1.r1.json").write_text("{")
    assert [line.usd for line in spent(root)] == [None]
    remove(root, gremlin)
    assert [(line.usd, line.stage) for line in spent(root)] == [(None, "(unreadable)")]


def test_calls_of_a_gremlin_whose_record_cannot_be_read_count_all_the_same(root: Root) -> None:
    root.put(record(), call())
    root.home.gremlin("fix-add").state.write_text("{")
    lines, problems = all_spending(root.home)
    assert [line.usd for line in lines] == [0.01]
    assert len(problems) == 1


def test_a_torn_line_loses_no_line_but_itself(root: Root) -> None:
    remove(root, root.put(record("one"), call()))
    with root.home.spend.open("a") as file:
        file.write('{"gremlin_id": "to')  # the disk was full
    remove(root, root.put(record("two"), call()))
    assert {line.gremlin_id for line in spent(root)} == {"one", "two"}
    assert [str(error.path.name) for error in unreadable_lines(root.home)] == ["spend.jsonl"]


def test_the_archive_is_private(root: Root) -> None:
    remove(root, root.put(record(), call()))
    assert root.home.spend.stat().st_mode & 0o077 == 0


def test_saved_is_what_the_batch_price_saved(root: Root) -> None:
    root.put(record(), call(), live_call("implement", cost=Cost(usd=0.5, live_usd=0.5)))
    assert {line.stage: round(line.saved_usd, 10) for line in spent(root)} == {"plan": 0.01, "implement": 0.0}
