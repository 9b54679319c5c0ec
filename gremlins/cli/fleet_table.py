"""The fleet for people: plain columns off a terminal, a table that fits on one. What needs a person comes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from gremlins.cli.out import ago, columns, dollars, printable
from gremlins.fleet.status import FleetStatus, Row, branches, next_poll
from gremlins.records.gremlin import Stopped
from gremlins.records.liveness import ALIVE

if TYPE_CHECKING:
    from rich.text import Text

NEEDS_A_PERSON = ("bailed", "dead", "detached", "stalled", "stopped")
ORDER = (*NEEDS_A_PERSON, "stopping", "running", "parked", "finished", "landed")
STYLES = {
    "bailed": "bold red",
    "dead": "bold red",
    "detached": "bold yellow",
    "stalled": "bold yellow",
    "stopped": "yellow",
    "stopping": "magenta",
    "running": "green",
    "parked": "cyan",
    "finished": "bold green",
    "landed": "dim",
}
NOTHING = "no gremlins to show; `gremlins launch PIPELINE TASK` starts one, `gremlins status --all` shows finished ones"
_RANK = {state: rank for rank, state in enumerate(ORDER)}


def by_urgency(rows: Iterable[Row]) -> list[Row]:
    """Rows that need a person first, then running, parked and over; in each group in their order."""
    return sorted(rows, key=lambda row: _RANK[row.life.state])


def needs_a_person(row: Row) -> bool:
    return row.life.state in NEEDS_A_PERSON


def detail(row: Row, now: datetime) -> str:
    """The detail beside a state: the next poll, the wait, or the reason of its end."""
    if isinstance(status := row.record.status, Stopped):
        return printable(f"by {status.by}: {status.reason or 'no reason given'}")
    if row.life.state != "parked":
        return printable("; ".join(part for part in (_branches(row), row.life.reason) if part))
    calls = row.seen.outstanding
    if any(call.batch_id is None for call in calls):
        return "looking for a batch it may have sent"
    due = next_poll(row.seen)
    parts = [f"{len(calls)} batches"] if len(calls) > 1 else []
    parts += [shown] if (shown := _branches(row)) else []
    if due is not None:
        left = (due - now).total_seconds()
        parts.append(f"asks again in {ago(left)}" if left >= 1 else "asks now")
    return ", ".join(parts)


def _branches(row: Row) -> str:
    """`branches: 2 parked, 1 done`, where branches are side by side."""
    if row.life.state not in ALIVE:
        return ""
    counts = Counter(branch["state"] for branch in branches(row))
    found = ", ".join(f"{count} {state}" for state, count in counts.items())
    return f"branches: {found}" if counts else ""


def task_of(row: Row) -> str:
    """The gremlin's task, and its bead."""
    title = printable(row.record.title or row.record.task)
    return f"{row.record.bead_id}: {title}" if row.record.bead_id else title


def cost_of(row: Row) -> str:
    cost = row.record.cost
    return dollars(cost.total_usd, cost.unpriced_calls + cost.unknown_calls)


def diff_of(row: Row) -> str | None:
    """`3 files, +12 −4`; None where it is unknown or there is none."""
    diff = row.record.diff
    if diff is None or not diff.files:
        return None
    return f"{diff.files} file{'s' if diff.files != 1 else ''}, +{diff.added} −{diff.deleted}"


# ── off a terminal ────────────────────────────────────────────────────────────────────────────────────────────────


def lines(fleet: FleetStatus, now: datetime) -> list[str]:
    """Aligned columns, nothing wrapped or cut."""
    if not fleet.rows:
        return [NOTHING]
    rows = [
        (
            row.record.id,
            row.life.shown,
            row.record.stage or "-",
            row.record.mode or "-",
            ago((now - row.life.since).total_seconds()),
            cost_of(row),
            task_of(row),
            detail(row, now),
        )
        for row in by_urgency(fleet.rows)
    ]
    return columns(rows, ("ID", "STATE", "STAGE", "MODE", "FOR", "COST", "TASK", "DETAIL"))


# ── on a terminal ─────────────────────────────────────────────────────────────────────────────────────────────────


def rich_table(fleet: FleetStatus, now: datetime) -> None:
    """Print the table, as wide as the terminal and as long as it has to be."""
    from gremlins.cli.out import console  # rich: only on a terminal

    screen = console()
    for line in view(fleet, now, screen.width):
        screen.print(line, no_wrap=True, crop=True)


def view(fleet: FleetStatus, now: datetime, width: int, height: int | None = None) -> list[Text]:
    """The table as lines no wider than `width` cells and, if there is a `height`, no more than that many."""
    from rich.text import Text  # only on a terminal

    if not fleet.rows:
        return _fitted([Text(NOTHING)], width)
    rows = by_urgency(fleet.rows)
    head = [_summary(rows)]
    if fleet.unreadable:
        count = len(fleet.unreadable)
        head.append(Text(f"{count} record{'s' if count > 1 else ''} cannot be read: `gremlins doctor`", style="red"))
    room = None if height is None else max(1, height - len(head) - 1)
    asking = sum(map(needs_a_person, rows))
    layout = _Layout(rows, now, width, reasons_below=room is None or len(rows) + asking <= room or asking * 4 <= room)
    body = [layout.row(row) for row in rows]
    if room is not None and sum(map(len, body)) > room:
        kept = _that_fit(body, room - 1)
        body = [*body[:kept], [Text(f"… and {len(rows) - kept} more: {_counts(rows[kept:])}", style="dim")]]
    return _fitted([*head, layout.header(), *(line for lines in body for line in lines)], width)


def _that_fit(blocks: Sequence[Sequence[object]], room: int) -> int:
    """Number of blocks of lines that fit, from the first on."""
    used = 0
    for count, block in enumerate(blocks):
        used += len(block)
        if used > room:
            return count
    return len(blocks)


def _fitted(lines: list[Text], width: int) -> list[Text]:
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines


def _counts(rows: Sequence[Row]) -> str:
    """`3 need you, 2 running, 40 parked`."""
    found = Counter("need you" if needs_a_person(row) else row.life.state for row in rows)
    order = ("need you", *ORDER)
    return ", ".join(f"{found[name]} {name}" for name in order if found[name])


def _summary(rows: Sequence[Row]) -> Text:
    from rich.text import Text  # only on a terminal

    costs = [row.record.cost for row in rows]
    spent = dollars(sum(c.total_usd for c in costs), sum(c.unpriced_calls + c.unknown_calls for c in costs))
    saved = sum(c.saved_usd for c in costs)
    what = f"{len(rows)} gremlin{'s' if len(rows) != 1 else ''}: {_counts(rows)}"
    return Text(f"{what} · {spent}" + (f", saved {dollars(saved)}" if saved else ""), style="bold")


def shortened(gremlin_id: str, width: int) -> str:
    """An id that fits: its end stays, which tells it from others of the same task, and of its beginning what can."""
    tail = 5
    if len(gremlin_id) <= width or width <= tail + 1:
        return gremlin_id
    return f"{gremlin_id[: width - tail - 1]}…{gremlin_id[-tail:]}"


class _Layout:
    """Column widths for these rows on a screen of this width. Reasons have lines of their own, or a column."""

    GAP = 2
    WIDE = 110
    """From here on the task and the detail have a column each."""

    def __init__(self, rows: Sequence[Row], now: datetime, width: int, *, reasons_below: bool) -> None:
        self.now = now
        self.wide = width >= self.WIDE
        self.reasons_below = reasons_below
        self.cells = {row.record.id: self._cells(row) for row in rows}
        self.names = ("ID", "STATE", "STAGE", "FOR", "COST")
        caps = (40, 24, 24, 7, 10) if self.wide else (20 if width >= 80 else 14, 12, 12, 7, 9)
        natural = [max(len(cells[i]) for cells in [self.names, *self.cells.values()]) for i in range(len(caps))]
        self.widths = [min(size, cap) for size, cap in zip(natural, caps, strict=True)]
        left = max(0, width - sum(self.widths) - self.GAP * len(caps))
        if self.wide:
            details = max([len(self._detail(row)) for row in rows], default=0)
            self.widths.append(min(max(details, len("DETAIL")), left // 2))
            left -= self.widths[-1] + self.GAP
        self.widths.append(left)

    def _cells(self, row: Row) -> tuple[str, ...]:
        stage, shown = row.record.stage or "-", row.life.shown
        return (
            row.record.id,
            shown if self.wide else shown.replace("dead:signal ", "dead:"),
            stage if self.wide else stage.rpartition("/")[2],
            ago((self.now - row.life.since).total_seconds()),
            cost_of(row),
        )

    def _detail(self, row: Row) -> str:
        """The cell beside the state: nothing where the reason has a line of its own."""
        if needs_a_person(row) and self.reasons_below:
            return ""
        text = detail(row, self.now)
        return text if self.wide else text.replace("asks again in", "asks in")

    def header(self) -> Text:
        names = [*self.names, *(("DETAIL", "TASK") if self.wide else ("DETAIL",))]
        return self._joined(names, [""] * len(names), base="dim")

    def row(self, row: Row) -> list[Text]:
        """One line; a second one with the reason where a person is needed."""
        from rich.text import Text  # only on a terminal

        style, asks = STYLES[row.life.state], needs_a_person(row)
        title = task_of(row)
        last = [self._detail(row), title] if self.wide else [self._detail(row) or title]
        styles = ["bold" if asks else "", style, "", "", "", *([""] if self.wide else []), "dim"]
        gremlin_id, *cells = self.cells[row.record.id]
        found = [self._joined([shortened(gremlin_id, self.widths[0]), *cells, *last], styles, base="")]
        more = detail(row, self.now)
        if self.reasons_below and asks and more:
            found.append(Text(f"  ↳ {more}", style=style.removeprefix("bold ")))
        return found

    def _joined(self, cells: Sequence[str], styles: Sequence[str], base: str) -> Text:
        from rich.text import Text  # only on a terminal

        line = Text(style=base)
        for cell, style, width in zip(cells, styles, self.widths, strict=True):
            part = Text(cell, style=style)
            part.truncate(width, overflow="ellipsis", pad=True)
            line.append_text(part).append(" " * self.GAP)
        line.rstrip()
        return line
