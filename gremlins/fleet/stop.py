"""`stop`: the request on disk, then SIGTERM, then SIGKILL; without a process, one that settles the stop."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from gremlins.clock import Clock
from gremlins.cluster.hands import request_stop as request_in_cluster
from gremlins.errors import Conflict
from gremlins.fleet.status import Row, look
from gremlins.paths import Home
from gremlins.processes.children import signal_process
from gremlins.processes.ending import end_worktree_processes
from gremlins.processes.locks import GremlinLock, work_lock_is_free
from gremlins.processes.spawn import spawn_runner
from gremlins.records.calls import Ledger
from gremlins.records.stop_request import StopRequest, read_stop, write_stop

UNDER_WAY = ("running", "parked", "stalled", "stopping", "detached")
LOOK_EVERY = 0.03
LOOK_IN_CLUSTER = 0.5
LOCK_PATIENCE = 5.0
"""Seconds for the lock of a process that was just killed to become free."""
START_PATIENCE = 20.0
"""Seconds for a process that settles a stop to come up and end, beyond what the API takes."""


@dataclass(frozen=True)
class StopResult:
    """The result of a stop. `pending`: asked for, not ended yet; `row` is its present state."""

    id: str
    verdict: Literal["stopped", "over", "pending"]
    row: Row

    @property
    def pending_on(self) -> str:
        """The parts that have not ended yet."""
        waits = getattr(self.row.record.status, "calls", ())
        return self.row.life.reason or ("its batch has not ended yet" if waits else "its process has not ended yet")


def request_stop(
    home: Home, gremlin_id: str, *, by: str, why: str, clock: Clock, env: Mapping[str, str], give_up: bool = False
) -> bool:
    """Ask for a stop. False when the gremlin is over already. Raises NotFound, CorruptRecord.

    give_up: book what cannot be followed at an unknown cost, rather than leave it outstanding.
    """
    row = look(home, gremlin_id, clock)
    if home.cluster:
        return _request_elsewhere(home, row, StopRequest(by=by, why=why, at=clock.now(), give_up=give_up))
    if row.life.state == "dead":
        _end_what_is_left(home, gremlin_id, clock)
    if row.life.state not in UNDER_WAY:
        return False
    write_stop(row.seen.paths, StopRequest(by=by, why=why, at=clock.now(), give_up=give_up))
    if not _signal(home, gremlin_id, clock):
        _settle_in_its_place(home, gremlin_id, clock, env)
    return True


def _request_elsewhere(home: Home, row: Row, stop: StopRequest) -> bool:
    """The same in a cluster: a worker carries it out."""
    if row.life.state not in UNDER_WAY:
        return False
    request_in_cluster(home, row.record.id, stop)
    return True


def _signal(home: Home, gremlin_id: str, clock: Clock) -> bool:
    """Signal the gremlin's process with SIGTERM. True if it was sent, or the gremlin has ended meanwhile."""
    deadline = clock.monotonic() + START_PATIENCE
    while True:
        row = look(home, gremlin_id, clock)
        if row.seen.holder is None or row.seen.holder.role != "runner":
            return row.record.over()
        if row.life.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(row.life.pid, signal.SIGTERM)
            return True
        if clock.monotonic() > deadline:
            return True  # it is starting, and will read the intention
        clock.sleep(LOOK_EVERY)


def _end_what_is_left(home: Home, gremlin_id: str, clock: Clock) -> None:
    """An agent or command that outlived its gremlin is ended with it. Raises Conflict when it will not go."""
    paths = home.gremlin(gremlin_id)
    if work_lock_is_free(paths.work_lock):
        return
    try:
        lock = GremlinLock.acquire(paths.lock, "keeper", clock=clock)
    except Conflict:
        return  # a rescue holds it, and settles the stop first
    with lock:
        end_worktree_processes(paths, clock)


def _settle_in_its_place(home: Home, gremlin_id: str, clock: Clock, env: Mapping[str, str]) -> None:
    """Without a process: start one that cancels and books, exactly as the gremlin's own would have."""
    paths = home.gremlin(gremlin_id)
    try:
        lock = GremlinLock.acquire(paths.lock, "runner", clock=clock, patience=LOCK_PATIENCE)
    except Conflict:
        return  # a runner holds it now, and reads the request; or a rescue, and `await_stop` sees how that ends
    try:
        end_worktree_processes(paths, clock)
        spawn_runner(paths, lock, env)
    except BaseException:  # Ctrl-C too: a lock of this process would look like a gremlin at work
        lock.release()
        raise


def await_stop(
    home: Home,
    gremlin_id: str,
    *,
    clock: Clock,
    wait: float,
    env: Mapping[str, str],
    renew: Callable[[], object] | None = None,
) -> StopResult:
    """Wait until a requested stop is settled, at most `wait` seconds. A process that has not begun by then is killed,
    and a new one settles the stop, within START_PATIENCE seconds.

    `renew` asks once more: a rescue at the same moment may have taken the wish for one of long ago, settled it, and
    gone on; or no process is left to settle it, because the one that had the lock was a rescue that was refused, or a
    waiter whose program is gone.
    """
    if home.cluster:
        return _await_elsewhere(home, gremlin_id, clock, wait)
    deadline, killed = clock.monotonic() + wait, False
    while True:
        row = look(home, gremlin_id, clock)
        if row.record.over() and row.seen.holder is None:
            return StopResult(gremlin_id, "stopped" if row.life.state == "stopped" else "over", row)
        wish, is_alone = read_stop(row.seen.paths), row.seen.holder is None
        is_late = clock.monotonic() >= deadline
        if renew is not None and not is_late and (wish is None or wish.then_resume or is_alone):
            renew()
            renew = None if is_alone else renew  # one more process, and no third
        elif is_late or is_alone:  # no process, no use in waiting
            if killed or not _hangs(row):
                return StopResult(gremlin_id, "pending", row)
            signal_process(row.life.pid or 0, signal.SIGKILL)
            _settle_in_its_place(home, gremlin_id, clock, env)
            deadline, killed = clock.monotonic() + START_PATIENCE, True
        clock.sleep(LOOK_EVERY)


def _await_elsewhere(home: Home, gremlin_id: str, clock: Clock, wait: float) -> StopResult:
    """The same in a cluster, where nothing here can be killed."""
    deadline = clock.monotonic() + wait
    while not (row := look(home, gremlin_id, clock)).record.over() and clock.monotonic() < deadline:
        clock.sleep(LOOK_IN_CLUSTER)
    over = row.record.over()
    return StopResult(gremlin_id, ("stopped" if row.life.state == "stopped" else "over") if over else "pending", row)


def _hangs(row: Row) -> bool:
    """True if the gremlin's process lives and has not asked for the end of any batch: it does not react."""
    calls = Ledger(row.seen.paths).outstanding()
    is_runner = row.seen.holder is not None and row.seen.holder.role == "runner" and row.life.pid is not None
    return is_runner and not any(call.cancel_requested for call in calls)
