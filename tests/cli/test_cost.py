"""`cost`: sums by every key, unpriced calls counted, removed gremlins included."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

from gremlins.cli.cost import KEYS, cost
from gremlins.records.calls import Cost, Waste
from gremlins.records.spend import archive
from tests.fleet.records import Root, ago, call, live_call, record, state_root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    made = state_root(tmp_path)
    monkeypatch.setenv("GREMLINS_HOME", str(made.home.root))
    made.put(record("one", bead_id="gr-1"), call(), call("loop[2]/plan", cost=Cost(usd=0.25, live_usd=0.5)))
    made.put(
        record("two", bead_id="gr-1"),
        live_call("implement", cost=Cost(usd=0.5, live_usd=0.5), ended_at=ago(90_000)),
    )
    return made


def document(capsys: pytest.CaptureFixture[str], by: str = "gremlin") -> dict[str, Any]:
    assert cost(by=by, json=True) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize(
    ("by", "sums"),
    [
        ("gremlin", {"two": 0.5, "one": 0.26}),
        ("stage", {"implement": 0.5, "loop/plan": 0.25, "plan": 0.01}),
        ("model", {"claude-sonnet-5-5": 0.76}),
        ("day", {"2026-11-20": 0.5, "2026-11-21": 0.26}),
        ("bead", {"gr-1": 0.76}),
    ],
)
def test_every_key_adds_up_to_the_same_total(
    root: Root, capsys: pytest.CaptureFixture[str], by: str, sums: dict[str, float]
) -> None:
    found = document(capsys, by)
    assert list({row["key"]: row["total_usd"] for row in found["rows"]}.items()) == list(sums.items())
    assert found["total_usd"] == 0.76
    assert (found["batch_usd"], found["live_usd"], found["saved_usd"], found["calls"]) == (0.26, 0.5, 0.26, 3)


@pytest.mark.parametrize("by", KEYS)
def test_removal_changes_no_sum(root: Root, capsys: pytest.CaptureFixture[str], by: str) -> None:
    before = document(capsys, by)
    archive(root.home, root.store.read("one"))
    shutil.rmtree(root.home.gremlin("one").root)
    assert document(capsys, by) == before


def test_unpriced_calls_are_counted_and_shown(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.put(record("three"), call(cost=Cost(usd=None)))
    assert document(capsys)["unpriced_calls"] == 1
    cost(by="gremlin", json=False)
    text = capsys.readouterr().out
    assert "$0.0000+?" in text
    assert "1 of the calls" in text


def test_a_second_batch_is_money_and_no_call(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.put(record("three"), call(waste=(Waste(batch_id="b", cost=Cost(usd=0.1, live_usd=0.2), settled=True),)))
    row = next(row for row in document(capsys)["rows"] if row["key"] == "three")
    assert (row["total_usd"], row["wasted_usd"], row["calls"]) == (0.11, 0.1, 1)


def test_the_table_has_a_total(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    cost(by="gremlin", json=False)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["GREMLIN", "COST", "BATCH", "LIVE", "SAVED", "CALLS", "TOKENS", "IN", "OUT"]
    assert shown[-1].split()[:2] == ["total", "$0.7600"]


def test_nothing_spent_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GREMLINS_HOME", str(tmp_path / "none"))
    assert cost(by="gremlin", json=False) == 0
    assert capsys.readouterr().out == "nothing has been spent\n"


def test_another_key_is_wrong_usage() -> None:
    with pytest.raises(typer.BadParameter, match="gremlin, stage, model, day, bead"):
        cost(by="moon", json=False)
