"""`openai:`, live: without its extra a clear line, with it a file changed in the worktree."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gremlins.clients.base import CallUnsuccessful
from gremlins.clients.providers.openai import OpenAIClient
from gremlins.config import Settings
from gremlins.errors import NotReady
from gremlins.outcome import Failed
from tests.clients.providers.responses_api import ResponsesApi, calls, says
from tests.clients.session_setup import SECRET, SessionSetup
from tests.conftest import Repo

MODEL = "gpt-5"
INSTALLED = importlib.util.find_spec("agents") is not None
with_extra = pytest.mark.skipif(not INSTALLED, reason="needs the extra: .venv/bin/pip install -e '.[openai]'")


@pytest.fixture
def around(tmp_path: Path, repo: Repo) -> SessionSetup:
    return SessionSetup(tmp_path / "g", repo.path, {"OPENAI_API_KEY": SECRET})


@contextmanager
def api(around: SessionSetup, *replies: Any) -> Iterator[ResponsesApi]:
    with ResponsesApi(*replies) as responses:
        around.env["OPENAI_BASE_URL"] = responses.url
        yield responses


def ask(around: SessionSetup, **more: Any) -> str:
    return OpenAIClient(MODEL, around.session()).run("Do it.", label="implement", **more).text


@pytest.mark.skipif(INSTALLED, reason="the extra `openai` is installed")
def test_without_its_extra_one_line_names_it(around: SessionSetup) -> None:
    with pytest.raises(NotReady, match="the extra `openai`") as caught:
        OpenAIClient.check_ready(MODEL, "live", around.env, Settings())
    assert caught.value.hint == "pip install 'gremlins-fleet[openai]'"
    with pytest.raises(NotReady):
        ask(around)


@with_extra
def test_without_a_key_it_is_not_ready(around: SessionSetup) -> None:
    with pytest.raises(NotReady, match="OPENAI_API_KEY"):
        OpenAIClient.check_ready(MODEL, "live", {}, Settings())


@with_extra
def test_a_file_is_changed_in_the_worktree_and_the_reply_is_paid_for(around: SessionSetup, repo: Repo) -> None:
    edit = calls("edit", file_path="calc.py", old_string="a - b", new_string="a + b")
    with api(around, edit, says("Fixed.")) as responses:
        assert ask(around, edits_worktree=True) == "Fixed."
    assert "return a + b" in repo.read("calc.py")
    assert len(responses.asked) == 2
    (record,) = around.records
    assert record.usage is not None
    assert (record.usage.input_tokens, record.usage.cache_read_tokens, record.usage.output_tokens) == (1200, 800, 200)
    assert record.cost is not None
    assert record.cost.usd


@with_extra
def test_a_path_outside_the_worktree_is_refused(around: SessionSetup, tmp_path: Path) -> None:
    with api(around, calls("write", file_path=str(tmp_path / "x"), content="x"), says("No.")) as responses:
        ask(around, edits_worktree=True)
    assert not (tmp_path / "x").exists()
    assert "outside" in str(responses.asked[1]["input"])


@with_extra
def test_a_call_that_only_reads_has_no_tool_that_writes(around: SessionSetup) -> None:
    with api(around, says("Plan.")) as responses:
        ask(around)
    assert {tool["name"] for tool in responses.asked[0]["tools"]} == {"read", "glob", "grep"}


ERRORS = [
    (401, "invalid_api_key", "config"),
    (404, "model_not_found", "config"),
    (429, "insufficient_quota", "credit"),
    (400, "context_length_exceeded", "task"),
    (503, "overloaded", "capacity"),
]


@with_extra
@pytest.mark.parametrize(("status", "code", "cls"), ERRORS)
def test_an_error_has_its_class(around: SessionSetup, status: int, code: str, cls: str) -> None:
    with api(around, (status, code, f"no: {SECRET}")), pytest.raises(CallUnsuccessful) as caught:
        ask(around)
    assert isinstance(caught.value.outcome, Failed)
    assert caught.value.outcome.failure == cls
    assert SECRET not in around.everything_said()


@with_extra
def test_each_turn_asks_for_room_under_the_caps(around: SessionSetup) -> None:
    """One call made as many requests as it liked."""
    asked = 0

    def leaves_no_room() -> None:
        nonlocal asked
        asked += 1
        if asked > 2:
            raise CallUnsuccessful(Failed("credit", "spend.per_attempt is $1.5"))

    around.guard = leaves_no_room
    with api(around, calls("glob", pattern="*")) as responses, pytest.raises(CallUnsuccessful, match="per_attempt"):
        ask(around)
    assert len(responses.asked) == 2
    (record,) = around.records
    assert record.cost is not None
    assert record.cost.usd


@with_extra
def test_batch_is_refused(around: SessionSetup) -> None:
    with pytest.raises(NotImplementedError, match="openai"):
        ask(around, mode="batch")
