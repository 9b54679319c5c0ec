"""The demo model: plans, reviews and edits made by rules from what it is sent. It says that it is no model."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from gremlins.simulator.agent import gather, work
from gremlins.simulator.api import Json
from gremlins.simulator.finding import Finder, FixRule, FixRules, Nothing, is_test
from gremlins.simulator.messages import Reply
from gremlins.simulator.model import Answer, Params
from gremlins.simulator.reading import Prompt, read_prompt
from gremlins.simulator.search import find_bug
from gremlins.simulator.source import Edit
from gremlins.simulator.tools import Toolbox

SIGNATURE = "*Written by the simulator's scripted model, which follows rules and does not think.*"
MAX_EDITS = 5
NOTHING_TO_ADDRESS = "NOTHING TO DO: the review asks for no change that can be made here"

_MATERIAL = re.compile(r"<([\w-]+)>\n.*?\n</\1>", re.DOTALL)
"""What stands between tags is material for the model, and says nothing of what is asked."""

_KINDS: tuple[tuple[str, str], ...] = (
    ("handoff", r"\bhand-?off\b|\bnext (piece|part|child|step) of (the )?work\b"),
    ("plan", r"\b(write|make|produce|draw up|prepare|create)\b[^.\n]{0,50}\bplan\b|\bplanning\b|\Aplan\b"),
    ("address", r"\baddress\b[^.\n]{0,60}\b(review|findings?|comments?)\b"),
    ("review", r"\breview(ing|er)?\b"),
    ("work", r"\bimplement(?!ation plan)\b|\bcarry out\b|\bfix\b|\bfail(s|ed|ing)?\b|\badd\b|\bchange\b"),
)


class DemoModel:
    """Does what the prompt asks as far as rules can: a plan, a review, edits as structured output, or tool calls."""

    def __init__(self, find: Finder = find_bug) -> None:
        self.find = find

    def reply(self, params: Params) -> Answer:
        prompt = read_prompt(params)
        if prompt.schema is not None:
            return Reply(json.dumps(self._structured(prompt, prompt.schema), ensure_ascii=False))
        kind = kind_of(prompt)
        if prompt.tools and kind in ("work", "address") and Toolbox.of(prompt).can_edit():
            return work(prompt, self.find, NOTHING_TO_ADDRESS if kind == "address" else "")
        files, look_first = gather(prompt) if prompt.tools else (prompt.files, None)
        if look_first is not None:
            return look_first
        prompt = replace(prompt, files=files)
        match kind:
            case "plan":
                return Reply(self._plan(prompt))
            case "review":
                return Reply(self._review(prompt))
            case _:
                return Reply(self._note(prompt))

    def _structured(self, prompt: Prompt, schema: Json) -> Any:
        if "decision" in schema.get("properties", {}):
            return self._handoff(prompt)
        if "edits" not in schema.get("properties", {}):
            return example(schema)
        found = self.find(prompt, prompt.files)
        if isinstance(found, Nothing):
            if kind_of(prompt) == "address":
                return {"edits": [], "summary": NOTHING_TO_ADDRESS}
            return {"edits": [], "summary": f"No change.\n\n{found.line}"}
        edits = [found, *self._more(prompt, found)]
        return {
            "edits": [_in_form({"path": item.path, "old": item.old, "new": item.new}, schema) for item in edits],
            "summary": "\n".join(told(item) for item in edits),
        }

    def _more(self, prompt: Prompt, first: Edit) -> Iterator[Edit]:
        """Further edits, as long as each is proven by tests that fail without it."""
        files, found = dict(prompt.files), first
        for _ in range(MAX_EDITS - 1):
            files[found.path] = files[found.path].replace(found.old, found.new, 1)
            following = self.find(prompt, files) if found.proven else None
            if not (isinstance(following, Edit) and following.proven):
                return
            yield following
            found = following

    def _handoff(self, prompt: Prompt) -> Json:
        """One more round while there is something to find, else done."""
        found = self.find(prompt, prompt.files)
        more = isinstance(found, Edit)
        plan = f"# {title(prompt)}\n\n1. {told(found)}\n2. Run the tests.\n" if isinstance(found, Edit) else ""
        return {
            "decision": "next" if more else "done",
            "reason": told(found) if isinstance(found, Edit) else "nothing is left that the rules know to mend",
            "rolling_plan": "Whatever the next look finds." if more else "",
            "child_plan": plan,
            "operator_follow_ups": [],
        }

    def _plan(self, prompt: Prompt) -> str:
        found = self.find(prompt, prompt.files)
        tests = [path for path in prompt.files if is_test(path)]
        run = f"Run {_some(tests) if tests else 'the tests'}."
        if isinstance(found, Nothing):
            changes = ["1. Look at " + _some(prompt.files or prompt.named_paths()) + ".", "2. Make the change."]
            return _document(f"Plan: {title(prompt)}", Changes=changes, Tests=[run])
        return _document(
            f"Plan: {title(prompt)}",
            Findings=[told(found)],
            Changes=[f"1. In `{found.path}`, change this and nothing else:", "", "```diff", *_diff(found), "```"],
            Tests=[run],
            Risks=[f"None that rules can see: `{found.function}` takes and returns what it did."],
        )

    def _review(self, prompt: Prompt) -> str:
        touched = changed_paths(prompt.diff)
        files = {path: text for path, text in prompt.files.items() if not touched or path in touched}
        found = self.find(prompt, files) if files else Nothing("")
        scope = _some(touched) if touched else "the change"
        if isinstance(found, Nothing):
            return f"# Review\n\nI read {scope}.\n\n{SIGNATURE}\n\nVERDICT: approve: no rule finds a fault in it\n"
        line = files[found.path][: files[found.path].find(found.old)].count("\n") + 1
        diff = "\n".join(_diff(found))
        return (
            f"# Review\n\n### F1 (major) `{found.path}:{line}`\n{told(found)}\n\n```diff\n{diff}\n```\n\n"
            f"{SIGNATURE}\n\nVERDICT: changes requested: {found.why}\n"
        )

    def _note(self, prompt: Prompt) -> str:
        found = self.find(prompt, prompt.files) if prompt.files else Nothing("")
        said = told(found) if isinstance(found, Edit) else f"Read {_some(prompt.files or prompt.named_paths())}."
        return f"# {title(prompt)}\n\n{said}\n\n{SIGNATURE}\n"


class FixRulesModel(DemoModel):
    """A demo model whose edits are given in advance: the first rule whose `old` stands in the prompt's files."""

    def __init__(self, rules: Iterable[FixRule | Mapping[str, Any] | tuple[str, ...]]) -> None:
        super().__init__(FixRules(rules))


def kind_of(prompt: Prompt) -> str:
    """plan, review, address, handoff or work: whichever the instructions speak of first."""
    for text in (prompt.text, prompt.system):
        places = [
            (found.start(), kind)
            for kind, pattern in _KINDS
            if (found := re.search(pattern, _MATERIAL.sub("", text).strip()[:2000], re.IGNORECASE))
        ]
        if places:
            return min(places)[1]
    return "work"


def told(edit: Edit) -> str:
    where = f"`{edit.path}`" + (f", function `{edit.function}`" if edit.function else "")
    return f"{where}: {edit.why}."


def title(prompt: Prompt) -> str:
    """The task in a few words: what stands in its tag or follows `Task`, else the first line of the instructions."""
    tagged = re.search(r"<task>\s*([^\n]+)", prompt.text)
    match = tagged or re.search(
        r"^(?:#+\s*)?(?:the )?task:?\s*\n*\s*([^\n]+)", prompt.text, re.IGNORECASE | re.MULTILINE
    )
    line = match[1] if match else (prompt.text.strip().splitlines() or ["a reply"])[0]
    line = re.sub(r"<[^>]*>", "", line).strip(" #*`")
    return line[:80] or "the task"


def _document(heading: str, **sections: list[str]) -> str:
    """A markdown document in the form that plans are asked for."""
    parts = [f"# {heading}", ""]
    for name, lines in sections.items():
        parts += [f"## {name}", "", *lines, ""]
    return "\n".join([*parts, SIGNATURE])


def changed_paths(diff: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"^\+\+\+ b/(\S+)", diff, re.MULTILINE)))


def example(schema: Json) -> Any:
    """The simplest value that follows a JSON schema."""
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return example(schema[key][0])
    match schema.get("type"):
        case "object":
            return {key: example(item) for key, item in schema.get("properties", {}).items()}
        case "array":
            return []
        case "integer" | "number":
            return 0
        case "boolean":
            return False
        case "string":
            return "…"
        case _:
            return None


def _in_form(edit: Json, schema: Json) -> Json:
    """The edit with null for whatever else the schema wants in one."""
    items = schema["properties"]["edits"].get("items", {})
    forms = items.get("anyOf") or items.get("oneOf") or [items]
    form: Json = next((form for form in forms if {"old", "new"} <= set(form.get("properties", {}))), {})
    return edit | {key: None for key in form.get("required", ()) if key not in edit}


def _diff(edit: Edit) -> list[str]:
    lines = difflib.unified_diff(edit.old.splitlines(), edit.new.splitlines(), lineterm="", n=1)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def _some(paths: Iterable[str]) -> str:
    shown = [f"`{path}`" for path in paths]
    return (", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")) or "the repository"
