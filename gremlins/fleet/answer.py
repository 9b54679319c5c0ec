"""`answer`: a person answers what a gremlin bailed with; the stage that asked is asked again with both."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from gremlins.clock import Clock
from gremlins.cluster.hands import at_hand
from gremlins.errors import Conflict
from gremlins.fleet.advice import what_next
from gremlins.fleet.going_on import go_on
from gremlins.fleet.rescue import forget_progress, restart_from
from gremlins.fleet.status import Row, look
from gremlins.outcome import UNKNOWN_COST
from gremlins.paths import Home
from gremlins.pipeline.freezing import FrozenLaunch, read_frozen
from gremlins.records.gremlin import Answered, Bailed, Gremlin


def question_of(row: Row) -> str:
    """The question of a bailed gremlin. Raises Conflict for any other."""
    status = row.record.status
    if not isinstance(status, Bailed):
        raise Conflict(
            f"{row.record.id} is {row.life.shown}: it asks nothing",
            hint=f"`gremlins show {row.record.id}` says what can be done with it",
        )
    if status.kind == UNKNOWN_COST:
        raise Conflict(
            f"{row.record.id} asks nothing: a call of it may have been billed, and an answer would send it again",
            hint=what_next(row.life.state, row.record),
        )
    return f"{status.kind}: {status.detail}"


def answer(home: Home, gremlin_id: str, text: str, *, clock: Clock, env: Mapping[str, str]) -> str:
    """Keep question and answer, and go on with the stage that asked. Returns its path. Raises Conflict."""
    question_of(look(home, gremlin_id, clock))
    with at_hand(home, gremlin_id, clock):
        return _answered(home, gremlin_id, text, clock, env)


def _answered(home: Home, gremlin_id: str, text: str, clock: Clock, env: Mapping[str, str]) -> str:
    paths = home.gremlin(gremlin_id)
    frozen = read_frozen(paths.frozen)

    def decide(record: Gremlin) -> Gremlin:
        if not isinstance(record.status, Bailed):
            raise Conflict(f"{gremlin_id} has gone on meanwhile")
        stage = _asked_by(record, record.status, frozen)
        question = f"{record.status.kind}: {record.status.detail}"
        said = Answered(stage=stage, question=question, answer=text, at=clock.now())
        if record.status.kind == "no_evidence":
            forget_progress(record, paths, frozen, stage, clock)
            record = restart_from(record, frozen, stage, clock)
        else:
            # Of this stage only: other branches that bailed repeat their questions from their records, unpaid.
            record = replace(record, attempts={**record.attempts, stage: record.attempt_of(stage) + 1})
        return replace(record, answers=(*record.answers, said))

    record = go_on(
        home, gremlin_id, decide, "a person answered; the stage that asked is asked again", clock=clock, env=env
    )
    return record.answers[-1].stage


def _asked_by(record: Gremlin, status: Bailed, frozen: FrozenLaunch) -> str:
    """The path of the stage to be asked again: after `no_evidence`, the first one that owed a change."""
    if status.kind != "no_evidence":
        return status.stage or record.stage
    stages = frozen.pipeline.stages
    return next((stage.name for stage in stages if stage.owes_commits), stages[-1].name)
