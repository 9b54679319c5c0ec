"""Live views: the fleet, and one gremlin on its way. Off a terminal they are one line per change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from gremlins.cli.fleet_table import STYLES, cost_of, detail, view
from gremlins.cli.out import ago, console, dollars, flush_to_reader, note, on_terminal, printable, say
from gremlins.clock import Clock, rfc3339
from gremlins.errors import CorruptRecord
from gremlins.fleet.status import FleetStatus, Row, look
from gremlins.paths import Home

if TYPE_CHECKING:
    from rich.text import Text

    from gremlins.records.gremlin import StageRun

INTERRUPTED = 130
LOOK_EVERY = 0.25
"""Seconds between looks at one gremlin."""
EXIT_PATIENCE = 5.0
"""Seconds that a process may take to end after its last word."""
_MARKS = {"done": "✓", "skipped": "–", "acknowledged": "✓", "bailed": "✗", "failed": "✗", None: "●"}
_MARK_STYLES = {"done": "green", "skipped": "dim", "acknowledged": "yellow", "bailed": "red", "failed": "red", None: ""}


# ── the fleet ─────────────────────────────────────────────────────────────────────────────────────────────────────


def watch_fleet(fleet_fn: Callable[[], FleetStatus], clock: Clock, *, every: float) -> int:
    """Look again and again, until Ctrl-C. Returns the exit code."""
    pause = min(max(0.1, every), 86400.0)
    try:
        if on_terminal():
            _watch_on_screen(fleet_fn, clock, pause)
        else:
            _watch_in_lines(fleet_fn, clock, pause)
    except KeyboardInterrupt:
        pass  # how a live view is left
    return INTERRUPTED


def _watch_on_screen(fleet_fn: Callable[[], FleetStatus], clock: Clock, pause: float) -> None:
    from rich.console import Group  # rich: only for the live view
    from rich.live import Live

    screen = console()
    with Live(console=screen, screen=True, auto_refresh=False, redirect_stderr=False, redirect_stdout=False) as live:
        while True:
            lines = view(fleet_fn(), clock.now(), screen.width, screen.height)
            live.update(Group(*lines), refresh=True)
            clock.sleep(pause)


def _watch_in_lines(fleet_fn: Callable[[], FleetStatus], clock: Clock, pause: float) -> None:
    known: dict[str, tuple[str, ...]] = {}
    told: set[str] = set()
    while True:
        fleet = fleet_fn()
        now = clock.now()
        for line in changes(known, fleet, now):
            say(line)
        for error in fleet.unreadable:
            if str(error.path) not in told:
                told.add(str(error.path))
                note(f"warning: {error.message}")
        flush_to_reader()
        clock.sleep(pause)


def changes(known: dict[str, tuple[str, ...]], fleet: FleetStatus, now: datetime) -> Iterator[str]:
    """A line for each gremlin that is not as it was; `known` is brought up to date."""
    at = rfc3339(now)
    seen = set()
    for row in reversed(fleet.rows):  # oldest first, as things happened
        name = row.record.id
        seen.add(name)
        state = (row.life.shown, row.record.stage, str(row.record.attempt_of(row.record.stage)), *_batch_ids(row))
        if known.get(name) != state:
            before = f"{known[name][0]} → " if name in known and known[name][0] != state[0] else ""
            known[name] = state
            parts = [at, name, before + row.life.shown, row.record.stage or "-", cost_of(row), _occasion(row, now)]
            yield "  ".join(part for part in parts if part)
    for name in sorted(known.keys() - seen):
        del known[name]
        yield f"{at}  {name}  gone from the list (landed or removed)"


def _occasion(row: Row, now: datetime) -> str:
    """The addition to a line about a change: the batches it has parked on, or the detail."""
    ids = _batch_ids(row)
    return f"waits for {', '.join(ids)}" if row.life.state == "parked" and all(ids) else detail(row, now)


def _batch_ids(row: Row) -> tuple[str, ...]:
    return tuple(call.batch_id or "" for call in row.seen.outstanding)


# ── one gremlin ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Progress:
    """One gremlin at one moment, with the stages it has run and those still to come."""

    row: Row
    plan: tuple[str, ...]

    @property
    def has_ended(self) -> bool:
        """True if no process works on it any more."""
        return self.row.life.state not in ("running", "parked", "stalled", "stopping")


def watch_launch(home: Home, gremlin_id: str, clock: Clock, *, quiet: bool = False, every: float = LOOK_EVERY) -> Row:
    """Follow one gremlin until its process ends. Ctrl-C comes through as KeyboardInterrupt.

    `quiet` only waits. Raises NotFound when it is removed meanwhile.
    """
    plan = _stage_names(home, gremlin_id)

    def progress() -> Progress:
        return Progress(look(home, gremlin_id, clock), plan)

    if quiet:
        _until_ended(progress, clock, every, lambda _: None)
    elif on_terminal():
        _show_on_screen(progress, clock, every)
    else:
        tell = _Teller(clock)
        _until_ended(progress, clock, every, tell)
    return _after_exit(home, gremlin_id, clock)


def _stage_names(home: Home, gremlin_id: str) -> tuple[str, ...]:
    from gremlins.pipeline.freezing import read_frozen  # pydantic: who launches has it already

    try:
        return tuple(stage.name for stage in read_frozen(home.gremlin(gremlin_id).frozen).pipeline.stages)
    except CorruptRecord:
        return ()


def _until_ended(
    progress: Callable[[], Progress], clock: Clock, every: float, tell: Callable[[Progress], None]
) -> None:
    while True:
        now = progress()
        tell(now)
        if now.has_ended:
            return
        clock.sleep(every)


def _after_exit(home: Home, gremlin_id: str, clock: Clock) -> Row:
    """The gremlin once its process has let go of it, so that a next command finds it free."""
    deadline = clock.monotonic() + EXIT_PATIENCE
    row = look(home, gremlin_id, clock)
    while row.seen.holder is not None and clock.monotonic() < deadline:
        clock.sleep(0.02)
        row = look(home, gremlin_id, clock)
    return row


class _Teller:
    """Says what has changed since the last look, a line each."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.told: set[tuple[str, datetime, str | None]] = set()
        self.state = ""

    def __call__(self, now: Progress) -> None:
        for run in now.row.record.stages:
            self._stage(now, run)
        state = now.row.life.shown
        if state != self.state and (state != "running" or self.state == "parked"):
            more = _occasion(now.row, self.clock.now())
            spent = f", {cost_text(now.row)}" if now.has_ended else ""
            stage = "" if now.has_ended else f"{now.row.record.stage}: "
            self._say(now, f"{stage}{state}{spent}{f' ({more})' if more else ''}")
        self.state = state
        flush_to_reader()

    def _stage(self, now: Progress, run: StageRun) -> None:
        for outcome in (None, run.outcome):
            event = (run.path, run.started_at, outcome)
            if event in self.told or (outcome is None and run.outcome == "skipped"):
                continue
            self.told.add(event)
            if outcome is None:
                self._say(now, f"{run.path}: begins" + (f" (attempt {run.attempt})" if run.attempt > 1 else ""))
            else:
                took = ago(((run.ended_at or run.started_at) - run.started_at).total_seconds())
                self._say(now, f"{run.path}: {outcome} after {took}{f', {printable(run.note)}' if run.note else ''}")

    def _say(self, now: Progress, text: str) -> None:
        say(f"{rfc3339(self.clock.now())}  {now.row.record.id}  {text}")


def _show_on_screen(progress: Callable[[], Progress], clock: Clock, every: float) -> None:
    from rich.console import Group  # rich: only for the live view
    from rich.live import Live

    screen = console()
    with Live(console=screen, auto_refresh=False, redirect_stderr=False, redirect_stdout=False) as live:

        def tell(now: Progress) -> None:
            lines = stage_lines(now, clock.now(), screen.width)
            live.update(Group(*lines[-max(1, screen.height - 1) :]), refresh=True)

        _until_ended(progress, clock, every, tell)


def cost_text(row: Row) -> str:
    """`$0.0105, saved $0.0105`."""
    saved = row.record.cost.saved_usd
    return cost_of(row) + (f", saved {dollars(saved)}" if saved else "")


def stage_lines(now: Progress, moment: datetime, width: int) -> list[Text]:
    """The view of one gremlin: its state, then its stages; no line wider than `width` cells."""
    from rich.text import Text  # only on a terminal

    row, record = now.row, now.row.record
    took = ago(((record.ended_at if now.has_ended and record.ended_at else moment) - record.created_at).total_seconds())
    head = Text(record.id, style="bold").append("  ").append(row.life.shown, style=STYLES[row.life.state])
    head.append(f"  {took}, {cost_text(row)}")
    lines = [head]
    for path, run in _shown_stages(now):
        lines.append(_stage_line(now, path, run, moment))
    if now.has_ended and row.life.reason:
        lines.append(Text(f"  {printable(row.life.reason)}", style=STYLES[row.life.state]))
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines


def _shown_stages(now: Progress) -> list[tuple[str, StageRun | None]]:
    """The pipeline's stages in order with their latest runs; the inner ones of a stage that is under way below it."""
    latest = {run.path: run for run in now.row.record.stages}
    shown: list[tuple[str, StageRun | None]] = []
    for name in now.plan or tuple(path for path in latest if "/" not in path):
        run = latest.get(name)
        shown.append((name, run))
        if run is not None and run.outcome is None:
            inner = [(path, found) for path, found in latest.items() if _top(path) == name and path != name]
            shown += inner[-8:]
    return shown


def _top(path: str) -> str:
    """`loop[3]/plan` is of the stage `loop`."""
    return path.partition("/")[0].partition("[")[0]


def _stage_line(now: Progress, path: str, run: StageRun | None, moment: datetime) -> Text:
    from rich.text import Text  # only on a terminal

    indent = "  " * (1 + path.count("/"))
    if run is None:
        return Text(f"{indent}· {path}", style="dim")
    took = ago(((run.ended_at or moment) - run.started_at).total_seconds())
    line = Text(indent).append(_MARKS[run.outcome], style=_MARK_STYLES[run.outcome]).append(f" {path:<14} {took:>6}  ")
    if run.outcome is not None:
        return line.append(printable(run.note), style=_MARK_STYLES[run.outcome] if run.outcome != "done" else "dim")
    if now.has_ended or path != now.row.record.stage:
        return line
    state, more = now.row.life.shown, detail(now.row, moment)
    mode = f"{run.type if run.type != path else ''} {now.row.record.mode or ''}".strip()
    line.append(state, style=STYLES[now.row.life.state])
    return line.append(f" {mode}" if mode else "").append(f": {more}" if more else "", style="dim")
