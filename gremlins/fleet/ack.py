"""`ack`: a person accepts a bail, its stage counts as done, and the gremlin goes on with the next."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from gremlins.clock import Clock
from gremlins.errors import Conflict
from gremlins.fleet.advice import what_next
from gremlins.fleet.going_on import go_on
from gremlins.fleet.status import look
from gremlins.outcome import CONFLICT
from gremlins.paths import Home
from gremlins.records.gremlin import Bailed, Gremlin


def acknowledge(home: Home, gremlin_id: str, *, clock: Clock, env: Mapping[str, str]) -> str:
    """Go on after a bail. Returns the stage whose bail was accepted. Raises Conflict for anything but a bail."""
    row = look(home, gremlin_id, clock)
    if not isinstance(row.record.status, Bailed):
        raise Conflict(f"{gremlin_id} is {row.life.shown}: only a bail can be accepted")
    if row.record.status.kind == CONFLICT:
        hint = what_next(row.life.state, row.record)
        raise Conflict(f"{gremlin_id} cannot go on: {row.record.status.detail}", hint=hint)
    stage = row.record.status.stage or row.record.stage
    go_on(home, gremlin_id, _accepted, f"the bail of {stage} was accepted by a person", clock=clock, env=env)
    return stage


def _accepted(record: Gremlin) -> Gremlin:
    if not isinstance(record.status, Bailed):
        raise Conflict(f"{record.id} has gone on meanwhile")
    stage = record.status.stage or record.stage
    runs = tuple(
        replace(run, outcome="acknowledged") if run.path == stage and run.outcome == "bailed" else run
        for run in record.stages
    )
    accepted = record.status.kind == "no_evidence" or record.accepts_no_evidence
    return replace(record, stages=runs, accepts_no_evidence=accepted)
