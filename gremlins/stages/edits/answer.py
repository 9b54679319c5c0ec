"""The structured answer of a batch stage that changes code: its schema, and reading its edits and its verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError

from gremlins.errors import GremlinsError
from gremlins.outcome import Bail
from gremlins.text import normalised_value

Text = Annotated[str, BeforeValidator(normalised_value)]
"""A text that a model wrote, without characters that are no text."""


class _Edit(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, StringConstraints(min_length=1)]


class Replace(_Edit):
    """`old`, which is in the file exactly once, becomes `new`."""

    old: str
    new: str


class Write(_Edit):
    """The whole file, new or not."""

    content: str


class Delete(_Edit):
    delete: Literal[True]


Edit = Replace | Write | Delete


class EditReply(BaseModel):
    """The answer of a code-changing batch stage."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    edits: tuple[Edit, ...]
    summary: Text = ""


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_PATH = {"type": "string", "description": "Relative to the repository's top folder, as in the prompt."}

FORMAT: Mapping[str, Any] = {
    "type": "json_schema",
    "schema": _object(
        edits={
            "type": "array",
            "description": "Applied in order, all or none. Empty when nothing shall change.",
            "items": {
                # Structured outputs know `anyOf`, not `oneOf`, and no optional keys worth relying on.
                "anyOf": [
                    _object(
                        path=_PATH,
                        old={
                            "type": "string",
                            "description": "Text copied exactly from the file, long enough to be there only once.",
                        },
                        new={"type": "string", "description": "What stands in its place."},
                    ),
                    _object(path=_PATH, content={"type": "string", "description": "The whole content of the file."}),
                    _object(path=_PATH, delete={"const": True, "description": "The file goes away."}),
                ]
            },
        },
        summary={
            "type": "string",
            "description": "What was changed and why. A BAIL: or NOTHING TO DO: line, if any, is its last line.",
        },
        need={
            "type": "array",
            "description": "Empty, or in place of edits: what is missing to make them.",
            "items": {
                "anyOf": [
                    _object(path=_PATH),
                    _object(path=_PATH, symbol={"type": "string", "description": "A definition in it."}),
                    _object(search={"type": "string", "description": "A text to find in the repository's files."}),
                ]
            },
        },
        why={"type": "string", "description": "What `need` is needed for; empty without it."},
    ),
}
"""For `output_config.format`."""


class UnreadableReply(GremlinsError):
    """The answer holds no list of edits that can be read, or more than one. It can be asked for once more."""


def parse_reply(text: str) -> EditReply:
    """The list of edits in an answer: the text itself, or the one JSON object in it that has `edits`.

    Words that only say BAIL or NOTHING TO DO are an empty list. Raises UnreadableReply.
    """
    found = list(_replies_in(text))
    if not found and parse_verdict(text) is not None:
        return EditReply(edits=(), summary=text)
    if len(found) != 1:
        raise UnreadableReply(
            "the answer holds no JSON object with `edits`" if not found else "the answer holds several lists of edits"
        )
    try:
        return EditReply.model_validate(_without_nulls(found[0]))
    except ValidationError as error:
        raise UnreadableReply(f"the list of edits cannot be read: {_first_fault(error)}") from None


def _replies_in(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a text that look like an answer, fenced or between prose."""
    decoder = json.JSONDecoder(strict=False)  # raw line ends inside strings are forgiven
    last, end = text.rfind('"edits"'), 0
    for opening in _OBJECT.finditer(text, 0, last + 1):
        at = opening.start()
        if at < end:
            continue
        try:
            value, after = decoder.raw_decode(text, at)
        except RecursionError:  # nested a thousand deep: nothing that was asked for
            return
        except ValueError:
            continue
        if "edits" in value:
            yield value
            end = after
        elif '"edits"' not in text[at:after]:
            end = after  # else the answer may be inside


_OBJECT = re.compile(r'\{\s{0,80}"')


def _without_nulls(reply: dict[str, Any]) -> dict[str, Any]:
    """Some models write every key of a union and leave the ones that do not apply null."""
    edits = reply.get("edits")
    if isinstance(edits, list):
        kept = [
            {key: value for key, value in edit.items() if value is not None and (key, value) != ("delete", False)}
            if isinstance(edit, dict)
            else edit
            for edit in edits
        ]
        reply = {**reply, "edits": kept}
    return {key: value for key, value in reply.items() if value is not None}


def _first_fault(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    index = next((part for part in first["loc"] if isinstance(part, int)), None)
    where = "" if index is None else f"edit {index + 1} is none of path+old+new, path+content, path+delete ("
    return f"{where}{'.'.join(str(part) for part in first['loc'])}: {first['msg']}{')' if where else ''}"


# --- the line that ends an answer


@dataclass(frozen=True)
class NothingToDo:
    """The agent says that the work is done already, or is not needed."""

    reason: str


Verdict = Bail | NothingToDo

_MARKUP = "*_` \t"
_BAIL = re.compile(r"BAIL[*_`]*\s*:[*_`]*\s*(?P<rest>.*)", re.DOTALL | re.IGNORECASE)
_NOTHING = re.compile(r"NOTHING TO DO[*_`]*\s*:[*_`]*\s*(?P<rest>.*)", re.DOTALL | re.IGNORECASE)
_KIND = re.compile(r"[A-Za-z0-9_-]+(?: [A-Za-z0-9_-]+){0,3}")


def parse_verdict(text: str) -> Verdict | None:
    """The verdict in the last line of an answer: `BAIL: class: detail`, `NOTHING TO DO: reason`, or None.

    Any case, emphasis, backticks and a code fence around it are accepted; with words after it, it is only mentioned.
    """
    lines = [line.strip(_MARKUP) for line in text.splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    if found := _NOTHING.fullmatch(last):
        return NothingToDo(found["rest"].strip(_MARKUP) or "no reason given")
    if found := _BAIL.fullmatch(last):
        return _bail(found["rest"].strip(_MARKUP))
    return None


def _bail(rest: str) -> Bail:
    """A BAIL ends the stage, also if the rest is malformed."""
    head, colon, detail = rest.partition(":")
    head = head.strip(_MARKUP)
    if _KIND.fullmatch(head) and (colon or " " not in head):
        return Bail(head.lower().replace(" ", "_"), detail.strip(_MARKUP))
    return Bail("unspecified", rest)


def render_unreadable(error: UnreadableReply) -> str:
    """The next message to the model when its answer could not be read as a list of edits."""
    return (
        f"Your answer could not be used: {error.message}.\n\n"
        'Answer with one JSON object and nothing else: {"edits": [...], "summary": "..."}.'
    )
