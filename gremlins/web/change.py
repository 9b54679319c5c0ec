"""The change of a gremlin as a page shows it: files, hunks, lines with numbers and syntax colours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from gremlins.clock import Clock
from gremlins.errors import Conflict, GremlinsError
from gremlins.fleet.diff import ends, to_compare
from gremlins.paths import Home
from gremlins.repository.git import Git
from gremlins.text import cleaned

if TYPE_CHECKING:
    from pygments.lexer import Lexer

MOST_LINES = 3000
"""Of a change; the command shows the rest."""
LONGEST_COLOURED = 400
"""Characters of a line that gets syntax colours."""
LONGEST_LINE = 2000
_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@ ?(.*)")


@dataclass(frozen=True)
class Line:
    """`kind` is add, del, same or hunk; `number` counts in the new file, None for a line that is not in it."""

    kind: str
    number: int | None
    html: Markup


@dataclass
class ShownFile:
    """The changed lines of one file. `note` says why there are none."""

    path: str
    lines: list[Line] = field(default_factory=list)
    added: int = 0
    deleted: int = 0
    note: str = ""


@dataclass(frozen=True)
class ShownChange:
    """A branch's change. `left_out` counts the lines that are not shown; `trouble` says why there is nothing."""

    files: tuple[ShownFile, ...] = ()
    left_out: int = 0
    trouble: str = ""


def change_of(home: Home, gremlin_id: str, clock: Clock) -> ShownChange:
    """The change of a gremlin's branch against its base."""
    try:
        record = to_compare(home, gremlin_id, clock)
        if not Path(record.project).is_dir():
            return ShownChange(trouble=f"the repository is not at {record.project}")
        text = Git(Path(record.project)).diff(*ends(record))
    except (Conflict, GremlinsError) as error:
        return ShownChange(trouble=error.message)
    return parsed(text)


def parsed(patch: str) -> ShownChange:
    """A patch of git's, as files and lines."""
    lines = patch.split("\n")
    files = list(_files(lines[:MOST_LINES]))
    return ShownChange(tuple(files), max(0, len(lines) - MOST_LINES))


def _files(lines: list[str]) -> Iterator[ShownFile]:
    current: ShownFile | None = None
    lexer: Lexer | None = None
    number, in_hunk = 0, False
    for line in lines:
        if line.startswith("diff --git "):
            if current is not None:
                yield current
            current, lexer, in_hunk = ShownFile(_named(line.rpartition(" b/")[2])), None, False
        elif current is None:
            continue
        elif found := _HUNK.match(line):
            number, in_hunk = int(found[2]), True
            lexer = lexer or _lexer(current.path)
            current.lines.append(Line("hunk", None, escape(cleaned(found[3]))))
        elif not in_hunk:
            _header(current, line)
        else:
            number = _body(current, line, number, lexer)
    if current is not None:
        yield current


def _header(current: ShownFile, line: str) -> None:
    if line.startswith("+++ b/"):
        current.path = _named(line[6:])
    for word in ("new file", "deleted file", "rename from", "rename to", "Binary files", "old mode", "new mode"):
        if line.startswith(word):
            current.note = "; ".join(filter(None, (current.note, cleaned(line))))


def _named(text: str) -> str:
    return cleaned(text.rstrip("\t").strip('"'))


def _body(current: ShownFile, line: str, number: int, lexer: Lexer | None) -> int:
    """Add one line of a hunk. Returns the number of the next one in the new file."""
    kind = {"+": "add", "-": "del", "\\": "hunk"}.get(line[:1], "same")
    if kind == "hunk" or not line:
        return number
    current.added += kind == "add"
    current.deleted += kind == "del"
    in_new = kind != "del"
    current.lines.append(Line(kind, number if in_new else None, _coloured(cleaned(line[1:]), lexer)))
    return number + in_new


def _lexer(path: str) -> Lexer | None:
    from pygments.lexers import get_lexer_for_filename  # 40 ms
    from pygments.util import ClassNotFound

    try:
        return get_lexer_for_filename(path, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


def _coloured(text: str, lexer: Lexer | None) -> Markup:
    if len(text) > LONGEST_LINE:
        return escape(text[:LONGEST_LINE] + " …")
    if lexer is None or len(text) > LONGEST_COLOURED:
        return escape(text)
    from pygments.token import STANDARD_TYPES

    parts = []
    for kind, piece in lexer.get_tokens(text):
        name = STANDARD_TYPES.get(kind, "")[:1]
        parts.append(f'<span class="t-{name}">{escape(piece)}</span>' if name in _COLOURED else str(escape(piece)))
    return Markup("".join(parts))


_COLOURED = frozenset("kscm")
"""Keywords, strings, comments and numbers."""
