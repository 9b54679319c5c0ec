"""The next step for a person, by the state of a gremlin: one sentence, the same wherever it is shown."""

from __future__ import annotations

from collections.abc import Mapping

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


def what_next(state: State, gremlin_id: str) -> str | None:
    """None where there is nothing to do."""
    return _NEXT[state].format(id=gremlin_id) if state in _NEXT else None
