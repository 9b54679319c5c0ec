"""How the scripted models find what to change: the protocol, and the finder that follows rules somebody wrote down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gremlins.simulator.reading import Prompt
from gremlins.simulator.source import Edit

Files = Mapping[str, str]


@dataclass(frozen=True)
class Nothing:
    """No edit, and the line that says so: `BAIL: …` or `NOTHING TO DO: …`."""

    line: str


class Finder(Protocol):
    """Looks for what to change in the files a model has seen."""

    def __call__(self, prompt: Prompt, files: Files) -> Edit | Nothing:
        """The edit, or why there is none."""


@dataclass(frozen=True)
class FixRule:
    """Replace `old` by `new` in the first file whose path matches and that holds it."""

    old: str
    new: str
    path: str | None = None
    """A regular expression searched in the path."""

    @classmethod
    def of(cls, value: FixRule | Mapping[str, Any] | tuple[str, ...]) -> FixRule:
        """From a rule, an object with `old`, `new` and perhaps `path`, or a tuple (path, old, new) or (old, new)."""
        if isinstance(value, FixRule):
            return value
        if isinstance(value, Mapping):
            return cls(**value)
        return cls(path=value[0], old=value[1], new=value[2]) if len(value) == 3 else cls(old=value[0], new=value[1])


class FixRules:
    """A finder that knows only its rules. What is not in the prompt it cannot find, and says so."""

    def __init__(self, rules: Iterable[FixRule | Mapping[str, Any] | tuple[str, ...]]) -> None:
        self.rules = tuple(FixRule.of(rule) for rule in rules)

    def __call__(self, prompt: Prompt, files: Files) -> Edit | Nothing:
        done = False
        for rule in self.rules:
            for path, content in files.items():
                if rule.path is not None and not re.search(rule.path, path):
                    continue
                if rule.old in content:
                    return Edit(path, rule.old, rule.new, "is what a rule says is wrong", "")
                done = done or (bool(rule.new) and rule.new in content)
        if done:
            return Nothing("NOTHING TO DO: the change is there already")
        return Nothing(missing(files, "none of them holds what the rules look for"))


def is_test(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name.startswith("test") or name.endswith(("_test.py", ".test.js")) or name == "conftest.py"


def missing(files: Files, why: str) -> str:
    """The line that says that what was sent is not enough."""
    if not files:
        return "BAIL: missing_context: there are no repository files in the prompt"
    names = ", ".join(list(files)[:5]) + (" …" if len(files) > 5 else "")
    return f"BAIL: missing_context: {len(files)} files in the prompt ({names}), and {why}"
