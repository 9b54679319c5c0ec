"""Finds the place of an edit in a file's text and replaces it there, with the line ends of the file.

Looked for exactly first; then in readings of both texts that leave more and more out: line ends, white space that ends
a line, signs that look alike, white space, blank lines. The first in which it is there decides; it must be there once.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate, islice

from gremlins.stages.edits.indentation import Reindent, indentation_of, learn


class Misfit(Exception):
    """An edit does not fit its file. `nearest` is what the file has instead."""

    def __init__(self, reason: str, nearest: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.nearest = nearest


@dataclass(frozen=True)
class Replaced:
    """The new text. `note` says in what `old` differed from the place that was taken for it; empty: in nothing."""

    text: str
    note: str = ""


def replace_once(text: str, old: str, new: str) -> Replaced:
    """`text` with the only place of `old` replaced, line ends as the file has them. Raises Misfit."""
    try:
        return _replaced(text, old, new)
    except Misfit:
        if not (text and _AT_THE_END.search(old)) or _AT_THE_END.search(text):
            raise
    found = _replaced(f"{text}\n", old, new)  # the file's last line has no end, as only `old` has it
    note = f"the end of the last line differs from `old`, which was taken for it; {found.note}".removesuffix("; ")
    return Replaced(_AT_THE_END.sub("", found.text), note)


def _replaced(text: str, old: str, new: str) -> Replaced:
    spans = list(islice(_exact(text, old), MOST_PLACES))
    reading = None
    windows = [] if spans else _windows(text, old)
    for reading in _READINGS if windows else ():
        spans = [span for window in windows for span in islice(_alike(text, old, reading, *window), MOST_PLACES)]
        if spans:
            break
    if not spans:
        raise Misfit("`old` is not in the file")
    if len(spans) > 1:
        raise _ambiguous(text, spans, exact=reading is None)
    start, end = spans[0]
    found = text[start:end]
    note = ""
    if reading is not None and reading.difference:
        new = _merged(found, old, new, whole=not text[text.rfind("\n", 0, start) + 1 : start])
        note = f"{reading.difference} of {_lines(text, start, end)} differs from `old`, which was taken for it"
    like = found if re.search(_LINE_END, found) else text
    return Replaced(text[:start] + _with_line_ends(new, like=like) + text[end:], note)


MOST_PLACES = 100
"""Places of one text that are looked for: in one that repeats itself, each costs as much as the text is long."""


def _ambiguous(text: str, spans: Sequence[tuple[int, int]], *, exact: bool) -> Misfit:
    where = ", ".join(str(text.count("\n", 0, start) + 1) for start, _ in spans[:5])
    many = len(spans) if len(spans) < MOST_PLACES else "many"
    how = f"`old` is in the file {many} times" if exact else f"`old` resembles {many} places"
    return Misfit(f"{how} (lines {where}); it must be there once: copy more of it")


def _lines(text: str, start: int, end: int) -> str:
    first, last = (text.count("\n", 0, at) + 1 for at in (start, max(start, end - 1)))
    return f"line {first}" if first == last else f"lines {first}–{last}"


def _exact(text: str, old: str) -> Iterator[tuple[int, int]]:
    at = text.find(old)
    while at != -1:
        yield at, at + len(old)
        at = text.find(old, at + 1)


# --- readings of a text that leave something out

_ALIKE = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′ʼ", "'"),
        **dict.fromkeys("“”„‟″", '"'),
        **dict.fromkeys("‐‑‒–—―−﹣－", "-"),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", ""),
        "…": "...",
    }
)
_LINE_END = r"\r\n|\r|\n"
_AT_THE_END = re.compile(rf"(?:{_LINE_END})\Z")
_TOKEN = re.compile(
    # White space; what may be one sign in two ways: a letter with marks, a syllable of parts, a typographic sign.
    r"\s+|[A-Za-z][\u0300-\u036f]+|[^\s\x00-\x7f][\u0300-\u036f\u1160-\u11ff\u3099\u309a]*"
)

_Char = tuple[str, int, int]
"""A character as it is read, and from where to where it stands."""


@dataclass(frozen=True)
class _Reading:
    difference: str
    """A word for what is left out; empty where it is not worth a word."""
    space: Callable[[str, int], list[_Char]]
    signs_alike: bool = True


def _line_ends_alike(space: str, at: int) -> list[_Char]:
    return [
        ("\n" if found[0] in "\r\n" else found[0], at + found.start(), at + found.end())
        for found in re.finditer(rf"{_LINE_END}|.", space, re.DOTALL)
    ]


def _no_trailing(space: str, at: int) -> list[_Char]:
    chars = _line_ends_alike(space, at)
    first = next((number for number, char in enumerate(chars) if char[0] == "\n"), None)
    if first is None:
        return chars
    last = max(number for number, char in enumerate(chars) if char[0] == "\n")
    return [char for number, char in enumerate(chars) if number > last or char[0] == "\n"]


def _plain_spaces(space: str, at: int) -> list[_Char]:
    return [(char if char in "\n\t" else " ", start, end) for char, start, end in _no_trailing(space, at)]


def _only_line_ends(space: str, at: int) -> list[_Char]:
    return [char for char in _line_ends_alike(space, at) if char[0] == "\n"]


def _one_line_end(space: str, at: int) -> list[_Char]:
    ends = _only_line_ends(space, at)
    return [("\n", ends[0][1], ends[-1][2])] if ends else []


_READINGS = (
    _Reading("", _line_ends_alike, signs_alike=False),
    _Reading("the white space at line ends", _no_trailing, signs_alike=False),
    _Reading("the form of signs", _plain_spaces),
    _Reading("the white space", _only_line_ends),
    _Reading("the white space", _one_line_end),
)


def _squeezed(text: str) -> str:
    """The text without all that any reading leaves out."""
    plain = text if text.isascii() else unicodedata.normalize("NFC", text).translate(_ALIKE)
    return "".join(plain.split())


MOST_WINDOWS = 50


def _windows(text: str, old: str) -> list[tuple[int, int]]:
    """The parts of a text, whole lines, in which some reading could find `old`; none over another."""
    wanted, lines = _squeezed(old), text.split("\n")
    squeezed = [_squeezed(line) for line in lines]
    read = "".join(squeezed)
    places = list(islice(_exact(read, wanted), MOST_WINDOWS)) if wanted else []
    starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
    reads = list(accumulate(map(len, squeezed), initial=0))
    windows: list[tuple[int, int]] = []
    for at, after in places:
        first, last = bisect_right(reads, at) - 1, bisect_left(reads, after)
        start, end = starts[first], min(starts[min(last + 1, len(lines))], len(text))
        if windows and start < windows[-1][1]:
            start, _ = windows.pop()
        windows.append((start, end))
    return windows


def _alike(text: str, old: str, reading: _Reading, begin: int, until: int) -> Iterator[tuple[int, int]]:
    """The places in a part of the text whose reading is that of `old`."""
    there, wanted = _read(text[begin:until], reading), "".join(char for char, _, _ in _read(old, reading))
    read = "".join(char for char, _, _ in there)
    for at, after in _exact(read, wanted) if wanted else ():
        start, end = begin + there[at][1], begin + there[after - 1][2]
        before = text[text.rfind("\n", 0, start) + 1 : start]
        if reading.space in (_only_line_ends, _one_line_end) and not before.strip():
            start -= len(before)  # indentation, which is not read, belongs to its line
        yield start, end


def _read(text: str, reading: _Reading) -> list[_Char]:
    chars: list[_Char] = []
    at = 0
    for token in _TOKEN.finditer(text):
        start, end = token.span()
        chars.extend(zip(text[at:start], range(at, start), range(at + 1, start + 1), strict=True))
        at = end
        if token[0].isspace():
            chars.extend(reading.space(token[0], start))
        elif reading.signs_alike:
            sign = unicodedata.normalize("NFC", token[0]).translate(_ALIKE)
            chars.extend((char, start, end) for char in sign)
        else:
            chars.extend(zip(token[0], range(start, end), range(start + 1, end + 1), strict=True))
    chars.extend(zip(text[at:], range(at, len(text)), range(at + 1, len(text) + 1), strict=True))
    return chars


# --- putting the new text in


def _merged(found: str, old: str, new: str, *, whole: bool) -> str:
    """`new`, where `old` stands for `found`: lines that the edit keeps are the file's own, others get its indentation.

    whole: `found` begins with a line, not within one.
    """
    theirs, ours, wanted = _Line.split(found), _Line.split(old), _Line.split(new)
    if len(theirs) != len(ours):
        raise Misfit("`old` is not in the file")
    pairs = [(mine.text, own.text) for mine, own in zip(ours, theirs, strict=True) if mine.text.strip()]
    reindent, first = learn(pairs if whole else pairs[1:]), None
    if reindent is None:  # a first line that was copied without its indentation
        reindent, first = learn(pairs[1:]), learn(pairs[:1])
    if reindent is None:
        raise Misfit("`old` is not in the file with one indentation")
    matcher = SequenceMatcher(None, [line.text for line in ours], [line.text for line in wanted], autojunk=False)
    lines: list[str] = []
    for operation, start, _, new_start, new_end in matcher.get_opcodes():
        for number in range(new_start, new_end):
            line = wanted[number]
            if operation == "equal":
                mine, own = ours[start + number - new_start], theirs[start + number - new_start]
                lines += [*(own.blanks if line.blanks == mine.blanks else line.blanks), own.text]
            else:
                how: Reindent = first if first and number == 0 else reindent
                within = number == 0 and not whole and indentation_of(line.text) == ""
                lines += [*line.blanks, line.text if within else how(line.text)]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Line:
    """A line that is not blank, or the end of a text, with the blank lines before it."""

    text: str
    blanks: tuple[str, ...]

    @staticmethod
    def split(text: str) -> list[_Line]:
        found: list[_Line] = []
        blanks: list[str] = []
        lines = re.split(_LINE_END, text)
        for number, line in enumerate(lines, 1):
            if line.strip() or number == len(lines):
                found.append(_Line(line, tuple(blanks)))
                blanks = []
            else:
                blanks.append(line)
        return found


def _with_line_ends(new: str, *, like: str) -> str:
    """`new` with the line ends that prevail in `like`; a text without any leaves it as it is."""
    ends = Counter(re.findall(_LINE_END, like))
    if not ends:
        return new
    return re.sub(_LINE_END, max(ends, key=lambda end: (ends[end], end == "\n")), new)


def rewritten(before: str, content: str) -> str:
    """A whole new content in the line ends that the file had. Raises Misfit where these are mixed."""
    ends = set(re.findall(_LINE_END, before))
    if len(ends) > 1:
        raise Misfit("its line ends are mixed, which a whole new content would not keep: give `old` and `new`")
    return re.sub(_LINE_END, ends.pop(), content) if ends else content


# --- the nearest place, for the model to look at


def nearest_lines(text: str, old: str, *, around: int = 3) -> str:
    """The part of a file that looks most like `old`, with a few lines around it. Empty where nothing does."""
    wanted = [line.strip() for line in old.splitlines() if line.strip()]
    lines = text.split("\n")
    at = _best_window([line.strip() for line in lines], wanted) if wanted else None
    if at is None:
        return ""
    first, last = max(0, at - around), min(len(lines), at + len(old.splitlines()) + around)
    return "".join(f"{line}\n" for line in lines[first:last])


def _best_window(lines: Sequence[str], wanted: Sequence[str]) -> int | None:
    """The line where most of `wanted` is nearby, one equal line weighing as much as it is long; else its words."""
    places: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        places.setdefault(line, []).append(number)
    votes: Counter[int] = Counter()
    for offset, line in enumerate(wanted[:2_000]):
        for number in places.get(line, ())[:200]:
            votes[max(0, number - offset)] += len(line)
    if votes:
        return max(votes, key=lambda start: (votes[start], -start))
    longest = max(wanted, key=len)
    words = set(re.findall(r"\w+", longest))
    alike = {line: len(words & set(re.findall(r"\w+", line))) for line in places} if words else {}
    best = max(alike, key=lambda line: (alike[line], -places[line][0]), default="")
    if not best or alike[best] * 2 < len(words):
        return None
    return max(0, places[best][0] - wanted.index(longest))
