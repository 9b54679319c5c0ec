"""`log` and `show`: the story of a gremlin, whole, in order, and as one document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gremlins.cli.log import LogReader, followed, log
from gremlins.cli.show import show
from gremlins.clock import FakeClock
from gremlins.records.calls import CallFailed, Cost, Waste
from gremlins.records.gremlin import Bailed, Evidence, FailedGremlin, Finished, Landed, Parked, StageRun
from tests.fleet.records import NOON, Root, ago, call, parked_call, record, state_root

PROOF = Evidence(kind="commits", base="0" * 40, tip="1" * 40, holds=True)
LINES = "2026-11-21T12:00:00Z  plan: begins\n2026-11-21T12:00:09Z  plan: done, wrote artifacts/plan.md\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    made = state_root(tmp_path)
    monkeypatch.setenv("GREMLINS_HOME", str(made.home.root))
    return made


def told(capsys: pytest.CaptureFixture[str]) -> str:
    assert show("fix-add", json=False) == 0
    return capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert show("fix-add", json=True) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


# ── log ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_log_is_told_as_it_is(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.put(record(), log=LINES)
    assert log("fix", follow=False) == 0
    assert capsys.readouterr().out == LINES


def test_a_log_that_is_not_there_yet_is_empty(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.put(record())
    assert log("fix-add", follow=False) == 0
    assert capsys.readouterr().out == ""


def test_nothing_in_a_log_moves_the_cursor(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.put(record(), log="2026-11-21T12:00:00Z  agent says \x1b[2J\x07\n")
    log("fix-add", follow=False)
    assert "\x1b" not in capsys.readouterr().out


def test_a_followed_log_gives_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = LogReader(path)
    assert list(reader.new_lines(whole=False)) == []
    path.write_text("one\ntw")
    assert list(reader.new_lines(whole=False)) == ["one"]
    path.write_text("one\ntwo\n")
    assert list(reader.new_lines(whole=False)) == ["two"]
    assert list(reader.new_lines(whole=False)) == []


def test_following_ends_with_the_gremlin(root: Root) -> None:
    class Ends(FakeClock):
        def sleep(self, seconds: float) -> None:
            with paths.log.open("a") as file:
                file.write("three\n")
            alive.__exit__(None, None, None)

    paths = root.home.gremlin("fix-add")
    alive = root.alive(record())
    alive.__enter__()
    paths.log.write_text("one\ntwo\n")
    assert list(followed(root.home, "fix-add", LogReader(paths.log), Ends(NOON))) == ["one", "two", "three"]


def test_following_what_is_over_tells_it_and_ends(root: Root) -> None:
    root.put(record(status=Finished(since=ago(1), evidence=PROOF)), log=LINES + "no line break")
    paths = root.home.gremlin("fix-add")
    assert len(list(followed(root.home, "fix-add", LogReader(paths.log), FakeClock(NOON)))) == 3


# ── show ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def stage(path: str, outcome: Any = "done", note: str = "") -> StageRun:
    return StageRun(path=path, type=path, attempt=1, started_at=ago(600), ended_at=ago(540), outcome=outcome, note=note)


def test_it_tells_stages_calls_and_artifacts(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.put(record(status=Finished(since=ago(1), evidence=PROOF), stages=(stage("plan", note="wrote it"),)), call())
    (root.home.gremlin("fix-add").artifacts / "plan.md").write_text("# Plan\n")
    text = told(capsys)
    for part in (
        "finished",
        "plan  done",
        "1m00s",
        "wrote it",
        "1,200",
        "300",
        "$0.0100",
        "collected",
        "plan.md",
        "7 B",
    ):
        assert part in text, part
    assert "`gremlins land fix-add`" in text


@pytest.mark.parametrize(
    ("status", "parts"),
    [
        (
            Bailed(since=ago(1), stage="plan", kind="unclear", detail="which?"),
            ("bailed in plan", "unclear: which?", "ack"),
        ),
        (
            Bailed(since=ago(1), stage="plan", kind="conflict", detail="the task contradicts itself"),
            ("conflict: the task contradicts itself", "ack"),
        ),
        (
            FailedGremlin(since=ago(1), stage="verify", failure="task", reason="3 fail", exit_code=2),
            ("dead:exit 2 in verify: 3 fail (class task)", "rescue"),
        ),
        (Parked(since=ago(1), calls=(parked_call(),), reason="bad key"), ("detached", "bad key", "msgbatch_000001")),
        (Landed(since=ago(1), sha="2" * 40, target="main", evidence=PROOF), ("landed on main as 222222222222",)),
        (None, ("dead:lost", "vanished", "rescue")),
    ],
    ids=["bailed", "a word of the model's own", "failed", "detached", "landed", "lost"],
)
def test_it_says_where_and_why_it_ended_and_what_to_do(
    root: Root, capsys: pytest.CaptureFixture[str], status: Any, parts: tuple[str, ...]
) -> None:
    root.put(record(status=status))
    text = told(capsys)
    for part in parts:
        assert part in text, part


def test_the_last_words_of_a_process_that_was_killed_are_told(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.put(record())
    root.home.gremlin("fix-add").output.write_text("MemoryError: out of memory\n")
    assert "MemoryError: out of memory" in told(capsys)


def test_a_failed_call_says_why_and_a_second_batch_is_told(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    failed = CallFailed(failure="permanent", kind="invalid_request_error", message="max_tokens: too many")
    second = (Waste(batch_id="msgbatch_2", cost=Cost(usd=0.25), note="also ended", settled=True),)
    root.put(record(), call(status=failed, cost=None), call("verify", waste=second))
    text = told(capsys)
    assert "invalid_request_error: max_tokens: too many" in text
    assert "a second batch, msgbatch_2: $0.2500" in text


def test_a_call_without_a_price_is_no_free_call(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.put(record(), call(cost=Cost(usd=None)))
    assert "1 calls of unknown price" in told(capsys)
    found = document(capsys)["calls"][0]
    assert (found["cost_usd"], found["unpriced"]) == (None, True)


def test_the_document_is_its_status_and_all_that_belongs_to_it(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.put(record(stages=(stage("plan"),)), call())
    found = document(capsys)
    assert found["id"] == "fix-add"
    assert found["liveness"]["state"] == "dead"
    assert found["stages"][0]["seconds"] == 60.0
    made = found["calls"][0]
    assert (made["mode"], made["model"], made["input_tokens"], made["output_tokens"]) == (
        "batch",
        "claude-sonnet-5-5",
        1200,
        300,
    )
    assert (made["cost_usd"], made["saved_usd"], made["wait_seconds"]) == (0.01, 0.01, 600.0)


def test_where_it_failed_is_in_the_document(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.put(record(status=FailedGremlin(since=ago(1), stage="verify", failure="task", reason="3 fail", exit_code=2)))
    assert document(capsys)["failure"] == {
        "stage": "verify",
        "class": "task",
        "reason": "3 fail",
        "exit_code": 2,
        "retry_at": None,
    }


def test_a_call_that_cannot_be_read_is_said_beside_the_data(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.put(record(), call(), call("verify"))
    (root.home.gremlin("fix-add").calls / "verify.a1.t1.r1.json").write_text("{")
    assert show("fix-add", json=True) == 0
    caught = capsys.readouterr()
    assert len(json.loads(caught.out)["calls"]) == 1
    assert "warning:" in caught.err
