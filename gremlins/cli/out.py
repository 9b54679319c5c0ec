"""Printing for people: plain columns off a terminal, colour only on one and never with NO_COLOR."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gremlins.text import cleaned, escaped

if TYPE_CHECKING:
    from rich.console import Console


class Styled(NamedTuple):
    """A text and the number of its style: `31` is red. Shown so where there is colour."""

    text: str
    style: str


def say(*parts: str | Styled) -> None:
    """One line of data. No text can move a cursor or change a colour but by its style."""
    sys.stdout.write("".join(map(_shown, parts)) + "\n")


def _shown(part: str | Styled) -> str:
    if isinstance(part, str):
        return cleaned(part)
    text = cleaned(part.text)
    return f"\x1b[{part.style}m{text}\x1b[0m" if part.style and text and in_colour() else text


def note(line: str) -> None:
    """One line beside the data."""
    sys.stderr.write(cleaned(line) + "\n")
    sys.stderr.flush()


def dump(value: Any) -> None:
    """The one JSON document of `--json`: a list with an entry a line (indenting ten thousand takes a second)."""
    if isinstance(value, list) and value:
        encode = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
        text = "[\n" + ",\n".join(map(encode, value)) + "\n]\n"
    else:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    sys.stdout.write(escaped(text))


def on_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def flush_to_reader() -> None:
    """Hand out what was said. Raises BrokenPipeError when the reader of a pipe has gone, also if nothing was said."""
    sys.stdout.flush()
    try:
        poller = select.poll()
        poller.register(sys.stdout.fileno(), 0)
        gone = any(event & select.POLLERR for _, event in poller.poll(0))
    except (OSError, ValueError):
        return  # not a stream of the system's
    if gone:
        raise BrokenPipeError


def in_colour() -> bool:
    return on_terminal() and not os.environ.get("NO_COLOR")


def console() -> Console:
    """The terminal as rich sees it, with no escape codes for style where NO_COLOR asks for none."""
    from gremlins.cli.screen import Screen  # rich, 50 ms: only for what is shown on a terminal

    return Screen(highlight=False, markup=False, emoji=False, color_system="auto" if in_colour() else None)


def printable(text: str) -> str:
    """A text of others on one line, without what would move a cursor or change a colour."""
    if text.isprintable() and "  " not in text:
        return text.strip()
    line = text if text.isprintable() else "".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text)
    return " ".join(line.split())


def columns(rows: Iterable[Sequence[str]], header: Sequence[str]) -> list[str]:
    """Lines of aligned columns, nothing wrapped or cut, the last column ragged."""
    table = [tuple(header), *(tuple(row) for row in rows)]
    form = "  ".join(f"{{:<{max(map(len, column))}}}" for column in zip(*table, strict=True))
    return [form.format(*row).rstrip() for row in table]


def wrapped(line: str, width: int) -> list[str]:
    """The parts of a line that fit a terminal. Further ones stand below its last column, or below its beginning; a path
    stays whole."""
    if len(line) <= width:
        return [line]
    import textwrap  # only for what is shown on a terminal

    starts = [found.end() for found in re.finditer(r"^ *|\S {2,}", line) if found.end() <= width // 2]
    form = textwrap.TextWrapper(width, break_on_hyphens=False, break_long_words=False)
    form.subsequent_indent = " " * starts[-1]
    return form.wrap(line) or [line]


def fitted(line: str) -> list[str]:
    """The whole line off a terminal, its parts on one."""
    return wrapped(line, shutil.get_terminal_size().columns) if on_terminal() else [line]


def dollars(usd: float, unpriced: int = 0) -> str:
    """`$0.0105`, `$12.30`; with `+?` where calls have no known price or cost."""
    text = f"${usd:.2f}" if usd >= 10 else f"${usd:.4f}"
    return text + ("+?" if unpriced else "")


def ago(seconds: float) -> str:
    """`12s`, `3m`, `2h05m`, `4d03h`."""
    seconds = max(0, int(seconds))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 60:
        return f"{seconds}s"
    if minutes < 60:
        return f"{minutes}m{seconds % 60:02d}s" if minutes < 10 else f"{minutes}m"
    if hours < 24:
        return f"{hours}h{minutes % 60:02d}m"
    return f"{days}d{hours % 24:02d}h"
