"""A scripted model as JSON: the option `model`, and the file of `gremlins simulate --script`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_never

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gremlins.errors import ConfigError, GremlinsError
from gremlins.simulator.api import ModelError
from gremlins.simulator.example import ExampleModel
from gremlins.simulator.messages import ModelReply
from gremlins.simulator.model import Model, ScriptedModel
from gremlins.simulator.options import object_in
from gremlins.simulator.rules import EditRule, RulesModel


class _ErrorAnswer(Struct, forbid_unknown_fields=True):
    type: str = "api_error"
    message: str = ""
    details: dict[str, Any] | None = None


class _Answer(Struct, forbid_unknown_fields=True):
    """A reply in full, or the error that the API reports in its place."""

    text: str = ""
    blocks: tuple[dict[str, Any], ...] = ()
    stop_reason: str | None = "end_turn"
    usage: dict[str, Any] | None = None
    stop_details: dict[str, Any] | None = None
    error: _ErrorAnswer | None = None


class _When(Struct, forbid_unknown_fields=True):
    match: str
    reply: str | _Answer


class _Rules(Struct, tag="rules", tag_field="kind", forbid_unknown_fields=True):
    rules: tuple[EditRule, ...] = ()


class _Scripted(Struct, tag="scripted", tag_field="kind", forbid_unknown_fields=True):
    replies: tuple[str | _Answer, ...] = ()
    when: tuple[_When, ...] = ()
    otherwise: str | _Answer | UnsetType = UNSET


class _Example(Struct, tag="example", tag_field="kind", forbid_unknown_fields=True):
    question: str = ""


def model_from_json(value: Mapping[str, Any]) -> Model:
    """The model that an object with `kind` (`rules`, `scripted` or `example`) describes. Raises GremlinsError."""
    try:
        made = msgspec.convert(dict(value), _Rules | _Scripted | _Example)
        for found in made.when if isinstance(made, _Scripted) else ():
            re.compile(found.match)
    except (msgspec.ValidationError, re.error) as error:
        hint = '{"kind": "rules", "rules": [{"path": "calc", "old": "a - b", "new": "a + b"}]}'
        raise GremlinsError(f"this is no scripted model: {error}", hint=hint) from error
    match made:
        case _Rules():
            return RulesModel(made.rules)
        case _Scripted():
            return ScriptedModel(
                [_reply(item) for item in made.replies],
                when=[(item.match, _reply(item.reply)) for item in made.when],
                otherwise=None if isinstance(made.otherwise, UnsetType) else _reply(made.otherwise),
            )
        case _Example():
            return ExampleModel(made.question)
        case _:
            assert_never(made)


def read_script(path: Path) -> Mapping[str, Any]:
    """The object of a script file, once a model can be made of it. Raises ConfigError."""
    value = object_in(path)
    try:
        model_from_json(value)
    except GremlinsError as error:
        raise ConfigError(error.message, file=path, hint=error.hint) from error
    return value


def _reply(given: str | _Answer) -> str | ModelReply | ModelError:
    if isinstance(given, str):
        return given
    if given.error is not None:
        return ModelError(given.error.type, given.error.message, given.error.details)
    return ModelReply(given.text, given.blocks, given.stop_reason, given.usage, given.stop_details)
