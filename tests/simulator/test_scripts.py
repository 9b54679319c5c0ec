"""Replies given in advance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gremlins.errors import GremlinsError
from gremlins.simulator import ModelError, ModelReply, RulesModel, ScriptedModel
from gremlins.simulator.scripts import model_from_json
from tests.simulator.conftest import params


def test_replies_come_in_order_and_then_no_more() -> None:
    model = ScriptedModel(["one", ModelReply("two", stop_reason="refusal")])
    assert model.reply(params()) == ModelReply("one")
    assert model.reply(params()) == ModelReply("two", stop_reason="refusal")
    assert model.reply(params()) == ModelError("api_error", "the script has no reply left")


def test_a_condition_comes_first_and_may_be_met_again() -> None:
    model = ScriptedModel(["other"], when=[("pl[ae]n", "a plan"), (lambda prompt: bool(prompt.tools), "with tools")])
    asked = [params("plan it"), params("plan it"), params("x", tools=[{"name": "t"}]), params("x")]
    assert [model.reply(item) for item in asked] == [
        ModelReply(text) for text in ("a plan", "a plan", "with tools", "other")
    ]


def test_a_reply_may_be_made_from_the_request() -> None:
    def echo(asked: Mapping[str, Any]) -> str:
        return str(asked["messages"][0]["content"])

    assert ScriptedModel([echo]).reply(params("hello")) == ModelReply("hello")


def test_another_model_may_answer_the_rest() -> None:
    model = ScriptedModel(["one"], otherwise=RulesModel())
    assert model.reply(params()) == ModelReply("one")
    rest = model.reply(params("Write the plan for x."))
    assert isinstance(rest, ModelReply)
    assert rest.text.startswith("# Plan")


def test_it_keeps_what_it_was_asked() -> None:
    model = ScriptedModel(["one"])
    model.reply(params("hello"))
    assert [item["messages"][0]["content"] for item in model.asked] == ["hello"]


def test_scripts_can_be_written_as_json() -> None:
    busy = {"error": {"type": "overloaded_error", "message": "busy"}}
    replies = ["one", busy, {"text": "x", "stop_reason": "refusal"}]
    when = [{"match": "^Q", "reply": "matched"}]
    model = model_from_json({"kind": "scripted", "replies": replies, "when": when})
    assert model.reply(params("Q")) == ModelReply("matched")
    assert model.reply(params()) == ModelReply("one")
    assert model.reply(params()) == ModelError("overloaded_error", "busy")
    assert model.reply(params()) == ModelReply("x", stop_reason="refusal")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ({"kind": "rule"}, "Invalid value 'rule'"),
        ({"kind": "rules", "rules": [{"old": "a"}]}, "missing required field `new`"),
        ({"kind": "scripted", "when": [{"match": "(", "reply": "x"}]}, "unterminated subpattern"),
        ({"kind": "scripted", "replies": [{"txet": "x"}]}, "unknown field `txet`"),
    ],
)
def test_a_wrong_script_is_one_clear_line(script: dict[str, Any], said: str) -> None:
    with pytest.raises(GremlinsError, match=said):
        model_from_json(script)
