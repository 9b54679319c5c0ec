"""Small changes to a function, one at a time: what the demo model tries when no rule says what is wrong."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from gremlins.simulator.bugs import COMPARISONS, OPERATORS
from gremlins.simulator.source import Change, Function

_TWINS = (
    ("lower", "upper"),
    ("title", "capitalize"),
    ("strip", "lstrip", "rstrip"),
    ("append", "extend"),
    ("startswith", "endswith"),
    ("keys", "values", "items"),
    ("find", "rfind"),
    ("union", "intersection", "difference"),
    ("min", "max"),
    ("any", "all"),
    ("floor", "ceil"),
    ("sorted", "reversed"),
    ("sum", "len"),
)
TWINS = {name: [other for other in group if other != name] for group in _TWINS for name in group}
_MEMBERSHIP: dict[type[ast.cmpop], str] = {ast.In: "in", ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not"}
LIKELY: dict[str, tuple[str, ...]] = {
    "+": ("-",),
    "-": ("+",),
    "*": ("/", "+"),
    "/": ("*", "//"),
    "//": ("/", "%"),
    "%": ("//",),
    "<": ("<=", ">"),
    "<=": ("<", ">="),
    ">": (">=", "<"),
    ">=": (">", "<="),
    "==": ("!=",),
    "!=": ("==",),
    "in": ("not in",),
    "not in": ("in",),
    "is": ("is not",),
    "is not": ("is",),
}
"""What a slip most often turns into what."""


def mutations(function: Function) -> Iterator[Change]:
    """Every small change of the function's body, the slips that people make most often first."""
    for step in _STEPS:
        for node in function.nodes:
            yield from step(function, node)


def _likely_operators(function: Function, node: ast.AST) -> Iterator[Change]:
    if isinstance(node, (ast.BinOp, ast.AugAssign)):
        yield from _operators(function, node, LIKELY.get(OPERATORS.get(type(node.op), ""), ()))
    elif isinstance(node, ast.Compare):
        yield from _comparisons(function, node, likely=True)


def _other_operators(function: Function, node: ast.AST) -> Iterator[Change]:
    if isinstance(node, (ast.BinOp, ast.AugAssign)):
        old = OPERATORS.get(type(node.op), "")
        yield from _operators(function, node, [new for new in OPERATORS.values() if new not in LIKELY.get(old, ())])
    elif isinstance(node, ast.Compare):
        yield from _comparisons(function, node, likely=False)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)):
        left, right = function.module.text(node.left), function.module.text(node.right)
        swapped = f"{right} {OPERATORS[type(node.op)]} {left}"
        yield function.replace(node, swapped, "has its operands the wrong way round")


def _operators(function: Function, node: ast.BinOp | ast.AugAssign, others: Iterable[str]) -> Iterator[Change]:
    left, right = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.target, node.value)
    old = OPERATORS.get(type(node.op))
    for new in others:
        if old is not None and new != old:
            change = function.between(left, right, old, new, f"computes with `{old}` where it needs `{new}`")
            if change is not None:
                yield change


def _comparisons(function: Function, node: ast.Compare, *, likely: bool) -> Iterator[Change]:
    operands = [node.left, *node.comparators]
    for place, kind in enumerate(node.ops):
        old = COMPARISONS.get(type(kind)) or _MEMBERSHIP[type(kind)]
        others = [new for new in COMPARISONS.values() if new != old and new not in LIKELY[old]]
        for new in LIKELY[old] if likely else others if old in COMPARISONS.values() else ():
            why = f"compares with `{old}` where it needs `{new}`"
            change = function.between(operands[place], operands[place + 1], old, new, why)
            if change is not None:
                yield change


def _logic(function: Function, node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.BoolOp):
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            change = function.between(left, right, old, new, f"joins with `{old}` where it needs `{new}`")
            if change is not None:
                yield change
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        operand = function.module.text(node.operand)
        yield function.replace(node, operand, f"turns `{operand}` round where it must not")


def _negations(function: Function, node: ast.AST) -> Iterator[Change]:
    if isinstance(node, (ast.If, ast.While)):
        test = function.module.text(node.test)
        yield function.replace(node.test, f"not ({test})", f"asks `{test}` the wrong way round")


def _constants(function: Function, node: ast.AST) -> Iterator[Change]:
    if not isinstance(node, ast.Constant):
        return
    match node.value:
        case bool():
            others: list[object] = [not node.value]
        case 0:
            others = [-1, 1]
        case int():
            others = [node.value + 1, node.value - 1, 0, 1, 2]
        case "":
            others = [" "]
        case " ":
            others = [""]
        case _:
            return
    for other in dict.fromkeys(others):
        if other != node.value:
            yield function.replace(node, repr(other), f"has `{node.value!r}` where `{other!r}` is right")


def _names(function: Function, node: ast.AST) -> Iterator[Change]:
    """Another variable of the function, or the sibling of a function or method that it calls."""
    if isinstance(node, ast.Attribute):
        for other in TWINS.get(node.attr, ()):
            new = f"{function.module.text(node.value)}.{other}"
            yield function.replace(node, new, f"calls `{node.attr}` where it needs `{other}`")
    if not (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)):
        return
    own = function.local_names
    for other in own if node.id in own else TWINS.get(node.id, ()):
        if other != node.id:
            yield function.replace(node, other, f"uses `{node.id}` where it needs `{other}`")


def _one_off(function: Function, node: ast.AST) -> Iterator[Change]:
    """Ends of ranges and places in sequences."""
    match node:
        case ast.Call(func=ast.Name(id="range"), args=places):
            pass
        case ast.Subscript(slice=ast.expr() as place) if not isinstance(place, ast.Slice):
            places = [place]
        case ast.Slice(lower=lower, upper=upper):
            places = [place for place in (lower, upper) if place is not None]
        case ast.Call(func=ast.Name(id="len")):
            places = [node]
        case _:
            return
    for place in places:
        text = function.module.text(place)
        for new in (f"{text} + 1", f"{text} - 1"):
            if not isinstance(place, ast.Constant):
                yield function.replace(place, new, f"is one off: `{text}` where `{new}` is right")


def _calls(function: Function, node: ast.AST) -> Iterator[Change]:
    text = function.module.text
    if not isinstance(node, ast.Call) or node.keywords:
        return
    if len(node.args) == 2:
        first, second = node.args
        start, end = function.module.span(first)[0], function.module.span(second)[1]
        why = "passes its arguments the wrong way round"
        yield Change(start, end, f"{text(second)}, {text(first)}", function.name, why)
    if isinstance(node.func, ast.Name) and node.func.id == "sorted" and len(node.args) == 1:
        new = f"sorted({text(node.args[0])}, reverse=True)"
        yield function.replace(node, new, "sorts the wrong way round")


def _slices(function: Function, node: ast.AST) -> Iterator[Change]:
    if not isinstance(node, ast.Slice):
        return
    start, end = function.module.span(node)
    text = function.module.source[start:end]
    for other in ("::-1", "1:", ":-1", ":", "::2", "1::2"):
        if other != text:
            yield Change(start, end, other, function.name, f"takes `[{text}]` where it needs `[{other}]`")


_STEPS = (
    _likely_operators,
    _logic,
    _names,
    _constants,
    _one_off,
    _calls,
    _slices,
    _other_operators,
    _negations,
)
