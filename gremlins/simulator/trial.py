"""Tries a change on the tests that stand in the prompt, without running any of it: see `interpreter`."""

from __future__ import annotations

import ast
import math
import types
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from gremlins.simulator.interpreter import Closure, Made, Raises, Scope, TooLong, Unsupported, Walker
from gremlins.simulator.source import parse

STEPS_PER_TEST = 20_000

Verdicts = dict[str, bool]
"""Test → whether it passes. Tests nothing can be said about are left out."""


class Approx:
    """`pytest.approx`."""

    def __init__(self, value: Any, rel: float = 1e-6, abs: float = 1e-12) -> None:
        self.value, self.rel, self.abs = value, rel, abs

    def __eq__(self, other: object) -> bool:
        if isinstance(self.value, (list, tuple)) and isinstance(other, (list, tuple)):
            return len(self.value) == len(other) and all(map(self._near, other, self.value))
        return self._near(other, self.value)

    def _near(self, left: Any, right: Any) -> bool:
        return math.isclose(left, right, rel_tol=self.rel, abs_tol=self.abs)

    __hash__ = None  # type: ignore[assignment]  # as with pytest's own


class TestCase(Made):
    """What `unittest.TestCase` can do, as far as it is needed."""

    def assertEqual(self, left: Any, right: Any, msg: Any = None) -> None:
        assert left == right

    def assertNotEqual(self, left: Any, right: Any, msg: Any = None) -> None:
        assert left != right

    def assertTrue(self, value: Any, msg: Any = None) -> None:
        assert value

    def assertFalse(self, value: Any, msg: Any = None) -> None:
        assert not value

    def assertIsNone(self, value: Any, msg: Any = None) -> None:
        assert value is None

    def assertIn(self, item: Any, items: Any, msg: Any = None) -> None:
        assert item in items

    def assertAlmostEqual(self, left: Any, right: Any, places: int = 7) -> None:
        assert round(abs(left - right), places) == 0

    def assertRaises(self, *kinds: type[Exception]) -> Raises:
        return Raises(kinds)


def _raises(kind: Any, match: str | None = None) -> Raises:
    return Raises(kind if isinstance(kind, tuple) else (kind,))


EXTRA: Mapping[str, types.SimpleNamespace] = {
    "pytest": types.SimpleNamespace(approx=Approx, raises=_raises),
    "unittest": types.SimpleNamespace(TestCase=TestCase),
}


class Trial:
    """The tests of a set of files, tried on one version of them after another."""

    def __init__(self, trees: Mapping[str, ast.Module], tests: Mapping[str, str]) -> None:
        self._trees = trees
        self.steps = 0
        """What all tries together have taken so far."""
        self._tests = {path: tree for path, text in tests.items() if (tree := parsed(text)) is not None}

    def verdicts(self, path: str = "", source: str = "", only: frozenset[str] | None = None) -> Verdicts:
        """Which tests pass, with the file at `path` replaced by `source`. `only` limits it to some tests."""
        trees = {**self._trees}
        if path:
            tree = parsed(source)
            if tree is None:
                return {}
            trees[path] = tree
        session = _Session(trees | self._tests)
        found: Verdicts = {}
        for test_path, tree in self._tests.items():
            for name, run in session.tests(test_path, tree):
                if only is None or name in only:
                    verdict = session.outcome(run)
                    self.steps += STEPS_PER_TEST - session.walker.left
                    if verdict is not None:
                        found[name] = verdict
        return found


def parsed(text: str) -> ast.Module | None:
    try:
        return parse(text)
    except (SyntaxError, ValueError):
        return None


class _Session:
    """One version of all files, loaded as they are imported."""

    def __init__(self, trees: Mapping[str, ast.Module]) -> None:
        self._trees = trees
        self._loaded: dict[str, Scope] = {}
        self.walker = Walker(self._resolve, EXTRA)

    def _resolve(self, module: str) -> Mapping[str, Any] | None:
        """The names of a module of the repository, found by the end of its path."""
        tail = module.lstrip(".").replace(".", "/")
        for path in self._trees:
            stem = path.removesuffix(".py").removesuffix("/__init__")
            if stem == tail or stem.endswith(f"/{tail}"):
                return self.load(path).names
        return None

    def load(self, path: str) -> Scope:
        if path not in self._loaded:
            scope = self._loaded[path] = Scope()
            self.walker.left = STEPS_PER_TEST
            self.walker.run_module(self._trees[path], scope)
        return self._loaded[path]

    def tests(self, path: str, tree: ast.Module) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Every test of a file: its name, and how to run it."""
        scope = self.load(path)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                yield from self._cases(f"{path}::{node.name}", node, scope.names.get(node.name), scope)
            elif isinstance(node, ast.ClassDef) and isinstance(scope.names.get(node.name), type):
                yield from self._methods(path, node, scope)
        script = [node for node in tree.body if isinstance(node, ast.Assert)]
        for number, node in enumerate(script):
            yield f"{path}::assert {number}", partial(self.walker.statement, node, scope)

    def _methods(self, path: str, node: ast.ClassDef, scope: Scope) -> Iterator[tuple[str, Callable[[], Any]]]:
        cls = scope.names[node.name]

        def run(name: str) -> None:
            instance = cls()
            for step in ("setUp", "setup_method", name):
                if isinstance(getattr(cls, step, None), Closure):
                    getattr(instance, step)()

        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name.startswith("test"):
                yield f"{path}::{node.name}::{item.name}", partial(run, item.name)

    def _cases(
        self, name: str, node: ast.FunctionDef, test: Any, scope: Scope
    ) -> Iterator[tuple[str, Callable[[], Any]]]:
        if not isinstance(test, Closure):
            return
        sets = [item for item in node.decorator_list if ast.unparse(item).startswith("pytest.mark.parametrize(")]
        if not sets:
            yield name, test
        elif len(sets) == 1 and isinstance(sets[0], ast.Call) and len(sets[0].args) >= 2:
            for number, values in enumerate(self._parameters(sets[0], scope)):
                yield f"{name}[{number}]", partial(test, **values)

    def _parameters(self, mark: ast.Call, scope: Scope) -> Iterator[dict[str, Any]]:
        self.walker.left = STEPS_PER_TEST
        try:
            names, rows = (self.walker.value(item, scope) for item in mark.args[:2])
        except (Unsupported, TooLong):
            return
        listed = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        for row in rows:
            yield dict(zip(listed, (row,) if len(listed) == 1 else row, strict=False))

    def outcome(self, run: Callable[[], Any]) -> bool | None:
        """Passes, fails, or None: it uses something that is not walked."""
        self.walker.left = STEPS_PER_TEST
        try:
            run()
        except Unsupported:
            return None
        except (TooLong, RecursionError):
            return False
        except Exception:  # noqa: BLE001  whatever a test raises, it fails
            return False
        return True
