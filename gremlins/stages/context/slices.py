"""The parts of a file that matter when it is too long to be shown whole: its head, and blocks around given lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gremlins.stages.context.corpus import block_end

_OPENS = re.compile(
    r"\s*(?:(?:async |export |default |public |private |protected |static |abstract |final |unsafe |pub(?:\(\w+\))? )*"
    r"(?:def|class|function|func|fn|impl|struct|enum|interface|trait|module|namespace)\b)"
)
_NAMED = re.compile(
    r"\s*(?:async |export |default |public |private |protected |static |abstract |final |pub(?:\(\w+\))? )*"
    r"(?:def|class|function\*?|func|fn|impl|struct|enum|interface|trait|module)\s+([\w.:<>]+)"
)
HEAD = 25
LONGEST_BLOCK = 140
AROUND = 12


@dataclass(frozen=True)
class Slice:
    """Lines `first` to `last` of a file, counted from 1, both included."""

    first: int
    last: int


def choose_slices(lines: Sequence[str], weights: Mapping[int, float], size: Sequence[int], budget: int) -> list[Slice]:
    """The head of a file and the blocks around its weightiest lines, as many as `budget` holds.

    `size` is what each line costs. Slices come in file order and do not touch.
    """
    shown: set[int] = set()
    left = budget
    head = range(min(HEAD, len(lines)))
    spread = _spread(weights, len(lines))
    wanted = sorted(spread, key=lambda line: (-spread[line], line))[:MOST_TRIED]
    for block in [
        _block(lines, wanted[0] - 1) if wanted else head,
        head,
        *(_block(lines, line - 1) for line in wanted[1:]),
    ]:
        new = [number for number in block if number not in shown and number < len(lines)]
        cost = sum(size[number] for number in new) + GAP
        if new and cost > left:  # the block's own beginning says most
            new, cost = _fitting(new, size, left)
        if new:
            shown.update(new)
            left -= cost
    return _runs(_without_small_gaps(shown, size, left))


def _spread(weights: Mapping[int, float], count: int) -> dict[int, float]:
    """The weights, each with a share of its neighbours': a passage about the matter beats a word by chance."""
    totals = [0.0]
    for line in range(1, count + 1):
        totals.append(totals[-1] + weights.get(line, 0.0))
    return {
        line: weight + 0.3 * (totals[min(count, line + 8)] - totals[max(0, line - 9)])
        for line, weight in weights.items()
        if 0 < line <= count
    }


MOST_TRIED = 400
GAP = 30
"""Tokens of the line that stands for a gap, at most."""


def _block(lines: Sequence[str], at: int) -> list[int]:
    """The function or class around a line if it is not too long, else some lines around it; and the lines that open
    what it is in.
    """
    at = min(max(at, 0), len(lines) - 1)
    openings = _openings(lines, at)
    around = range(max(0, at - AROUND), min(len(lines), at + AROUND + 1))
    if openings:
        start = openings[0]
        end = max(block_end(lines, start), at + 1)
        while start > 0 and lines[start - 1].lstrip().startswith(("@", "#[", "///", "//", "#:")):
            start -= 1
        if end - start <= LONGEST_BLOCK:
            around = range(start, end)
    return [*reversed(openings[1:]), *around] if openings else list(around)


def _openings(lines: Sequence[str], at: int) -> list[int]:
    """The lines that open the named blocks around a line, innermost first; the line itself where it opens one."""
    found = []
    depth = None
    for number in range(at, -1, -1):
        line = lines[number]
        if not line.strip() or (depth is not None and line.lstrip().startswith((")", "]", "}"))):
            continue
        indent = len(line) - len(line.lstrip())
        if depth is None or indent < depth:
            depth = indent
            if _OPENS.match(line):
                found.append(number)
            if depth == 0:
                break
    return found


def _fitting(numbers: Sequence[int], size: Sequence[int], budget: int) -> tuple[list[int], int]:
    kept: list[int] = []
    cost = GAP
    for number in numbers:
        cost += size[number]
        if cost > budget:
            break
        kept.append(number)
    return (kept, min(cost, budget)) if len(kept) >= 3 else ([], 0)


def _without_small_gaps(shown: set[int], size: Sequence[int], budget: int) -> set[int]:
    """A gap of a few lines costs as much to mark as to show."""
    filled = set(shown)
    ordered = sorted(shown)
    for before, after in pairwise(ordered):
        between = range(before + 1, after)
        cost = sum(size[number] for number in between)
        if 0 < len(between) <= 5 and cost <= budget:
            filled.update(between)
            budget -= cost
    return filled


def _runs(numbers: Iterable[int]) -> list[Slice]:
    runs: list[Slice] = []
    for number in sorted(numbers):
        if runs and runs[-1].last == number:
            runs[-1] = Slice(runs[-1].first, number + 1)
        else:
            runs.append(Slice(number + 1, number + 1))
    return runs


def gap_note(lines: Sequence[str], first: int, last: int) -> str:
    """The line that stands for lines `first` to `last` (from 1): how many, and what is defined there."""
    names = [match[1] for line in lines[first - 1 : last] if (match := _NAMED.match(line))]
    shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
    return f"[lines {first}–{last} are not shown{f': {shown[:200]}' if shown else ''}]"
