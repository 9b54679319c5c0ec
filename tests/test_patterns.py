"""Patterns take linear time on foreign text: long repetitive inputs, with the methods each is used by.

A pattern that backtracks does not come back before the deadline of a test.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from tests.test_architecture import MODULES

LENGTH = 100_000 if os.environ.get("GREMLINS_SOAK") else 1_500
SHORT = {"gremlins.stages.edits.placeholders": 200}
"""Characters of a text in modules that look at short lines only."""
NEEDS_AN_EXTRA = {"gremlins.clients.providers.openai", "gremlins.cli.mcp"}
METHODS = {"search", "match", "fullmatch", "sub", "finditer", "findall", "split"}
UNITS = [
    *" \n\ta(</.-_\"'`=0{[,é\\",
    *(
        "a ",
        "a.",
        "a/",
        "a_",
        "aA",
        "# ",
        "\n#",
        "import ",
        "import a, ",
        "://",
        "a:b@",
        "key=",
        "at a (",
        "a\n ",
        "1.",
    ),
    *("-----BEGIN RSA PRIVATE KEY-----\n", "<a\n", '  File "a", line 1\n', "- [ ] x\n", "\r\n", "* ", '"a" ', "a=b;"),
    *("def a(", '{"a":', "@@ -1 +1 @@\n", "diff --git a/a b/a\n", "NEED: a, ", "BAIL: a: ", "\x1b[0m", "http://a"),
    *("Bearer a", "sk-a", "ghp_a", "token=a ", "(a", "a)", "```\n", "…", "... "),
]


@cache
def methods_by_name() -> dict[str, set[str]]:
    """The methods that each name of a pattern is called with, anywhere."""
    found = defaultdict(set)
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in METHODS:
                owner = node.value
                name = getattr(owner, "id", None) or getattr(owner, "attr", None)
                if name:
                    found[name].add(node.attr)
    return found


def patterns_of(module: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    for name, value in vars(importlib.import_module(module)).items():
        if not name.startswith("__"):
            yield from ((name, pattern) for pattern in _inside(value, 0))


def _inside(value: Any, depth: int) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
        yield value
    elif depth < 3 and isinstance(value, list | tuple | set | frozenset | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _inside(inner, depth + 1)


@pytest.mark.parametrize("module", sorted(set(MODULES) - NEEDS_AN_EXTRA))
def test_every_pattern_is_linear_soak(module: str) -> None:
    for name, pattern in patterns_of(module):
        for unit in UNITS:
            for text in (unit * (SHORT.get(module, LENGTH) // len(unit)), "a" + unit * (LENGTH // len(unit)) + "\0"):
                shown = text[: SHORT.get(module, LENGTH)]
                for method in methods_by_name().get(name, {"search"}):
                    if method == "sub":
                        pattern.sub("", shown)
                    elif method == "finditer":
                        assert sum(1 for _ in pattern.finditer(shown)) <= len(shown) + 1
                    else:
                        getattr(pattern, method)(shown)
