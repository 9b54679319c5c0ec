"""A gremlin that is over goes on because a person decided something: the record first, then a new process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec.structs import replace

from gremlins.clock import Clock
from gremlins.cluster.hands import at_hand
from gremlins.paths import Home
from gremlins.pipeline.freezing import read_frozen
from gremlins.processes.ending import end_worktree_processes
from gremlins.processes.locks import GremlinLock
from gremlins.processes.spawn import spawn_runner
from gremlins.records.gremlin import Gremlin, Queued, RunStore
from gremlins.records.journal import Journal
from gremlins.records.persons_words import write_words
from gremlins.records.stop_request import clear_stop
from gremlins.repository.folder import refuse_lost
from gremlins.repository.git import Git
from gremlins.repository.worktree import Worktree
from gremlins.stages.revision import round_name


def go_on(
    home: Home,
    gremlin_id: str,
    decide: Callable[[Gremlin], Gremlin],
    line: str,
    *,
    clock: Clock,
    env: Mapping[str, str],
) -> Gremlin:
    """Write what `decide` makes of the record, and start a process. Raises what `decide` raises, nothing changed then.

    A process that dies in between leaves a gremlin that `rescue` takes up, the decision on record.
    """
    with at_hand(home, gremlin_id, clock):
        return _go_on(home, gremlin_id, decide, line, clock, env)


def _go_on(
    home: Home, gremlin_id: str, decide: Callable[[Gremlin], Gremlin], line: str, clock: Clock, env: Mapping[str, str]
) -> Gremlin:
    store, paths = RunStore(home, clock), home.gremlin(gremlin_id)
    lock = GremlinLock.acquire(paths.lock, "keeper", clock=clock)
    try:
        record = decide(find_worktree(store.read(gremlin_id), home))
        frozen = read_frozen(paths.frozen)
        end_worktree_processes(paths, clock)
        clear_stop(paths)  # one that came while it was ending
        status = Queued(since=clock.now())
        record = store.write(replace(record, spawn=record.spawn + 1, status=status, ended_at=None), lock)
        write_words(paths, record, round_name(frozen.pipeline.stages))
        Journal(paths.log, clock)(line)
        spawn_runner(paths, lock, env)
    except BaseException:  # Ctrl-C too: a lock of this process would look like a gremlin at work
        lock.release()
        raise
    return record


def find_worktree(record: Gremlin, home: Home) -> Gremlin:
    """The record with its worktree where the state root is now. Raises Conflict where its process would end at once."""
    worktree = home.worktree(record.id)
    if record.branch:
        repo = Path(record.project)
        refuse_lost(Worktree(repo, worktree, record.branch, record.base))
        if record.worktree != str(worktree) and worktree.is_dir():
            Git(repo).attempt("worktree", "repair", str(worktree))
    return replace(record, worktree=str(worktree))
