"""`revise`: a finished gremlin gets one more round on a person's remarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from gremlins.clock import Clock
from gremlins.errors import Conflict
from gremlins.fleet.going_on import go_on
from gremlins.fleet.status import Row, look
from gremlins.paths import Home
from gremlins.records.gremlin import Finished, Gremlin, Remark, Revision


def refuse_unless_revisable(row: Row) -> None:
    """Raises Conflict for a gremlin that is not finished, or has landed."""
    if not isinstance(row.record.status, Finished):
        raise Conflict(
            f"{row.record.id} is {row.life.shown}: only what has finished and not landed can be revised",
            hint=f"`gremlins show {row.record.id}` says what can be done with it",
        )


def revise(home: Home, gremlin_id: str, remarks: Sequence[Remark], *, clock: Clock, env: Mapping[str, str]) -> int:
    """Keep the remarks and go on with a round for them. Returns its number. Raises Conflict."""
    refuse_unless_revisable(look(home, gremlin_id, clock))

    def decide(record: Gremlin) -> Gremlin:
        if not isinstance(record.status, Finished):
            raise Conflict(f"{gremlin_id} has gone on meanwhile")
        return replace(record, revisions=(*record.revisions, Revision(remarks=tuple(remarks), at=clock.now())))

    count = len(remarks)
    line = f"a person made {count} remark{'s' if count != 1 else ''}; one more round"
    return len(go_on(home, gremlin_id, decide, line, clock=clock, env=env).revisions)
