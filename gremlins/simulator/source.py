"""Python source as the demo model reads it: functions with their words, and changes that become unique edits."""

from __future__ import annotations

import ast
import re
import warnings
from collections import deque
from dataclasses import dataclass
from functools import cached_property

_LEFT_OUT = re.compile(r"^\[(?=lines \d[^\n]*\]$)", re.MULTILINE)
"""The beginning of a line that stands for lines which are not shown; as a comment it has the same length."""

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Change:
    """Replace source[start:end] by `text`. `function` is where, `why` a sentence for people."""

    start: int
    end: int
    text: str
    function: str
    why: str

    def apply(self, source: str) -> str:
        return source[: self.start] + self.text + source[self.end :]


@dataclass(frozen=True)
class Edit:
    """One exact replacement in a file; `old` is in it exactly once."""

    path: str
    old: str
    new: str
    why: str
    function: str
    proven: bool = False
    """Whether tests in the prompt that fail would pass with it."""


def as_edit(path: str, source: str, change: Change) -> Edit:
    """The change in whole lines, with as many lines before it as make `old` unique."""
    first = source.rfind("\n", 0, change.start) + 1
    last = source.find("\n", change.end)
    last = len(source) if last < 0 else last
    while source.count(source[first:last]) > 1 and first > 0:
        first = source.rfind("\n", 0, first - 1) + 1
    new = source[first : change.start] + change.text + source[change.end : last]
    return Edit(path, source[first:last], new, change.why, change.function)


def parse(source: str) -> ast.Module:
    """The syntax tree of a file that may be shown in part. Raises SyntaxError or ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in somebody's source are not our news
        return ast.parse(_LEFT_OUT.sub("#", source))


class Module:
    """A parsed source file. Raises SyntaxError when it is no Python."""

    def __init__(self, source: str) -> None:
        self.tree = parse(source)
        self.source = source

    @cached_property
    def _line_starts(self) -> list[int]:
        starts = [0]
        for line in self.source.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        return starts

    @cached_property
    def _lines(self) -> list[str]:
        return self.source.splitlines(keepends=True)

    def offset(self, line: int, column: int) -> int:
        """From the parser's position (lines from 1, columns in UTF-8 bytes) to a place in the text."""
        text = self._lines[line - 1] if line <= len(self._lines) else ""
        return self._line_starts[line - 1] + len(text.encode()[:column].decode(errors="ignore"))

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
        return self.offset(node.lineno, node.col_offset), self.offset(end_line, end_column)

    def text(self, node: ast.expr | ast.stmt) -> str:
        start, end = self.span(node)
        return self.source[start:end]

    @cached_property
    def functions(self) -> tuple[Function, ...]:
        found = (n for n in ast.walk(self.tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))
        return tuple(Function(self, node) for node in found)


@dataclass(frozen=True)
class Function:
    """One function and what its name, docstring and comments say about it."""

    module: Module
    node: FunctionNode

    @property
    def name(self) -> str:
        return self.node.name

    @cached_property
    def name_words(self) -> frozenset[str]:
        spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", self.name).replace("_", " ")
        return frozenset(spaced.lower().split())

    @cached_property
    def prose(self) -> str:
        """Docstring and comments, lower case, comments right above the function included."""
        doc = ast.get_docstring(self.node) or ""
        start, end = self.module.span(self.node)
        above = re.search(r"(?:^[ \t]*#[^\n]*\n|^[ \t]*@[^\n]*\n)*[ \t]*\Z", self.module.source[:start], re.MULTILINE)
        text = (above[0] if above else "") + self.module.source[start:end]
        comments = re.findall(r"#([^\n]*)", text)
        return " ".join([doc, *comments]).lower()

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        return tuple(arg.arg for arg in (*self.node.args.posonlyargs, *self.node.args.args) if arg.arg != "self")

    @cached_property
    def local_names(self) -> tuple[str, ...]:
        """Parameters and variables."""
        stored = (n.id for n in self.nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        return tuple(dict.fromkeys([*self.parameters, *stored]))

    def says(self, pattern: str) -> bool:
        """Whether the name's words or the prose match."""
        return re.search(pattern, " ".join([*sorted(self.name_words), self.prose])) is not None

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """The nodes of the body, those of inner functions included, those inside f-strings not: before Python 3.12
        the parser does not say where those stand.
        """
        found: list[ast.AST] = []
        waiting: deque[ast.AST] = deque(self.node.body)
        while waiting:
            node = waiting.popleft()
            found.append(node)
            if not isinstance(node, ast.JoinedStr):
                waiting.extend(ast.iter_child_nodes(node))
        return tuple(found)

    def replace(self, node: ast.expr | ast.stmt, text: str, why: str) -> Change:
        start, end = self.module.span(node)
        source = self.module.source
        if not isinstance(node, ast.stmt) and source[start - 1 : start] == "(" and source[end : end + 1] == ")":
            before = source[: start - 1].rstrip()
            if text.endswith(")") and before[-1:] in "+-*/%=":  # what stands alone needs no parentheses
                start, end = start - 1, end + 1
        return Change(start, end, text, self.name, why)

    def between(self, left: ast.expr, right: ast.expr, old: str, new: str, why: str) -> Change | None:
        """Replace an operator that stands between two expressions."""
        start, end = self.module.span(left)[1], self.module.span(right)[0]
        place = self.module.source.find(old, start, end)
        return None if place < 0 else Change(place, place + len(old), new, self.name, why)
