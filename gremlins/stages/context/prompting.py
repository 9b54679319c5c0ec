"""Prompts: the kind's own words, the material in tags, and the form of the answer, kept apart from one another."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from gremlins.clients.base import Prompt
from gremlins.records.gremlin import Mode
from gremlins.stages.edits.answer import FORMAT as EDITS_FORMAT
from gremlins.stages.tags import tagged

Kind = Literal["plan", "implement", "verify", "review_code", "address_code", "revise", "agent", "handoff"]

CHANGES_CODE: frozenset[Kind] = frozenset({"implement", "verify", "address_code", "revise"})
ORDER = ("repository", "commands", "plan", "landed", "diff", "review", "failure", "remarks", "answers")
"""Material comes before the instructions that refer to it, the long and steady before the short and particular."""


def _text(description: str) -> dict[str, str]:
    return {"type": "string", "description": description}


HANDOFF_FORMAT: Mapping[str, Any] = {
    "type": "json_schema",
    "schema": {
        "type": "object",
        "properties": {
            "decision": {"type": "string", "enum": ["done", "next", "bail"]},
            "reason": _text("One or two sentences: the evidence for the decision."),
            "rolling_plan": _text("What remains after the coming round, as markdown. Empty unless `next`."),
            "child_plan": _text("The coming round, standing on its own, as markdown. Empty unless `next`."),
            "operator_follow_ups": {"type": "array", "items": {"type": "string"}},
            "need": {"type": "array", "items": {"type": "string"}, "description": "Paths of files that are missing."},
        },
        "required": ["decision", "reason", "rolling_plan", "child_plan", "operator_follow_ups"],
        "additionalProperties": False,
    },
}
"""For `output_config.format` of a handoff."""


def build(kind: Kind, *, mode: Mode, template: str | None, sections: Mapping[str, str]) -> Prompt:
    """The prompt of one call.

    template: a person's words in place of the kind's own. sections: material by tag; `task` is the task itself. Empty
    ones are left out. The schema is set where the answer is structured: edits in batch mode, and handoffs.
    """
    task = sections.get("task", "")
    own = template if template is not None else _prompt_file(kind)
    known = [name for name in ORDER if sections.get(name, "").strip()]
    others = [name for name in sections if name not in ORDER and name != "task" and sections[name].strip()]
    parts = [tagged(name, sections[name].strip()).rstrip() for name in (*known, *others)]
    parts += [tagged("task", task.strip()).rstrip()] if task.strip() else []
    parts += [own.strip(), _form(kind, mode).strip()]
    if mode == "batch":
        parts.append(_prompt_file("need_edits" if kind in CHANGES_CODE else "need_text").strip())
    return Prompt("\n\n".join(parts) + "\n", system=_prompt_file("system").strip(), schema=_schema(kind, mode))


def _schema(kind: Kind, mode: Mode) -> Mapping[str, Any] | None:
    if kind == "handoff":
        return HANDOFF_FORMAT
    return EDITS_FORMAT if mode == "batch" and kind in CHANGES_CODE else None


def _form(kind: Kind, mode: Mode) -> str:
    """The required form of the answer."""
    if kind == "handoff":
        return _prompt_file("answer_handoff")
    if kind in CHANGES_CODE:
        return _prompt_file("answer_edits" if mode == "batch" else "answer_live")
    return _prompt_file("answer_text" if mode == "batch" else "answer_text_live")


@cache
def _prompt_file(name: str) -> str:
    return (files("gremlins") / "prompts" / f"{name}.md").read_text(encoding="utf-8")
