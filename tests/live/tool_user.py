"""A scripted model that uses tools: it looks, reads, edits once and reports, under any names of the tools."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gremlins.simulator.api import Json
from gremlins.simulator.messages import ModelReply
from gremlins.simulator.model import Params
from gremlins.simulator.reading import ReadPrompt, read_prompt, texts
from gremlins.simulator.rules import FoundEdit, RulesModel

Find = Callable[[Mapping[str, str]], FoundEdit | str]

PATH_KEYS = ("file_path", "filePath", "path", "absolute_path", "filename", "file")
OLD_KEYS = ("old_string", "old_str", "oldString", "old_text", "old")
NEW_KEYS = ("new_string", "new_str", "newString", "new_text", "new")
LISTING = "git ls-files"

_NUMBERED = re.compile(r"^\s*(\d+)(?:→|\t|\| ?|: ?|\. ?)(.*)$")
_CWD = re.compile(r"(?:working directory|cwd|current directory)\b[^/\n]{0,20}?(/[^\n<`]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Use:
    """One call of a tool, and what came back (None while it is outstanding)."""

    name: str
    input: Mapping[str, Any]
    result: str | None = None
    failed: bool = False


@dataclass(frozen=True)
class Tool:
    """One tool on offer."""

    name: str
    schema: Json

    @property
    def properties(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.schema.get("properties", {})
        return found

    def key(self, names: tuple[str, ...]) -> str | None:
        return next((name for name in names if name in self.properties), None)

    def fill(self, **given: Any) -> Json:
        """An input that also fills the other required fields of the tool."""
        missing = [key for key in self.schema.get("required", ()) if key not in given]
        return given | {key: _some_value(key, self.properties.get(key, {})) for key in missing}


EDITOR_SCHEMA: Json = {"properties": {key: {"type": "string"} for key in ("command", "path", "old_str", "new_str")}}
SHELL_SCHEMA: Json = {"properties": {"command": {"type": "string"}}}


@dataclass(frozen=True)
class Toolbox:
    """The uses of a request's tools. Each method gives (tool name, input), or None."""

    tools: tuple[Tool, ...]
    cwd: str | None = None

    @classmethod
    def of(cls, prompt: ReadPrompt) -> Toolbox:
        found = _CWD.search(prompt.whole)
        return cls(tuple(_tool(item) for item in prompt.tools), found[1].strip().rstrip("/.") if found else None)

    def read(self, path: str) -> tuple[str, Json] | None:
        tool = self._reader()
        if tool is None:
            return None
        given = {tool.key(PATH_KEYS) or "path": self.absolute(path)}
        return tool.name, tool.fill(**given, **({"command": "view"} if _is_editor(tool) else {}))

    def edit(self, path: str, old: str, new: str) -> tuple[str, Json] | None:
        for tool in self.tools:
            where, before, after = tool.key(PATH_KEYS), tool.key(OLD_KEYS), tool.key(NEW_KEYS)
            if where and before and after:
                given = {where: self.absolute(path), before: old, after: new}
                return tool.name, tool.fill(**given, **({"command": "str_replace"} if _is_editor(tool) else {}))
        return None

    def list_files(self) -> tuple[str, Json] | None:
        for tool in self.tools:
            if "glob" in tool.name.lower() and "pattern" in tool.properties:
                return tool.name, tool.fill(pattern="**/*.py")
        for tool in self.tools:
            if re.search(r"bash|shell|command|terminal", tool.name, re.IGNORECASE) and "command" in tool.properties:
                return tool.name, tool.fill(command=LISTING)
        return None

    def can_edit(self) -> bool:
        return self.edit("", "", "") is not None

    def absolute(self, path: str) -> str:
        return path if path.startswith("/") or self.cwd is None else f"{self.cwd}/{path}"

    def relative(self, path: str) -> str:
        return path.removeprefix(f"{self.cwd}/") if self.cwd else path

    def _reader(self) -> Tool | None:
        for tool in self.tools:
            if _is_editor(tool) or (
                re.search(r"read|view|cat|open", tool.name, re.IGNORECASE)
                and tool.key(PATH_KEYS)
                and not tool.key(OLD_KEYS)
                and "content" not in tool.properties
            ):
                return tool
        return None


@dataclass
class Seen:
    """The files that the conversation has shown so far."""

    files: dict[str, str] = field(default_factory=dict)
    """Path → content, of what was inlined and what tools have read."""
    read: set[str] = field(default_factory=set)
    """Paths that a tool was asked to read."""
    listed: list[str] | None = None
    edits: list[Use] = field(default_factory=list)
    turns: int = 0


def look_back(prompt: ReadPrompt, box: Toolbox) -> Seen:
    seen = Seen(files=dict(prompt.files), turns=sum(m.get("role") == "assistant" for m in prompt.messages))
    for use in uses(prompt):
        path = next((str(use.input[key]) for key in PATH_KEYS if key in use.input), None)
        if any(key in use.input for key in OLD_KEYS):
            seen.edits.append(use)
            _apply(use, box.relative(path or ""), seen.files)
        elif path is not None:
            seen.read.add(box.relative(path))
            if use.result is not None and not use.failed:
                seen.files[box.relative(path)] = without_numbers(use.result)
        elif "pattern" in use.input or use.input.get("command") == LISTING:
            lines = "" if use.result is None or use.failed else use.result
            found = [box.relative(line.strip()) for line in lines.splitlines()]
            seen.listed = [line.removeprefix("./") for line in found if re.fullmatch(r"[^\s:]+\.py", line)]
    return seen


def _apply(use: Use, path: str, files: dict[str, str]) -> None:
    """The file after an edit that worked."""
    old, new = (next((str(use.input[key]) for key in keys if key in use.input), "") for keys in (OLD_KEYS, NEW_KEYS))
    if use.result is not None and not use.failed and old and path in files:
        files[path] = files[path].replace(old, new, 1)


def uses(prompt: ReadPrompt) -> Iterator[Use]:
    """All tool calls of the conversation with their results, in order."""
    results: dict[str, Json] = {}
    blocks = [
        block
        for message in prompt.messages
        if isinstance(message.get("content"), list)
        for block in message["content"]
        if isinstance(block, dict)
    ]
    for block in blocks:
        if block.get("type") == "tool_result":
            results[str(block.get("tool_use_id"))] = block
    for block in blocks:
        if block.get("type") == "tool_use":
            result = results.get(str(block.get("id")))
            answer = None if result is None else "\n".join(texts(result.get("content")))
            failed = bool(result and result.get("is_error"))
            yield Use(str(block.get("name")), block.get("input") or {}, answer, failed)


def without_numbers(text: str) -> str:
    """A file's content from a listing with line numbers, in any of the usual styles; other text as it is."""
    text = re.sub(r"<system-reminder>.*?</system-reminder>", "", text, flags=re.DOTALL)
    lines: list[str] = []
    wanted: int | None = None
    for line in text.splitlines():
        match = _NUMBERED.match(line)
        if match and (wanted is None or int(match[1]) == wanted):
            lines.append(match[2])
            wanted = int(match[1]) + 1
    return "\n".join(lines) + "\n" if len(lines) * 2 > len(text.splitlines()) else text


def _tool(item: Json) -> Tool:
    name, kind = str(item.get("name", "")), str(item.get("type", ""))
    schema = item.get("input_schema")
    if not isinstance(schema, dict):
        schema = EDITOR_SCHEMA if kind.startswith("text_editor") else SHELL_SCHEMA if kind.startswith("bash") else {}
    return Tool(name, schema)


def _is_editor(tool: Tool) -> bool:
    """One tool for viewing and editing, told apart by `command`."""
    return "command" in tool.properties and tool.key(OLD_KEYS) is not None


def _some_value(key: str, schema: Json) -> Any:
    if schema.get("enum"):
        return schema["enum"][0]
    match schema.get("type"):
        case "boolean":
            return False
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "array":
            return []
        case "object":
            return {}
        case _:
            return "List the files" if key == "description" else "simulator"


MAX_TURNS = 12
READ_AT_ONCE = 8


class ToolUser(RulesModel):
    """The rules, carried out with the tools that a request offers; without tools that edit it answers in text."""

    def reply(self, params: Params) -> ModelReply:
        prompt = read_prompt(params)
        if prompt.schema is None and prompt.tools and Toolbox.of(prompt).can_edit():
            return _work(prompt, self.find)
        return super().reply(params)


def _work(prompt: ReadPrompt, find: Find) -> ModelReply:
    """The next step of changing code."""
    box = Toolbox.of(prompt)
    seen = look_back(prompt, box)
    found = find(seen.files)
    if seen.edits:
        return _report(seen)
    if isinstance(found, FoundEdit):
        return _change(box, seen, found)
    if seen.turns >= MAX_TURNS:
        return ModelReply(f"I have looked long enough.\n\n{found}")
    return _look(prompt, box, seen) or ModelReply(f"I found nothing to change.\n\n{found}")


def _change(box: Toolbox, seen: Seen, edit: FoundEdit) -> ModelReply:
    if edit.path not in seen.read and (step := box.read(edit.path)):
        return _step(f"I read `{edit.path}` before I change it.", [step])
    step = box.edit(edit.path, edit.rule.old, edit.rule.new)
    if step is None:
        return ModelReply("None of the tools edits files.\n\nBAIL: missing_tools: no tool on offer edits a file")
    return _step(f"`{edit.path}` holds the text of a rule.", [step])


def _report(seen: Seen) -> ModelReply:
    last = seen.edits[-1]
    path = _path(last)
    if last.failed:
        why = " ".join((last.result or "no reason given").split())[:200]
        return ModelReply(f"The edit of {path} was refused.\n\nBAIL: edit_refused: {why}")
    changed = ", ".join(dict.fromkeys(f"`{_path(edit)}`" for edit in seen.edits))
    return ModelReply(f"Changed {changed}. The tests are left to the verification.")


def _path(use: Use) -> str:
    return next((str(use.input[key]) for key in PATH_KEYS if key in use.input), "the file")


def _look(prompt: ReadPrompt, box: Toolbox, seen: Seen) -> ModelReply | None:
    """Read what the prompt names, then list the repository, then read what looks closest."""
    named = [path for path in prompt.named_paths() if box.relative(path) not in seen.read]
    if not seen.read and (step := _reads(box, named[:READ_AT_ONCE])):
        return step
    if seen.listed is None:
        listing = box.list_files()
        return _step("I look at what there is.", [listing]) if listing else None
    unread = [path for path in seen.listed if path not in seen.read]
    return _reads(box, _by_relevance(unread, prompt.text)[:READ_AT_ONCE])


def _by_relevance(paths: Iterable[str], text: str) -> list[str]:
    words = text.lower()

    def rank(path: str) -> tuple[bool, bool, int]:
        stem = path.rsplit("/", 1)[-1].removesuffix(".py").removeprefix("test_").lower()
        return (stem not in words, path.rpartition("/")[2].startswith("test"), path.count("/"))

    return sorted(paths, key=rank)


def _reads(box: Toolbox, paths: list[str]) -> ModelReply | None:
    steps = [step for path in paths if (step := box.read(path))]
    return _step("I read what this is about.", steps) if steps else None


def _step(said: str, steps: list[tuple[str, Json]]) -> ModelReply:
    blocks: list[Json] = [{"type": "text", "text": said, "citations": None}]
    for place, (name, given) in enumerate(steps):
        mark = hashlib.sha256(f"{place}{said}{json.dumps(given)}".encode()).hexdigest()[:22]
        blocks.append({"type": "tool_use", "id": f"toolu_01{mark}", "name": name, "input": given})
    return ModelReply(blocks=tuple(blocks), stop_reason="tool_use")
