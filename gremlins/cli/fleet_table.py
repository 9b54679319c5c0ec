"""The fleet for people, in groups: first what needs a person. Whole off a terminal, fitted to its width on one."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from gremlins.cli.out import ago, dollars, printable
from gremlins.fleet.status import FleetStatus, Row, branches, next_poll
from gremlins.records.gremlin import Finished, Running, Stopped
from gremlins.records.liveness import ALIVE, State

if TYPE_CHECKING:
    from rich.text import Text

STYLES: Mapping[State, str] = {
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
NEEDS, READY, WORKING, WAITING = "needs you", "ready to land", "working", "waiting"
GROUPS = (NEEDS, READY, WORKING, WAITING, "finished without a change", "stopped", "landed")
"""In the order in which they are shown; an empty one is not."""
NOTHING = "no gremlins to show; `gremlins launch PIPELINE TASK` starts one"


def group_of(row: Row) -> str:
    """The group a gremlin is shown in."""
    status = row.record.status
    match row.life.state:
        case "bailed" | "dead" | "detached" | "stalled":
            return NEEDS
        case "finished":
            ready = isinstance(status, Finished) and status.evidence.kind == "commits"
            return READY if ready else "finished without a change"
        case "parked":
            return WAITING
        case "running" | "stopping":
            return WAITING if isinstance(status, Running) and status.asleep else WORKING
        case other:
            return other


def detail(row: Row, now: datetime) -> str:
    """The detail beside a state: the size of its change, the next poll, the wait, or the reason of its end."""
    status = row.record.status
    if isinstance(status, Stopped):
        return printable(f"by {status.by}: {status.reason or 'no reason given'}")
    if isinstance(status, Finished):
        return diff_of(row) or printable(status.evidence.detail)
    if row.life.state != "parked":
        return printable("; ".join(part for part in (_branches(row), row.life.reason) if part))
    calls = row.seen.outstanding
    if any(call.batch_id is None for call in calls):
        return "looking for a batch it may have sent"
    due = next_poll(row.seen)
    parts = [printable(row.life.reason)] if row.life.reason else []
    parts += [f"{len(calls)} batches"] if len(calls) > 1 else []
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


# ── groups and columns ────────────────────────────────────────────────────────────────────────────────────────────


class Block(NamedTuple):
    """One gremlin: its cells, the style of its state, and the line below, which says what it needs."""

    cells: tuple[str, ...]
    style: str
    below: str = ""


def grouped(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows by group. Within one they keep their order when their states change."""
    found: dict[str, list[Row]] = {name: [] for name in GROUPS}
    for row in rows:
        found[group_of(row)].append(row)
    return {name: members for name, members in found.items() if members}


def repositories(rows: Sequence[Row]) -> dict[str, str]:
    """Projects by a name for people; empty if there is only one."""
    projects = {row.record.project for row in rows}
    if len(projects) < 2:
        return {}
    ends = {path: path.rstrip("/").rpartition("/")[2] for path in projects}
    taken = Counter(ends.values())
    return {path: end if taken[end] == 1 else path for path, end in ends.items()}


def heading(name: str, rows: Sequence[Row]) -> str:
    """The name of a group and the commands for it; a single row's with its id."""
    who = rows[0].record.id if len(rows) == 1 else "ID"
    states = {row.life.state for row in rows}
    commands: list[str] = []
    if name == NEEDS:
        commands += [f"gremlins answer {who} TEXT"] if "bailed" in states else []
        commands += [f"gremlins rescue {who}"] if states - {"bailed"} else []
    if name == READY:
        commands = [f"gremlins diff {who}", f"gremlins land {who}"]
    return " · ".join([name, *commands])


def summary(rows: Sequence[Row]) -> str:
    """`3 gremlins: 1 needs you, 2 working · $0.0105, saved $0.0105`."""
    costs = [row.record.cost for row in rows]
    spent = dollars(sum(c.total_usd for c in costs), sum(c.unpriced_calls + c.unknown_calls for c in costs))
    saved = sum(c.saved_usd for c in costs)
    what = f"{len(rows)} gremlin{'s' if len(rows) != 1 else ''}: {counts(rows)}"
    return f"{what} · {spent}" + (f", saved {dollars(saved)}" if saved else "")


def counts(rows: Iterable[Row]) -> str:
    """`3 need you, 2 working, 40 waiting`."""
    found = Counter(group_of(row) for row in rows)
    return ", ".join(
        f"{found[name]} {'need you' if name == NEEDS and found[name] > 1 else name}" for name in GROUPS if found[name]
    )


def block(row: Row, now: datetime, names: Mapping[str, str], *, wide: bool) -> Block:
    """The cells of a row, as in `COLUMNS`: a narrow one has no state, and its task only where there is no detail."""
    record, more, asks = row.record, detail(row, now), group_of(row) == NEEDS
    stage = record.stage or "-"
    since = ago((now - row.life.since).total_seconds())
    repo = (names[record.project],) if names else ()
    beside = "" if asks else more
    below = (more if wide else f"{row.life.shown}: {more}") if asks else ""
    last = (beside, task_of(row)) if wide else (beside.replace("asks again in", "asks in") or task_of(row),)
    state = (row.life.shown,) if wide else ()
    stage = stage if wide else stage.rpartition("/")[2]
    return Block((record.id, *state, stage, since, cost_of(row), *repo, *last), STYLES[row.life.state], below)


# ── off a terminal ────────────────────────────────────────────────────────────────────────────────────────────────


def lines(fleet: FleetStatus, now: datetime) -> list[str]:
    """Groups of aligned columns, nothing wrapped or cut."""
    if not fleet.rows:
        return [NOTHING]
    names = repositories(fleet.rows)
    groups = grouped(fleet.rows)
    blocks = {name: [block(row, now, names, wide=True) for row in rows] for name, rows in groups.items()}
    every = [found.cells for members in blocks.values() for found in members]
    form = "  " + "  ".join(f"{{:<{max(map(len, column))}}}" for column in zip(*every, strict=True))
    shown = [summary(fleet.rows)]
    for name, members in blocks.items():
        shown += ["", heading(name, groups[name])]
        for found in members:
            shown.append(form.format(*found.cells).rstrip())
            shown += [f"    ↳ {found.below}"] if found.below else []
    return shown


# ── on a terminal ─────────────────────────────────────────────────────────────────────────────────────────────────

WIDE = 110
"""From this width on, the state, the detail and the task have a column each."""


def rich_table(fleet: FleetStatus, now: datetime) -> None:
    """Print the table, as wide as the terminal and as long as it has to be."""
    from gremlins.cli.out import console  # rich: only on a terminal

    screen = console()
    for line in view(fleet, now, screen.width):
        screen.print(line, no_wrap=True, crop=True)


def view(fleet: FleetStatus, now: datetime, width: int, height: int | None = None) -> list[Text]:
    """The groups as lines no wider than `width` cells and, if there is a `height`, no more than that many."""
    from rich.text import Text  # only on a terminal

    if not fleet.rows:
        return _fitted([Text(NOTHING)], width)
    head = [Text(summary(fleet.rows), style="bold")]
    if fleet.unreadable:
        count = len(fleet.unreadable)
        head.append(Text(f"{count} record{'s' if count > 1 else ''} cannot be read: `gremlins doctor`", style="red"))
    body = _body(fleet.rows, now, width)
    room = None if height is None else max(1, height - len(head))
    if room is not None and sum(len(found) for _, found in body) > room:
        body = _shortened(body, room)
    return _fitted([*head, *(line for _, found in body for line in found)], width)


def _body(rows: Sequence[Row], now: datetime, width: int) -> list[tuple[Row | None, list[Text]]]:
    """The lines of each row, and before them, without a row, those of the group's heading."""
    from rich.text import Text  # only on a terminal

    names, wide = repositories(rows), width >= WIDE
    groups = grouped(rows)
    blocks = {row.record.id: block(row, now, names, wide=wide) for row in rows}
    widths = [max(map(len, column)) for column in zip(*(found.cells for found in blocks.values()), strict=True)]
    body: list[tuple[Row | None, list[Text]]] = []
    for name, members in groups.items():
        style = "bold" if name == NEEDS else "dim"
        body.append((None, [Text(), *(Text(line, style=style) for line in _wrapped(heading(name, members), width))]))
        for row in members:
            found = blocks[row.record.id]
            below = _below(found, row.record.id, width, most=None if len(rows) == 1 else MOST_BELOW)
            body.append((row, [_line(found, widths, wide=wide), *below]))
    return body


MOST_BELOW = 6
"""Lines of a question or a reason in a list of several gremlins."""


def _below(found: Block, gremlin_id: str, width: int, *, most: int | None) -> list[Text]:
    """The question or reason of a row, wrapped. A list of several shows the beginning of a long one."""
    from rich.text import Text  # only on a terminal

    shown = _wrapped(f"    ↳ {found.below}", width, indent="      ") if found.below else []
    if most is not None and len(shown) > most:
        shown = [*shown[: most - 1], f"      … `gremlins show {gremlin_id}` has all of it"]
    return [Text(line, style=found.style.removeprefix("bold ")) for line in shown]


def _wrapped(text: str, width: int, *, indent: str = "  ") -> list[str]:
    from rich.cells import cell_len  # only on a terminal

    columns = width if cell_len(text) == len(text) else width // 2
    made = textwrap.TextWrapper(max(columns, 20), subsequent_indent=indent, break_on_hyphens=False)
    return made.wrap(text)


def _line(found: Block, widths: Sequence[int], *, wide: bool) -> Text:
    from rich.text import Text  # only on a terminal

    line = Text("  ")
    for place, (cell, size) in enumerate(zip(found.cells, widths, strict=True)):
        style = found.style if place == (1 if wide else 0) else "dim" if place == len(widths) - 1 else ""
        part = Text(cell, style=style)
        part.truncate(size, pad=True)
        line.append_text(part).append("  ")
    line.rstrip()
    return line


def _shortened(body: list[tuple[Row | None, list[Text]]], room: int) -> list[tuple[Row | None, list[Text]]]:
    """As much as fits: without blank lines, then without the lines below, and at last without the last rows."""
    from rich.text import Text  # only on a terminal

    body = [(row, found if row is not None else found[1:]) for row, found in body]
    if sum(len(found) for _, found in body) > room:
        body = [(row, found[:1]) for row, found in body]
    if len(body) <= room:
        return body
    rest = [row for row, _ in body[room - 1 :] if row is not None]
    return [*body[: room - 1], (None, [Text(f"… and {len(rest)} more: {counts(rest)}", style="dim")])]


def _fitted(lines: list[Text], width: int) -> list[Text]:
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines
