"""The person in the loop: a question is answered, a change is seen, a finished gremlin is sent back with remarks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gremlins.clock import SystemClock
from gremlins.fleet.dispatch.ownership import adopt
from gremlins.paths import Home
from gremlins.simulator import ScriptedModel, Simulator
from tests.acceptance.sandbox import Sandbox

FIX = {"edits": [{"path": "mean.py", "content": "MEAN = 4\n"}], "summary": "F1: done, the mean is 4"}
AGAIN = {"edits": [{"path": "mean.py", "content": "MEAN = 5\n"}], "summary": "F1: done, the mean is 5"}
QUESTION = "Both are possible.\n\nA mean of none can raise or be zero.\n\nBAIL: needs_human: which of the two?"
IMPLEMENT = "stages: [{type: implement, mode: batch}]\n"


SCRIPT: list[object] = []
"""The replies to come."""


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    SCRIPT.clear()
    with Simulator(latency=0.0, model=ScriptedModel(otherwise=lambda _: next_reply())) as running:
        yield running


def next_reply() -> str:
    reply = SCRIPT.pop(0)
    return reply if isinstance(reply, str) else json.dumps(reply)


def launched(sandbox: Sandbox, stages: str, *replies: object, until: str, name: str = "g") -> dict[str, Any]:
    """A gremlin of these stages, asked with these replies, in that state."""
    SCRIPT.extend(replies)
    sandbox.pipeline("work", stages)
    sandbox.ok("launch", "work", "Mend the mean.", "--id", name)
    return ended(sandbox, until, name)


def ended(sandbox: Sandbox, state: str, name: str = "g") -> dict[str, Any]:
    found = sandbox.until(name, "finished", "bailed", "dead")
    assert found["liveness"]["state"] == state, sandbox.logs()
    return found


def asked(sandbox: Sandbox, number: int) -> str:
    """The text of the prompt in the n-th batch, from 1."""
    text: str = sandbox.simulator.batches[number - 1].requests[0].params["messages"][0]["content"]
    return text


# ── answer ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_goes_to_the_stage_that_asked_as_its_next_attempt(sandbox: Sandbox) -> None:
    launched(sandbox, "stages: [{type: plan, mode: batch}, {type: implement, mode: batch}]\n",
             QUESTION, "# The plan", FIX, until="bailed")  # fmt: skip
    said = sandbox.ok("answer", "g", "It raises ValueError.")
    assert "plan" in said
    ended(sandbox, "finished")
    assert "which of the two?" in asked(sandbox, 2)
    assert "It raises ValueError." in asked(sandbox, 2)
    assert "It raises ValueError." in sandbox.artifact("g", "answers.md")
    shown = sandbox.run("show", "g", "--json").json()
    assert [stage["attempt"] for stage in shown["stages"] if stage["path"] == "plan"] == [1, 2]
    assert [(a["stage"], a["answer"]) for a in shown["answers"]] == [("plan", "It raises ValueError.")]
    assert len(sandbox.simulator.batches) == 3


def test_a_bail_shows_its_question_the_whole_reply_and_the_three_ways_on(sandbox: Sandbox) -> None:
    launched(sandbox, "stages: [{type: plan, mode: batch}]\n", QUESTION, until="bailed")
    assert "which of the two?" in sandbox.ok("status")
    page = sandbox.ok("show", "g")
    assert "A mean of none can raise or be zero." in page
    for verb in ("gremlins answer g", "gremlins rescue g", "gremlins ack g"):
        assert verb in page
    assert "nothing to clean" in sandbox.ok("clean"), "it asks something"


def test_only_a_bail_can_be_answered_and_an_empty_answer_is_wrong_usage(sandbox: Sandbox) -> None:
    launched(sandbox, IMPLEMENT, FIX, until="finished")
    assert sandbox.run("answer", "g", "yes").code == 4
    assert sandbox.run("answer", "nobody", "yes").code == 6
    launched(sandbox, "stages: [{type: plan, mode: batch}]\n", QUESTION, until="bailed", name="h")
    assert sandbox.run("answer", "h", "  ").code == 2
    assert sandbox.run("answer", "h", "-").code == 2, "standard input is empty"
    assert sandbox.run("answer", "h").code == 2, "there is no terminal for an editor"
    assert sandbox.life("h") == "bailed"


def test_an_answer_to_missing_evidence_asks_the_stage_that_owed_the_change(sandbox: Sandbox) -> None:
    undone = "git rm -q mean.py; git commit -q -m undone; exit 0"
    stages = f"stages: [{{type: implement, mode: batch}}, {{type: exec, cmds: ['test -e kept || {{ {undone}; }}']}}]\n"
    kept = {"edits": [*FIX["edits"], {"path": "kept", "content": "yes\n"}], "summary": "kept"}
    assert launched(sandbox, stages, FIX, kept, until="bailed")["bail"]["class"] == "no_evidence"
    assert "implement" in sandbox.ok("answer", "g", "Keep it.")
    ended(sandbox, "finished")
    assert "Keep it." in asked(sandbox, 2)


# ── diff ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_change_can_be_seen_before_and_after_it_has_landed(sandbox: Sandbox) -> None:
    state = launched(sandbox, IMPLEMENT, FIX, until="finished")
    assert state["diff"] == {"files": 1, "added": 1, "deleted": 0}
    assert "+MEAN = 4" in sandbox.ok("diff", "g")
    assert sandbox.ok("diff", "g", "--name-only").split() == ["mean.py"]
    assert "1 file changed" in sandbox.ok("diff", "g", "--stat")
    assert sandbox.ok("diff", "g", "--", "orchard") == ""
    assert "1 file, +1" in sandbox.ok("show", "g")
    sandbox.ok("land", "g")
    assert "+MEAN = 4" in sandbox.ok("diff", "g")


def test_protected_paths_are_named_where_a_person_looks(sandbox: Sandbox) -> None:
    edits = [
        {"path": ".gremlins/pipelines/batch.yaml", "content": "stages: [plan]\n"},
        {"path": ".github/workflows/ci.yml", "content": "on: push\n"},
        {"path": "mean.py", "content": "MEAN = 4\n"},
    ]
    review = "stages: [{type: implement, mode: batch}, {type: review_code, mode: batch}]\n"
    launched(sandbox, review, {"edits": edits, "summary": "Done."}, "Fine.\n\nVERDICT: approve", until="finished")
    told = asked(sandbox, 2).partition("<protected_paths>")[2].partition("</protected_paths>")[0]
    for shown in (
        told,
        sandbox.run("diff", "g").err,
        sandbox.run("land", "g", "--dry-run").err,
        sandbox.run("land", "g").err,
    ):
        assert ".gremlins/pipelines/batch.yaml: gremlins' settings, pipelines or prompts" in shown
        assert ".github/workflows/ci.yml: a CI workflow" in shown
        assert "mean.py" not in shown
    refused = sandbox.run("launch", "work", "More.")  # what a landed gremlin brought is asked about
    assert refused.code == 4
    assert "batch.yaml" in refused.err


def test_landing_says_that_the_commit_is_not_signed(sandbox: Sandbox) -> None:
    launched(sandbox, IMPLEMENT, FIX, until="finished")
    sandbox.repo.git("config", "commit.gpgSign", "true")
    assert "the commit is not signed" in sandbox.run("land", "g").err


# ── revise ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_finished_one_is_sent_back_with_remarks_any_number_of_times(sandbox: Sandbox) -> None:
    stages = "stages: [{type: implement, mode: batch}, {type: verify, mode: batch, cmds: ['test -e mean.py']}]\n"
    third = {"edits": [{"path": "mean.py", "content": "MEAN = 6\n"}], "summary": "F1: done"}
    launched(sandbox, stages, FIX, AGAIN, third, until="finished")
    sandbox.repo.write({"comments.jsonl": '{"path": "mean.py", "line": 1, "text": "Make it five."}\n'})
    sandbox.ok("revise", "g", "Look again.", "--comments", "comments.jsonl")
    ended(sandbox, "finished")
    assert "+MEAN = 5" in sandbox.ok("diff", "g")
    assert "Look again." in asked(sandbox, 2)
    assert "`mean.py:1`" in asked(sandbox, 2)
    sandbox.ok("revise", "g", "Six.")
    ended(sandbox, "finished")
    assert "+MEAN = 6" in sandbox.ok("diff", "g")
    shown = sandbox.run("show", "g", "--json").json()
    paths = [stage["path"] for stage in shown["stages"]]
    assert paths[2:] == [f"revise[{n}]/{name}" for n in (1, 2) for name in ("address_code", "verify")]
    assert [call["stage"] for call in shown["calls"]] == ["implement", *(f"revise[{n}]/address_code" for n in (1, 2))]
    assert all(call["cost_usd"] > 0 for call in shown["calls"])
    sandbox.ok("land", "g")
    assert sandbox.repo.read("mean.py") == "MEAN = 6\n"
    assert sandbox.run("revise", "g", "Seven.").code == 4, "it has landed"


def test_a_wrong_comment_is_named_by_its_line_and_nothing_changes(sandbox: Sandbox) -> None:
    launched(sandbox, IMPLEMENT, FIX, until="finished")
    sandbox.repo.write({"comments.jsonl": '{"path": "mean.py", "line": 1, "text": "a"}\n{"path": "mean.py"}\n'})
    ran = sandbox.run("revise", "g", "--comments", "comments.jsonl")
    assert ran.code == 1
    assert "comments.jsonl:2" in ran.err
    assert sandbox.run("revise", "g", "").code == 2
    assert sandbox.life("g") == "finished"


# ── under dispatch ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["needs_human", "unclear_task"])
def test_the_bead_of_an_answered_gremlin_follows_and_is_not_charged(sandbox: Sandbox, kind: str) -> None:
    SCRIPT.extend([QUESTION.replace("needs_human", kind), "# The plan"])
    sandbox.pipeline("work", "stages: [{type: plan, mode: batch}]\nevidence: none\n")
    bead = sandbox.ok("bead", "create", "Mend the mean", "--silent").strip()
    gremlin = sandbox.run("dispatch", "--once", "--pipeline", "work", "--json").json()["spawned"][0]["gremlin"]
    ended(sandbox, "bailed", gremlin)
    sandbox.ok("dispatch", "--once", "--pipeline", "work", env={"GREMLINS_DISPATCH__BACKOFF_INITIAL": "600"})
    before = sandbox.run("bead", "show", bead, "--json").json()
    assert before["status"] == ("failed" if kind == "needs_human" else "open")

    sandbox.ok("answer", gremlin, "It raises.")

    ended(sandbox, "finished", gremlin)
    sandbox.ok("dispatch", "--once", "--pipeline", "work")
    after = sandbox.run("bead", "show", bead, "--json").json()
    assert (after["status"], after["gremlins"]["attempts"]) == ("closed", 0)


def test_a_question_answered_in_the_moment_in_which_the_loop_settles_it(sandbox: Sandbox) -> None:
    """Its bead was failed while its gremlin worked."""
    SCRIPT.extend([QUESTION, "# The plan"])
    sandbox.pipeline("work", "stages: [{type: plan, mode: batch}]\nevidence: none\n")
    bead = sandbox.ok("bead", "create", "Mend the mean", "--silent").strip()
    gremlin = sandbox.run("dispatch", "--once", "--pipeline", "work", "--json").json()["spawned"][0]["gremlin"]
    ended(sandbox, "bailed", gremlin)
    home, clock = Home(sandbox.home), SystemClock()
    adopt(home, gremlin, clock, kind="answered")
    sandbox.ok("dispatch", "--once", "--pipeline", "work")
    assert sandbox.run("bead", "show", bead, "--json").json()["status"] == "failed"
    adopt(home, gremlin, clock, kind="answered", went_on=True)  # as `answer` does once its gremlin is at work
    shown = sandbox.run("bead", "show", bead, "--json").json()
    assert (shown["status"], shown["gremlins"]["attempts"]) == ("in_progress", 0)
