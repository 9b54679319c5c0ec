"""Keeps beads up to date when a person rescues or removes a gremlin, or retries its bead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gremlins.clock import Clock
from gremlins.errors import Conflict
from gremlins.fleet.beads.attempts import Attempt, AttemptKind, Settlement, Work
from gremlins.fleet.beads.store.interface import BeadStore, MoveBead, SettleAttempt, StoreChange
from gremlins.fleet.beads.store.opened import may_have_beads, open_store
from gremlins.fleet.dispatch import plan
from gremlins.fleet.dispatch.judge import judge
from gremlins.fleet.dispatch.observation import Observation, ObservedState
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.times import text_of
from gremlins.paths import Home

TRIES = 20
"""Lost compare-and-swaps before a verb gives up."""
IDLE_TIMEOUT = 360.0
RESCUABLE: frozenset[ObservedState] = frozenset({"dead", "unborn", "detached", "bailed", "stopped", "stalled"})


def adopt(
    home: Home,
    gremlin_id: str,
    clock: Clock,
    *,
    restart: bool = False,
    went_on: bool = False,
    kind: AttemptKind = "adopted",
) -> None:
    """Add an attempt to the gremlin's bead before a person brings the gremlin back, so that the loop follows it.

    restart: the rescue starts from a stage, which a finished gremlin allows too. went_on: it is back already; the loop
    may have settled the attempt in the same moment. Does nothing if the gremlin has no bead or cannot be rescued.
    Raises Conflict if the bead has a newer attempt.
    """
    if not may_have_beads(home):
        return
    from gremlins.fleet.dispatch.cluster_observer import observer_of  # slow to import

    with open_store(home) as store:
        for _ in range(TRIES):
            attempt = store.attempt_of(gremlin_id)
            seen = observer_of(home, clock, IDLE_TIMEOUT).observe(gremlin_id) if attempt is not None else None
            if attempt is None or seen is None:
                return
            if seen.state not in RESCUABLE and not went_on and not (restart and seen.state == "finished"):
                return
            if _adopt(store, attempt, seen, clock.now().timestamp(), kind):
                return
    raise Conflict(f"the bead of {gremlin_id} is being changed by others all the time", hint="try again")


def _adopt(store: BeadStore, attempt: Attempt, seen: Observation, now: float, kind: AttemptKind) -> bool:
    """False if the bead was changed meanwhile."""
    work = store.work(attempt.project, attempt.bead_id)
    if work is None:
        return True
    latest = work.latest
    if latest is not None and latest.gremlin_id != attempt.gremlin_id:
        raise Conflict(
            f"{attempt.gremlin_id}: its bead {work.id} has gone on to attempt {latest.number}",
            hint=f"that is gremlin {latest.gremlin_id}; `gremlins bead show {work.id}` shows its attempts",
        )
    if work.unsettled is not None or work.status == "closed":
        return True
    return store.commit(*plan.adopt_changes(work, attempt, seen, now, kind=kind))


def settle_attempt(home: Home, gremlin_id: str, clock: Clock) -> None:
    """Settle the gremlin's attempt as the loop would, before the gremlin is removed."""
    if not may_have_beads(home):
        return
    from gremlins.fleet.dispatch.cluster_observer import observer_of  # slow to import

    now = clock.now().timestamp()
    with open_store(home) as store:
        for _ in range(TRIES):
            attempt = store.attempt_of(gremlin_id)
            if attempt is None or attempt.settled is not None:
                return
            seen = observer_of(home, clock, IDLE_TIMEOUT).observe(gremlin_id)
            work = store.work(attempt.project, attempt.bead_id)
            if work is not None:
                end = plan.settlement_of(work, judge(attempt, seen, now, Policy()), now)
                if work.done_and == "to_land":
                    end = Settlement(now, "canceled", "its gremlin was removed before its work landed")
                if end is None or store.commit(*plan.settle_changes(work, attempt, end)):
                    return


def settle_for_retry(
    work: Work, now: float, who: str, *, observe: Callable[[str], Observation | None], policy: Policy
) -> tuple[StoreChange, ...]:
    """Changes that settle the attempt of a bead that `who` retries. Raises Conflict while its gremlin runs."""
    attempt = work.unsettled
    assert attempt is not None
    if work.done_and == "edited":
        seen = observe(attempt.gremlin_id)
        cost = max(0.0, seen.cost_usd - attempt.base_cost_usd) if seen is not None else 0.0
        done = Settlement(now, None, f"done as it was before it was edited; retried by {who}", cost_usd=cost)
        return SettleAttempt(attempt, done), MoveBead(work, "open", text_of(now))
    if work.done_and == "to_land":
        raise Conflict(
            f"{work.id}: gremlin {attempt.gremlin_id} has done it, and its work waits to land",
            hint=f"`gremlins land {attempt.gremlin_id}` lands it, `gremlins rm --force {attempt.gremlin_id}` drops it",
        )
    seen = observe(attempt.gremlin_id)
    if seen is not None and (seen.alive or seen.state == "unreadable"):
        raise Conflict(
            f"{work.id}: gremlin {attempt.gremlin_id} works on it", hint=f"`gremlins stop {attempt.gremlin_id}` first"
        )
    end = plan.settlement_of(work, judge(attempt, seen, now, replace(policy, land=False)), now)
    if end is not None:
        return plan.settle_changes(work, attempt, end)
    # Claimed or detached: the new epoch takes up the same gremlin.
    end = Settlement(now, "canceled", f"given up for a retry by {who}")
    return SettleAttempt(attempt, end), MoveBead(work, "open", text_of(now), hold=work.hold)
