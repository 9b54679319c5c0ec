"""The process of one step: a gremlin that a worker has taken goes on, from its documents until it parks or ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gremlins.clients.account import find_account
from gremlins.clients.base import Wait
from gremlins.clients.registry import make_client
from gremlins.clock import Clock, rfc3339
from gremlins.cluster.books import ClusterBooks
from gremlins.cluster.database import PATIENCE, ClusterAway, ClusterDb, check_version
from gremlins.cluster.documents import FencedOut, PostgresDocuments
from gremlins.cluster.host_copy import HostCopy, bring, decode_state, kept, lay_out
from gremlins.cluster.rows import AwaitedBatch, Taken, park
from gremlins.config import BatchSettings
from gremlins.errors import GremlinsError, NotReady
from gremlins.files import make_private_dir
from gremlins.paths import LOG, GremlinPaths, Home
from gremlins.processes.children import die_with_parent, holders, signal_process
from gremlins.processes.credentials import take_over
from gremlins.processes.ending import end_worktree_processes
from gremlins.processes.interrupt import Interrupt, InterruptibleClock
from gremlins.processes.locks import GremlinLock
from gremlins.records.gremlin import OVERDUE
from gremlins.records.journal import Journal
from gremlins.records.spend import Owner
from gremlins.repository.remote_work import RemoteTrouble, mirror
from gremlins.runner import Run, put_down_bug

ENDED = 0
FENCED = 76
"""Another process has taken the gremlin."""
CANNOT = 74
"""It could not begin, or go on, on this host: another one may be able to."""
LATER = 75
"""ClusterDb or remote are away: the records stand where they stood."""
LOCK_PATIENCE = 20.0
TRIES = 20
"""Steps in a row that the remote ended, before a person is told."""


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m gremlins.worker.step ID FENCE REMOTE NEEDS CRASHES HOST BEFORE`."""
    gremlin_id, fence, remote, needs, crashes, host, before = argv if argv is not None else sys.argv[1:]
    die_with_parent()
    env = take_over(os.environ)
    home = Home.from_env(env)
    interrupt = Interrupt()
    interrupt.install()
    clock = InterruptibleClock(interrupt)
    taken = Taken(gremlin_id, int(fence), remote, needs, before or None, int(crashes))
    db = ClusterDb(home.cluster, patience=PATIENCE)
    try:
        check_version(db)  # the program may have been upgraded under its worker
        return _step(db, home, taken, host, clock, env, interrupt)
    except ClusterAway as error:
        return _say(error, LATER)
    except RemoteTrouble as error:
        _log(db, taken, clock, _waits_for(error))
        return _say(error, LATER)
    except FencedOut as error:
        return _say(error, FENCED)
    except (GremlinsError, OSError) as error:  # a full disk, a record that this version cannot read
        _log(db, taken, clock, f"a step could not begin on {host}: {error}")
        return _say(error, CANNOT)


def _log(db: ClusterDb, taken: Taken, clock: Clock, line: str) -> None:
    """Tell a person, who looks at the log from any host."""
    with suppress(GremlinsError):
        text = f"{rfc3339(clock.now())}  {' '.join(line.split())}\n"
        PostgresDocuments(db, taken.id, taken.fence).append(LOG, text.encode())


def _waits_for(error: RemoteTrouble) -> str:
    return f"waiting for the remote: {error} ({error.hint})"


def _say(error: BaseException, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)  # noqa: T201 # goes to the process's output file
    return code


def _step(
    db: ClusterDb, home: Home, taken: Taken, host: str, clock: Clock, env: Mapping[str, str], interrupt: Interrupt
) -> int:
    paths, patient = home.gremlin(taken.id), taken.crashes < TRIES
    make_private_dir(paths.root)
    lock = GremlinLock.acquire(paths.lock, "runner", patience=LOCK_PATIENCE)
    lock.sign("runner", os.getpid())
    end_worktree_processes(paths, clock)
    copy = HostCopy(db, taken, Owner(taken.id, ""), lost=lambda error: _end_here(db, taken, clock, paths, error))
    base = _base(copy)
    project = mirror(home, taken.remote, sha256_objects=len(base) == 64)
    record = lay_out(db, home, taken.id, project=project, checkout=None)
    elsewhere = taken.host is not None and taken.host != host
    copy.owner = Owner.of(record)
    say = Journal(paths.log, clock)
    with kept(copy, home):
        try:
            bring(copy, record, Path(record.worktree), elsewhere=elsewhere, say=say)
        except RemoteTrouble as error:
            if patient:
                raise
            say(f"going on without the remote: {error}")
        if elsewhere:
            say(f"taken up on {host}; what was not committed on {taken.host} stays there")
        copy.patient = patient
        run = Run(
            home,
            taken.id,
            lock,
            clock,
            env,
            lambda paths, wait, settings, lock, env: _park(db, taken, clock, paths, wait, settings, env),
            make_client,
            interrupt,
            books=ClusterBooks(db, taken.id),
        )
        try:
            return run.go()
        except Exception as error:
            if isinstance(error, GremlinsError | OSError):
                raise
            return put_down_bug(home, taken.id, lock, clock, env)


def _base(copy: HostCopy) -> str:
    return decode_state(copy.documents.read("state.json"), copy.taken.id).base


def _park(
    db: ClusterDb,
    taken: Taken,
    clock: Clock,
    paths: GremlinPaths,
    wait: Wait,
    settings: BatchSettings,
    env: Mapping[str, str],
) -> None:
    """Say in the row when it goes on. The process then ends: it waits without one."""
    batches = [
        AwaitedBatch(call.batch_id, call.submitted_at)
        for call in wait.calls
        if call.batch_id is not None and call.submitted_at is not None
    ]
    account: str | None = None
    if wait.pollable and batches and len(batches) == len(wait.calls):
        with suppress(NotReady):
            account = find_account(env).fingerprint
    until = wait.until
    if account is not None:  # a poll wakes it; by itself it looks only when the batch should have ended long ago
        until = min((call.expires_at + OVERDUE for call in wait.calls if call.expires_at), default=until)
        until = max(until, wait.until)
    park(db, taken, until, now=clock.now(), account=account, batches=batches if account else ())


def _end_here(db: ClusterDb, taken: Taken, clock: Clock, paths: GremlinPaths, error: GremlinsError | OSError) -> None:
    """Ends its agents, then itself: its words count no more, or cannot be put down."""
    code = FENCED if isinstance(error, FencedOut) else CANNOT if isinstance(error, OSError) else LATER
    if isinstance(error, RemoteTrouble):
        _log(db, taken, clock, _waits_for(error))
    mine = os.getpid()
    for pid in set(holders(paths.work_lock)) - {mine}:
        signal_process(pid, signal.SIGKILL)
    _say(error, code)
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
