"""`gremlins log`."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import typer

from gremlins.cli.completion import complete_ids
from gremlins.cli.out import Styled, flush_to_reader, on_terminal, printable, say
from gremlins.clock import Clock, SystemClock, parse_time
from gremlins.fleet.observe import resolve
from gremlins.fleet.status import look
from gremlins.paths import Home
from gremlins.records.liveness import ALIVE

LONGEST_LINE = 65536
"""Bytes. A longer line is shown in pieces."""
FOLLOW_EVERY = 0.25
"""Seconds between looks at a log that is followed."""
FOLLOW_IN_CLUSTER = 2.0


def log(
    gremlin_id: str = typer.Argument(..., metavar="ID", autocompletion=complete_ids),
    follow: bool = typer.Option(False, "-f", "--follow", help="Go on until its process ends."),
) -> int:
    """Tell what happened, line by line."""
    home, clock = Home.from_env(), SystemClock()
    found = resolve(home, gremlin_id)
    _bring(home, found, clock)
    reader = LogReader(home.gremlin(found).log)
    tell = _LogTeller()
    if follow:
        for line in followed(home, found, reader, clock):
            tell(line)
    else:
        for line in reader.new_lines(whole=True):
            tell(line)
    return 0


def _bring(home: Home, gremlin_id: str, clock: Clock) -> None:
    """In a cluster the log here is a copy, brought up to date."""
    if home.cluster:
        from gremlins.cluster.hands import bring_here

        bring_here(home, gremlin_id, clock)


class LogReader:
    """Reads a log that is being written, a whole line at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0

    def new_lines(self, *, whole: bool) -> Iterator[str]:
        """The lines that came since the last look; a last one without its line break only where `whole` is wanted."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self.offset)
            while line := file.readline(LONGEST_LINE):
                if not whole and not line.endswith(b"\n") and len(line) < LONGEST_LINE:
                    return
                self.offset += len(line)
                yield line.rstrip(b"\r\n").decode(errors="replace")


def followed(home: Home, gremlin_id: str, reader: LogReader, clock: Clock) -> Iterator[str]:
    """The lines as they come, until the gremlin's process ends. Raises NotFound when it is removed."""
    while True:
        alive = look(home, gremlin_id, clock).life.state in ALIVE
        _bring(home, gremlin_id, clock)
        yield from reader.new_lines(whole=not alive)
        flush_to_reader()
        if not alive:
            return
        clock.sleep(FOLLOW_IN_CLUSTER if home.cluster else FOLLOW_EVERY)


class _LogTeller:
    """Lines as they are off a terminal; on one the time of day by the local clock, and a headline for each day."""

    def __init__(self) -> None:
        self.width = shutil.get_terminal_size().columns if on_terminal() else None
        self.day = ""

    def __call__(self, line: str) -> None:
        at, gap, text = line.partition("  ")
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
            say(Styled(self.day, "1"))
        first, *more = textwrap.wrap(text, max(20, self.width - 10), break_on_hyphens=False) or [""]
        style = _line_style(text)
        say(Styled(f"{moment:%H:%M:%S}", "2"), "  ", Styled(first, style))
        for part in more:
            say(f"{'':10}", Styled(part, style))


def _line_style(text: str) -> str:
    """The colour of a line: how something ended, or a stage that begins."""
    head = text.partition(",")[0]
    if head.startswith(("failed", "bailed", "a bug")) or head.endswith((": failed", ": bailed")):
        return "31"
    if head.startswith("finished") or head.endswith(": done"):
        return "32"
    return "1" if text.endswith(": begins") or ": begins (attempt" in text else ""
