"""`copilot:`, live: its JSON lines, its tokens, its confinement, and batch that falls back and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gremlins.clients.base import CallUnsuccessful, Prompt
from gremlins.clients.copilot import CopilotClient
from gremlins.config import Settings
from gremlins.errors import NotReady
from gremlins.outcome import Bail, Failed
from gremlins.records.calls import CallFailed, Intent
from tests.clients.providers.fake_claude import FakeClaude, Step
from tests.clients.session_setup import SECRET, SessionSetup
from tests.conftest import Repo

MODEL = "claude-sonnet-5-5"


@pytest.fixture
def copilot(tmp_path: Path) -> FakeClaude:
    fake = FakeClaude(tmp_path / "bin", "copilot")
    fake.plan(says("Done."))
    return fake


@pytest.fixture
def around(tmp_path: Path, repo: Repo, copilot: FakeClaude) -> SessionSetup:
    env = {"GREMLINS_COPILOT_BIN": str(copilot.path), "COPILOT_GITHUB_TOKEN": SECRET}
    return SessionSetup(tmp_path / "g", repo.path, env)


def event(kind: str, **data: Any) -> Step:
    return ("say", {"type": kind, "data": data})


def used(tokens_in: int, tokens_out: int) -> Step:
    usage = {"inputTokens": tokens_in, "outputTokens": tokens_out, "cacheReadTokens": 0, "cacheWriteTokens": 0}
    return ("usage", {"modelMetrics": {MODEL: {"usage": usage}}})


END: Step = ("say", {"type": "result", "sessionId": "s-1", "exitCode": 0})


def says(text: str) -> list[Step]:
    message = event("assistant.message", content=text, model=MODEL)
    return [event("model.call_finished", outcome="success"), message, used(1000, 100), END]


def ask(around: SessionSetup, prompt: Prompt | str = "Do it.", **more: Any) -> str:
    return CopilotClient(MODEL, around.session()).run(prompt, label="implement", **more).text


def failure(around: SessionSetup) -> Failed | Bail:
    with pytest.raises(CallUnsuccessful) as caught:
        ask(around)
    return caught.value.outcome


def test_the_reply_is_the_last_message(around: SessionSetup, copilot: FakeClaude) -> None:
    copilot.plan([event("assistant.message", content="I look."), *says("All done.")])
    assert ask(around) == "All done."
    assert copilot.starts[0]["stdin"] == "Do it."


def test_a_plans_tokens_are_counted_and_unpriced(around: SessionSetup) -> None:
    ask(around)
    usage = around.records[0].usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (1000, 100)
    assert around.ledger.total().unpriced_calls == 1


def test_with_a_provider_of_ones_own_they_have_a_price(around: SessionSetup) -> None:
    around.env["COPILOT_PROVIDER_BASE_URL"] = "http://127.0.0.1:1"
    ask(around)
    assert around.ledger.total().total_usd == pytest.approx(0.0045)


def test_a_session_taken_up_again_pays_its_tokens_once(around: SessionSetup, copilot: FakeClaude) -> None:
    around.env["COPILOT_PROVIDER_BASE_URL"] = "http://127.0.0.1:1"
    ask(around)
    (record,) = around.records
    around.ledger.put(replace(record, status=Intent(), ended_at=None))
    copilot.plan([*says("Again.")[:2], used(1500, 200), END])  # what it says of the session is what both runs used
    after = around.respawned()
    ask(after)
    assert [r.usage.input_tokens for r in after.records if r.usage] == [1000, 500]
    assert any(word.startswith("--resume=") for word in copilot.starts[1]["argv"])


def test_the_worktree_may_be_edited_and_nothing_run(around: SessionSetup, copilot: FakeClaude) -> None:
    ask(around, edits_worktree=True)
    argv = copilot.starts[0]["argv"]
    assert "edit" in argv
    assert "bash" not in argv
    assert "--allow-all" not in argv
    assert f"write({around.worktree}/.git)" in argv


def test_a_call_that_only_reads_may_not_write(around: SessionSetup, copilot: FakeClaude) -> None:
    ask(around)
    assert not {"edit", "create", "write"} & set(copilot.starts[0]["argv"])


def test_the_agent_gets_its_own_token_but_not_leave_to_trust_the_repository(
    around: SessionSetup, copilot: FakeClaude
) -> None:
    around.env |= {"COPILOT_ALLOW_ALL": "true", "ANTHROPIC_API_KEY": "other"}
    ask(around)
    env = copilot.starts[0]["env"]
    assert env["COPILOT_GITHUB_TOKEN"] == SECRET
    assert not {"COPILOT_ALLOW_ALL", "ANTHROPIC_API_KEY"} & env.keys()


ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"errorType": "authentication", "statusCode": 401}, "config"),
    ({"errorType": "query", "statusCode": 400}, "task"),
    ({"errorType": "query", "statusCode": 404}, "config"),
    ({"errorType": "odd"}, "unknown"),
]


@pytest.mark.parametrize(("error", "cls"), ERRORS)
def test_an_error_has_its_class(around: SessionSetup, copilot: FakeClaude, error: dict[str, Any], cls: str) -> None:
    copilot.plan([event("session.error", message=f"No: {SECRET}", **error), END])
    outcome = failure(around)
    assert isinstance(outcome, Failed)
    assert outcome.failure == cls
    assert SECRET not in around.everything_said()


@pytest.mark.parametrize("words", ["No session or task matched 'x'", "Error: No session, task, or name matched 'x'."])
def test_a_session_that_is_gone_begins_anew(around: SessionSetup, copilot: FakeClaude, words: str) -> None:
    copilot.plan([("exit", 3)], [("stderr", words), ("exit", 1)], says("Done."))
    failure(around)
    around.ledger.put(replace(around.records[0], status=Intent(), ended_at=None))
    assert ask(around.respawned()) == "Done."
    assert ["--session-id" in start["argv"] for start in copilot.starts] == [True, False, True]


def test_an_overloaded_provider_is_asked_again(around: SessionSetup, copilot: FakeClaude) -> None:
    copilot.plan([event("session.error", message="529", errorType="query", statusCode=529), END], says("Done."))
    assert ask(around) == "Done."


def test_a_denied_tool_is_a_failure_although_it_ends_well(around: SessionSetup, copilot: FakeClaude) -> None:
    started = event("tool.execution_start", toolCallId="t", toolName="create")
    denied = event("tool.execution_complete", toolCallId="t", success=False, error={"code": "denied"})
    copilot.plan([started, denied, *says("Done.")])
    outcome = failure(around)
    assert isinstance(outcome, Failed)
    assert "create" in outcome.reason


@pytest.mark.parametrize("steps", [[], ["rubbish"], [event("assistant.message", content="x")], [("big", 20)]])
def test_without_a_last_word_it_failed(around: SessionSetup, copilot: FakeClaude, steps: list[Step]) -> None:
    copilot.plan(steps)
    failure(around)
    status = around.records[0].status
    assert isinstance(status, CallFailed)
    assert status.failure == "unknown"


def test_batch_falls_back_to_live_and_says_so_once(around: SessionSetup, copilot: FakeClaude) -> None:
    schema = {"type": "json_schema", "schema": {"type": "object"}}
    copilot.plan(says('```json\n{"edits": []}\n```'))
    client = CopilotClient(MODEL, around.session())
    answer = client.run(Prompt("Plan.", schema=schema), label="plan", mode="batch")
    client.run("Review.", label="review_code", mode="batch")
    assert (answer.text, answer.mode) == ('{"edits": []}', "live")
    assert sum("no batch mode" in line for line in around.lines) == 1
    assert "made live" in answer.record.notes[0]
    assert '"type": "object"' in copilot.starts[0]["stdin"]


def test_what_is_missing_is_said_before_anything_starts(around: SessionSetup) -> None:
    CopilotClient.check_ready(MODEL, "live", around.env, Settings())
    with pytest.raises(NotReady, match="not logged in"):
        CopilotClient.check_ready(MODEL, "live", {**around.env, "COPILOT_GITHUB_TOKEN": ""}, Settings())
    with pytest.raises(NotReady, match="copilot"):
        CopilotClient.check_ready(MODEL, "live", {"PATH": ""}, Settings())
