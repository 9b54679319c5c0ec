"""`scripted:`, the dry run: which reply answers which call, what it edits, and what a wrong script says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gremlins.clients.base import CallUnsuccessful, Prompt
from gremlins.clients.providers.scripted import ScriptedClient
from gremlins.clock import FakeClock
from gremlins.config import Settings
from gremlins.errors import NotReady
from gremlins.outcome import Failed
from tests.clients.session_setup import SessionSetup
from tests.conftest import Repo

SCRIPT = """
replies:
  plan: The plan.
  "loop[2]/plan": The second plan.
  implement:
    - {text: First., edits: {calc.py: "pass\\n", "new/file.txt": "hi\\n", README.md: null}, delay: 2.5, cost: 0.5}
    - {fail: {class: task, message: it went wrong}}
  "loop*": Anything in a loop.
"""


@pytest.fixture
def around(tmp_path: Path, repo: Repo) -> SessionSetup:
    (tmp_path / "script.yaml").write_text(SCRIPT)
    return SessionSetup(tmp_path / "g", repo.path, clock=FakeClock())


def ask(around: SessionSetup, label: str, prompt: Prompt | str = "Do it.", **more: Any) -> str:
    client = ScriptedClient(str(around.root.parent / "script.yaml"), around.session())
    return client.run(prompt, label=label, **more).text


def test_a_label_is_looked_up_whole_then_by_its_last_part_then_as_a_pattern(around: SessionSetup) -> None:
    assert ask(around, "plan") == "The plan."
    assert ask(around, "loop[1]/plan") == "The plan."
    assert ask(around, "loop[2]/plan") == "The second plan."
    assert ask(around, "loop[1]/review_code") == "Anything in a loop."


def test_edits_are_made_in_the_worktree(around: SessionSetup, repo: Repo) -> None:
    assert ask(around, "implement", edits_worktree=True) == "First."
    assert repo.read("calc.py") == "pass\n"
    assert repo.read("new/file.txt") == "hi\n"
    assert not (repo.path / "README.md").exists()


def test_where_edits_are_asked_for_as_a_list_they_are_the_reply(around: SessionSetup, repo: Repo) -> None:
    schema = {"type": "json_schema", "schema": {}}
    text = ask(around, "implement", Prompt("Do it.", schema=schema), mode="batch")
    assert '{"path": "new/file.txt", "content": "hi\\n"}' in text
    assert '{"path": "README.md", "delete": true}' in text
    assert "return a - b" in repo.read("calc.py")


def test_it_takes_its_time_and_costs_what_it_says(around: SessionSetup) -> None:
    ask(around, "implement", edits_worktree=True)
    assert around.clock.monotonic() == 2.5
    assert around.ledger.total().total_usd == 0.5


def test_the_entries_of_a_list_answer_one_call_each(around: SessionSetup) -> None:
    ask(around, "implement", edits_worktree=True)
    around.more = {"attempt": lambda _stage: 2}
    with pytest.raises(CallUnsuccessful) as caught:
        ask(around, "implement", edits_worktree=True)
    assert caught.value.outcome == Failed("task", "it went wrong")


def test_a_call_that_the_script_does_not_know_fails_and_names_it(around: SessionSetup) -> None:
    with pytest.raises(CallUnsuccessful, match="no reply for `address_code`"):
        ask(around, "address_code")


def test_an_edit_outside_the_worktree_is_refused(around: SessionSetup, tmp_path: Path) -> None:
    (tmp_path / "script.yaml").write_text("replies: {implement: {edits: {'../outside': x}}}")
    with pytest.raises(NotReady, match="outside"):
        ask(around, "implement", edits_worktree=True)
    assert not (around.worktree.parent / "outside").exists()


WRONG = [
    ("replies: [", "not YAML"),
    ("replies: {plan: {txt: x}}", "replies.plan.0.txt"),
    ("reply: {}", "replies: Field required"),
    ("- a", "file"),
]


@pytest.mark.parametrize(("script", "said"), WRONG)
def test_a_wrong_script_is_said_before_anything_starts(tmp_path: Path, script: str, said: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(script)
    with pytest.raises(NotReady, match=said):
        ScriptedClient.check_ready(str(file), "live", {}, Settings())


def test_a_relative_path_is_answered_with_the_whole_one() -> None:
    with pytest.raises(NotReady) as caught:
        ScriptedClient.check_ready("script.yaml", "live", {}, Settings())
    assert str(caught.value.hint) == f"scripted:{Path.cwd() / 'script.yaml'}"
