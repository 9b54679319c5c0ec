"""Scripted models by name, as options and the control endpoint give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gremlins.errors import GremlinsError, did_you_mean
from gremlins.simulator.demo import DemoModel, FixRulesModel
from gremlins.simulator.model import Model, ScriptedModel, answer_from_json

KINDS = ("demo", "rules", "scripted")


def model_from_json(value: Mapping[str, Any]) -> Model:
    """`{"kind": "demo"}`, `{"kind": "rules", "rules": [{"path", "old", "new"}]}` or
    `{"kind": "scripted", "replies": […], "when": [{"match", "reply"}], "otherwise": "demo"}`."""
    match value.get("kind"):
        case "demo":
            return DemoModel()
        case "rules":
            return FixRulesModel(value.get("rules", ()))
        case "scripted":
            return ScriptedModel(
                [answer_from_json(item) for item in value.get("replies", ())],
                when=[(item["match"], answer_from_json(item["reply"])) for item in value.get("when", ())],
                otherwise=DemoModel() if value.get("otherwise") == "demo" else None,
            )
        case other:
            raise GremlinsError(
                f"no such scripted model: {other}",
                hint=did_you_mean(str(other), KINDS, otherwise=f"known are {', '.join(KINDS)}"),
            )
