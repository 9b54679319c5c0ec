"""The live view of the loop: who works, what comes next, and the last things that happened."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gremlins.cli.bead.text import next_words
from gremlins.cli.current_project import Here
from gremlins.cli.out import console, printable
from gremlins.fleet.beads.attempts import Work
from gremlins.fleet.beads.bead import Bead
from gremlins.fleet.dispatch.admit import Standing, standing
from gremlins.fleet.dispatch.observation import ReadOnlyFleet
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.dispatch.tick import Dispatcher, LoopEvent, TickReport
from gremlins.fleet.dispatch.view import explained
from gremlins.fleet.dispatch.world import World, world_now
from gremlins.fleet.times import span

STYLES = {"running": "green", "starting": "green", "parked": "cyan", "held": "yellow", "failed": "red", "denied": "red"}
ORDER = ("running", "starting", "parked", "denied", "held", "backing_off", "ready", "deferred", "blocked")
SHOWN_EVENTS = 6
SHOWN_BEADS = 400
"""Beyond so many beads only counts are shown."""


@contextmanager
def live_view(
    here: Here, policy: Callable[[], Policy], fleet: ReadOnlyFleet, dispatcher: Dispatcher
) -> Iterator[Callable[[TickReport], None]]:
    """Draw after each tick; what happens goes into the view."""
    screen = console()
    happened: deque[str] = deque(maxlen=SHOWN_EVENTS)
    with Live(console=screen, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:

        def told(happening: LoopEvent) -> None:
            at = f"{here.clock.now().astimezone():%H:%M:%S}"
            parts = (at, happening.bead, happening.kind, printable(happening.text))
            happened.append("  ".join(part for part in parts if part))

        def draw(report: TickReport) -> None:
            live.update(_screen(here, policy(), fleet, report, happened, screen.height), refresh=True)

        dispatcher.say = told
        yield draw


def _screen(
    here: Here, policy: Policy, fleet: ReadOnlyFleet, report: TickReport, happened: deque[str], height: int
) -> RenderableType:
    counts = here.store.count(here.project)
    alive = sum(n for status, n in counts.items() if status not in ("closed", "failed"))
    view = (
        here.store.works(here.project) if alive <= SHOWN_BEADS else here.store.view(here.project, report.now, fresh=9)
    )
    world = world_now(here.store, fleet, here.project, policy, view.works, here.clock.now().timestamp())
    room = max(3, height - len(happened) - 6)
    parts: list[RenderableType] = [_head(here, world, counts, report), _table(here, view.works, world, room)]
    return Group(*parts, Text(""), *(Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in happened))


def _head(here: Here, world: World, counts: dict[str, int], report: TickReport) -> Text:
    policy = world.policy
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{here.root.name}", style="bold")
    text.append(f"  {policy.pipeline}  {world.working}/{policy.max_running} at work, {world.parked} parked")
    text.append(f"  {counts.get('closed', 0)} closed, {counts.get('failed', 0)} failed")
    text.append(f"  {world.day.spent.words} today")
    for episode in world.episodes:
        if episode.open:
            left = max(0.0, episode.until - world.now)
            text.append(f"\nbreaker {episode.scope} open, {span(left)}: {episode.reason}", style="red")
    if report.missing is not None:
        text.append(f"\nnothing is started: {report.missing.reason}", style="red")
    if world.paused:
        text.append(f"\npaused: {world.paused}", style="yellow")
    text.append("\nCtrl-C drains: nothing more is started, what runs goes on", style="dim")
    return text


def _table(here: Here, works: tuple[Work, ...], world: World, room: int) -> Table:
    bucketed = [(explained(here.store, work, standing(work, world)), work) for work in works]
    bucketed.sort(key=lambda pair: (ORDER.index(pair[0].bucket) if pair[0].bucket in ORDER else 99, pair[1].order))
    table = Table(box=None, pad_edge=False, expand=True)
    for heading, ratio in (("bead", None), ("bucket", None), ("title", 2), ("next", 3)):
        table.add_column(heading, ratio=ratio, no_wrap=True, overflow="ellipsis")
    for where, work in bucketed[:room]:
        table.add_row(*_row(here.store.bead(here.project, work.id), work, where, world.now))
    if len(bucketed) > room:
        table.add_row(f"… {len(bucketed) - room} more", "", "", "")
    return table


def _row(bead: Bead | None, work: Work, where: Standing, now: float) -> tuple[Text, ...]:
    title = printable(bead.issue.title) if bead is not None else ""
    bucket = where.bucket.replace("_", " ")
    style = STYLES.get(where.bucket, "")
    return Text(work.id), Text(bucket, style=style), Text(title), Text(next_words(where, now), style="dim")
