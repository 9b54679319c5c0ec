"""Finds the place of an edit in a file's text and replaces it there, with the line ends of the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches


class Misfit(Exception):
    """An edit does not fit its file. `nearest` is what the file has instead."""

    def __init__(self, reason: str, nearest: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.nearest = nearest


def encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Misfit("the text holds half a surrogate pair, which is no character") from None


def replace_once(text: str, old: str, new: str) -> str:
    """`text` with the only place of `old` replaced, line ends as the file has them. Raises Misfit.

    Looked for exactly; failing that without regard to line ends; failing that, as whole lines, without regard to
    white space that ends a line.
    """
    spans = list(_exact(text, old)) or list(_any_line_end(text, old)) or list(_any_trailing_space(text, old))
    if len(spans) > 1:
        where = ", ".join(str(text.count("\n", 0, start) + 1) for start, _ in spans[:5])
        raise Misfit(f"`old` is in the file {len(spans)} times (lines {where}); it must be there once: copy more of it")
    if not spans:
        raise Misfit("`old` is not in the file", nearest_lines(text, old))
    start, end = spans[0]
    return text[:start] + _with_line_ends(new, like=text[start:end] if "\n" in text[start:end] else text) + text[end:]


def _exact(text: str, old: str) -> Iterator[tuple[int, int]]:
    at = text.find(old)
    while at != -1:
        yield at, at + len(old)
        at = text.find(old, at + 1)


def _any_line_end(text: str, old: str) -> Iterator[tuple[int, int]]:
    if "\n" not in old:
        return
    pattern = r"\r?\n".join(re.escape(line) for line in old.replace("\r\n", "\n").split("\n"))
    for found in re.finditer(f"(?=({pattern}))", text):
        yield found.span(1)


def _any_trailing_space(text: str, old: str) -> Iterator[tuple[int, int]]:
    wanted = [line.rstrip() for line in old.split("\n")]
    last_line_is_whole = wanted[-1] == ""
    if last_line_is_whole:
        wanted.pop()
    if not any(wanted):
        return
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    bare = [line.rstrip() for line in lines]
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    for first in range(len(bare) - len(wanted) + 1):
        if bare[first] == wanted[0] and bare[first : first + len(wanted)] == wanted:
            after = first + len(wanted)
            end = starts[after] if last_line_is_whole else starts[after - 1] + len(lines[after - 1].rstrip("\r\n"))
            yield starts[first], end


def _with_line_ends(new: str, *, like: str) -> str:
    """`new` with the line ends that prevail in `like`; a text without any leaves it as it is."""
    windows = like.count("\r\n")
    plain = new.replace("\r\n", "\n")
    if windows * 2 > like.count("\n"):
        return plain.replace("\n", "\r\n")
    return plain if "\n" in like else new


def rewritten(before: bytes, content: str) -> bytes:
    """A whole new content in the line ends, and with the byte order mark, that the file had."""
    text = before.decode(errors="replace")
    mark = "\ufeff" if text.startswith("\ufeff") and not content.startswith("\ufeff") else ""
    windows = text.count("\r\n")
    if windows and windows == text.count("\n"):
        content = content.replace("\r\n", "\n").replace("\n", "\r\n")
    return encoded(mark + content)


def nearest_lines(text: str, old: str, *, around: int = 3) -> str:
    """The part of a file that looks most like `old`, with a few lines around it. Empty where nothing does."""
    wanted = [line.strip() for line in old.splitlines() if line.strip()]
    lines = text.splitlines()[:20_000]
    if not wanted or not lines:
        return ""
    at = _best_window([line.strip() for line in lines], wanted)
    if at is None:
        return ""
    first, last = max(0, at - around), min(len(lines), at + len(old.splitlines()) + around)
    return "".join(f"{line}\n" for line in lines[first:last])


def _best_window(lines: Sequence[str], wanted: Sequence[str]) -> int | None:
    """The line where most of `wanted` is nearby, one equal line weighing as much as it is long."""
    places: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        places.setdefault(line, []).append(number)
    votes: dict[int, int] = {}
    for offset, line in enumerate(wanted):
        for number in places.get(line, ())[:200]:
            start = max(0, number - offset)
            votes[start] = votes.get(start, 0) + len(line)
    if votes:
        return max(votes, key=lambda start: (votes[start], -start))
    longest = max(wanted, key=len)
    near = get_close_matches(longest, list(places), n=1, cutoff=0.6)
    return max(0, places[near[0]][0] - wanted.index(longest)) if near else None
