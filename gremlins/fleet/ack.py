"""`ack`: a person accepts a bail, its stage counts as done, and the gremlin goes on with the next."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from gremlins.clock import Clock
from gremlins.errors import Conflict
from gremlins.fleet.status import look
from gremlins.paths import Home
from gremlins.processes.ending import end_worktree_processes
from gremlins.processes.locks import GremlinLock
from gremlins.processes.spawn import spawn_runner
from gremlins.records.gremlin import Bailed, Gremlin, Queued, RunStore
from gremlins.records.journal import Journal
from gremlins.records.stop_request import clear_stop


def acknowledge(home: Home, gremlin_id: str, *, clock: Clock, env: Mapping[str, str]) -> str:
    """Go on after a bail. Returns the stage whose bail was accepted. Raises Conflict for anything but a bail."""
    row = look(home, gremlin_id, clock)
    if row.life.state != "bailed":
        raise Conflict(f"{gremlin_id} is {row.life.shown}: only a bail can be accepted")
    store, paths = RunStore(home, clock), home.gremlin(gremlin_id)
    lock = GremlinLock.acquire(paths.lock, "keeper", clock=clock)
    try:
        record = store.read(gremlin_id)
        if not isinstance(record.status, Bailed):
            raise Conflict(f"{gremlin_id} has gone on meanwhile")
        end_worktree_processes(paths, clock)
        clear_stop(paths)  # one that came while it was bailing
        stage = record.status.stage or record.stage
        store.write(_accepted(record, stage, clock), lock)
        Journal(paths.log, clock)(f"the bail of {stage} was accepted by a person")
        spawn_runner(paths, lock, env)
    except BaseException:
        lock.release()
        raise
    return stage


def _accepted(record: Gremlin, stage: str, clock: Clock) -> Gremlin:
    assert isinstance(record.status, Bailed)
    runs = tuple(
        replace(run, outcome="acknowledged") if run.path == stage and run.outcome == "bailed" else run
        for run in record.stages
    )
    accepted = record.status.kind == "no_evidence" or record.accepts_no_evidence
    return replace(
        record,
        stages=runs,
        spawn=record.spawn + 1,
        status=Queued(since=clock.now()),
        ended_at=None,
        accepts_no_evidence=accepted,
    )
