"""Decides whether a bead may start now; if not, why and until when.

Pure. The loop and the verbs that show beads use the same checks in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, assert_never, get_args

from gremlins.fleet.beads.attempts import (
    Attempt,
    Episode,
    Work,
    charged,
    due,
    eligible_at,
    gremlin_to_rescue,
    last_failure,
)
from gremlins.fleet.dispatch import breaker
from gremlins.fleet.dispatch.breaker import HalfOpen, Open
from gremlins.fleet.dispatch.judge import Judgement, Reattach, Respawn, Watch, judge, worked_seconds
from gremlins.fleet.dispatch.observation import Observation
from gremlins.fleet.dispatch.spending import room_to_start
from gremlins.fleet.dispatch.world import World
from gremlins.fleet.times import text_of

Bucket = Literal[
    "ready", "blocked", "deferred", "backing_off", "held", "denied", "starting", "running", "parked",
    "closed", "failed",
]  # fmt: skip
"""The bucket of a bead. `denied`: a breaker is open."""
BUCKETS: tuple[Bucket, ...] = get_args(Bucket)

How = Literal["fresh", "rescue", "reattach", "respawn"]


@dataclass(frozen=True)
class Admit:
    """The bead may start now. `probe_for`: the half-open breakers whose probe it becomes."""

    how: How
    gremlin_id: str | None = None
    probe_for: tuple[Episode, ...] = ()


@dataclass(frozen=True)
class Standing:
    """The bucket of a bead, why it is there, and its next change (at `until`, if known)."""

    bucket: Bucket
    reason: str
    next: str
    until: float | None = None
    hold: str | None = None
    """Kind of a hold that is not stored: a cap, credit, or another person's claim."""


def admit(work: Work, world: World) -> Admit | Standing:
    """Decide whether and how a process may start for a bead now. Every spawn passes here."""
    attempt = work.unsettled
    if attempt is not None:
        return _under_way(work, attempt, world)
    for check in _CHECKS:
        denied = check(work, world)
        if denied is not None:
            return denied
    gremlin_id = None if work.id in world.outdated else gremlin_to_rescue(work)
    probe_for = _probe_for(world)
    if gremlin_id is not None and world.seen.get(gremlin_id) is not None:
        return Admit("rescue", gremlin_id, probe_for)
    return Admit("fresh", None, probe_for)


def _under_way(work: Work, attempt: Attempt, world: World) -> Admit | Standing:
    """A bead with an unsettled attempt: its gremlin works, has ended, or needs a process."""
    judgement = judge(attempt, world.seen.get(attempt.gremlin_id), world.now, world.policy)
    if work.terminal or not isinstance(judgement, Respawn | Reattach):
        return _terminal(work, world) or _at_work(work, attempt, judgement, world)
    how: How = "respawn" if isinstance(judgement, Respawn) else "reattach"
    seen = world.seen.get(attempt.gremlin_id)
    checks = [_held]
    if seen is None or not (seen.state == "detached" or seen.caught_up):  # else it is paid for, so it goes on
        checks.append(_blocked)
    checks += [_breaker, _paused]
    if how == "reattach":  # a claimed start is counted already
        checks.append(_spawn_cap)
    if takes_slot(seen):
        checks.append(_slots)
    for check in checks:
        denied = check(work, world)
        if denied is not None:
            return denied
    probe_for = tuple(e for e in _probe_for(world) if e.probe != attempt.key)
    return Admit(how, attempt.gremlin_id, probe_for)


def takes_slot(seen: Observation | None) -> bool:
    """True if its process works once it is started: it has no batch to wait for."""
    return seen is None or seen.state != "detached"


def _at_work(work: Work, attempt: Attempt, judgement: Judgement, world: World) -> Standing:
    seen = world.seen.get(attempt.gremlin_id)
    who = f"gremlin {attempt.gremlin_id}"
    if work.done_and is not None and work.hold is not None and (seen is None or not seen.alive):
        then = "the loop lands it when the tree allows" if work.done_and == "to_land" else "a person decides"
        return Standing("held", work.hold.reason, then)
    if seen is None or not seen.alive:
        if isinstance(judgement, Watch):
            return Standing("held", f"{who}: {judgement.reason}", "a person looks at it (`gremlins doctor`)")
        return Standing("running", f"{who} has ended", "the next tick of `gremlins dispatch` settles it", world.now)
    if seen.state == "parked":
        return Standing("parked", f"{who} waits for a batch", "it goes on when the batch has ended")
    if attempt.ending is not None:
        until = attempt.ending.at + world.policy.kill_after
        return Standing("running", f"{who} was asked to end: {attempt.ending.reason}", "it is killed", until)
    left = world.now + max(0.0, world.policy.deadline - worked_seconds(attempt, seen, world.now))
    stage = f" at stage {seen.stage}" if seen.stage else ""
    return Standing("running", f"{who} works{stage}", "it ends, or reaches dispatch.deadline", left)


def _terminal(work: Work, world: World) -> Standing | None:
    if work.status == "closed":
        return Standing("closed", "it is closed", "nothing; `bead reopen` opens it again")
    if work.status == "failed":
        failure = last_failure(work)
        reason = failure.settled.reason if failure is not None and failure.settled else "it failed"
        if (count := charged(work, world.episodes)) > 1:
            reason = f"failed after {count} charged attempts, the last: {reason}"
        return Standing("failed", reason, f"nothing; `gremlins bead retry {work.id}` starts it over")
    return None


def _held(work: Work, world: World) -> Standing | None:
    if work.hold is None:
        return None
    if work.hold.kind == "not_work":
        return Standing("held", work.hold.reason, "nothing")
    release = "retry" if work.hold.kind in ("spawn_cap", "host") else "release"
    return Standing("held", work.hold.reason, f"nothing before `gremlins bead {release} {work.id}`")


def _claimed(work: Work, world: World) -> Standing | None:
    if work.status != "in_progress":
        return None
    who = f"claimed by {work.assignee}" if work.assignee else "in progress elsewhere"
    return Standing("held", who, f"nothing before they close it, or `gremlins bead release {work.id}`", hold="claimed")


def _deferred(work: Work, world: World) -> Standing | None:
    if work.defer_at is not None and work.defer_at > world.now:
        when = text_of(work.defer_at)
        return Standing("deferred", f"deferred until {when}", "it becomes ready", work.defer_at)
    if work.status == "deferred" and work.defer_at is None:
        return Standing("deferred", "deferred", f"nothing before `gremlins bead update {work.id} -s open`")
    return None


def _blocked(work: Work, world: World) -> Standing | None:
    return (
        Standing("blocked", "a blocker is not closed", "it becomes ready when they are closed")
        if work.blocked
        else None
    )


def waits_for_code(work: Work, world: World) -> Standing | None:
    """Its blockers are closed, and their work cannot be started from yet."""
    start = world.starts.get(work.id)
    if start is None:
        return None
    if start.conflict is not None:
        then = "it goes on by itself once they have landed or can be merged"
        return Standing("held", start.conflict, then, hold="start")
    if start.unlanded and world.policy.start_from == "landed":
        names = ", ".join(start.unlanded)
        then = f"ready when landed: `gremlins land {start.unlanded[0]}`"
        return Standing("blocked", f"needs the work of {names}, which HEAD does not have (dispatch.start_from)", then)
    return None


def _rescued(work: Work, world: World) -> Standing | None:
    latest = work.latest
    seen = world.seen.get(latest.gremlin_id) if latest is not None else None
    if latest is None or seen is None or not was_rescued(latest, seen):
        return None
    bucket: Bucket = "parked" if seen.state == "parked" else "running"
    return Standing(bucket, f"gremlin {latest.gremlin_id} was rescued", "the next tick follows it", world.now)


def was_rescued(latest: Attempt, seen: Observation) -> bool:
    """True if a person rescued the gremlin of a failed attempt, or it has finished since."""
    if latest.settled is None or not latest.settled.failed:
        return False
    if seen.alive or seen.state == "landed":
        return True
    return seen.state == "finished" and latest.settled.failure != "task"


def _retry_cap(work: Work, world: World) -> Standing | None:
    count = charged(work, world.episodes)
    if count < world.policy.retry_cap:
        return None
    return Standing("held", f"{count} charged attempts", "the next tick marks it as failed", world.now)


def _spawn_cap(work: Work, world: World) -> Standing | None:
    if work.spawns < world.policy.spawn_cap:
        return None
    reason = f"spawned {work.spawns} times without an end"
    return Standing("held", reason, f"nothing before `gremlins bead retry {work.id}`")


def _money(work: Work, world: World) -> Standing | None:
    capped = room_to_start(work, world.day, world.expected_usd, world.now, world.policy)
    if capped is None:
        return None
    then = "the day ends" if capped.until is not None else f"{capped.cap} is raised"
    return Standing("held", capped.reason, f"it waits until {then}", capped.until, hold="spend")


def backs_off(work: Work, world: World) -> Standing | None:
    """It waits after a failure; something else may keep it from starting too."""
    policy = world.policy
    moment = eligible_at(work, initial=policy.backoff_initial, maximum=policy.backoff_max)
    failure = last_failure(work)
    if moment is None or failure is None or failure.settled is None or due(moment, failure.settled.at, world.now):
        return None
    reason = f"attempt {failure.number} failed ({failure.settled.failure}): {failure.settled.reason}"
    return Standing("backing_off", reason, f"it is tried again at {text_of(moment)}", moment)


def _breaker(work: Work, world: World) -> Standing | None:
    attempt = work.unsettled
    episodes = [e for e in world.episodes if attempt is None or e.probe != attempt.key]
    state = breaker.gate(episodes, world.scopes, world.now)
    if not isinstance(state, Open):
        return None
    failure = last_failure(work)
    credit = state.cause == "credit" and failure is not None and failure.settled and failure.settled.failure == "credit"
    if credit and failure is not None and failure.settled:
        then = "a probe shows that there is credit again, or `gremlins dispatch breaker reset`"
        return Standing("held", failure.settled.reason, then, state.until, hold="credit")
    then = "its probe ends" if state.until is None else "one probe goes first"
    return Standing("denied", state.reason, then, state.until)


def _paused(work: Work, world: World) -> Standing | None:
    return _would_start(work, world, f"dispatch is paused: {world.paused}") if world.paused else None


def _slots(work: Work, world: World) -> Standing | None:
    policy = world.policy
    if world.working >= policy.max_running:
        return _would_start(work, world, f"all slots are taken: {world.working} of {policy.max_running} at work")
    if world.parked >= policy.max_parked:
        return _would_start(work, world, f"all parking places are taken: {world.parked} of {policy.max_parked}")
    return None


def _would_start(work: Work, world: World, why: str) -> Standing:
    """The bead is ready; only the loop's own limits are in its way."""
    if work.unsettled is not None:
        starting = takes_slot(world.seen.get(work.unsettled.gremlin_id))
        return Standing("starting" if starting else "parked", why, "its gremlin is started")
    return Standing("ready", why, "a gremlin is started for it")


_CHECKS: tuple[Callable[[Work, World], Standing | None], ...] = (
    _terminal, _held, _claimed, _rescued, _deferred, _blocked, waits_for_code, _retry_cap, _spawn_cap, _money,
    _breaker, backs_off, _paused, _slots,
)  # fmt: skip


def start_words(work: Work, world: World) -> str:
    """From what it starts, if that is not simply HEAD."""
    start = world.starts.get(work.id)
    return f", from the work of {', '.join(start.unlanded)}" if start is not None and start.unlanded else ""


def _probe_for(world: World) -> tuple[Episode, ...]:
    state = breaker.gate([e for e in world.episodes if e.probe is None], world.scopes, world.now)
    return state.episodes if isinstance(state, HalfOpen) else ()


def standing(work: Work, world: World) -> Standing:
    """The bucket of a bead, also if it may start now."""
    decision = admit(work, world)
    match decision:
        case Standing():
            return decision
        case Admit("respawn" | "reattach", gremlin_id):
            seen = world.seen.get(gremlin_id or "")
            if not takes_slot(seen):
                reason = f"gremlin {gremlin_id}: a batch is outstanding and no process is there"
                return Standing("parked", reason, "the next tick re-attaches it", world.now)
            if seen is not None and seen.caught_up:
                reason = f"gremlin {gremlin_id}: its finished change is to be brought up to date"
            else:
                reason = "claimed; its gremlin is not there yet"
            return Standing("starting", reason, "the next tick starts it", world.now)
        case Admit("rescue" | "fresh") if world.fault is not None:
            return Standing("ready", world.fault, "it waits for that")
        case Admit("rescue"):
            return Standing("ready", "nothing is in the way", f"gremlin {decision.gremlin_id} is rescued")
        case Admit("fresh"):
            return Standing("ready", "nothing is in the way", f"a gremlin is started for it{start_words(work, world)}")
        case Admit():
            raise AssertionError(decision.how)
        case _:
            assert_never(decision)
