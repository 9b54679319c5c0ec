"""The model of `gremlins simulate`: its change succeeds in any repository, because it only adds a file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import count

from gremlins.simulator.api import Json
from gremlins.simulator.messages import ModelReply
from gremlins.simulator.model import Params
from gremlins.simulator.reading import ReadPrompt, read_prompt
from gremlins.simulator.rules import SIGNATURE, example, in_form

NOT_MENDED = "NOTHING TO DO: the simulator's model mends no failing check"
WORKING_DIRECTORY = re.compile(r"(?:working directory|cwd|current directory)\b[^/\n]{0,20}?(/[^\n<`]+)", re.IGNORECASE)
_PATH_KEYS = ("file_path", "filePath", "path")
_CONTENT_KEYS = ("content", "file_text")


class ExampleModel:
    """Adds `SIMULATED.md`, then `SIMULATED-2.md` and so on, with edits or with the tools that are offered.

    question: asked in place of the first change, until the prompt holds a person's answer.
    """

    def __init__(self, question: str = "") -> None:
        self.question = question

    def reply(self, params: Params) -> ModelReply:
        prompt = read_prompt(params)
        asked = (prompt.schema or {}).get("properties", {})
        if "decision" in asked:
            return ModelReply(json.dumps(_hand_off(prompt)))
        if "edits" in asked and prompt.schema is not None:
            return ModelReply(json.dumps(self._edits(prompt, prompt.schema), ensure_ascii=False))
        if prompt.schema is not None:
            return ModelReply(json.dumps(example(prompt.schema)))
        if (tool := _writer(prompt.tools)) is not None:
            return self._use(prompt, tool)
        return ModelReply(_REVIEW if _section(prompt.whole, "diff") else _PLAN)

    def _edits(self, prompt: ReadPrompt, schema: Json) -> Json:
        if (closing := self._closing(prompt)) is not None:
            return {"edits": [], "summary": f"No change.\n\n{closing}"}
        edit = {"path": _free_name(prompt), "content": _content(prompt)}
        return {"edits": [in_form(edit, schema)], "summary": f"Added `{edit['path']}`, as the simulator does."}

    def _use(self, prompt: ReadPrompt, tool: Json) -> ModelReply:
        """One use of the tool that writes files, then a report."""
        if (closing := self._closing(prompt)) is not None:
            return ModelReply(f"No change.\n\n{closing}")
        if (written := _written(prompt)) is not None:
            return ModelReply(f"Added `{written}`, as the simulator does.")
        where = WORKING_DIRECTORY.search(prompt.whole)
        folder = where[1].strip().rstrip("/.") + "/" if where else ""
        keys = tool["input_schema"]["properties"]
        given = {_first(_PATH_KEYS, keys): folder + _free_name(prompt), _first(_CONTENT_KEYS, keys): _content(prompt)}
        use = {"type": "tool_use", "id": f"toolu_{len(prompt.messages):022}", "name": tool["name"], "input": given}
        return ModelReply(blocks=(use,), stop_reason="tool_use")

    def _closing(self, prompt: ReadPrompt) -> str | None:
        """The last line of a reply that changes nothing; None for a reply that does."""
        if _section(prompt.whole, "failure"):
            return NOT_MENDED
        if self.question and not any(_section(prompt.whole, tag) for tag in ("answers", "remarks")):
            return f"BAIL: needs_human: {self.question}"
        return None


_PLAN = f"# Plan\n\n1. Add a file with the task in it.\n2. Run the tests.\n\n{SIGNATURE}"
_REVIEW = f"# Review\n\n{SIGNATURE}\n\nVERDICT: approve: the simulator finds no fault in it\n"


def _hand_off(prompt: ReadPrompt) -> Json:
    """One round, then done."""
    more = "SIMULATED" not in _section(prompt.whole, "landed")
    return {
        "decision": "next" if more else "done",
        "reason": "the file is not there yet" if more else "the file is there",
        "rolling_plan": "See that the file is there." if more else "",
        "child_plan": _PLAN if more else "",
        "operator_follow_ups": [],
    }


def _free_name(prompt: ReadPrompt) -> str:
    """The first name that the conversation does not know as taken."""
    names = (f"SIMULATED{'' if number == 1 else f'-{number}'}.md" for number in count(1))
    return next(name for name in names if name not in prompt.whole)


def _content(prompt: ReadPrompt) -> str:
    said = _section(prompt.whole, "remarks") or _section(prompt.whole, "task")
    quoted = "".join(f"> {line}".rstrip() + "\n" for line in said.splitlines())
    return f"# A change\n\n{quoted}\n{SIGNATURE}\n"


def _section(text: str, tag: str) -> str:
    """The text of the last section of this name, as prompts mark them; empty if there is none."""
    found = re.findall(rf"^<({tag}(?:-[0-9a-f]+)?)>\n(.*?)\n?^</\1>", text, re.DOTALL | re.MULTILINE)
    return str(found[-1][1]).strip() if found else ""


def _writer(tools: Iterable[Json]) -> Json | None:
    """The tool that writes a whole file: it takes a path and the content."""
    for tool in tools:
        keys = tool.get("input_schema", {}).get("properties", {})
        if _first(_PATH_KEYS, keys) and _first(_CONTENT_KEYS, keys):
            return tool
    return None


def _first(names: Iterable[str], known: Iterable[str]) -> str:
    return next((name for name in names if name in known), "")


def _written(prompt: ReadPrompt) -> str | None:
    """The name of the file that the latest use of a tool has written, if that worked."""
    blocks = [b for m in prompt.messages if isinstance(m.get("content"), list) for b in m["content"]]
    results = [block for block in blocks if block.get("type") == "tool_result"]
    used = [block for block in blocks if block.get("type") == "tool_use"]
    if not results or not used or results[-1].get("is_error"):
        return None
    given = used[-1].get("input", {})
    return str(given.get(_first(_PATH_KEYS, given), "")).rpartition("/")[2]
