"""Branches side by side: calls parked at once, worktrees of their own, the merge back, and what a failure leaves."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gremlins.clients.base import Wait
from gremlins.errors import Conflict
from gremlins.fleet.remove import refuse_to_lose
from gremlins.fleet.status import as_json, look
from gremlins.processes.locks import GremlinLock
from gremlins.records.calls import CallFailed
from gremlins.records.gremlin import Bailed, FailedGremlin, Finished, Interrupted, ParkedCall, StageRun
from gremlins.stages.address_code import is_clean
from gremlins.stages.parallel import _combined
from tests.conftest import Repo
from tests.fleet.records import record
from tests.in_process import InProcessSandbox
from tests.kill_points import count_points, killed_at, steps
from tests.stages.conftest import MakeScripted
from tests.stages.test_loop import rescued
from tests.time_limit import must_end, wait_until

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PROMPTS = {".gremlins/prompts/one.md": "Say ONE.\n", ".gremlins/prompts/two.md": "Say TWO.\n"}
ASKING = """
evidence: none
mode: batch
stages:
  - type: parallel
    {more}
    branches:
      a: [{{type: agent, name: one, prompt: .gremlins/prompts/one.md}}]
      b: [{{type: agent, name: two, prompt: .gremlins/prompts/two.md}}]
"""
CODING = """
mode: batch
stages:
  - type: parallel
    branches:
      a: [{type: implement, prompt: .gremlins/prompts/one.md}]
      b: [{type: implement, prompt: .gremlins/prompts/two.md}]
"""


def asking(**more: object) -> str:
    return ASKING.format(more="\n    ".join(f"{key}: {value}" for key, value in more.items()))


def edit(path: str, old: str, new: str) -> dict[str, Any]:
    return {"edits": [{"path": path, "old": old, "new": new}], "summary": f"{old} to {new}"}


def new(path: str) -> dict[str, Any]:
    return {"edits": [{"path": path, "content": "x\n"}], "summary": path}


@pytest.fixture(autouse=True)
def _prompts(repo: Repo) -> None:
    repo.write(PROMPTS)


def sides(it: InProcessSandbox) -> list[str]:
    return [path.name for path in sorted(it.home.worktrees.iterdir()) if "+" in path.name]


def test_several_calls_are_parked_at_once(scripted: MakeScripted) -> None:
    it = scripted(when=[("Say ONE", "# One"), ("Say TWO", "# Two")], latency=60.0)
    gremlin = it.make(asking())
    parked = it.run(gremlin, waits=1)
    record = it.run(gremlin)
    assert isinstance(record.status, Finished), record.status
    assert any(len(wait.calls) == 2 for wait in it.waits), [wait.calls for wait in it.waits]
    assert parked.status.state in ("parked", "finished")
    assert it.artifact(gremlin, "parallel/a/one.md") == "# One\n"
    assert it.artifact(gremlin, "two.md") == "# Two\n", "the next stages find it"
    assert len(it.simulator.batches) == 2


def test_no_more_branches_than_allowed_are_begun(scripted: MakeScripted) -> None:
    it = scripted(when=[("Say ONE", "# One"), ("Say TWO", "# Two")], latency=60.0)
    gremlin = it.make(asking(max_concurrent=1))
    assert isinstance(it.run(gremlin).status, Finished)
    assert max(len(wait.calls) for wait in it.waits) == 1


def test_branches_that_change_code_are_merged_in_order_and_cleared_away(scripted: MakeScripted) -> None:
    it = scripted(when=[("Say ONE", edit("calc.py", "a - b", "a + b")), ("Say TWO", new("two.txt"))])
    gremlin = it.make(CODING, task="Do.")
    record = it.run(gremlin)
    assert isinstance(record.status, Finished), record.status
    assert "a + b" in (it.worktree(gremlin) / "calc.py").read_text()
    assert (it.worktree(gremlin) / "two.txt").exists()
    assert "Gremlins-Branch: parallel/b a1" in it.repo.git("log", "-1", "--format=%B", record.branch)
    assert it.repo.git("status", "--porcelain", "--untracked-files=no") == ""
    assert sides(it) == []
    assert it.repo.git("branch", "--list", "gremlins/*+*") == ""


def test_two_branches_that_touch_one_line_bail_and_lose_nothing(scripted: MakeScripted) -> None:
    plus, times = edit("calc.py", "a - b", "a + b"), edit("calc.py", "a - b", "b + a")
    it = scripted(when=[("Say ONE", plus), ("Say TWO", times)])
    gremlin = it.make(CODING, task="Do.")
    record = it.run(gremlin)
    assert isinstance(record.status, Bailed)
    assert (record.status.stage, record.status.kind) == ("parallel", "merge_conflict")
    assert "calc.py" in record.status.detail
    assert len(sides(it)) == 2
    with pytest.raises(Conflict):
        refuse_to_lose(record)


def test_a_conflict_that_a_person_merged_is_over(scripted: MakeScripted) -> None:
    plus, times = edit("calc.py", "a - b", "a + b"), edit("calc.py", "a - b", "b + a")
    it = scripted(when=[("Say ONE", plus), ("Say TWO", times)])
    gremlin = it.make(CODING, task="Do.")
    it.run(gremlin)
    tree = Repo(it.worktree(gremlin))
    tree.git("merge", "--quiet", "-s", "ours", "-m", "by hand", f"gremlins/{gremlin}+b")
    rescued(it, gremlin)
    assert isinstance(it.run(gremlin).status, Finished)
    assert len(it.simulator.batches) == 2
    assert sides(it) == []


FAILING = """
evidence: none
mode: batch
stages:
  - type: parallel
    on_failure: {how}
    branches:
      bad: [{{type: exec, name: check, cmds: ["test -e {flag}"]}}]
      good:
        - {{type: agent, name: one, prompt: .gremlins/prompts/one.md}}
        - {{type: agent, name: two, prompt: .gremlins/prompts/two.md}}
"""


@pytest.mark.parametrize(("how", "asked"), [("fail_fast", {"one"}), ("collect", {"one", "two"})])
def test_a_failure_stops_the_others_or_lets_them_end_and_repeats_nothing(
    scripted: MakeScripted, tmp_path: Any, how: str, asked: set[str]
) -> None:
    flag = tmp_path / "flag"
    it = scripted(when=[("Say ONE", "# One"), ("Say TWO", "# Two")])
    gremlin = it.make(FAILING.format(how=how, flag=flag))
    record = it.run(gremlin)
    assert isinstance(record.status, FailedGremlin)
    assert record.status.stage == "parallel/bad/check"
    assert all(not call.outstanding for call in it.calls(gremlin))
    assert {call.key.stage.rpartition("/")[2] for call in it.calls(gremlin) if call.sends} <= asked
    assert it.log(gremlin).count("running `test") == 1, "coming back from a wait does not run a failed branch again"

    flag.touch()
    rescued(it, gremlin)
    assert isinstance(it.run(gremlin).status, Finished)
    assert len(it.simulator.batches) == 2, "what was paid for is not asked again"


def test_every_branch_that_failed_gets_another_attempt(scripted: MakeScripted) -> None:
    wrong = edit("calc.py", "a % b", "a")
    it = scripted(
        *[wrong] * 4,
        edit("calc.py", "a - b", "a + b"),
        edit("calc.py", "a * b", "b * a"),
    )
    gremlin = it.make(CODING.replace("    branches:", "    on_failure: collect\n    branches:"), task="Do.")
    status = it.run(gremlin).status
    assert isinstance(status, FailedGremlin)
    assert "b: " in status.reason
    assert "a: " in status.reason
    again = rescued(it, gremlin)
    assert again.attempts == {"parallel/a/implement": 2, "parallel/b/implement": 2}
    assert isinstance(it.run(gremlin).status, Finished)


def test_a_loop_of_branches_makes_their_worktrees_anew(scripted: MakeScripted) -> None:
    stages = """
mode: batch
stages:
  - type: loop
    max: 2
    until: test -e b2.txt
    body:
      - type: parallel
        branches:
          a: [{type: implement, prompt: .gremlins/prompts/one.md}]
          b: [{type: implement, prompt: .gremlins/prompts/two.md}]
"""
    ones, twos = [new("a1.txt"), new("a2.txt")], [new("b1.txt"), new("b2.txt")]

    def answer(replies: list[dict[str, Any]]) -> Any:
        return lambda _params: json.dumps(replies.pop(0))

    it = scripted(when=[("Say ONE", answer(ones)), ("Say TWO", answer(twos))])
    gremlin = it.make(stages, task="Do.")
    assert isinstance(it.run(gremlin).status, Finished)
    assert sorted(path.name for path in it.worktree(gremlin).glob("??.txt")) == ["a1.txt", "a2.txt", "b1.txt", "b2.txt"]
    assert it.artifact(gremlin, "loop-2/parallel/a/context-loop[2]-parallel-a-implement.md")


REVIEWS = """
mode: batch
stages:
  - implement
  - type: parallel
    branches:
      safety: [{type: review_code, prompt: .gremlins/prompts/one.md}]
      style: [{type: review_code, prompt: .gremlins/prompts/two.md}]
  - address_code
"""


def test_what_several_reviewers_found_is_addressed_together(scripted: MakeScripted) -> None:
    found = "### F1 (minor) `calc.py:2`\nHm.\n\nVERDICT: changes requested: hm"
    it = scripted(
        edit("calc.py", "a - b", "a + b"),
        {"edits": [], "summary": "F1: not followed"},
        when=[("Say ONE", "VERDICT: approve: safe"), ("Say TWO", found)],
    )
    gremlin = it.make(REVIEWS, task="Do.")
    assert isinstance(it.run(gremlin).status, Finished)
    review = it.artifact(gremlin, "review.md")
    assert "VERDICT: approve: safe" in review
    assert "### F1" in review
    [last] = [call for call in it.calls(gremlin) if call.key.stage == "address_code"]
    assert "### F1" in last.request["messages"][0]["content"]


def test_one_approval_of_two_is_no_clean_review() -> None:
    assert not is_clean("VERDICT: approve: ok\n\nVERDICT: changes requested: naming")
    assert is_clean("VERDICT: approve: ok\n\n**VERDICT**: approve: ok")


def test_a_signal_wakes_every_branch(scripted: MakeScripted, tmp_path: Path) -> None:
    begun = [tmp_path / name for name in ("a", "b")]
    branches = [f"{path.name}: [{{type: exec, cmds: ['touch {path}; sleep 300']}}]" for path in begun]
    it = scripted()
    gremlin = it.make(f"stages: [{{type: parallel, branches: {{{', '.join(branches)}}}}}]\n")
    with GremlinLock.acquire(it.home.gremlin(gremlin).lock, "runner") as lock:
        run = it.process(gremlin, lock)

        def wake() -> None:
            wait_until(lambda: all(path.exists() for path in begun), "both commands")
            run.interrupt.trigger("SIGTERM")

        waker = threading.Thread(target=wake, daemon=True)
        waker.start()
        with must_end():
            run.go()
        run.close()
        waker.join(60)
    assert isinstance(it.read(gremlin).status, Interrupted)


# ── what a person sees of it ──────────────────────────────────────────────────────────────────────────────────────


def test_with_one_branch_at_work_it_is_running_and_lists_what_the_others_wait_for(
    scripted: MakeScripted, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    stages = f"""
evidence: none
mode: batch
stages:
  - type: parallel
    branches:
      asks: [{{type: agent, name: one, prompt: .gremlins/prompts/one.md}}]
      works: [{{type: exec, cmds: ["until test -e {flag}; do sleep 0.05; done"]}}]
"""
    it = scripted(when=[("Say ONE", "# One")], latency=60.0)
    gremlin = it.make(stages)
    thread = threading.Thread(target=it.run, args=(gremlin,))
    seen: dict[str, Any] = {}

    def works_beside_a_batch() -> bool:
        seen.update(_status(it, gremlin))
        return bool(seen["batches"]) and seen["liveness"]["state"] == "running"

    thread.start()
    try:
        # Simulated time flies while real git prepares the command; until it runs, that looks like silence.
        wait_until(works_beside_a_batch, "a command beside a batch")
    finally:
        flag.touch()
        thread.join(60)
    assert (seen["stage"], seen["batch"]["stage"]) == ("parallel", "parallel/asks/one")
    assert seen["branches"] == [
        {"path": "parallel/asks", "stage": "parallel/asks/one", "state": "parked"},
        {"path": "parallel/works", "stage": "parallel/works/exec", "state": "running"},
    ]
    assert isinstance(it.read(gremlin).status, Finished)
    assert _status(it, gremlin)["branches"] == []


def _status(it: InProcessSandbox, gremlin: str) -> dict[str, Any]:
    return as_json(look(it.home, gremlin, it.clock))


def test_it_is_parked_only_when_every_branch_waits_for_a_batch() -> None:
    soon, later = NOW, NOW + timedelta(hours=1)
    batch = Wait(later, calls=(ParkedCall(stage="parallel/a/one", custom_id="x"),))
    assert not _combined([batch, batch]).mixed
    mixed = _combined([batch, Wait(soon, why="waiting for checks")])
    assert mixed.mixed
    assert not mixed.pollable
    assert (mixed.until, mixed.calls) == (soon, batch.calls)


@pytest.mark.parametrize(
    ("unfinished", "ended", "expected"),
    [
        (["plan"], "", "plan"),
        (["loop", "loop[2]/plan"], "", "loop[2]/plan"),
        (["loop", "loop[2]/plan"], "loop[2]/plan", None),
        (["parallel", "parallel/a/x", "parallel/b/y"], "", "parallel"),
        (["parallel", "parallel/a/x", "parallel/b/y"], "parallel/a/x", "parallel/b/y"),
        (["loop", "loop[1]/par", "loop[1]/par/a/x", "loop[1]/par/b/in", "loop[1]/par/b/in/c/z"], "", "loop[1]/par"),
        ([], "", None),
    ],
)
def test_where_it_is_at_is_the_innermost_that_holds_all_that_is_at_work(
    unfinished: list[str], ended: str, expected: str | None
) -> None:
    runs = tuple(StageRun(path=path, type="x", attempt=1, started_at=NOW) for path in unfinished)
    assert record(stages=runs).stage_at_work(but=ended) == expected


# ── when it does not go well ──────────────────────────────────────────────────────────────────────────────────────


def test_failing_fast_calls_off_what_is_with_the_api_and_a_rescue_asks_it_again(
    scripted: MakeScripted, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    it = scripted(when=[("Say ONE", "# One"), ("Say TWO", "# Two")], latency=7200.0)
    sent = f"until grep -qs accepted {it.home.root}/gremlins/g/calls/*.json; do sleep 0.05; done; "
    stages = FAILING.format(how="fail_fast", flag=flag).replace("test -e", f"{sent} test -e")
    gremlin = it.make(stages, gremlin_id="g")
    began = it.clock.now()
    assert isinstance(it.run(gremlin).status, FailedGremlin)
    assert it.clock.now() - began < timedelta(minutes=30), "it waited for a batch whose branch is called off"
    [call] = it.calls(gremlin)
    assert isinstance(call.status, CallFailed)
    assert (call.status.kind, call.cost) == ("canceled", None)
    assert [branch["state"] for branch in _status(it, gremlin)["branches"]] == ["failed", "unfinished"]

    flag.touch()
    rescued(it, gremlin)
    assert isinstance(it.run(gremlin).status, Finished)
    assert [call.key.stage for call in it.calls(gremlin)] == ["parallel/good/one"] * 2 + ["parallel/good/two"]


MERGING = """
mode: batch
stages:
  - type: parallel
    max_concurrent: 1  # so that calls of git can be counted
    branches:
      a: [{type: implement, prompt: .gremlins/prompts/one.md}]
      b: [{type: verify, cmds: ["true"]}]
"""


@pytest.mark.soak
@pytest.mark.parametrize("back", [step - 1 for step in steps(19, 60)])
def test_killed_while_it_merges_and_clears_away_it_only_finishes(scripted: MakeScripted, back: int) -> None:
    it = scripted(when=[("Say ONE", new("one.txt"))], latency=0.0)
    whole = it.make(MERGING, task="Do.")
    points = count_points(lambda: it.run(whole))
    gremlin = it.make(MERGING, task="Do.")
    assert killed_at(points - back, lambda: it.run(gremlin)) or back == 0
    if not isinstance(it.read(gremlin).status, Finished):
        rescued(it, gremlin)
        assert isinstance(it.run(gremlin).status, Finished), it.log(gremlin)
    assert len(it.simulator.batches) == 2
    assert it.repo.git("branch", "--list", f"gremlins/{gremlin}+*") == ""
    assert it.repo.git("log", "--format=%s", f"gremlins/{gremlin}").count("Merge branch a") == 1


def test_a_review_in_a_branch_that_also_addresses_sees_the_whole_change(scripted: MakeScripted) -> None:
    stages = """
mode: batch
stages:
  - implement
  - type: parallel
    branches:
      a: [{type: review_code, prompt: .gremlins/prompts/one.md}, address_code]
"""
    it = scripted(edit("calc.py", "a - b", "a + b"), when=[("Say ONE", "VERDICT: approve: ok")])
    gremlin = it.make(stages, task="Do.")
    assert isinstance(it.run(gremlin).status, Finished)
    [review] = [call for call in it.calls(gremlin) if call.key.stage.endswith("review_code")]
    assert "return a + b" in review.request["messages"][0]["content"]


def test_a_failure_halts_branches_within_branches_without_merging_half_of_them(
    scripted: MakeScripted, tmp_path: Any
) -> None:
    flag = tmp_path / "flag"
    stages = f"""
mode: batch
stages:
  - type: parallel
    max_concurrent: 1
    branches:
      bad: [{{type: exec, cmds: ["test -e {flag}"]}}]
      inner:
        - type: parallel
          branches:
            a: [{{type: implement, prompt: .gremlins/prompts/one.md}}]
            b: [{{type: implement, prompt: .gremlins/prompts/two.md}}]
"""
    it = scripted(when=[("Say ONE", new("one.txt")), ("Say TWO", new("two.txt"))])
    gremlin = it.make(stages, task="Do.")
    assert isinstance(it.run(gremlin).status, FailedGremlin)
    assert len(it.simulator.batches) == 0
    flag.touch()
    rescued(it, gremlin)
    record = it.run(gremlin)
    assert isinstance(record.status, Finished), record.status
    assert {"one.txt", "two.txt"} <= set(it.repo.git("ls-tree", "--name-only", record.branch).split())
    assert sides(it) == []


def test_a_halt_from_around_merges_no_half_of_the_branches_within(
    scripted: MakeScripted, tmp_path: Path, repo: Repo
) -> None:
    replies = {name: {"edits": {f"{name}.txt": "x\n"}, "text": "Done."} for name in ("a", "b")}
    (tmp_path / "script.json").write_text(
        json.dumps({"replies": {f"parallel/inner/parallel/{n}/implement": r for n, r in replies.items()}})
    )
    it = scripted()
    folder, flag = it.home.gremlins / "g", tmp_path / "flag"

    def until(condition: str) -> str:
        return f"until {condition}; do sleep 0.05; done"

    a_is_done = until(f"grep -qs 'inner/parallel/a/implement: done' '{folder}/log'")
    bad_failed = until(f"test -e '{folder}/artifacts/parallel/bad.outcome.json'")
    stages = f"""
client: "scripted:{tmp_path}/script.json"
stages:
  - type: parallel
    branches:
      bad: [{{type: exec, cmds: ["{a_is_done}; test -e {flag}"]}}]
      inner:
        - type: parallel
          branches:
            a: [implement]
            b: [{{type: exec, cmds: ["{bad_failed}"]}}, implement]
"""
    gremlin = it.make(stages, task="Do.", gremlin_id="g")
    assert isinstance(it.run(gremlin).status, FailedGremlin), it.log(gremlin)
    assert len(sides(it)) == 3, "each of the branches within keeps its work, and so does the one around them"
    flag.touch()
    rescued(it, gremlin)
    record = it.run(gremlin)
    assert isinstance(record.status, Finished), record.status
    assert {"a.txt", "b.txt"} <= set(repo.git("ls-tree", "--name-only", record.branch).split())
    assert len(it.calls(gremlin)) == 2
    assert sides(it) == []
