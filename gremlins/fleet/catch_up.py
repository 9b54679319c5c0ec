"""One more round for a finished change that conflicts at landing: it is merged with the project, then resolved."""

from __future__ import annotations

from msgspec.structs import replace

from gremlins.clock import Clock
from gremlins.fleet.land import landing_place
from gremlins.paths import Home
from gremlins.pipeline.freezing import read_frozen
from gremlins.processes.locks import GremlinLock
from gremlins.records.gremlin import Finished, Queued, Remark, Revision, RunStore
from gremlins.records.journal import Journal
from gremlins.repository.git import Git, some_of
from gremlins.repository.merging import merge_with_markers
from gremlins.stages.spec import AddressCode, walk

TIMES = 2
"""Rounds of this kind for one change; then a person decides."""
REMARK = """While this change was made, the project went on. Both are merged now, and in this file they conflict: both
versions stand there between the markers <<<<<<<, ======= and >>>>>>>, this change first. Resolve every conflict: keep
what the project does by now, make this change work with it, and remove the markers."""


def catch_up(home: Home, gremlin_id: str, *, clock: Clock) -> bool:
    """Record the round; a process that is started then does it. False: a person decides, nothing is changed."""
    store, paths = RunStore(home, clock), home.gremlin(gremlin_id)
    with GremlinLock.acquire(paths.lock, "keeper", clock=clock) as lock:
        record = store.read(gremlin_id)
        rounds = sum(revision.onto is not None for revision in record.revisions)
        has_stage = any(isinstance(spec, AddressCode) for _, spec in walk(read_frozen(paths.frozen).pipeline.stages))
        if not isinstance(record.status, Finished) or rounds >= TIMES or not has_stage:
            return False
        git = Git(landing_place(record, None))
        tip, onto = git.commit(f"refs/heads/{record.branch}"), git.head()
        common = git.merge_base(tip, onto)
        found = merge_with_markers(git, tip, onto)
        if found is None or not found[1] or common is None or not git.is_ancestor(record.base, common):
            return False
        remarks = tuple(Remark(REMARK, path=path) for path in found[1])
        revision = Revision(remarks=remarks, at=clock.now(), onto=onto)
        status = Queued(since=clock.now())
        store.write(replace(record, status=status, ended_at=None, revisions=(*record.revisions, revision)), lock)
        conflicts = f"its change conflicts with {onto[:12]} in {some_of(found[1])}"
        Journal(paths.log, clock)(f"{conflicts}; both are merged, and it resolves that in one more round")
    return True
