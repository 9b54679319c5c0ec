"""Gives lines of an edit the indentation of the file they go into, learned from lines that both have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Reindent = Callable[[str], str]
"""A line as the file would indent it."""


def indentation_of(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def learn(pairs: Sequence[tuple[str, str]]) -> Reindent | None:
    """The indentation of the file, from pairs of a line in the edit and in the file. None: there is no one way."""
    known: dict[str, str] = {}
    for ours, theirs in pairs:
        if known.setdefault(indentation_of(ours), indentation_of(theirs)) != indentation_of(theirs):
            return None
    if all(ours == theirs for ours, theirs in known.items()):
        return lambda line: line
    step = _step(known)
    return lambda line: _indent(indentation_of(line), known, step) + line.lstrip() if line.strip() else line


def _indent(ours: str, known: dict[str, str], step: Reindent) -> str:
    if ours in known:
        return known[ours]
    inner = max((base for base in known if ours.startswith(base)), key=len, default=None)
    if inner is not None:
        return known[inner] + step(ours[len(inner) :])
    outer = min((base for base in known if base.startswith(ours)), key=len, default=None)
    if outer is None:
        return step(ours)
    return known[outer].removesuffix(step(outer[len(ours) :]))


def _step(known: dict[str, str]) -> Reindent:
    """A further level of indentation: in tabs or spaces, in the file's width."""
    for base, theirs in known.items():
        for ours, deeper in known.items():
            more, their_more = ours.removeprefix(base), deeper.removeprefix(theirs)
            nested = len(ours) > len(base) and ours.startswith(base) and deeper.startswith(theirs)
            if nested and their_more and more != their_more and len(set(more)) == len(set(their_more)) == 1:
                return lambda extra: their_more[0] * (len(extra) * len(their_more) // len(more))
    for ours, theirs in known.items():
        if ours and theirs and set(ours) == {" "} and set(theirs) == {"\t"} and len(ours) % len(theirs) == 0:
            unit = len(ours) // len(theirs)
            return lambda extra: "\t" * (len(extra) // unit)
        if ours and theirs and set(ours) == {"\t"} and set(theirs) == {" "} and len(theirs) % len(ours) == 0:
            unit = len(theirs) // len(ours)
            return lambda extra: " " * (len(extra) * unit)
    return lambda extra: extra
