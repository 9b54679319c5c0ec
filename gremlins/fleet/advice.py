"""The next step for a person, by the state of a gremlin: one sentence, the same wherever it is shown."""

from __future__ import annotations

from collections.abc import Mapping

from gremlins.outcome import CONFLICT, UNKNOWN_COST
from gremlins.records.gremlin import Bailed, Gremlin
from gremlins.records.liveness import State

_NEXT: Mapping[State, str] = {
    "bailed": "`gremlins answer {id} TEXT` asks the stage again with your answer, `gremlins rescue {id}` asks it again "
    "as it is, `gremlins ack {id}` accepts the bail and goes on with the next stage",
    "dead": "`gremlins rescue {id}` goes on where it was",
    "detached": "`gremlins rescue {id}` takes the batch up again, `gremlins stop {id}` cancels it",
    "stalled": "`gremlins rescue {id}` ends the silent process and goes on",
    "stopped": "`gremlins rescue {id}` goes on where it was",
    "finished": "`gremlins diff {id}` shows the change, `gremlins land {id}` brings it onto your branch, "
    "`gremlins revise {id} TEXT` sends it back with remarks",
}


_OF_UNKNOWN_COST = (
    "`gremlins rescue {id}` looks once more and sends nothing, `gremlins rescue {id} --from STAGE` asks anew and may "
    "pay twice, `gremlins ack {id}` goes on without it"
)


_OF_CONFLICT = (
    "`gremlins answer {id} TEXT` asks the stage again with your answer; or resolve it in its worktree, commit there, "
    "and `gremlins rescue {id}` goes on"
)
_OF_BAILS = {UNKNOWN_COST: _OF_UNKNOWN_COST, CONFLICT: _OF_CONFLICT}


def what_next(state: State, record: Gremlin) -> str | None:
    """None where there is nothing to do."""
    status = record.status
    of_bail = _OF_BAILS.get(status.kind) if isinstance(status, Bailed) else None
    sentence = of_bail or _NEXT.get(state)
    return sentence.format(id=record.id) if sentence is not None else None
