"""Loops and handoffs: rounds that are paid for once, plans handed on, and every way in which a loop ends."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from gremlins.fleet.rescue import _next_attempt, forget_progress, restart_from
from gremlins.pipeline.freezing import read_frozen
from gremlins.processes.locks import GremlinLock
from gremlins.records.gremlin import Bailed, FailedGremlin, Finished, Gremlin, Queued, RunStore
from gremlins.repository.git import Git
from gremlins.stages.handoff import parse_decision
from gremlins.stages.plan_tasks import has_tasks
from tests.in_process import InProcessSandbox
from tests.stages.conftest import MakeScripted

LOOP = """
mode: batch
stages:
  - type: loop
    max: 4
    body: [handoff, plan, implement]
"""
DONE = {
    "decision": "done",
    "reason": "all of it is there",
    "rolling_plan": "",
    "child_plan": "",
    "operator_follow_ups": [],
}


def next_(number: int, **more: Any) -> dict[str, Any]:
    child = f"# Piece {number}\n\n1. Write piece{number}.txt.\n"
    return {
        **DONE,
        "decision": "next",
        "reason": "more to do",
        "rolling_plan": f"After {number}: the rest.",
        "child_plan": child,
        **more,
    }


def write(number: int) -> dict[str, Any]:
    return {"edits": [{"path": f"piece{number}.txt", "content": f"{number}\n"}], "summary": f"piece {number}"}


def round_(number: int) -> tuple[object, ...]:
    return next_(number), f"# Plan of round {number}\n\n1. Do.", write(number)


def rescued(it: InProcessSandbox, gremlin: str) -> Gremlin:
    """Change the record as `rescue` does, without a process."""
    store = RunStore(it.home, it.clock)
    with GremlinLock.acquire(it.home.gremlin(gremlin).lock, "keeper") as lock:
        record = _next_attempt(store.read(gremlin), [])
        queued = {"spawn": record.spawn + 1, "status": Queued(since=it.clock.now()), "ended_at": None}
        return store.write(replace(record, **queued), lock)


def test_a_loop_goes_round_until_the_handoff_says_done(scripted: MakeScripted) -> None:
    it = scripted(*round_(1), *round_(2), DONE)
    gremlin = it.make(LOOP, task="Write two pieces.")
    record = it.run(gremlin)
    assert isinstance(record.status, Finished), record.status
    assert it.repo.git("diff", "--name-only", record.base, record.branch).split() == ["piece1.txt", "piece2.txt"]
    labels = [call.key.stage for call in it.calls(gremlin)]
    expected = [f"loop[{n}]/{name}" for n in (1, 2) for name in ("handoff", "plan", "implement")]
    assert labels == [*expected, "loop[3]/handoff"], "the rest of the last round is skipped"


def test_each_round_has_its_own_artifacts_and_the_child_plan_as_its_task(scripted: MakeScripted) -> None:
    it = scripted(*round_(1), *round_(2), DONE)
    gremlin = it.make(LOOP, task="Write two pieces.")
    it.run(gremlin)
    assert it.artifact(gremlin, "loop-1/plan.md").startswith("# Plan of round 1")
    assert it.artifact(gremlin, "loop-2/plan.md").startswith("# Plan of round 2")
    assert it.artifact(gremlin, "loop-2/rolling-plan.md") == "After 2: the rest.\n"
    assert it.artifact(gremlin, "rolling-plan.md") == "Nothing remains.\n"
    asked = {call.key.stage: call.request["messages"][0]["content"] for call in it.calls(gremlin)}
    assert "Write piece2.txt." in asked["loop[2]/plan"]
    assert "Write two pieces." not in asked["loop[2]/plan"], "the child plan stands on its own"
    assert "Write two pieces." in asked["loop[2]/handoff"]
    assert "After 1: the rest." in asked["loop[2]/handoff"]
    assert "+1" in asked["loop[2]/handoff"], "what has landed is inlined"


def test_an_interrupted_round_repays_nothing_of_those_before(scripted: MakeScripted) -> None:
    it = scripted(*round_(1), *round_(2), *round_(3), DONE)
    gremlin = it.make(LOOP, task="Write.")
    it.run(gremlin, waits=8)  # the third round's plan is outstanding
    assert it.read(gremlin).stage.startswith("loop[3]/")
    before = [call.custom_id for call in it.calls(gremlin)]
    record = it.run(gremlin)
    assert isinstance(record.status, Finished)
    after = [call.custom_id for call in it.calls(gremlin)]
    assert after[: len(before)] == before
    assert len(it.simulator.batches) == len(after) == 10


def test_for_ever_next_ends_at_the_cap_and_a_rescue_allows_as_many_again(scripted: MakeScripted) -> None:
    stages = LOOP.replace("max: 4", "max: 2")
    it = scripted(*round_(1), *round_(2), *round_(3), DONE)
    gremlin = it.make(stages, task="Write.")
    status = it.run(gremlin).status
    assert isinstance(status, Bailed)
    assert (status.stage, status.kind) == ("loop", "max_rounds")
    rescued(it, gremlin)
    assert isinstance(it.run(gremlin).status, Finished)
    assert len(it.calls(gremlin)) == 10


def test_a_loop_ends_at_its_cap_on_money(scripted: MakeScripted) -> None:
    it = scripted(*round_(1), *round_(2))
    status = it.run(it.make(LOOP.replace("max: 4", "max: 4\n    max_usd: 0.0001"), task="Write.")).status
    assert isinstance(status, Bailed)
    assert (status.stage, status.kind) == ("loop", "max_usd")
    assert len(it.simulator.batches) == 1


def test_a_handoff_that_is_nonsense_is_sent_back_once(scripted: MakeScripted) -> None:
    it = scripted("As I see it, all is well.", DONE)
    gremlin = it.make(LOOP, task="Write.")
    status = it.run(gremlin).status
    assert isinstance(status, Finished)
    assert status.evidence.kind == "nothing_to_do"
    _, second = it.calls(gremlin)
    assert "holds no JSON" in second.request["messages"][-1]["content"]
    assert second.revision == 1


def test_nonsense_twice_fails(scripted: MakeScripted) -> None:
    it = scripted("Hm.", {"decision": "perhaps", "reason": "x"})
    status = it.run(it.make(LOOP, task="Write.")).status
    assert isinstance(status, FailedGremlin)
    assert (status.stage, status.failure) == ("loop[1]/handoff", "task")
    assert "decision" in status.reason


@pytest.mark.parametrize(
    ("said", "kind"), [("I cannot see it.\n\nBAIL: needs_human: which one?", "needs_human"), ("BAIL: no: x", "no")]
)
def test_a_handoffs_bail_is_read_as_every_stages(scripted: MakeScripted, said: str, kind: str) -> None:
    """It was taken for nonsense: ten batches and five charged attempts."""
    it = scripted(said)
    status = it.run(it.make(LOOP, task="Write.")).status
    assert isinstance(status, Bailed)
    assert (status.stage, status.kind) == ("loop[1]/handoff", kind)
    assert len(it.simulator.batches) == 1


def test_a_handoff_with_nothing_to_do_finishes_with_its_reason(scripted: MakeScripted) -> None:
    it = scripted("NOTHING TO DO: it is there already")
    status = it.run(it.make(LOOP, task="Write.")).status
    assert isinstance(status, Finished)
    assert (status.evidence.kind, status.evidence.detail) == ("nothing_to_do", "it is there already")
    assert len(it.simulator.batches) == 1


EMPTY = [
    "", "# Round 2\n\n", "Nothing.", "1.", "No tasks remain.", "- [x] one\n- [X] two", "1. None", "- [ ]",
    "No further work is needed.", "**Nothing left to do.**", "All tasks are done.", "# Plan\n\n1. [x] write it\n2.",
    "There are no tasks left.", "All tasks completed.", "Nothing remains to be done.", "- [x] a\n  - 1. [x] b",
    "**Remaining tasks:**\n- [x] one", "NOTHING TO DO: all of it is there",
]  # fmt: skip


@pytest.mark.parametrize(
    "plan",
    ["- [ ] write it", "1. No retries remain: add them", "Do nothing twice", "- [x] a\n- b", "- [x] a\n  - [ ] b"],
)
def test_open_work_is_a_task(plan: str) -> None:
    assert has_tasks(plan)


@pytest.mark.parametrize("plan", EMPTY)
def test_what_asks_for_nothing_holds_no_task(plan: str) -> None:
    assert not has_tasks(plan)


@pytest.mark.parametrize("child", ["", "No tasks remain.", "- [x] written"])
def test_a_child_plan_without_tasks_bails(scripted: MakeScripted, child: str) -> None:
    it = scripted(next_(1, child_plan=child))
    status = it.run(it.make(LOOP, task="Write.")).status
    assert isinstance(status, Bailed)
    assert status.kind == "empty_plan"


def test_a_bail_in_a_round_stops_there_and_can_be_taken_up(scripted: MakeScripted) -> None:
    bail = {"edits": [], "summary": "BAIL: needs_human: which one?"}
    it = scripted(*round_(1), *round_(2)[:2], bail, write(2), DONE)
    gremlin = it.make(LOOP, task="Write.")
    status = it.run(gremlin).status
    assert isinstance(status, Bailed)
    assert (status.stage, status.kind) == ("loop[2]/implement", "needs_human")
    assert rescued(it, gremlin).attempts == {"loop[2]/implement": 2}
    assert isinstance(it.run(gremlin).status, Finished)
    assert len(it.calls(gremlin)) == 8


def test_a_handoff_that_bails_keeps_what_only_a_person_can_do(scripted: MakeScripted) -> None:
    bail = {**DONE, "decision": "bail", "reason": "Which database?", "operator_follow_ups": ["rotate the key"]}
    it = scripted(bail)
    gremlin = it.make(LOOP, task="Write.")
    status = it.run(gremlin).status
    assert isinstance(status, Bailed)
    assert (status.kind, status.detail) == ("needs_human", "Which database?")
    assert it.artifact(gremlin, "follow-ups.md") == "- rotate the key\n"


def test_a_command_can_end_a_loop(scripted: MakeScripted) -> None:
    stages = "mode: batch\nstages:\n  - {type: loop, max: 3, until: test -e piece2.txt, body: [implement]}\n"
    it = scripted(write(1), write(2))
    gremlin = it.make(stages, task="Write.")
    assert isinstance(it.run(gremlin).status, Finished)
    assert [call.key.stage for call in it.calls(gremlin)] == ["loop[1]/implement", "loop[2]/implement"]


def test_a_loop_that_changes_nothing_ends_at_its_cap(scripted: MakeScripted) -> None:
    it = scripted()
    gremlin = it.make("stages:\n  - {type: loop, max: 3, until: 'false', body: [{type: exec, cmds: ['true']}]}\n")
    status = it.run(gremlin).status
    assert isinstance(status, Bailed)
    assert status.kind == "max_rounds"


def test_a_handoff_may_stand_at_the_end_of_a_round(scripted: MakeScripted) -> None:
    stages = LOOP.replace("[handoff, plan, implement]", "[implement, handoff]")
    it = scripted(write(1), next_(2), write(2), DONE)
    gremlin = it.make(stages, task="Write both.")
    assert isinstance(it.run(gremlin).status, Finished)
    asked = {call.key.stage: call.request["messages"][0]["content"] for call in it.calls(gremlin)}
    assert "Write both." in asked["loop[1]/implement"]
    assert "Write piece2.txt." in asked["loop[2]/implement"]


def test_a_review_sees_its_own_round_only(scripted: MakeScripted) -> None:
    stages = LOOP.replace("[handoff, plan, implement]", "[handoff, implement, review_code]")
    it = scripted(next_(1), write(1), "VERDICT: approve: ok", next_(2), write(2), "VERDICT: approve: ok", DONE)
    gremlin = it.make(stages, task="Write both.")
    assert isinstance(it.run(gremlin).status, Finished)
    asked = {call.key.stage: call.request["messages"][0]["content"] for call in it.calls(gremlin)}
    assert "b/piece2.txt" in asked["loop[2]/review_code"]
    assert "b/piece1.txt" not in asked["loop[2]/review_code"]


@pytest.mark.parametrize(
    "text", ["{}", "[]", "", "}{", '{"decision": "next"}', '{"decision": 1, "reason": "x"}', "{" * 5000 + "}" * 5000]
)
def test_what_is_no_decision_is_told_apart(text: str) -> None:
    from gremlins.stages.handoff import Nonsense

    with pytest.raises(Nonsense):
        parse_decision(text)


def test_a_decision_may_stand_in_a_fence() -> None:
    assert parse_decision('Well:\n```json\n{"decision": "done", "reason": "it is"}\n```\n').decision == "done"


def test_a_sentence_is_a_task() -> None:
    assert has_tasks("# Two\n\nRename add to plus in calc.py.")


def test_a_loop_that_is_started_again_forgets_what_its_rounds_decided(scripted: MakeScripted) -> None:
    it = scripted(*round_(1), DONE, next_(3), "# Plan of round 3\n\n1. Do.", write(3), DONE)
    gremlin = it.make(LOOP, task="Write.")
    record = it.run(gremlin)
    tip = Git(it.repo.path).commit(f"refs/heads/{record.branch}")
    (it.worktree(gremlin) / "notes.txt").write_text("a person's\n")
    paths, store = it.home.gremlin(gremlin), RunStore(it.home, it.clock)
    frozen = read_frozen(paths.frozen)
    with GremlinLock.acquire(paths.lock, "keeper") as lock:
        again = restart_from(record, frozen, "loop", it.clock)
        forget_progress(again, paths, frozen, "loop", it.clock)
        store.write(replace(again, spawn=2, status=Queued(since=it.clock.now())), lock)
    assert isinstance(it.run(gremlin).status, Finished)
    assert (it.worktree(gremlin) / "piece3.txt").exists()
    assert it.artifact(gremlin, "before/spawn-1/loop-2/handoff.json")
    git, own = Git(it.repo.path), f"refs/gremlins/{gremlin}"
    assert not (it.worktree(gremlin) / "piece1.txt").exists()  # the branch went back to where the loop began
    assert git.commit(f"{own}/before/spawn-1/branch") == tip
    assert git.text("show", f"{own}/interrupted-1:notes.txt") == "a person's"
