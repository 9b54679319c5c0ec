"""Reads a request as a scripted model sees it: its text, the files inlined in it, the tools it offers."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gremlins.simulator.api import Json

_FILE = re.compile(
    r"""<((?:file|document)(?:-[0-9a-f]+)?)\b[^>\n]*?\b(?:path|name)=["']([^"'\n]+)["'][^>\n]*>\n(.*?)\n?</\1>""",
    re.DOTALL,
)
_FENCED_FILE = re.compile(
    r"^(?:#+\s*|File:\s*|\*\*)?`?([\w./-]+\.\w+)`?(?:\*\*)?:?[ \t]*\n+```[^\n]*\n(.*?)\n```", re.DOTALL | re.MULTILINE
)
_DIFF = re.compile(r"^```diff\n(.*?)\n```|<diff>\n?(.*?)</diff>|^(diff --git .*)\Z", re.DOTALL | re.MULTILINE)
_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)
_PATH = re.compile(
    r"(?<![\w/.-])((?:[\w.-]+/)*[\w-]+\.(?:py|js|ts|mjs|go|rb|rs|c|java|sh|md|toml|yaml|yml|txt|json))\b"
)


@dataclass(frozen=True)
class ReadPrompt:
    """One request as a model reads it."""

    system: str
    text: str
    """Text of the user messages, without inlined files, diffs and reminders."""
    whole: str
    """System and all messages, as one text."""
    files: Mapping[str, str]
    """Path → content, as inlined; a later one replaces an earlier one."""
    diff: str
    tools: tuple[Json, ...]
    schema: Json | None
    """The JSON schema the reply has to follow, if any."""
    messages: tuple[Json, ...]

    def named_paths(self) -> list[str]:
        """The paths the text names, each once, in order."""
        return list(dict.fromkeys(_PATH.findall(self.text)))


def read_prompt(params: Mapping[str, Any]) -> ReadPrompt:
    messages = tuple(message for message in params.get("messages", ()) if isinstance(message, dict))
    system = "\n".join(texts(params.get("system")))
    said = [text for message in messages for text in texts(message.get("content"))]
    asked = "\n\n".join(
        _REMINDER.sub("", text)
        for message in messages
        if message.get("role") == "user"
        for text in texts(message.get("content"), results=False)
    )
    bare = _FILE.sub("", asked)
    diff = "\n".join(next(filter(None, found.groups()), "") for found in _DIFF.finditer(bare))
    without_diff = _DIFF.sub("", bare)
    files = dict(inlined_files(asked))
    config = params.get("output_config")
    wanted = config.get("format") if isinstance(config, dict) else None
    return ReadPrompt(
        system=system,
        text=_FENCED_FILE.sub("", without_diff).strip(),
        whole="\n\n".join([system, *said]),
        files=files,
        diff=diff,
        tools=tuple(tool for tool in params.get("tools") or () if isinstance(tool, dict)),
        schema=wanted.get("schema") if isinstance(wanted, dict) else None,
        messages=messages,
    )


def texts(content: Any, *, results: bool = True) -> Iterator[str]:
    """All texts of a content: a string, or a list of blocks, with or without those of tools."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for block in content:
            if isinstance(block, str):
                yield block
            elif isinstance(block, dict):
                if block.get("type") == "text":
                    yield str(block.get("text", ""))
                elif block.get("type") == "tool_result" and results:
                    yield from texts(block.get("content"))
                elif block.get("type") == "tool_use" and results:
                    yield json.dumps(block.get("input"), ensure_ascii=False)


def inlined_files(text: str) -> Iterator[tuple[str, str]]:
    """The files in a text: `<file path="…">` blocks, else a path above a fenced block."""
    found = False
    for match in _FILE.finditer(text):
        found = True
        yield html.unescape(match[2]), match[3] + "\n"
    if not found:
        for match in _FENCED_FILE.finditer(text):
            yield match[1], match[2] + "\n"
