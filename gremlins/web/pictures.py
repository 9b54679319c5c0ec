"""The drawings of the board: lanes of time, and bars of money. Shares of a width from 0 to 1000."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gremlins.cli.cost import Sum
from gremlins.cli.out import ago, dollars
from gremlins.fleet.history import History
from gremlins.records.calls import BatchCall
from gremlins.records.gremlin import StageRun
from gremlins.records.liveness import ALIVE

WIDTH = 1000.0
THINNEST = 3.0
"""A moment of work beside hours of waiting is still seen."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a lane: `kind` is work, parked or waiting."""

    kind: str
    x: float
    width: float
    title: str


@dataclass
class Lane:
    """A stage or branch in time."""

    path: str
    outcome: str
    seconds: float
    pieces: list[Piece] = field(default_factory=list)

    @property
    def depth(self) -> int:
        return self.path.count("/")

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def lanes(found: History) -> list[Lane]:
    """A gremlin's life, a lane for each stage, in the order in which they began."""
    record = found.record
    alive = found.row.life.state in ALIVE
    end = found.now if alive else record.ended_at or record.updated_at
    scale = _Scale(record.created_at, max(end, record.updated_at))
    made: dict[str, Lane] = {}
    latest: dict[str, StageRun] = {}
    for run in record.stages:
        lane = made.setdefault(run.path, Lane(run.path, "", 0.0))
        before = latest.get(run.path)
        if before is not None and before.ended_at is not None:
            lane.pieces.append(scale.piece("waiting", before.ended_at, run.started_at, "for a person"))
        over = run.ended_at or end
        kind = "waiting" if run.type.startswith("wait_") else "work"
        lane.pieces.append(scale.piece(kind, run.started_at, over, kind))
        lane.outcome = run.outcome or (found.row.life.shown if alive else "unfinished")
        lane.seconds += (over - run.started_at).total_seconds()
        latest[run.path] = run
    for call in found.calls:
        if isinstance(call, BatchCall) and call.batch is not None and (lane_of := _lane(made, call.key.stage)):
            over = call.batch.ended_at or (found.now if call.outstanding else end)
            lane_of.pieces.append(scale.piece("parked", call.batch.submitted_at, over, f"parked on {call.key}"))
    return list(made.values())


def _lane(made: dict[str, Lane], stage: str) -> Lane | None:
    """The innermost stage that a call belongs to."""
    while stage and stage not in made:
        stage = stage.rpartition("/")[0]
    return made.get(stage)


@dataclass(frozen=True)
class _Scale:
    start: datetime
    end: datetime

    def piece(self, kind: str, since: datetime, until: datetime, what: str) -> Piece:
        whole = max((self.end - self.start).total_seconds(), 1e-3)
        x = max(0.0, (since - self.start).total_seconds()) / whole * WIDTH
        seconds = max(0.0, (until - since).total_seconds())
        x = min(x, WIDTH - THINNEST)
        width = max(THINNEST, min(seconds / whole * WIDTH, WIDTH - x))
        return Piece(kind, round(x, 1), round(width, 1), f"{what}: {ago(seconds)}")


@dataclass(frozen=True)
class Bar:
    """A sum as a bar: what batches cost, what live calls cost, and what the batch price saved."""

    label: str
    batch: float
    live: float
    saved: float
    shown: str
    more: str


def bars(rows: Sequence[Sum]) -> list[Bar]:
    """Bars to one scale, what was saved included."""
    longest = max((row.total_usd + row.saved_usd for row in rows), default=0.0) or 1.0
    return [_bar(row, longest) for row in rows]


def _bar(row: Sum, longest: float) -> Bar:
    def share(usd: float) -> float:
        return round(usd / longest * WIDTH, 1)

    calls = (
        f"{row.calls} call{'' if row.calls == 1 else 's'}, {row.input_tokens:,} tokens in, {row.output_tokens:,} out"
    )
    saved = f", saved {dollars(row.saved_usd)}" if row.saved_usd else ""
    shown = dollars(row.total_usd, row.unpriced_calls + row.unknown_calls)
    return Bar(row.key, share(row.batch_usd), share(row.live_usd), share(row.saved_usd), shown, calls + saved)


def latest_days(rows: Iterable[Sum], most: int = 30) -> list[Sum]:
    """The last days on which something was spent, newest first."""
    return sorted(rows, key=lambda row: row.key, reverse=True)[:most]
