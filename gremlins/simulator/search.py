"""The demo model's search for a bug: known patterns and small changes, tried on the tests that stand in the prompt."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

from gremlins.simulator.bugs import suspects
from gremlins.simulator.finding import Files, Nothing, is_test, missing
from gremlins.simulator.mutations import mutations
from gremlins.simulator.reading import Prompt
from gremlins.simulator.source import Change, Edit, Function, Module, as_edit
from gremlins.simulator.trial import Trial, Verdicts

MAX_TRIED = 600
"""Changes that are tried before the search gives up."""
FEW = 3
"""With more files than these, a pattern that no test proves must at least be in something the prompt names."""
MAX_STEPS = 300_000
"""About a second."""
SAID, DOCTESTS = "said_in_the_prompt.py", "doctests.py"
"""Names of files of tests that are made up from what the prompt says."""


def find_bug(prompt: Prompt, files: Files) -> Edit | Nothing:
    """The change that makes failing tests pass, else the likeliest known pattern. What the prompt names comes first."""
    return _find(prompt.text, tuple(files.items()))


@dataclass(frozen=True)
class _Suspect:
    path: str
    source: str
    change: Change

    def edit(self, *, proven: bool = False) -> Edit:
        return replace(as_edit(self.path, self.source, self.change), proven=proven)

    def changed(self) -> str:
        return self.change.apply(self.source)


@lru_cache(maxsize=32)
def _find(text: str, items: tuple[tuple[str, str], ...]) -> Edit | Nothing:
    """Cached, for a plan, its implementation and its review are asked with the same files."""
    files = dict(items)
    modules = dict(_modules(files))
    tests = {path: content for path, content in files.items() if is_test(path) and path.endswith(".py")}
    tests[SAID] = "\n".join(_said(text, modules))
    tests[DOCTESTS] = "\n".join(_doctested(modules))
    trial = Trial({path: module.tree for path, module in modules.items()}, tests)
    before = trial.verdicts()
    failing = frozenset(name for name, passes in before.items() if not passes)
    patterns = _by_weight(_patterns(modules), text, tests)
    if failing:
        blamed = list(islice(_small_changes(modules, failing, tests), MAX_TRIED))
        proven = _first_proven(trial, before, failing, [*patterns, *blamed][:MAX_TRIED])
        if proven is not None:
            return proven.edit(proven=True)
    for suspect in patterns if len(modules) <= FEW else _named(patterns, text, tests):
        if not _broken(before, trial.verdicts(suspect.path, suspect.changed())):
            return suspect.edit()
    said = [name for name in before if name.startswith(SAID)]
    if said and not failing:
        return Nothing("NOTHING TO DO: what the task says the code should give, it gives already")
    return Nothing(missing(files, "the demo model found no bug that it knows in them"))


def _modules(files: Files) -> Iterator[tuple[str, Module]]:
    for path, source in files.items():
        if path.endswith(".py") and not is_test(path):
            try:
                yield path, Module(source)
            except (SyntaxError, ValueError):
                continue


def _patterns(modules: dict[str, Module]) -> Iterator[_Suspect]:
    for path, module in modules.items():
        for change in suspects(module):
            yield _Suspect(path, module.source, change)


def _by_weight(found: Iterable[_Suspect], text: str, tests: Files) -> list[_Suspect]:
    """What the prompt or the tests name comes first; otherwise the order stays."""
    tested = "\n".join(tests.values())
    return sorted(found, key=lambda suspect: _weight(suspect, text, tested), reverse=True)


def _named(found: Iterable[_Suspect], text: str, tests: Files) -> list[_Suspect]:
    tested = "\n".join(tests.values())
    return [suspect for suspect in found if _weight(suspect, text, tested)]


def _weight(suspect: _Suspect, text: str, tested: str) -> int:
    name = re.escape(suspect.change.function)
    said, tried = (re.search(rf"\b{name}\b", where) is not None for where in (text, tested))
    return 4 * said + 2 * tried + (suspect.path in text)


def _small_changes(modules: dict[str, Module], failing: frozenset[str], tests: Files) -> Iterator[_Suspect]:
    """Every small change of the functions that failing tests name, then of all others."""
    blamed = "\n".join(content for path, content in tests.items() if any(name.startswith(path) for name in failing))
    functions = [(path, module, function) for path, module in modules.items() for function in module.functions]

    def named(item: tuple[str, Module, Function]) -> bool:
        return re.search(rf"\b{re.escape(item[2].name)}\b", blamed) is None

    for path, module, function in sorted(functions, key=named):
        for change in mutations(function):
            yield _Suspect(path, module.source, change)


def _first_proven(
    trial: Trial, before: Verdicts, failing: frozenset[str], suspects: Iterable[_Suspect]
) -> _Suspect | None:
    """The first change that makes all failing tests pass; else the one that mends most of them. None may break one."""
    best: tuple[int, _Suspect] | None = None
    for suspect in suspects:
        if trial.steps > MAX_STEPS:
            break
        after = trial.verdicts(suspect.path, suspect.changed(), failing)
        mended = sum(after.values())
        if mended > (best[0] if best else 0) and not _broken(before, trial.verdicts(suspect.path, suspect.changed())):
            best = (mended, suspect)
            if mended == len(failing):
                break
    return best[1] if best else None


def _broken(before: Verdicts, after: Verdicts) -> bool:
    return any(passes and not after.get(name, False) for name, passes in before.items())


def _said(text: str, modules: dict[str, Module]) -> Iterator[str]:
    """Tests made of what the prompt says a function should give, and of what pytest printed."""
    for path, module in modules.items():
        for function in module.functions:
            yield from _as_tests(path, function.name, _examples(function.name, text))


def _doctested(modules: dict[str, Module]) -> Iterator[str]:
    for path, module in modules.items():
        for function in module.functions:
            yield from _as_tests(path, function.name, _doctests(function))


def _as_tests(path: str, name: str, found: Iterable[tuple[str, str]]) -> Iterator[str]:
    module = path.removesuffix(".py").replace("/", ".")
    for number, (call, value) in enumerate(dict.fromkeys(found)):
        yield f"def test_{name}_{number}():\n    from {module} import {name}\n    assert {call} == {value}\n"


def _examples(name: str, text: str) -> Iterator[tuple[str, str]]:
    if f"{name}(" not in text:
        return
    call = rf"\b{re.escape(name)}\([^()\n]*\)"
    wanted = r"(?:should|must|ought to)\s+(?:be|return|give|equal)|[^.\n]{0,40}\b(?:instead of|rather than)"
    expected = re.compile(rf"({call})`?\s+(?:{wanted})\s+`?([^`\s]+)")
    for match in expected.finditer(text):
        yield from _literal(match[1], match[2].rstrip(".,;"))
    printed = re.compile(rf"assert (\S+) == (\S+)\n(?:E|\s|\+)*where (\S+) = ({call})")
    for match in printed.finditer(text):
        if match[1] == match[3]:
            yield from _literal(match[4], match[2])


def _doctests(function: Function) -> Iterator[tuple[str, str]]:
    doc = ast.get_docstring(function.node) or ""
    if ">>>" not in doc:
        return
    for match in re.finditer(rf">>> ({re.escape(function.name)}\(.*\))\n\s*(\S.*)", doc):
        yield from _literal(match[1], match[2].strip())


def _literal(call: str, value: str) -> Iterator[tuple[str, str]]:
    try:
        ast.literal_eval(value)
        ast.parse(call, mode="eval")
    except (SyntaxError, ValueError):
        return
    yield call, value
