"""Shows a file to a model: whole, or the parts of it that matter; counts tokens, and shares a budget out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gremlins.stages.context.corpus import SourceFile
from gremlins.stages.context.slices import Slice, choose_slices, gap_note
from gremlins.stages.tags import tagged

Form = Literal["whole", "slice", "listed"]


@dataclass(frozen=True)
class PackEntry:
    """A file and how much of it the model sees. `listed`: it would have been worth showing, there was no room."""

    path: str
    tokens: int
    form: Form
    why: str


@dataclass(frozen=True)
class LeftOut:
    """A tracked file that is not shown as it is."""

    path: str
    why: str


@dataclass(frozen=True)
class Pack:
    """The text that a model is shown. `text` goes into the prompt; the rest lists its contents for a person.

    `tokens` is estimated.
    """

    text: str
    entries: tuple[PackEntry, ...]
    tokens: int
    budget: int
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Shown:
    """A part of a pack's text."""

    text: str
    tokens: int
    entry: PackEntry | None = None


_TOKEN = re.compile(r"[A-Za-z]{1,7}|\d{1,2}|\n\s*|::|/{2,8}|-{2,8}|={2,8}|\*{2,8}|&&|\|\||[^\sA-Za-z\d]")
_BLANKS = re.compile(r"[ \t]{2,}")


def estimate_tokens(text: str) -> int:
    """Estimated tokens of a text, rather too many than too few: about one for each short word, line end, sign or run
    of equal ones, and no fewer than one for three bytes, where blanks that follow one another (an indentation) are one.
    """
    return max(len(_TOKEN.findall(text)), (len(_BLANKS.sub(" ", text).encode(errors="replace")) + 2) // 3)


NEARLY = 1.4
"""A file that costs no more than so many fair shares gets them: a few parts less of the others are no loss."""


def share_out(costs: Sequence[int], room: int) -> list[int]:
    """The share of `room` that each cost gets: all of it where that is little more than a fair share."""
    shares, left = [0] * len(costs), max(0, room)
    for done, number in enumerate(sorted(range(len(costs)), key=lambda at: (costs[at], at))):
        others = len(costs) - done
        fair = left // others
        shares[number] = costs[number] if costs[number] <= fair * (NEARLY if others > 1 else 1) else fair
        left -= shares[number]
    return shares


def whole(source: SourceFile, why: str) -> Shown:
    """All of a file, but for the ends of lines that are too long."""
    count = len(source.lines)
    lines = {"lines": f"1-{count} of {count}", "cut": f"{source.cut} long lines"} if source.cut else {}
    shown = tagged("file", source.text, path=source.path, **lines)
    tokens = estimate_tokens(shown) + 1
    return Shown(shown, tokens, PackEntry(source.path, tokens, "slice" if source.cut else "whole", why))


def parts(
    source: SourceFile,
    limit: int,
    weights: Mapping[int, float],
    named: Iterable[int],
    why: str,
    *,
    given: frozenset[int] = frozenset(),
    meant: bool = False,
) -> Shown | None:
    """The parts of a file around its weightiest lines, in at most `limit` tokens; None where there is no room.

    named: lines of definitions that are wanted whole. given: lines that come before all others. meant: the file itself
    was asked for, so that all of its code matters more than long comments.
    """
    lines = source.lines
    if limit < 300 or not lines:
        return None
    size = [estimate_tokens(line) for line in lines]
    definitions = source.syntax.definitions
    middles = (range(first + 3, last) for first, last in source.syntax.comments if meant and last - first > 6)
    dispensable = frozenset(line for middle in middles for line in middle)
    best: Shown | None = None
    room = limit - 80
    for _ in range(MOST_TRIES):  # what lines cost together, with notes between them, is seen once they are chosen
        slices = choose_slices(weights, size, room, definitions, frozenset(named), dispensable, given, rest=meant)
        shown = _cut(source, slices, why)
        if slices and shown.tokens <= limit:
            if best and shown.tokens <= best.tokens:
                break
            best = shown
            if not meant or best.tokens > ENOUGH * limit:
                break
        room = int(room * (1 + ENOUGH) / 2 * limit / shown.tokens)
    return best


MOST_TRIES, ENOUGH = 5, 0.96
RUN = 5
"""So many lines in the same order are a copy."""


def copied(lines: Sequence[str], others: Iterable[Sequence[str]]) -> frozenset[int]:
    """The lines (from 1) that are copies of other files, as where one file is put together of many."""
    inside = _runs(lines)
    found: set[int] = set()
    for other in others:
        runs = _runs(other)
        if runs and len(both := runs.keys() & inside.keys()) > 0.5 * len(runs):
            found.update(line for run in both for line in range(inside[run][0], inside[run][1] + 1))
    return frozenset(found)


def _runs(lines: Sequence[str]) -> dict[tuple[str, ...], tuple[int, int]]:
    """Every run of lines that are not blank, with its first and last line (from 1)."""
    full = [(stripped, number) for number, line in enumerate(lines, 1) if (stripped := line.strip())]
    texts = [text for text, _ in full]
    return {tuple(texts[at : at + RUN]): (full[at][1], full[at + RUN - 1][1]) for at in range(len(full) - RUN + 1)}


def beginning(source: SourceFile, limit: int, why: str) -> Shown | None:
    """The first lines of a file, as many as have room."""
    room, count = limit - 60, 0
    for line in source.lines:
        room -= estimate_tokens(line)
        if room < 0:
            break
        count += 1
    if count == len(source.lines):
        section = whole(source, why)
        return section if section.tokens <= limit else None
    shown = _cut(source, [Slice(1, count)], why) if count else None
    return shown if shown and shown.tokens <= limit else None


def _cut(source: SourceFile, slices: Sequence[Slice], why: str) -> Shown:
    lines, definitions = source.lines, source.syntax.definitions
    body: list[str] = []
    after = 0
    for part in slices:
        if part.first > after + 1:
            body.append(gap_note(definitions, after + 1, part.first - 1) + "\n")
        body.extend(lines[part.first - 1 : part.last])
        after = part.last
    if after < len(lines):
        if body and not body[-1].endswith("\n"):
            body.append("\n")
        body.append(gap_note(definitions, after + 1, len(lines)) + "\n")
    spans = ", ".join(f"{part.first}-{part.last}" for part in slices)
    shown = tagged("file", "".join(body), path=source.path, lines=f"{spans} of {len(lines)}")
    tokens = estimate_tokens(shown) + 1
    return Shown(shown, tokens, PackEntry(source.path, tokens, "slice", why))


def outline(source: SourceFile, limit: int) -> str:
    """The definitions of a file in one line, each with its line, in about `limit` tokens; empty if it has none."""
    shown: list[str] = []
    for one in source.syntax.definitions:
        limit -= estimate_tokens(one.name) + 3
        if limit < 0:
            shown.append("…")
            break
        shown.append(f"{one.name} {one.at}")
    return ", ".join(shown)


def render_manifest(pack: Pack, *, stage: str) -> str:
    """The pack's table of contents, as an artifact: a person can see what was sent, and what was not."""
    shown = [entry for entry in pack.entries if entry.form != "listed"]
    listed = [entry for entry in pack.entries if entry.form == "listed"]
    lines = [
        f"# What {stage} was shown",
        "",
        f"About {pack.tokens:,} tokens of at most {pack.budget:,} (estimated high), {len(shown)} files.",
        "",
        "| file | tokens | shown | why |",
        "|---|---:|---|---|",
        *(f"| `{entry.path}` | {entry.tokens:,} | {entry.form} | {_cell(entry.why)} |" for entry in shown),
    ]
    lines += _listed("There was no room for", [f"`{entry.path}`: {entry.why}" for entry in listed])
    lines += _listed("Never shown", [f"`{item.path}`: {item.why}" for item in pack.left_out])
    return "\n".join(lines) + "\n"


def _listed(title: str, items: Iterable[str]) -> list[str]:
    found = [f"- {item}" for item in items]
    return ["", f"## {title}", "", *found] if found else []


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
