"""A small, walled-in interpreter of plain Python, so that the demo model can try a change on the tests it was sent.

Nothing of the source is handed to Python itself: only the statements and expressions below are walked, with a budget of
steps, and without files, network or imports beyond a few harmless ones. Whatever else occurs is `Unsupported`.
"""

from __future__ import annotations

import ast
import builtins
import collections
import contextlib
import math
import operator
import re
import string
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_DEPTH = 60
MAX_SIZE = 100_000
"""Items or characters of a value, and length of a range; what would be bigger is not tried."""
MAX_BITS = 10_000


class Signal(BaseException):
    """Not an error of the source: no `except` in it catches this."""


class Unsupported(Signal):
    """The source uses something that is not walked; nothing can be said about it."""


class TooLong(Signal):
    """The budget of steps is used up; most likely it never ends."""


class _Return(Signal):
    def __init__(self, value: Any) -> None:
        self.value = value


class _Break(Signal):
    pass


class _Continue(Signal):
    pass


BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}
COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
_NAMES = (
    "abs all any bool chr dict divmod enumerate filter float frozenset hash int isinstance issubclass len list map max"
    " min ord repr reversed round set sorted str sum tuple zip ArithmeticError AssertionError AttributeError Exception"
    " IndexError KeyError LookupError NotImplementedError OverflowError RuntimeError StopIteration TypeError ValueError"
    " ZeroDivisionError object property staticmethod"
)
BUILTINS: Mapping[str, Any] = {name: getattr(builtins, name) for name in _NAMES.split()}
PLAIN = (str, bytes, int, float, bool, complex, list, tuple, dict, set, frozenset, type(None))
SAFE_TYPES = (*PLAIN, collections.Counter, collections.defaultdict, collections.deque, re.Match, re.Pattern)
REFUSED_METHODS = frozenset({"format", "format_map", "mro"})


def _pick(module: types.ModuleType, names: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(**{name: getattr(module, name) for name in names.split()})


MODULES: Mapping[str, types.SimpleNamespace] = {
    "math": _pick(math, "ceil floor sqrt pi e inf isclose gcd log log2 log10 exp sin cos tan hypot fabs trunc isnan"),
    "collections": _pick(collections, "Counter defaultdict deque OrderedDict"),
    "re": _pick(re, "sub findall match search split fullmatch compile escape IGNORECASE MULTILINE"),
    "string": _pick(string, "ascii_letters ascii_lowercase ascii_uppercase digits punctuation whitespace"),
    "typing": types.SimpleNamespace(Any=object),
    "__future__": types.SimpleNamespace(annotations=None),
}


@dataclass
class Scope:
    names: dict[str, Any] = field(default_factory=dict)
    parent: Scope | None = None

    def find(self, name: str) -> Any:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        if name in BUILTINS:
            return BUILTINS[name]
        raise Unsupported(name)


class Closure:
    """A function of the source. A plain callable, so that `sorted(key=…)` and classes can use it."""

    def __init__(self, walker: Walker, node: ast.FunctionDef | ast.Lambda, scope: Scope, defaults: list[Any]) -> None:
        self.walker, self.node, self.scope, self.defaults = walker, node, scope, defaults

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.walker.invoke(self, args, kwargs)

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else types.MethodType(self, instance)


class Made:
    """Base of all classes that the source defines."""


class Walker:
    """Walks modules, functions and expressions. `resolve` gives the namespace of a module that the source imports."""

    def __init__(self, resolve: Callable[[str], Mapping[str, Any] | None], extra: Mapping[str, Any]) -> None:
        self.resolve = resolve
        self.extra = extra
        self.left = 0
        self._depth = 0

    # -- statements

    def run_module(self, tree: ast.Module, scope: Scope) -> None:
        """Define what can be defined; a statement that is not supported leaves its names undefined."""
        for statement in tree.body:
            if isinstance(statement, (ast.If, ast.For, ast.While, ast.With, ast.Expr, ast.Assert)):
                continue  # scripts and guards at module level have no part in this
            with contextlib.suppress(Unsupported, TooLong, Exception):
                self.statement(statement, scope)

    def block(self, body: list[ast.stmt], scope: Scope) -> None:
        for statement in body:
            self.statement(statement, scope)

    def statement(self, node: ast.stmt, scope: Scope) -> None:
        self._tick()
        method = getattr(self, f"_do_{type(node).__name__.lower()}", None)
        if method is None:
            raise Unsupported(type(node).__name__)
        method(node, scope)

    def _tick(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise TooLong

    def _do_expr(self, node: ast.Expr, scope: Scope) -> None:
        self.value(node.value, scope)

    def _do_pass(self, node: ast.Pass, scope: Scope) -> None:
        return

    def _do_assign(self, node: ast.Assign, scope: Scope) -> None:
        value = self.value(node.value, scope)
        for target in node.targets:
            self._bind(target, value, scope)

    def _do_annassign(self, node: ast.AnnAssign, scope: Scope) -> None:
        if node.value is not None:
            self._bind(node.target, self.value(node.value, scope), scope)

    def _do_augassign(self, node: ast.AugAssign, scope: Scope) -> None:
        loaded = ast.copy_location(ast.parse(ast.unparse(node.target), mode="eval").body, node)
        before = self.value(loaded, scope)
        after = self._binary(type(node.op), before, self.value(node.value, scope))
        self._bind(node.target, after, scope)

    def _do_return(self, node: ast.Return, scope: Scope) -> None:
        raise _Return(None if node.value is None else self.value(node.value, scope))

    def _do_if(self, node: ast.If, scope: Scope) -> None:
        self.block(node.body if self.value(node.test, scope) else node.orelse, scope)

    def _do_while(self, node: ast.While, scope: Scope) -> None:
        while self.value(node.test, scope):
            try:
                self.block(node.body, scope)
            except _Break:
                return
            except _Continue:
                continue
        self.block(node.orelse, scope)

    def _do_for(self, node: ast.For, scope: Scope) -> None:
        for item in self.value(node.iter, scope):
            self._tick()
            self._bind(node.target, item, scope)
            try:
                self.block(node.body, scope)
            except _Break:
                return
            except _Continue:
                continue
        self.block(node.orelse, scope)

    def _do_break(self, node: ast.Break, scope: Scope) -> None:
        raise _Break

    def _do_continue(self, node: ast.Continue, scope: Scope) -> None:
        raise _Continue

    def _do_assert(self, node: ast.Assert, scope: Scope) -> None:
        if not self.value(node.test, scope):
            raise AssertionError

    def _do_raise(self, node: ast.Raise, scope: Scope) -> None:
        raised = RuntimeError() if node.exc is None else self.value(node.exc, scope)
        if isinstance(raised, type) and issubclass(raised, Exception):
            raised = raised()
        if not isinstance(raised, Exception):
            raise TypeError("exceptions must derive from Exception")
        raise raised

    def _do_try(self, node: ast.Try, scope: Scope) -> None:
        try:
            self.block(node.body, scope)
        except Exception as error:  # noqa: BLE001  the source's own handlers are looked through
            self._handle(node, error, scope)
        else:
            self.block(node.orelse, scope)
        finally:
            self.block(node.finalbody, scope)

    def _handle(self, node: ast.Try, error: Exception, scope: Scope) -> None:
        for handler in node.handlers:
            if handler.type is None or isinstance(error, self.value(handler.type, scope)):
                if handler.name:
                    scope.names[handler.name] = error
                self.block(handler.body, scope)
                return
        raise error

    def _do_with(self, node: ast.With, scope: Scope) -> None:
        if len(node.items) != 1:
            raise Unsupported("with")
        expects = self.value(node.items[0].context_expr, scope)
        if not isinstance(expects, Raises):
            raise Unsupported("with")
        try:
            self.block(node.body, scope)
        except expects.kinds:
            return
        raise AssertionError("nothing was raised")

    def _do_functiondef(self, node: ast.FunctionDef, scope: Scope) -> None:
        made: Any = Closure(self, node, scope, self._defaults(node.args, scope))
        for decorator in reversed(node.decorator_list):
            if _is_mark(decorator):
                continue
            made = self.value(decorator, scope)(made)
        scope.names[node.name] = made

    def _do_classdef(self, node: ast.ClassDef, scope: Scope) -> None:
        bases = tuple(self.value(base, scope) for base in node.bases)
        allowed = all(isinstance(base, type) and issubclass(base, (Made, Exception, object)) for base in bases)
        if node.decorator_list or node.keywords or not allowed:
            raise Unsupported("class")
        inside = Scope(parent=scope)
        self.block([item for item in node.body if not isinstance(item, ast.Expr)], inside)
        if "__slots__" in inside.names or any(base in PLAIN for base in bases):
            raise Unsupported("class")
        kept = tuple(base for base in bases if base is not object) or (Made,)
        scope.names[node.name] = type(node.name, kept, dict(inside.names))

    def _do_import(self, node: ast.Import, scope: Scope) -> None:
        for alias in node.names:
            found = self._module(alias.name)
            name = alias.asname or alias.name
            if "." in name:
                raise Unsupported(name)
            scope.names[name] = types.SimpleNamespace(**found)

    def _do_importfrom(self, node: ast.ImportFrom, scope: Scope) -> None:
        found = self._module(node.module or "")
        if [alias.name for alias in node.names] == ["*"]:
            scope.names.update(found)
        for alias in node.names:
            if alias.name in found:
                scope.names[alias.asname or alias.name] = found[alias.name]

    def _module(self, name: str) -> Mapping[str, Any]:
        known = self.extra.get(name) or MODULES.get(name)
        if known is not None:
            return vars(known)
        found = self.resolve(name)
        if found is None:
            raise Unsupported(name)
        return found

    # -- binding

    def _bind(self, target: ast.expr, value: Any, scope: Scope) -> None:
        match target:
            case ast.Name():
                scope.names[target.id] = value
            case ast.Tuple() | ast.List():
                self._unpack(target.elts, value, scope)
            case ast.Subscript():
                self._plain(self.value(target.value, scope))[self.value(target.slice, scope)] = value
            case ast.Attribute():
                owner = self.value(target.value, scope)
                if not isinstance(owner, (Made, Exception)) or target.attr.startswith("__"):
                    raise Unsupported("attribute")
                setattr(owner, target.attr, value)
            case _:
                raise Unsupported(type(target).__name__)

    def _unpack(self, targets: list[ast.expr], value: Any, scope: Scope) -> None:
        items = list(value)
        star = next((place for place, item in enumerate(targets) if isinstance(item, ast.Starred)), None)
        if star is None:
            if len(items) != len(targets):
                raise ValueError("wrong number of values to unpack")
            for one, item in zip(targets, items, strict=True):
                self._bind(one, item, scope)
            return
        behind = len(targets) - star - 1
        starred = targets[star]
        assert isinstance(starred, ast.Starred)
        self._unpack(targets[:star], items[:star], scope)
        self._bind(starred.value, items[star : len(items) - behind], scope)
        self._unpack(targets[star + 1 :], items[len(items) - behind :], scope)

    # -- functions

    def _defaults(self, args: ast.arguments, scope: Scope) -> list[Any]:
        if args.kwonlyargs or args.kwarg or args.posonlyargs:
            raise Unsupported("parameters")
        return [self.value(default, scope) for default in args.defaults]

    def invoke(self, closure: Closure, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        self._tick()
        if self._depth >= MAX_DEPTH:
            raise TooLong
        scope = Scope(_arguments(closure, args, kwargs), closure.scope)
        self._depth += 1
        try:
            if isinstance(closure.node, ast.Lambda):
                return self.value(closure.node.body, scope)
            self.block(closure.node.body, scope)
        except _Return as returned:
            return returned.value
        finally:
            self._depth -= 1
        return None

    # -- expressions

    def value(self, node: ast.expr, scope: Scope) -> Any:
        self._tick()
        method = getattr(self, f"_of_{type(node).__name__.lower()}", None)
        if method is None:
            raise Unsupported(type(node).__name__)
        return method(node, scope)

    def _of_constant(self, node: ast.Constant, scope: Scope) -> Any:
        return node.value

    def _of_name(self, node: ast.Name, scope: Scope) -> Any:
        return _range if node.id == "range" else _silent if node.id == "print" else scope.find(node.id)

    def _of_binop(self, node: ast.BinOp, scope: Scope) -> Any:
        return self._binary(type(node.op), self.value(node.left, scope), self.value(node.right, scope))

    def _binary(self, kind: type[ast.operator], left: Any, right: Any) -> Any:
        if kind not in BINARY or (kind is ast.Mod and isinstance(left, (str, bytes))):
            raise Unsupported(kind.__name__)
        if kind is ast.Pow and isinstance(right, (int, float)) and abs(right) > 1000:
            raise Unsupported("power")
        both = (left, right)
        huge = any(isinstance(item, int) and item > MAX_SIZE for item in both)
        if kind is ast.Mult and huge and not all(isinstance(item, (int, float)) for item in both):
            raise Unsupported("repetition")
        return _small(BINARY[kind](left, right))

    def _of_unaryop(self, node: ast.UnaryOp, scope: Scope) -> Any:
        return UNARY[type(node.op)](self.value(node.operand, scope))

    def _of_boolop(self, node: ast.BoolOp, scope: Scope) -> Any:
        wants = isinstance(node.op, ast.Or)
        value = None
        for item in node.values:
            value = self.value(item, scope)
            if bool(value) is wants:
                break
        return value

    def _of_compare(self, node: ast.Compare, scope: Scope) -> Any:
        left = self.value(node.left, scope)
        result: Any = True
        for kind, item in zip(node.ops, node.comparators, strict=True):
            right = self.value(item, scope)
            result = COMPARE[type(kind)](left, right)
            if not result:
                break
            left = right
        return result

    def _of_ifexp(self, node: ast.IfExp, scope: Scope) -> Any:
        return self.value(node.body if self.value(node.test, scope) else node.orelse, scope)

    def _of_lambda(self, node: ast.Lambda, scope: Scope) -> Any:
        return Closure(self, node, scope, self._defaults(node.args, scope))

    def _of_namedexpr(self, node: ast.NamedExpr, scope: Scope) -> Any:
        value = self.value(node.value, scope)
        self._bind(node.target, value, scope)
        return value

    def _of_attribute(self, node: ast.Attribute, scope: Scope) -> Any:
        owner = self.value(node.value, scope)
        if node.attr.startswith("__") or node.attr in REFUSED_METHODS:
            raise Unsupported(node.attr)
        known = isinstance(owner, (*SAFE_TYPES, Made, Exception, types.SimpleNamespace))
        if not known and not (isinstance(owner, type) and (owner in SAFE_TYPES or issubclass(owner, Made))):
            raise Unsupported(node.attr)
        if isinstance(owner, (types.SimpleNamespace, Made)) or not isinstance(owner, Exception):
            return getattr(owner, node.attr)
        return vars(owner)[node.attr] if node.attr in vars(owner) else getattr(owner, node.attr)

    def _of_subscript(self, node: ast.Subscript, scope: Scope) -> Any:
        return self._plain(self.value(node.value, scope))[self.value(node.slice, scope)]

    def _plain(self, value: Any) -> Any:
        if not isinstance(value, (*SAFE_TYPES, Made, range)):
            raise Unsupported("subscript")
        return value

    def _of_slice(self, node: ast.Slice, scope: Scope) -> Any:
        return slice(*(item and self.value(item, scope) for item in (node.lower, node.upper, node.step)))

    def _of_list(self, node: ast.List, scope: Scope) -> Any:
        return list(self._items(node.elts, scope))

    def _of_tuple(self, node: ast.Tuple, scope: Scope) -> Any:
        return tuple(self._items(node.elts, scope))

    def _of_set(self, node: ast.Set, scope: Scope) -> Any:
        return set(self._items(node.elts, scope))

    def _of_dict(self, node: ast.Dict, scope: Scope) -> Any:
        made: dict[Any, Any] = {}
        for key, item in zip(node.keys, node.values, strict=True):
            value = self.value(item, scope)
            made.update(value if key is None else {self.value(key, scope): value})
        return made

    def _items(self, nodes: list[ast.expr], scope: Scope) -> Iterator[Any]:
        for node in nodes:
            if isinstance(node, ast.Starred):
                yield from self.value(node.value, scope)
            else:
                yield self.value(node, scope)

    def _of_listcomp(self, node: ast.ListComp, scope: Scope) -> Any:
        return [self.value(node.elt, inside) for inside in self._rounds(node.generators, Scope(parent=scope))]

    def _of_setcomp(self, node: ast.SetComp, scope: Scope) -> Any:
        return {self.value(node.elt, inside) for inside in self._rounds(node.generators, Scope(parent=scope))}

    def _of_generatorexp(self, node: ast.GeneratorExp, scope: Scope) -> Any:
        return (self.value(node.elt, inside) for inside in self._rounds(node.generators, Scope(parent=scope)))

    def _of_dictcomp(self, node: ast.DictComp, scope: Scope) -> Any:
        rounds = self._rounds(node.generators, Scope(parent=scope))
        return {self.value(node.key, inside): self.value(node.value, inside) for inside in rounds}

    def _rounds(self, generators: list[ast.comprehension], scope: Scope) -> Iterator[Scope]:
        if not generators:
            yield scope
            return
        first, rest = generators[0], generators[1:]
        for item in self.value(first.iter, scope):
            self._tick()
            self._bind(first.target, item, scope)
            if all(self.value(test, scope) for test in first.ifs):
                yield from self._rounds(rest, scope)

    def _of_joinedstr(self, node: ast.JoinedStr, scope: Scope) -> Any:
        return _small("".join(str(self.value(part, scope)) for part in node.values))

    def _of_formattedvalue(self, node: ast.FormattedValue, scope: Scope) -> Any:
        value = self.value(node.value, scope)
        spec = "" if node.format_spec is None else str(self.value(node.format_spec, scope))
        if re.search(r"\d{4}", spec) or not isinstance(value, PLAIN):
            raise Unsupported("format")
        conversions: Mapping[int, Callable[[Any], str]] = {114: repr, 115: str, 97: ascii}
        convert = conversions.get(node.conversion)
        return format(value if convert is None else convert(value), spec)

    def _of_call(self, node: ast.Call, scope: Scope) -> Any:
        function = self.value(node.func, scope)
        args = list(self._items(node.args, scope))
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value, scope)
            kwargs.update(value if keyword.arg is None else {keyword.arg: value})
        _guard(function, args)
        return _small(function(*args, **kwargs))


@dataclass(frozen=True)
class Raises:
    """`with pytest.raises(…)`."""

    kinds: tuple[type[Exception], ...]


def _arguments(closure: Closure, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by name. Raises TypeError as a call would."""
    spec = closure.node.args
    names = [arg.arg for arg in spec.args]
    bound = dict(zip(names[len(names) - len(closure.defaults) :], closure.defaults, strict=True))
    if len(args) > len(names) and spec.vararg is None:
        raise TypeError("too many arguments")
    bound.update(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name not in names or name in names[: len(args)]:
            raise TypeError(f"unexpected argument {name}")
        bound[name] = value
    if spec.vararg is not None:
        bound[spec.vararg.arg] = tuple(args[len(names) :])
    missing = [name for name in names if name not in bound]
    if missing:
        raise TypeError(f"missing argument {missing[0]}")
    return bound


def _is_mark(node: ast.expr) -> bool:
    """`@pytest.mark.…`: read elsewhere."""
    return ast.unparse(node).startswith("pytest.mark.")


def _range(*args: int) -> range:
    made = range(*args)
    if len(made) > MAX_SIZE:
        raise Unsupported("range")
    return made


def _silent(*args: Any, **kwargs: Any) -> None:
    """Stands for `print`."""


def _small(value: Any) -> Any:
    """The value, unless it has grown too big to be worth trying."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise Unsupported("a huge number")
    if isinstance(value, (str, bytes, list, tuple, dict, set)) and len(value) > MAX_SIZE:
        raise Unsupported("a huge value")
    return value


def _guard(function: Any, args: list[Any]) -> None:
    """Refuse the calls by which a short source could make a huge value in one step."""
    owner = getattr(function, "__self__", None)
    sizes = [len(item) for item in (owner, *args) if isinstance(item, (str, bytes, list, tuple))]
    if isinstance(owner, (str, bytes)) and (
        any(isinstance(item, int) and item > MAX_SIZE for item in args) or math.prod(max(1, n) for n in sizes) > 10**7
    ):
        raise Unsupported("a huge text")
