"""The parts of a file that matter when it is too long to be shown whole: its head, and blocks around given lines."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise

from gremlins.stages.context.syntax import Definition

HEAD, TAIL = 25, 12
SMALL = 0.15
"""Of the room: the two ends of a file come first if they take less."""
LONGEST_BLOCK = 140
AROUND = 12
FEW = 4
"""Lines of a gap that is closed."""
MOST_OF_ONE = 0.8
"""Of the room, for one definition that is meant: a longer one, such as a class, is shown in parts."""
BLANK = 1
"""Tokens of a blank line."""
CONTEXT = 3
"""Lines before and after a block: what is put before or after it is put between the two."""


@dataclass(frozen=True)
class Slice:
    """Lines `first` to `last` of a file, counted from 1, both included."""

    first: int
    last: int


def choose_slices(
    weights: Mapping[int, float],
    size: Sequence[int],
    budget: int,
    definitions: Sequence[Definition],
    named: frozenset[int] = frozenset(),
    dispensable: frozenset[int] = frozenset(),
    given: frozenset[int] = frozenset(),
    *,
    rest: bool = False,
) -> list[Slice]:
    """The head of a file and the blocks around its weightiest lines, as many as `budget` holds.

    `size` is what each line costs. A definition whose line is in `named` is wanted whole, however long; lines in
    `dispensable` are left out, but near weighty ones among them; those in `given` come first, if all of them have room.
    `rest`: the end of the file is shown too, and what room remains goes to the other lines. Slices come in file order
    and do not touch.
    """
    count = len(size)
    head, tail = range(min(HEAD, count)), range(max(0, count - TAIL), count)
    shown = {line - 1 for line in given} if sum(size[line - 1] for line in given) < 0.9 * budget else set[int]()
    left = budget - sum(size[number] for number in shown)
    spread = _spread(weights, count)
    wanted = sorted(spread, key=lambda line: (line not in named, -spread[line], line))
    blocks = _Blocks(definitions, size, named, budget)
    missed = 0

    def unseen(lines: Iterable[int]) -> Iterator[int]:
        return (line for line in lines if line - 1 not in shown or (line in named and line - 1 in at_ends))

    ends, at_ends = [-1, 0] if rest else [0], {*head, *tail}
    first = 0 if rest and sum(size[number] for number in at_ends) < SMALL * budget else 1
    for line in chain(wanted[:first], ends, unseen(wanted[first:])):
        block = blocks.around(line) if line > 0 else tail if line else head
        whole = line in named
        near = range(line - CONTEXT - 1, line + CONTEXT) if line in dispensable else ()
        new = [
            number
            for number in block
            if number not in shown and (whole or number in near or number + 1 not in dispensable)
        ]
        if not new:
            continue
        new = _joined_to(shown, new, count) if rest else new
        cost = sum(size[number] for number in new) + GAP
        if dispensable and not whole:
            cost += HOLE * sum(number in dispensable and number + 1 not in dispensable for number in block)
        if cost > left:  # the block's own beginning says most
            missed += 1
            new, cost = _fitting(new, size, left)
        shown.update(new)
        left -= cost
        if missed > MOST_MISSED:
            break
    if rest:
        shown.update([*_others(shown, dispensable, size, left)])
    return _runs(_without_small_gaps(shown, size, left if not rest else 0))


def _others(shown: Collection[int], dispensable: Collection[int], size: Sequence[int], left: int) -> Iterator[int]:
    """The lines of a file that are neither shown nor dispensable, from its beginning, as many as have room."""
    for number in range(len(size)):
        if number + 1 in dispensable:
            left -= HOLE if number not in dispensable else 0
        elif number not in shown:
            left -= size[number]
            if left < 0:
                return
            yield number


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


HOLE = 16
"""The same, for a comment that is left out of a block."""
MOST_MISSED = 50
"""After so many blocks that had no room the others are not tried."""
GAP = 30
"""Tokens of the line that stands for a gap, at most."""


class _Blocks:
    """The definitions of a file, as blocks of lines counted from 0."""

    def __init__(
        self, definitions: Sequence[Definition], size: Sequence[int], named: frozenset[int], budget: int
    ) -> None:
        self.count = len(size)
        self.size = size
        self.budget = budget
        self.costs = [0, *accumulate(size)]
        self.named = named
        self.inside: dict[int, list[Definition]] = {}
        """The definitions of several lines around each line, counted from 1."""
        for one in definitions:
            for line in range(one.first, one.last + 1) if one.last > one.first else ():
                self.inside.setdefault(line, []).append(one)

    def fits(self, one: Definition) -> bool:
        return self.costs[min(one.last, self.count)] - self.costs[one.first - 1] <= MOST_OF_ONE * self.budget

    def around(self, line: int) -> list[int]:
        """The innermost definition around a line (from 1) if it is not too long or is meant itself, else some lines
        around it; and the lines that open what it is in.
        """
        inside = sorted(self.inside.get(line, ()), key=lambda one: (one.at != line, one.last - one.first))
        around = range(max(0, line - 1 - AROUND), min(self.count, line + AROUND))
        if inside:
            inner = inside[0]
            meant = inner.at == line and line in self.named
            if (meant and self.fits(inner)) or inner.last - inner.first < LONGEST_BLOCK:
                around = range(max(0, inner.first - 1 - CONTEXT), min(inner.last + CONTEXT, self.count))
        around = self._with_blanks(around)
        openings = sorted({one.at - 1 for one in inside} - set(around))
        return [*openings, *around]

    def _with_blanks(self, lines: range) -> range:
        """The lines, and the blank ones beside them: next to nothing, and the context of a change at their edge."""
        first, end = lines.start, lines.stop
        while first > 0 and self.size[first - 1] <= BLANK:
            first -= 1
        while end < self.count and self.size[end] <= BLANK:
            end += 1
        return range(first, end)


def _joined_to(shown: set[int], new: Sequence[int], count: int) -> list[int]:
    """The lines, and those between them and their like that are so few that a note in their place is no gain."""
    there = shown | {*new}
    joined = set(new)
    for number in new:
        for step in (-1, 1):
            between = range(number + step, number + step * (FEW + 2), step)
            far = next((at for at in between if at in there), None)
            if far is not None and 0 <= far < count:
                joined.update(range(number, far, step))
    return sorted(joined)


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
        if 0 < len(between) <= 5 and cost <= max(budget, HOLE):
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


def gap_note(definitions: Sequence[Definition], first: int, last: int) -> str:
    """The line that stands for lines `first` to `last` (from 1): how many, and what is defined there."""
    names = list(dict.fromkeys(one.name for one in definitions if first <= one.at <= last))
    shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
    return f"[lines {first}–{last} are not shown{f': {shown[:200]}' if shown else ''}]"
