"""The scripted model of a few rules: text found in a file of the prompt is replaced; plans and reviews are fixed."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gremlins.simulator.api import Json
from gremlins.simulator.messages import ModelReply
from gremlins.simulator.model import Params
from gremlins.simulator.reading import ReadPrompt, read_prompt

SIGNATURE = "*Written by the simulator's scripted model, which follows rules and does not think.*"
NO_RULES = "NOTHING TO DO: the simulator's model has no rules, so it changes nothing"
DONE_ALREADY = "NOTHING TO DO: the change is there already"


@dataclass(frozen=True)
class EditRule:
    """Replaces `old` by `new` in the first file whose path matches `path`, a regular expression, and that holds it."""

    old: str
    new: str
    path: str = ""

    @property
    def diff(self) -> str:
        lines = difflib.unified_diff(self.old.splitlines(), self.new.splitlines(), lineterm="", n=1)
        return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


@dataclass(frozen=True)
class FoundEdit:
    """A rule, and the file in which its text stands."""

    path: str
    rule: EditRule


class RulesModel:
    """Answers plans, reviews, hand-offs and edits by rules. Without a rule that matches it changes nothing."""

    def __init__(self, rules: Iterable[EditRule] = ()) -> None:
        self.rules = tuple(rules)

    def reply(self, params: Params) -> ModelReply:
        prompt = read_prompt(params)
        found = self.find(prompt.files)
        if prompt.schema is None:
            return ModelReply(_review(prompt, found) if prompt.diff else _plan(found))
        asked = prompt.schema.get("properties", {})
        if "decision" in asked:
            return ModelReply(json.dumps(_hand_off(found)))
        if "edits" in asked:
            return ModelReply(json.dumps(_edits(found, prompt.schema), ensure_ascii=False))
        return ModelReply(json.dumps(example(prompt.schema)))

    def find(self, files: Mapping[str, str]) -> FoundEdit | str:
        """The first edit that a rule finds, or the line that says why there is none."""
        for rule in self.rules:
            for path, content in files.items():
                if re.search(rule.path, path) and rule.old in content:
                    return FoundEdit(path, rule)
        if not self.rules:
            return NO_RULES
        if any(rule.new and rule.new in content for rule in self.rules for content in files.values()):
            return DONE_ALREADY
        names = ", ".join(list(files)[:5]) or "none"
        return f"BAIL: missing_context: no file in the prompt ({names}) holds the text of a rule"


def _plan(found: FoundEdit | str) -> str:
    if isinstance(found, str):
        return f"# Plan\n\n1. Make the change that the task names.\n2. Run the tests.\n\n{SIGNATURE}"
    change = f"1. In `{found.path}`, change this and nothing else:\n\n```diff\n{found.rule.diff}\n```"
    return f"# Plan\n\n{change}\n2. Run the tests.\n\n{SIGNATURE}"


def _review(prompt: ReadPrompt, found: FoundEdit | str) -> str:
    if isinstance(found, str) or found.path not in prompt.diff:
        return f"# Review\n\n{SIGNATURE}\n\nVERDICT: approve: no rule finds a fault in it\n"
    line = prompt.files[found.path].partition(found.rule.old)[0].count("\n") + 1
    finding = f"### F1 (major) `{found.path}:{line}`\n\n```diff\n{found.rule.diff}\n```"
    return f"# Review\n\n{finding}\n\n{SIGNATURE}\n\nVERDICT: changes requested: a rule finds a fault in it\n"


def _hand_off(found: FoundEdit | str) -> Json:
    more = isinstance(found, FoundEdit)
    return {
        "decision": "next" if more else "done",
        "reason": "a rule finds a change to make" if more else "no rule finds a change to make",
        "rolling_plan": "Look for the next change." if more else "",
        "child_plan": _plan(found) if more else "",
        "operator_follow_ups": [],
    }


def _edits(found: FoundEdit | str, schema: Json) -> Json:
    if isinstance(found, str):
        return {"edits": [], "summary": f"No change.\n\n{found}"}
    edit = {"path": found.path, "old": found.rule.old, "new": found.rule.new}
    return {"edits": [in_form(edit, schema)], "summary": f"Changed `{found.path}` as a rule says."}


def in_form(edit: Json, schema: Json) -> Json:
    """The edit, with null for every other key its schema requires."""
    items = schema["properties"]["edits"].get("items", {})
    forms = items.get("anyOf") or items.get("oneOf") or [items]
    form: Json = next((form for form in forms if set(edit) <= set(form.get("properties", {}))), {})
    return edit | {key: None for key in form.get("required", ()) if key not in edit}


def example(schema: Json) -> Any:
    """The simplest value that follows a JSON schema."""
    if "enum" in schema or "const" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return example(schema[key][0])
    if schema.get("type") == "object":
        return {key: example(item) for key, item in schema.get("properties", {}).items()}
    simplest = {"array": [], "integer": 0, "number": 0, "boolean": False, "string": "…"}
    return simplest.get(schema.get("type", ""))
