"""The contents of the board's pages. Everything is asked of the functions that the commands use."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gremlins.cli.bead.text import next_words
from gremlins.cli.cost import KEYS, Sum, add_up
from gremlins.cli.current_project import Here
from gremlins.cli.fleet_table import GROUPS, NEEDS, READY, detail, diff_of, group_of, repositories, summary, task_of
from gremlins.cli.out import ago, dollars
from gremlins.clock import Clock
from gremlins.config import load_settings
from gremlins.errors import GremlinsError
from gremlins.files import read_file
from gremlins.fleet.advice import what_next
from gremlins.fleet.answer import question_of
from gremlins.fleet.beads.bead import Bead
from gremlins.fleet.beads.store.interface import Query
from gremlins.fleet.dispatch.admit import BUCKETS
from gremlins.fleet.dispatch.breaker import breaker_state, title
from gremlins.fleet.dispatch.locks import loop_lock, loop_pid
from gremlins.fleet.dispatch.view import BeadInBucket, with_buckets
from gremlins.fleet.history import History, saved_by, wait_of
from gremlins.fleet.land import try_to_land
from gremlins.fleet.status import Row
from gremlins.paths import Home
from gremlins.pipeline.file import list_pipelines
from gremlins.records.calls import BatchCall, CallFailed
from gremlins.records.spend import all_spending, model_of
from gremlins.records.totals import Day, Totals
from gremlins.repository.git import find_root
from gremlins.repository.project import find_project
from gremlins.web.pictures import Bar, bars, latest_days
from gremlins.web.watch import FleetWatch

SHOWN = tuple(name for name in GROUPS if name != "landed")
LARGEST_TEXT = 2**18
"""Bytes of a plan or a review that are shown."""
LOG_TAIL = 2**14
MOST_BARS = 12
MOST_BEADS = 60
"""Of a column."""


def slug(group: str) -> str:
    """A group's name in the page's ids."""
    return group.replace(" ", "-")


# ── the fleet ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class FleetPage:
    """Rows by group, all groups, so that a row can move into an empty one."""

    groups: dict[str, list[Row]]
    summary: str
    unreadable: int
    pipelines: Sequence[str]
    folder: str | None


def fleet_page(watch: FleetWatch, folder: Path | None) -> FleetPage:
    rows = watch.in_order()
    groups: dict[str, list[Row]] = {name: [] for name in SHOWN}
    for row in rows:
        if (group := group_of(row)) in groups:
            groups[group].append(row)
    names = [info.name for info in list_pipelines(folder) if info.error is None]
    return FleetPage(groups, fleet_summary(watch), len(watch.unreadable), names, str(folder) if folder else None)


def fleet_summary(watch: FleetWatch) -> str:
    shown = [row for row in watch.rows.values() if group_of(row) != "landed"]
    return summary(shown) if shown else "no gremlins yet"


def row_words(row: Row, clock: Clock, projects: dict[str, str]) -> dict[str, Any]:
    """The words of one row."""
    group = group_of(row)
    return {
        "row": row,
        "group": group,
        "asks": detail(row, clock.now()) if group == NEEDS else "",
        "ready": group == READY,
        "task": task_of(row),
        "diff": diff_of(row) or "",
        "repository": projects.get(row.record.project, ""),
    }


def projects_of(watch: FleetWatch) -> dict[str, str]:
    return repositories(list(watch.rows.values()))


# ── one gremlin ───────────────────────────────────────────────────────────────────────────────────────────────────


def question(row: Row) -> str | None:
    """The question that can be answered, if there is one."""
    try:
        return question_of(row)
    except GremlinsError:
        return None


def landing(home: Home, row: Row, clock: Clock) -> tuple[bool, str]:
    """If a finished gremlin would land now, and on what; else the reason of the refusal."""
    try:
        would = try_to_land(home, row.record.id, clock=clock)
    except GremlinsError as error:
        return False, f"{error.message}{f' ({error.hint})' if error.hint else ''}"
    files = f"{would.files_changed} file{'' if would.files_changed == 1 else 's'}"
    verb = f"{would.target} has it already" if would.by_hand else f"It would land on {would.target}"
    return True, "; ".join([f"{verb}, {files} changed", *would.notes])


def call_rows(found: History) -> list[dict[str, Any]]:
    """The calls as a table."""
    return [
        {
            "stage": call.key.stage,
            "more": ", ".join(
                f"{name} {value}"
                for name, value in (("attempt", call.key.attempt), ("turn", call.key.turn), ("try", call.key.try_))
                if value > 1
            ),
            "mode": call.mode,
            "model": model_of(call),
            "tokens_in": _tokens_in(call.usage),
            "tokens_out": call.usage.output_tokens if call.usage else None,
            "cost": None if call.cost is None else "?" if call.cost.usd is None else dollars(call.cost.usd),
            "saved": dollars(saved_by(call)) if saved_by(call) else "",
            "wait": "" if (wait := wait_of(call)) is None else ago(wait),
            "state": call.status.state,
            "failure": f"{call.status.kind}: {call.status.message}" if isinstance(call.status, CallFailed) else "",
            "batch": call.batch.batch_id if isinstance(call, BatchCall) and call.batch else "",
        }
        for call in found.calls
    ]


def _tokens_in(usage: Any) -> int | None:
    return None if usage is None else usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens


def texts(found: History) -> list[tuple[str, str]]:
    """Its artifacts that are texts for people: name and markdown."""
    shown = []
    for artifact in found.artifacts:
        is_text = artifact.path.suffix == ".md" and not artifact.path.name.startswith("context-")  # what was sent
        if is_text and artifact.size <= LARGEST_TEXT:
            try:
                shown.append((artifact.name, read_file(artifact.path, LARGEST_TEXT).decode(errors="replace")))
            except OSError:
                continue
    return sorted(shown, key=lambda pair: (("plan.md", "review.md").count(pair[0]) == 0, pair[0]))


def log_tail(found: History) -> str:
    """The last lines of its log."""
    try:
        with found.row.seen.paths.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_TAIL))
            text = file.read(LOG_TAIL).decode(errors="replace")
    except OSError:
        return ""
    return text if size <= LOG_TAIL else text.partition("\n")[2]


def next_words_of(row: Row) -> str:
    return what_next(row.life.state, row.record) or ""


# ── beads ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class BeadsPage:
    """The beads of a project, by bucket, in the order of their names. `trouble` says why there is no page."""

    project: str = ""
    projects: Sequence[str] = ()
    columns: dict[str, list[BeadInBucket]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    loop: int | None = None
    by_workers: bool = False
    paused: str | None = None
    breakers: Sequence[tuple[str, str, str]] = ()
    """Of each open one: its name, its state, the reason."""
    spend: str = ""
    trouble: str = ""
    now: float = 0.0


def project_at(folder: Path) -> str | None:
    try:
        return str(find_project(folder))
    except GremlinsError:
        return None


def root_at(folder: Path) -> Path | None:
    try:
        return find_root(folder)
    except GremlinsError:
        return None


def beads_page(home: Home, clock: Clock, project: str | None, projects: Sequence[str]) -> BeadsPage:
    if project is None:
        return BeadsPage(trouble="Start the board in a repository to see its beads.")
    try:
        here = Here.at(Path(project), home, clock)
        with here.store as store:
            return _beads_page(here, store.beads(here.project, Query()), projects)
    except GremlinsError as error:
        return BeadsPage(project, projects, trouble=error.message)


def _beads_page(here: Here, beads: Iterable[Bead], projects: Sequence[str]) -> BeadsPage:
    now = here.clock.now().timestamp()
    placed = list(with_buckets(here.store, here, here.project, here.policy, list(beads), now))
    page = BeadsPage(here.project, projects, now=now)
    page.columns = {bucket: [] for bucket in BUCKETS}
    for one in placed:
        page.counts[one.where.bucket] += 1
        if len(page.columns[one.where.bucket]) < MOST_BEADS:
            page.columns[one.where.bucket].append(one)
    page.columns = {bucket: found for bucket, found in page.columns.items() if found}
    page.loop = loop_pid(loop_lock(here.home, here.project))
    page.by_workers = here.dispatching is not None
    page.paused = here.store.paused(here.project)
    opened = [episode for episode in here.store.episodes(here.project) if episode.open]
    page.breakers = [(title(one.scope), breaker_state([one], now), one.reason) for one in opened]
    return page


def bucket_name(bucket: str) -> str:
    return bucket.replace("_", " ")


def bead_words(placed: BeadInBucket, now: float) -> str:
    return next_words(placed.where, now)


# ── money ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Cap:
    """A cap and how near it is, from 0 to 1000."""

    name: str
    limit: float | None
    day: Day
    reserved: float

    @property
    def spent(self) -> float:
        return self.day.at_most

    @property
    def share(self) -> float:
        return 0.0 if not self.limit else min(1000.0, round(self.spent / self.limit * 1000, 1))

    @property
    def reserved_share(self) -> float:
        return 0.0 if not self.limit else min(1000.0 - self.share, round(self.reserved / self.limit * 1000, 1))


@dataclass(frozen=True)
class MoneyPage:
    """Spending: the sum, bars by key, and the caps."""

    total: Sum
    charts: dict[str, list[Bar]]
    rest: dict[str, int]
    """By key the number of rows that have no bar."""
    today: Cap
    others: Sequence[tuple[str, float | None]]
    problems: int


def money_page(home: Home, clock: Clock) -> MoneyPage:
    lines, problems = all_spending(home)
    lines = list(lines)
    charts, rest = {}, {}
    total = Sum("total")
    for key in ("day", "stage", "model", "gremlin", "bead"):
        rows, total = add_up(lines, key)
        shown = latest_days(rows) if key == "day" else rows[:MOST_BARS]
        charts[key], rest[key] = bars(shown), len(rows) - len(shown)
    assert KEYS.keys() == charts.keys()
    spend = load_settings(None, home, os.environ).settings.spend
    totals = Totals(home)
    totals.refresh()
    today = Cap("per_day", spend.per_day, totals.today(clock.now()), totals.reserved_usd())
    others = [("per_attempt", spend.per_attempt), ("per_bead", spend.per_bead)]
    return MoneyPage(total, charts, rest, today, others, len(problems))
