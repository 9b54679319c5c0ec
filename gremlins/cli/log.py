"""`gremlins log`."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import typer

from gremlins.cli.completion import complete_ids
from gremlins.cli.out import flush_to_reader, in_colour, on_terminal, printable, say
from gremlins.clock import Clock, SystemClock, parse_time
from gremlins.fleet.observe import resolve
from gremlins.fleet.status import look
from gremlins.paths import Home
from gremlins.records.liveness import ALIVE

FOLLOW_EVERY = 0.25
"""Seconds between looks at a log that is followed."""


def log(
    gremlin_id: str = typer.Argument(..., metavar="ID", autocompletion=complete_ids),
    follow: bool = typer.Option(False, "-f", "--follow", help="Go on until its process ends."),
) -> int:
    """Tell what happened, line by line."""
    home, clock = Home.from_env(), SystemClock()
    found = resolve(home, gremlin_id)
    reader = LogReader(home.gremlin(found).log)
    tell = _LogTeller()
    if follow:
        for line in followed(home, found, reader, clock):
            tell(line)
    else:
        for line in reader.new_lines(whole=True):
            tell(line)
    return 0


class LogReader:
    """Reads a log that is being written, a whole line at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0

    def new_lines(self, *, whole: bool) -> list[str]:
        """The lines that came since the last look; a last one without its line break only where `whole` is wanted."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        end = len(data) if whole else data.rfind(b"\n") + 1
        self.offset += end
        return [line.decode(errors="replace") for line in data[:end].splitlines()]


def followed(home: Home, gremlin_id: str, reader: LogReader, clock: Clock) -> Iterator[str]:
    """The lines as they come, until the gremlin's process ends. Raises NotFound when it is removed."""
    while True:
        alive = look(home, gremlin_id, clock).life.state in ALIVE
        yield from reader.new_lines(whole=not alive)
        flush_to_reader()
        if not alive:
            return
        clock.sleep(FOLLOW_EVERY)


class _LogTeller:
    """Lines as they are off a terminal; on one the time of day by the local clock, and a headline for each day."""

    def __init__(self) -> None:
        self.width = shutil.get_terminal_size().columns if on_terminal() else None
        self.colour = in_colour()
        self.day = ""

    def __call__(self, line: str) -> None:
        at, gap, text = line.partition("  ")
        text = "".join(c if c.isprintable() else "\ufffd" for c in text)
        if self.width is None:
            say(at + gap + text)
            return
        try:
            moment = parse_time(at).astimezone()
        except ValueError:
            say(printable(line))
            return
        if f"{moment:%A %d %B %Y}" != self.day:
            self.day = f"{moment:%A %d %B %Y}"
            say(self._styled(self.day, "1"))
        first, *more = textwrap.wrap(text, max(20, self.width - 10), break_on_hyphens=False) or [""]
        style = _line_style(text)
        say(f"{self._styled(f'{moment:%H:%M:%S}', '2')}  {self._styled(first, style)}")
        for part in more:
            say(f"{'':10}{self._styled(part, style)}")

    def _styled(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code and text else text


def _line_style(text: str) -> str:
    """The colour of a line: how something ended, or a stage that begins."""
    head = text.partition(",")[0]
    if head.startswith(("failed", "bailed", "a bug")) or head.endswith((": failed", ": bailed")):
        return "31"
    if head.startswith("finished") or head.endswith(": done"):
        return "32"
    return "1" if text.endswith(": begins") or ": begins (attempt" in text else ""
