"""`rescue`: what is dead, detached, bailed, stopped or stalled goes on from the stage it was in, paying for nothing
again."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from gremlins.clients.account import find_account
from gremlins.clients.key_proof import sees_batch
from gremlins.clients.transport import ApiFailure
from gremlins.clock import Clock
from gremlins.cluster.hands import at_hand
from gremlins.config import load_settings
from gremlins.errors import Conflict, GremlinsError, NotReady
from gremlins.files import make_private_dir, sweep_drafts
from gremlins.fleet.going_back import go_back
from gremlins.fleet.going_on import find_worktree
from gremlins.fleet.status import Row, look
from gremlins.fleet.stop import await_stop, request_stop
from gremlins.outcome import KEEPS_ATTEMPT
from gremlins.paths import GremlinPaths, Home
from gremlins.pipeline.freezing import FrozenLaunch, read_frozen, with_commands_of_now, write_frozen
from gremlins.processes.ending import end_worktree_processes
from gremlins.processes.locks import GremlinLock
from gremlins.processes.spawn import spawn_runner
from gremlins.records.calls import BatchCall, CallFailed, Ledger
from gremlins.records.gremlin import Bailed, FailedGremlin, Gremlin, Queued, RunStore, StageRun
from gremlins.records.liveness import RESCUABLE
from gremlins.records.stop_request import StopRequest, clear_stop, read_stop, write_stop
from gremlins.repository.folder import remove
from gremlins.repository.git import Git
from gremlins.repository.trust import check_trust
from gremlins.repository.worktree import SIDE, Worktree, side_worktrees
from gremlins.stages.revision import round_name
from gremlins.stages.spec import children

LOOKS = 3
"""For a batch: one answer that it is not there may be a gateway's own."""
PAUSE = 0.5
"""Seconds between them."""


@dataclass(frozen=True)
class Rescue:
    """The result of a rescue."""

    id: str
    found: str
    detail: str


def rescue(
    home: Home,
    gremlin_id: str,
    *,
    clock: Clock,
    env: Mapping[str, str],
    from_stage: str | None = None,
    follow_unseen: bool = False,
    tell: Callable[[str], None] = lambda _line: None,
) -> Rescue:
    """Bring a gremlin back. Raises Conflict when its state does not allow it; nothing is touched then.

    from_stage: ask this stage and all after it anew. `tell` hears what may be paid twice, before anything is done.
    follow_unseen: the loop has no other key, so its gremlin asks for a while about a batch that this key does not see.
    """
    row = look(home, gremlin_id, clock)
    refuse_unless_rescuable(row, restart=from_stage is not None)
    if row.life.state == "stalled":
        _stop_stalled(home, gremlin_id, clock, env)
    with at_hand(home, gremlin_id, clock):
        detail = _rescued(home, gremlin_id, clock, env, from_stage, follow_unseen=follow_unseen, tell=tell)
    return Rescue(gremlin_id, row.life.shown, detail)


def _rescued(
    home: Home,
    gremlin_id: str,
    clock: Clock,
    env: Mapping[str, str],
    from_stage: str | None,
    *,
    follow_unseen: bool,
    tell: Callable[[str], None],
) -> str:
    """Bring it back under its lock. Returns what was found."""
    paths = home.gremlin(gremlin_id)
    try:
        lock = GremlinLock.acquire(paths.lock, "keeper", clock=clock)
    except Conflict:
        raise Conflict(f"{gremlin_id} is being rescued by another process") from None
    try:
        again = look(home, gremlin_id, clock)
        if again.life.state not in (RESCUABLE | {"finished"} if from_stage else RESCUABLE):
            refuse_unless_rescuable(again, restart=from_stage is not None)
        detail = _revive(home, gremlin_id, lock, clock, env, from_stage, follow_unseen=follow_unseen, tell=tell)
        spawn_runner(paths, lock, env)
    except BaseException:  # Ctrl-C too: a lock of this process would look like a gremlin at work
        lock.release()
        raise
    return detail


def refuse_unless_rescuable(row: Row, *, restart: bool = False) -> None:
    """Raises Conflict with what to do instead."""
    state, gremlin_id = row.life.state, row.record.id
    if state in RESCUABLE or (restart and state == "finished"):
        return
    hints = {
        "running": f"`gremlins log {gremlin_id} -f` follows it, `gremlins stop {gremlin_id}` ends it",
        "parked": "it waits on its batch and is well; it goes on by itself when the batch ends",
        "stopping": f"wait until it has stopped: `gremlins status {gremlin_id}`",
        "finished": f"`gremlins land {gremlin_id}` lands it; `gremlins rescue {gremlin_id} --from STAGE` redoes a part",
        "landed": "its work is in your branch",
    }
    raise Conflict(f"{gremlin_id} is {state}: there is nothing to rescue", hint=hints.get(state))


def _stop_stalled(home: Home, gremlin_id: str, clock: Clock, env: Mapping[str, str]) -> None:
    request = partial(request_stop, home, gremlin_id, by="rescue", why="it had stalled", clock=clock, env=env)
    request()
    result = await_stop(home, gremlin_id, clock=clock, wait=30.0, env=env, renew=request)
    if result.verdict == "pending":
        raise Conflict(
            f"{gremlin_id} has stalled and does not stop (pid {result.row.life.pid})",
            hint=f"end it with `kill -9 {result.row.life.pid}`, then rescue it again",
        )


def _revive(
    home: Home,
    gremlin_id: str,
    lock: GremlinLock,
    clock: Clock,
    env: Mapping[str, str],
    from_stage: str | None,
    *,
    follow_unseen: bool,
    tell: Callable[[str], None],
) -> str:
    """Everything that must be true before a new process may start. Returns what was found, in words."""
    store = RunStore(home, clock)
    record, paths = store.read(gremlin_id), home.gremlin(gremlin_id)
    frozen = read_frozen(paths.frozen)
    record = find_worktree(record, home)
    ledger = Ledger(paths)
    calls = ledger.batch_calls()
    open_calls = [call for call in calls if not call.settled]
    unseen = _unseen(open_calls, env, frozen, clock)
    if from_stage is not None:
        doubts = list(_may_be_paid_twice(calls, unseen, record, _again(record, frozen, from_stage)))
        if doubts:
            tell(f"{gremlin_id}: may be paid for twice: {', '.join(doubts)}")
    elif unseen and not follow_unseen:
        _refuse_unseen(gremlin_id, unseen[0])
    end_worktree_processes(paths, clock)
    for folder in (paths.calls, paths.artifacts):  # not its own folder: others write their wish to stop there
        sweep_drafts(folder)
    detail = _found(open_calls, record)
    if from_stage is not None:
        record = restart_from(record, frozen, from_stage, clock)
        forget_progress(record, paths, frozen, from_stage, clock)
        if open_calls:
            why = f"started again from {from_stage}"
            stop = StopRequest(by="rescue", why=why, at=clock.now(), then_resume=True, give_up=True)
            write_stop(paths, stop)
        detail = f"starting again from {from_stage}"
    else:
        record = _next_attempt(record, calls)
    _keep_or_clear_stop(paths, open_calls)
    record = replace(record, spawn=record.spawn + 1, status=Queued(since=clock.now()), ended_at=None)
    current, changes = _with_commands_of_now(frozen, record, home, env)
    if current is not frozen:
        write_frozen(paths.frozen, current)
    store.write(record, lock)
    return detail + changes


def _with_commands_of_now(
    frozen: FrozenLaunch, record: Gremlin, home: Home, env: Mapping[str, str]
) -> tuple[FrozenLaunch, str]:
    """The launch with `verify`, `worktree.*` and the pipeline's commands as they are now, and in words what that
    changes. What shaped a paid call stays as it was."""
    if Path(record.project).is_relative_to(home.mirrors):
        return frozen, ""  # a mirror has no files to read them from
    try:
        check_trust(record.tree, Path(record.project), home)
        now = load_settings(record.tree, home, env).settings
    except GremlinsError as error:
        return frozen, f"; commands and settings stay as they were: {error.message}"
    try:
        (pipeline, words), kept = with_commands_of_now(frozen.pipeline), ""
    except GremlinsError as error:
        (pipeline, words), kept = (frozen.pipeline, []), f"; the pipeline stays as it was: {error.message}"
    known = frozen.settings
    changed = [name for name in ("verify", "worktree") if getattr(now, name) != getattr(known, name)]
    words += [f"verify = {list(now.verify)}"] if "verify" in changed else []
    words += ["worktree settings"] if "worktree" in changed else []
    if not words:
        return frozen, kept
    settings = known.model_copy(update={name: getattr(now, name) for name in changed})
    current = frozen.model_copy(update={"settings": settings, "pipeline": pipeline})
    return current, f"; as they are now: {', '.join(words)}{kept}"


def _keep_or_clear_stop(paths: GremlinPaths, open_calls: list[BatchCall]) -> None:
    """A stop that was never settled is settled first, then the gremlin goes on."""
    stop = read_stop(paths)
    if stop is None or stop.then_resume:
        return
    if open_calls:
        write_stop(paths, StopRequest(by=stop.by, why=stop.why, at=stop.at, then_resume=True))
    else:
        clear_stop(paths)


def _unseen(open_calls: list[BatchCall], env: Mapping[str, str], frozen: FrozenLaunch, clock: Clock) -> list[BatchCall]:
    """The calls whose batch the present key does not see, looked for before anything changes.

    Raises NotReady without a key, or with one that is refused, while anything is or may be outstanding.
    """
    if not any(call.outstanding for call in open_calls):
        return []
    account, timeout = find_account(env), frozen.settings.batch.http_timeout

    def sees(batch_id: str) -> bool:
        for number in range(LOOKS):
            if number:
                clock.sleep(PAUSE)
            if sees_batch(account, batch_id, timeout=timeout):
                return True
        return False

    unseen: list[BatchCall] = []
    for call in open_calls:
        with contextlib.suppress(ApiFailure):  # network errors prove nothing
            if call.batch is not None and not sees(call.batch.batch_id):
                unseen.append(call)
    return unseen


def _refuse_unseen(gremlin_id: str, call: BatchCall) -> None:
    assert call.batch is not None
    raise NotReady(
        f"this key cannot see the outstanding batch {call.batch.batch_id}: it is of another workspace, or was deleted",
        hint=f"use a key of the workspace it was sent from; nothing was sent or changed. If there is none: `gremlins "
        f"rescue {gremlin_id} --from {call.key.top_stage}` asks anew, `gremlins rm --force {gremlin_id}` removes it",
    )


def _may_be_paid_twice(
    calls: list[BatchCall], unseen: list[BatchCall], record: Gremlin, again: list[str]
) -> Iterator[str]:
    """The calls that are asked anew although they may have been billed already."""
    for call in calls:
        if call.key.top_stage not in again or call.key.attempt != record.attempt_of(call.key.stage):
            continue
        if call.batch is not None and (call in unseen or (call.cost is not None and call.cost.unknown)):
            yield call.batch.batch_id
        elif not call.settled and call.maybe_sent:
            yield f"a send of {call.key.stage} that is looked for first"
        if call.unknown_sends:
            yield f"{call.unknown_sends} of the sends of {call.key.stage}"


def _next_attempt(record: Gremlin, calls: list[BatchCall]) -> Gremlin:
    """Another attempt of the stage begins only after a bail or a failure of class task, with nothing outstanding.

    So does one of every other branch that did not end well at its side. A call that may have been billed keeps its
    attempt: it is looked for once more, and never asked anew by a plain rescue.
    """
    match record.status:
        case Bailed(stage=stage):
            pass
        case FailedGremlin(stage=stage, failure=failure) if failure not in KEEPS_ATTEMPT and failure != "canceled":
            pass
        case _:
            return record
    if any(not call.settled for call in calls):
        return record
    undecided = [f"{call.key.stage}/" for call in calls if _is_undecided(call, record)]
    again = dict.fromkeys((stage, *record.broken_stages()))
    kept = {path for path in again if any(label.startswith(f"{path}/") for label in undecided)}
    raised = {path: record.attempt_of(path) + 1 for path in again if path not in kept}
    return replace(record, attempts={**record.attempts, **raised})


def _is_undecided(call: BatchCall, record: Gremlin) -> bool:
    """True if the present attempt ended because this call may have been billed."""
    now = call.key.attempt == record.attempt_of(call.key.stage)
    return now and isinstance(call.status, CallFailed) and call.status.undecided


def _again(record: Gremlin, frozen: FrozenLaunch, stage: str) -> list[str]:
    """This stage and all after it. Raises GremlinsError if there is no such stage."""
    order = _order(record, frozen)
    if stage not in order:
        raise GremlinsError(f"this gremlin has no stage `{stage}`", hint="it has: " + ", ".join(order))
    return order[order.index(stage) :]


def restart_from(record: Gremlin, frozen: FrozenLaunch, stage: str, clock: Clock) -> Gremlin:
    """Forget that a stage and all after it were done, so that they are asked anew."""
    again = _again(record, frozen, stage)
    attempts = dict(record.attempts)
    for name in again:
        if any(run.path == name or run.path.startswith((f"{name}/", f"{name}[")) for run in record.stages):
            attempts = {path: n for path, n in attempts.items() if not path.startswith((f"{name}/", f"{name}["))}
            attempts[name] = record.attempt_of(name) + 1
    kept: tuple[StageRun, ...] = tuple(
        run for run in record.stages if run.path.split("/")[0].partition("[")[0] not in again
    )
    return replace(record, attempts=attempts, stages=kept, stage=stage)


def _order(record: Gremlin, frozen: FrozenLaunch) -> list[str]:
    """The names of the stages, and of the rounds of revision after them."""
    stages = frozen.pipeline.stages
    return [*(spec.name for spec in stages), *([round_name(stages)] if record.revisions else [])]


def forget_progress(record: Gremlin, paths: GremlinPaths, frozen: FrozenLaunch, stage: str, clock: Clock) -> None:
    """Put aside what rounds and branches of an earlier run left behind, lest their decisions be taken for new ones."""
    order = _order(record, frozen)
    holders = [spec for spec in frozen.pipeline.stages[order.index(stage) :] if children(spec)]
    if not holders:
        return
    go_back(record, holders, paths, clock)
    _forget_starts(record, [spec.name for spec in holders])
    aside = paths.artifacts / "before" / f"spawn-{record.spawn}"
    for entry in _of_rounds_and_branches(paths, [spec.name for spec in holders]):
        make_private_dir(aside)
        entry.rename(aside / entry.name)


def _forget_starts(record: Gremlin, names: list[str]) -> None:
    """Forget where rounds and branches began; an unmerged branch is kept under a ref of its own."""
    worktree = Worktree(Path(record.project), Path(record.worktree), record.branch, record.base)
    git, own = Git(worktree.repo), f"refs/gremlins/{record.id}"
    for side in side_worktrees(worktree):
        if (tip := git.try_commit(side.ref)) is not None:
            kept = f"{own}/before/spawn-{record.spawn}/{side.branch.rpartition(SIDE)[2]}"
            git.update_ref(kept, tip, reason="gremlins: a branch that was started again")
        remove(side, delete_branch=True)
    for ref in git.text("for-each-ref", "--format=%(refname)", "refs/gremlins/").split():
        label = ref.removeprefix(f"{own}/start/") if ref.startswith(f"{own}/start/") else ""
        ours = any(label == name or label.startswith((f"{name}=", f"{name}+")) for name in names)
        if ours or (ref.startswith(f"{own}{SIDE}") and "/start/" in ref):
            git.delete_ref(ref)


def _of_rounds_and_branches(paths: GremlinPaths, names: list[str]) -> list[Path]:
    """Folders of rounds (`loop-2`) and branches (`parallel`), and the plans that go from round to round."""
    if not paths.artifacts.is_dir():
        return []
    shared = {"rolling-plan.md", "last-child-plan.md"}
    return [
        entry
        for entry in sorted(paths.artifacts.iterdir())
        if entry.name in shared
        or (entry.is_dir() and any(re.fullmatch(rf"{re.escape(name)}(-\d+)?", entry.name) for name in names))
    ]


def _found(open_calls: list[BatchCall], record: Gremlin) -> str:
    ids = [call.batch.batch_id for call in open_calls if call.batch is not None]
    if ids:
        return f"taking up {', '.join(ids)} again"
    if any(call.maybe_sent for call in open_calls):
        return "looking for a batch it may have sent"
    return f"going on in {record.stage or 'its first stage'}"
