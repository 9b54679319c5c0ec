"""A model without tools asks for what it lacks, and gets it once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from gremlins.cli.show_page import page
from gremlins.fleet.history import history
from gremlins.processes.limited import run_limited
from gremlins.records.gremlin import Bailed, FailedGremlin, Finished
from gremlins.stages.context.briefing import plan_needs
from gremlins.stages.context.reading import Files
from gremlins.stages.context.showing import whole
from gremlins.stages.context.supply import supply
from gremlins.stages.wants import Need, Want, read_need
from tests.conftest import Repo
from tests.stages.conftest import MakeScripted

FIX = {"edits": [{"path": "calc.py", "old": "return a - b", "new": "return a + b"}], "summary": "add adds"}
NEED = {"need": [{"path": "lib/far.py"}], "why": "it calls add"}
IMPLEMENT = "stages: [{type: implement, mode: batch}]\n"
PLAN = "evidence: none\nstages: [{type: plan, mode: batch}]\n"
FAR = "FAR = 'a line that nothing points at'\n"


@pytest.fixture
def far(repo: Repo) -> Repo:
    """A repository too large for its pack."""
    filler = {f"lib/f{n}.py": f"calc_{n} = 1\n" * 3_000 for n in range(12)}
    repo.commit({"lib/far.py": FAR, **filler})
    return repo


@pytest.mark.parametrize(
    ("text", "wants"),
    [
        ('{"need": [{"path": "a.py"}, {"search": "x y"}], "why": "w"}', [Want("a.py"), Want(search="x y")]),
        ('{"need": [{"path": "a.py", "symbol": "f"}]}', [Want("a.py", "f")]),
        ('{"edits": [], "summary": "", "need": ["a.py"]}', [Want("a.py")]),
        ('Some words.\n```json\n{"need": ["a.py#f"]}\n```\n', [Want("a.py", "f")]),
        ('{"edits": [], "summary": "I cannot.\\nNEED: a.py"}', [Want("a.py")]),
        ("I cannot.\n\nNEED: a.py, `src/b.py`; search: x y", [Want("a.py"), Want("src/b.py"), Want(search="x y")]),
        ("**NEED:** src/a.rs::parse\n\n", [Want("src/a.rs", "parse")]),
        ("NEED: Makefile", [Want("Makefile")]),
        ("NEED: none", None),
        ("NEED:", None),
        ("NEED: a.py\nand then it went on", None),
        ('An example is {"need": ["a.py"]} in a plan.', None),
        ('{"need": [], "edits": []}', None),
        (json.dumps({"edits": [{"path": "a", "content": '{"need": ["b.py"]}'}], "summary": "NEED: x"}), None),
        (json.dumps({**FIX, **NEED}), None),
        ('{"need": "a.py"}', None),
        ("", None),
    ],
)
def test_a_request_is_told_from_a_result(text: str, wants: list[Want] | None) -> None:
    found = read_need(text)
    assert (None if found is None else list(found.wants)) == wants


def test_a_repository_that_takes_too_long_to_search_fails_the_stage_and_keeps_what_was_paid(
    repo: Repo, scripted: MakeScripted
) -> None:
    it = scripted(NEED, FIX)
    gremlin = it.make(IMPLEMENT, "Fix add")

    hurried = ["subject"]

    def limited(module: str, order: Mapping[str, Any], **more: Any) -> Any:
        """The real child, without time for one part."""
        return run_limited(module, order, **{**more, "seconds": 0.001 if hurried[0] in order else 300})

    it.run_limited = limited
    for part, sent in (("subject", 0), ("need", 1)):
        hurried[0] = part
        ended = it.run(gremlin).status
        assert isinstance(ended, FailedGremlin)
        assert (ended.failure, "took longer than 0.001 s" in ended.reason) == ("environment", True)
        assert len(it.simulator.batches) == sent
    hurried[0] = "nothing"
    assert isinstance(it.run(gremlin).status, Finished)
    assert len(it.simulator.batches) == 2


def test_a_change_is_made_with_what_was_asked_for(far: Repo, scripted: MakeScripted) -> None:
    it = scripted(NEED, FIX)
    gremlin = it.make(IMPLEMENT, "Fix add")
    assert isinstance(it.run(gremlin).status, Finished)
    first, second = it.calls(gremlin)
    assert FAR not in first.request["messages"][0]["content"]
    assert [m["role"] for m in second.request["messages"]] == ["user", "assistant", "user"]
    assert FAR in second.request["messages"][2]["content"]
    assert (first.key.turn, second.key.turn) == (1, 2)
    assert len(it.simulator.batches) == 2
    assert "lib/far.py" in it.artifact(gremlin, "context-implement-need.md")
    assert it.read(gremlin).cost.total_usd == sum(call.cost.usd or 0 for call in (first, second) if call.cost)


def test_a_request_is_in_what_show_tells_and_in_the_cost(far: Repo, scripted: MakeScripted) -> None:
    it = scripted(NEED, FIX)
    gremlin = it.make(IMPLEMENT, "Fix add")
    it.run(gremlin)
    told = history(it.home, gremlin, it.clock)
    first, second = told.as_json()["calls"]
    assert (first["turn"], first["asked_for"], second["turn"], second["asked_for"]) == (1, ["`lib/far.py`"], 2, [])
    assert 0 < first["cost_usd"] < told.as_json()["cost"]["total_usd"] == first["cost_usd"] + second["cost_usd"]
    lines = [line.text for line in page(told, told.now)]
    asked = next(number for number, line in enumerate(lines) if "it asked for `lib/far.py` (it calls add)" in line)
    assert "implement turn 2" in lines[asked + 1]


@pytest.mark.parametrize("again", [NEED, "NEED: lib/far.py"])
def test_asking_a_second_time_bails(far: Repo, scripted: MakeScripted, again: object) -> None:
    it = scripted("NEED: lib/far.py", again)
    status = it.run(it.make(PLAN, "Fix add")).status
    assert isinstance(status, Bailed)
    assert status.kind == "missing_context"
    assert "lib/far.py" in status.detail
    assert len(it.simulator.batches) == 2


def test_a_text_stage_keeps_only_its_result(far: Repo, scripted: MakeScripted) -> None:
    it = scripted("It depends.\nNEED: lib/far.py", "# The plan\n")
    gremlin = it.make(PLAN, "Fix add")
    assert isinstance(it.run(gremlin).status, Finished)
    assert it.artifact(gremlin, "plan.md") == "# The plan\n"


def test_edits_that_do_not_fit_after_a_request_are_sent_back_in_the_same_turn(
    far: Repo, scripted: MakeScripted
) -> None:
    wrong = {"edits": [{"path": "calc.py", "old": "return a % b", "new": "x"}], "summary": "s"}
    it = scripted(NEED, wrong, FIX)
    gremlin = it.make(IMPLEMENT, "Fix add")
    assert isinstance(it.run(gremlin).status, Finished)
    assert [(call.key.turn, call.key.try_) for call in it.calls(gremlin)] == [(1, 1), (2, 1), (2, 2)]
    assert len(it.calls(gremlin)[-1].request["messages"]) == 5


def test_what_cannot_be_given_is_said(far: Repo, scripted: MakeScripted) -> None:
    far.commit({"pic.png": b"\x89PNG\0\1\2\3\4\5\6", ".netrc": "machine x password hunter2hunter2\n"})
    wants = [{"path": "lib/fat.py"}, {"path": "pic.png"}, {"path": ".netrc"}, {"path": "calc.py"}, {"path": "tests"},
             {"search": "nothing points AT"}, {"search": "no such words"}]  # fmt: skip
    it = scripted({"need": wants}, FIX)
    gremlin = it.make(IMPLEMENT, "Fix add")
    it.run(gremlin)
    said = it.calls(gremlin)[1].request["messages"][2]["content"]
    for words in (
        "there is no file `lib/fat.py`; the nearest: lib/far.py", "`pic.png` cannot be shown: not text",
        "`.netrc` cannot be shown: a secret by its name", "`calc.py` is shown whole above",
        "`tests/` is a folder with test_calc.py", "`nothing points AT` is at lib/far.py:1",
        "`no such words` is nowhere",
        FAR,
    ):  # fmt: skip
        assert words in said
    assert "hunter2" not in said


def test_what_is_asked_for_gets_the_whole_budget(far: Repo) -> None:
    cost = whole(Files(far.path).corpus.sources["lib/f1.py"], "").tokens
    given = supply(far.path, Need((Want("lib/f1.py"),)), "", budget=int(cost / 0.95))
    assert [(entry.path, entry.form) for entry in given.entries] == [("lib/f1.py", "whole")]


@pytest.mark.parametrize(
    ("plan", "needs"),
    [
        ("# Plan\n\nneeds: a.py, `b/c.py`\n", ("a.py", "b/c.py")),
        ("# Plan\n\n**Needs:**\n- a.py\n- b.py\n", ("a.py", "b.py")),
        ("needs: a.py\n" + "more\n" * 20, ()),
        ("It needs: nothing else", ()),
        ("", ()),
    ],
)
def test_a_plan_names_files_for_the_stages_after_it(plan: str, needs: tuple[str, ...]) -> None:
    assert plan_needs(plan) == needs


def test_what_a_plan_needs_is_in_the_packs_of_the_stages_after_it(far: Repo, scripted: MakeScripted) -> None:
    it = scripted("# Fix add\n\nneeds: lib/far.py\n", FIX)
    gremlin = it.make("stages: [{type: plan, mode: batch}, {type: implement, mode: batch}]\n", "Fix add")
    assert isinstance(it.run(gremlin).status, Finished)
    assert FAR in it.calls(gremlin)[1].request["messages"][0]["content"]


def test_a_request_reads_as_a_sentence() -> None:
    assert str(Need((Want("a.py"), Want("b.py", "f"), Want(search="x")), "so")) == (
        "`a.py`, `f` in `b.py`, places with `x` (so)"
    )
