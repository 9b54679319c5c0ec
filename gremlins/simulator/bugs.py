"""Known bug patterns, found by reading a function against its own name and documentation."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from gremlins.simulator.source import Change, Function, Module

Rule = Callable[[Function], Iterator[Change]]

OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
}
COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_MEANINGS: tuple[tuple[type[ast.operator], frozenset[str], str], ...] = (
    (ast.Add, frozenset({"add", "sum", "plus", "total", "addition"}), r"\b(sum of|adds?|total of)\b"),
    (ast.Sub, frozenset({"sub", "subtract", "minus", "difference", "diff"}), r"\b(difference|subtracts?)\b"),
    (ast.Mult, frozenset({"mul", "multiply", "times", "product", "area"}), r"\b(product of|multipl(y|ies|ied))\b"),
    (ast.Div, frozenset({"div", "divide", "quotient", "ratio"}), r"\b(quotient|ratio of|divides?)\b"),
)
_MEAN = frozenset({"mean", "average", "avg"})


def suspects(module: Module) -> Iterator[Change]:
    """Changes that would make a function do what it says, the surest first within each function."""
    for function in module.functions:
        for rule in RULES:
            yield from rule(function)


def wrong_operator(function: Function) -> Iterator[Change]:
    """`a - b` in a function that adds, `+=` in one that multiplies, and so on."""
    wanted = _wanted_operator(function)
    if wanted is None or function.name_words & _MEAN:
        return
    found = [n for n in function.nodes if isinstance(n, (ast.BinOp, ast.AugAssign)) and type(n.op) in OPERATORS]
    if any(isinstance(node.op, wanted) for node in found):
        return
    for node in found:
        left, right = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.target, node.value)
        old, new = OPERATORS[type(node.op)], OPERATORS[wanted]
        change = function.between(left, right, old, new, f"uses `{old}` where its name asks for `{new}`")
        if change is not None:
            yield change


def _wanted_operator(function: Function) -> type[ast.operator] | None:
    for operator, names, _ in _MEANINGS:
        if function.name_words & names:
            return operator
    for operator, _, prose in _MEANINGS:
        if re.search(prose, function.prose):
            return operator
    return None


def swapped_operands(function: Function) -> Iterator[Change]:
    """`return b - a` in subtract(a, b)."""
    order = function.parameters
    if len(order) != 2 or _wanted_operator(function) not in (ast.Sub, ast.Div):
        return
    for node in function.nodes:
        if (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, (ast.Sub, ast.Div))
            and isinstance(node.left, ast.Name)
            and isinstance(node.right, ast.Name)
            and (node.left.id, node.right.id) == (order[1], order[0])
        ):
            sign = OPERATORS[type(node.op)]
            yield function.replace(node, f"{order[0]} {sign} {order[1]}", "has its operands the wrong way round")


def wrong_range(function: Function) -> Iterator[Change]:
    """A `range` that leaves out an end its documentation includes, or includes one it leaves out."""
    inclusive = function.says(r"\b(inclusive|includ(ed|ing|es)|up to and|through|factorial)\b") or function.says(
        r"\b(1|one|a|low|start|first)\s*(\.\.|…|to|-)\s*(n|b|high|end|last|stop)\b(?! *[-(])"
    )
    exclusive = function.says(r"\b(exclusive|exclud(ed|ing|es)|not includ(ed|ing)|but not)\b")
    for node in function.nodes:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range"):
            continue
        if not 1 <= len(node.args) <= 2:
            continue
        end = node.args[-1]
        if exclusive and _plus_one(end):
            assert isinstance(end, ast.BinOp)
            yield function.replace(end, function.module.text(end.left), "goes one too far")
        elif inclusive and not exclusive and isinstance(end, (ast.Name, ast.Attribute)):
            yield function.replace(end, f"{function.module.text(end)} + 1", "stops one short of its last number")
        elif _is_len(end, "+"):
            assert isinstance(end, ast.BinOp)
            yield function.replace(end, function.module.text(end.left), "runs past the end")


def _plus_one(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Add)
        and isinstance(node.right, ast.Constant)
        and node.right.value == 1
    )


def _is_len(node: ast.expr, sign: str = "") -> bool:
    """`len(x)`, or `len(x)` plus or minus a number."""
    if sign:
        return (
            isinstance(node, ast.BinOp)
            and OPERATORS.get(type(node.op)) == sign
            and isinstance(node.right, ast.Constant)
            and _is_len(node.left)
        )
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len"


def wrong_mean(function: Function) -> Iterator[Change]:
    """A mean that is divided by the wrong thing, or not divided."""
    if not function.name_words & _MEAN:
        return
    for node in function.nodes:
        if not isinstance(node, ast.BinOp) or type(node.op) not in OPERATORS:
            continue
        text, right = function.module.text, node.right
        if isinstance(node.op, (ast.Div, ast.FloorDiv)) and isinstance(right, ast.BinOp):
            if _is_len(right, "-") or _is_len(right, "+"):
                yield function.replace(right, text(right.left), "divides by the wrong count")
        elif _is_len(right) and not isinstance(node.op, ast.Div):
            old = OPERATORS[type(node.op)]
            change = function.between(node.left, right, old, "/", f"uses `{old}` where a mean divides")
            if change is not None:
                yield change
        elif isinstance(node.op, ast.Div) and isinstance(right, ast.Constant) and isinstance(node.left, ast.Call):
            total = text(node.left.args[0]) if node.left.args else "()"
            yield function.replace(right, f"len({total})", "divides by a fixed number")


_LIMITS: tuple[tuple[str, str, str], ...] = (
    (r"\bat least\b|\bor more\b|\bno less\b|\bor older\b|\bor above\b|\bminimum of\b|\bfrom \d+ on\b", ">", ">="),
    (r"\bat most\b|\bno more than\b|\bor less\b|\bor fewer\b|\bor below\b|\bmaximum of\b", "<", "<="),
    (r"\bmore than\b|\bgreater than\b|\babove\b|\bolder than\b|\bexceeds?\b", ">=", ">"),
    (r"\bless than\b|\bfewer than\b|\bbelow\b|\byounger than\b|\bunder\b", "<=", "<"),
)
_BEST: tuple[tuple[frozenset[str], str, str], ...] = (
    (frozenset({"max", "maximum", "largest", "biggest", "highest", "longest", "greatest"}), "<", ">"),
    (frozenset({"min", "minimum", "smallest", "lowest", "shortest", "least"}), ">", "<"),
)


def wrong_comparison(function: Function) -> Iterator[Change]:
    """`>` where the documentation says "at least", `<` in a search for the largest, `or` in "between"."""
    for node in function.nodes:
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            sign = COMPARISONS.get(type(node.ops[0]))
            better = _better_comparison(function, node, sign) if sign else None
            if sign and better:
                why = f"compares with `{sign}` where it says `{better}`"
                change = function.between(node.left, node.comparators[0], sign, better, why)
                if change is not None:
                    yield change
        elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or) and _two_comparisons(node):
            either = function.between(node.values[0], node.values[1], "or", "and", "takes either where both must hold")
            if either is not None and function.says(r"\bbetween\b|\bwithin\b|\binside\b|\bboth\b"):
                yield either


def _two_comparisons(node: ast.BoolOp) -> bool:
    return len(node.values) == 2 and all(isinstance(value, ast.Compare) for value in node.values)


def _better_comparison(function: Function, node: ast.Compare, sign: str) -> str | None:
    right = node.comparators[0]
    if sign in ("==", "!=") and isinstance(node.left, ast.BinOp) and isinstance(node.left.op, ast.Mod):
        return _better_parity(function, node, sign)
    for words, wrong, better in _BEST:
        if function.name_words & words and sign.rstrip("=") == wrong and not isinstance(right, ast.Constant):
            return sign.replace(wrong, better)
    for pattern, wrong, better in _LIMITS:
        if sign == wrong and re.search(pattern, function.prose):
            return better
    return None


def _better_parity(function: Function, node: ast.Compare, sign: str) -> str | None:
    left, right = node.left, node.comparators[0]
    assert isinstance(left, ast.BinOp)
    if not (isinstance(left.right, ast.Constant) and isinstance(right, ast.Constant)):
        return None
    says_divisible = (right.value == 0) == (sign == "==")
    wants = True if "even" in function.name_words else False if "odd" in function.name_words else None
    if left.right.value != 2 or wants is None or wants == says_divisible:
        return None
    return "!=" if sign == "==" else "=="


def wrong_start(function: Function) -> Iterator[Change]:
    """A product that begins at 0, a sum that begins at 1."""
    starts = {
        node.targets[0].id: node
        for node in function.nodes
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    for node in function.nodes:
        if not (isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)):
            continue
        start = starts.get(node.target.id)
        if start is None or not isinstance(start.value, ast.Constant):
            continue
        if isinstance(node.op, ast.Mult) and start.value.value == 0:
            yield function.replace(start.value, "1", "multiplies from 0")
        elif isinstance(node.op, ast.Add) and start.value.value == 1 and function.says(r"\bsum\b|\btotal\b|\bcount\b"):
            yield function.replace(start.value, "0", "adds up from 1")


def past_the_end(function: Function) -> Iterator[Change]:
    """`items[len(items)]`, and `[::1]` in something that reverses."""
    for node in function.nodes:
        if not isinstance(node, ast.Subscript):
            continue
        if _is_len(node.slice):
            yield function.replace(node.slice, f"{function.module.text(node.slice)} - 1", "reads past the end")
        text = function.module.text(node.slice)
        if text in ("::1", "::") and function.says(r"revers|palindrome|backwards"):
            yield function.replace(node.slice, "::-1", "does not reverse")


def forgotten_return(function: Function) -> Iterator[Change]:
    """A function that says it returns something and does not."""
    last = function.node.body[-1]
    if function.node.name.startswith(("test", "_")) or any(isinstance(n, ast.Return) for n in function.nodes):
        return
    if isinstance(last, ast.Expr) and not isinstance(last.value, (ast.Constant, ast.Call, ast.Await, ast.Yield)):
        yield function.replace(last, f"return {function.module.text(last)}", "computes its result and drops it")


def identity_of_values(function: Function) -> Iterator[Change]:
    """`x is 3`: identity where equality is meant."""
    for node in function.nodes:
        if not (isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Is, ast.IsNot))):
            continue
        right = node.comparators[0]
        old, new = ("is not", "!=") if isinstance(node.ops[0], ast.IsNot) else ("is", "==")
        change = function.between(node.left, right, old, new, "compares identity where it means equality")
        if change is not None and isinstance(right, ast.Constant) and type(right.value) in (int, str):
            yield change


RULES: tuple[Rule, ...] = (
    wrong_operator,
    swapped_operands,
    wrong_range,
    wrong_mean,
    wrong_comparison,
    wrong_start,
    past_the_end,
    forgotten_return,
    identity_of_values,
)
