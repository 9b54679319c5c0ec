"""`gremlins cost`: what it has cost, removed gremlins included."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from gremlins.cli.out import columns, dollars, dump, note, say
from gremlins.paths import Home
from gremlins.records.spend import all_spending

if TYPE_CHECKING:
    from gremlins.errors import CorruptRecord
    from gremlins.records.spend import SpendLine


@dataclass
class Sum:
    """Lines added up. Calls of unknown cost are counted, never taken for free."""

    key: str
    calls: int = 0
    total_usd: float = 0.0
    batch_usd: float = 0.0
    live_usd: float = 0.0
    saved_usd: float = 0.0
    wasted_usd: float = 0.0
    unpriced_calls: int = 0
    unknown_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def add(self, line: SpendLine) -> None:
        if line.unknown:  # its tokens are only the most it can have been
            self.unknown_calls += 1
            self.calls += not line.send
            return
        self.calls += not line.wasted
        self.input_tokens += line.input_tokens
        self.output_tokens += line.output_tokens
        if line.usd is None:
            self.unpriced_calls += 1
            return
        self.total_usd += line.usd
        self.saved_usd += line.saved_usd
        if line.mode == "batch":
            self.batch_usd += line.usd
        else:
            self.live_usd += line.usd
        if line.wasted:
            self.wasted_usd += line.usd

    def as_json(self) -> dict[str, Any]:
        return {name: round(value, 10) if isinstance(value, float) else value for name, value in vars(self).items()}


KEYS: dict[str, Callable[[SpendLine], str]] = {
    "gremlin": lambda line: line.gremlin_id,
    "stage": lambda line: re.sub(r"\[\d+\]", "", line.stage),
    "model": lambda line: line.model or "(unknown)",
    "day": lambda line: f"{line.at:%Y-%m-%d}",
    "bead": lambda line: line.bead_id or "(none)",
}


def cost(
    by: str = typer.Option(
        "gremlin",
        "--by",
        metavar="|".join(KEYS),
        help="Add up by this; days are UTC.",
        autocompletion=lambda: list(KEYS),
    ),
    json: bool = typer.Option(False, "--json", help="One JSON document."),
) -> int:
    """Add up what it has cost. Removed gremlins count; calls of unknown price are shown, not taken for free."""
    if by not in KEYS:
        raise typer.BadParameter(f"is one of {', '.join(KEYS)}", param_hint="--by")
    lines, problems = _spending(Home.from_env())
    rows, total = add_up(lines, by)
    for problem in problems:
        note(f"warning: {problem.message}")
    if json:
        whole = total.as_json()
        del whole["key"]
        dump({"by": by, **whole, "rows": [row.as_json() for row in rows]})
        return 0
    if not rows:
        say("nothing has been spent")
        return 0
    for line in table([*rows, total], by):
        say(line)
    if total.unpriced_calls:
        say(f"? {total.unpriced_calls} of the calls have no known price; what they cost comes on top")
    if total.unknown_calls:
        sends = f"{total.unknown_calls} send{'s' if total.unknown_calls > 1 else ''}"
        say(f"? {sends} may have been billed and cannot be looked up; the Anthropic Console lists them")
    return 0


def _spending(home: Home) -> tuple[list[SpendLine], list[CorruptRecord]]:
    if home.cluster:
        from gremlins.cluster.books import spending

        return spending(home), []
    return all_spending(home)


def add_up(lines: Iterable[SpendLine], by: str) -> tuple[list[Sum], Sum]:
    """The sums by key, the dearest first (days in their order), and the sum of all."""
    key, sums, total = KEYS[by], dict[str, Sum](), Sum("total")
    for line in lines:
        name = key(line)
        sums.setdefault(name, Sum(name)).add(line)
        total.add(line)
    rows = sorted(sums.values(), key=lambda row: (0.0 if by == "day" else -row.total_usd, row.key))
    return rows, total


def table(rows: Iterable[Sum], by: str) -> list[str]:
    """Aligned columns, the figures to the right."""
    header = (by.upper(), "COST", "BATCH", "LIVE", "SAVED", "CALLS", "TOKENS IN", "OUT")
    cells = [
        (
            row.key,
            dollars(row.total_usd, row.unpriced_calls + row.unknown_calls),
            dollars(row.batch_usd),
            dollars(row.live_usd),
            dollars(row.saved_usd),
            f"{row.calls}",
            f"{row.input_tokens:,}",
            f"{row.output_tokens:,}",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [header, *cells]) for i in range(len(header))]
    shift = [
        [line[0], *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))] for line in cells
    ]
    head = [header[0], *(name.rjust(width) for name, width in zip(header[1:], widths[1:], strict=True))]
    return columns(shift, head)
