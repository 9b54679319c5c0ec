"""What binds a gremlin to its bead, for the verbs that act on gremlins: who may bring it back, and what that means."""

from __future__ import annotations

from gremlins.clock import Clock
from gremlins.errors import Conflict
from gremlins.fleet.beads.attempts import Attempt, Work
from gremlins.fleet.beads.store.interface import AddAttempt, BeadStore, Event, MoveBead
from gremlins.fleet.dispatch import plan
from gremlins.fleet.dispatch.judge import judge
from gremlins.fleet.dispatch.observation import Observation, State
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.times import text_of
from gremlins.paths import Home

TRIES = 20
IDLE_TIMEOUT = 360.0
BACK: frozenset[State] = frozenset({"dead", "unborn", "detached", "bailed", "stopped", "stalled"})
RESTARTED: frozenset[State] = frozenset({"finished"})


def take_up(home: Home, gremlin_id: str, clock: Clock, *, restart: bool = False) -> None:
    """To be called before a person brings a gremlin back: its bead follows it from now on.

    restart: it is to begin again from a stage, though it may have finished.
    Raises Conflict when the bead has gone on to a newer attempt. Does nothing for a gremlin without a bead, and
    nothing where the gremlin's own state will refuse.
    """
    if not home.beads.exists():
        return
    from gremlins.fleet.beads.store.sqlite import SqliteStore
    from gremlins.fleet.dispatch.observer import Observer  # these two: only where there are beads

    with SqliteStore(home.beads) as store:
        for _ in range(TRIES):
            attempt = store.attempt_of(gremlin_id)
            seen = Observer(home, clock, IDLE_TIMEOUT).observe(gremlin_id) if attempt is not None else None
            if attempt is None or seen is None or seen.state not in (BACK | RESTARTED if restart else BACK):
                return
            if _follow(store, attempt, seen, clock.now().timestamp()):
                return
    raise Conflict(f"the bead of {gremlin_id} is being changed by others all the time", hint="try again")


def settle(home: Home, gremlin_id: str, clock: Clock) -> None:
    """To be called before a gremlin is removed: what it did for its bead is settled, as the loop would."""
    if not home.beads.exists():
        return
    from gremlins.fleet.beads.store.sqlite import SqliteStore
    from gremlins.fleet.dispatch.observer import Observer  # these two: only where there are beads

    now = clock.now().timestamp()
    with SqliteStore(home.beads) as store:
        for _ in range(TRIES):
            attempt = store.attempt_of(gremlin_id)
            if attempt is None or attempt.settled is not None:
                return
            seen = Observer(home, clock, IDLE_TIMEOUT).observe(gremlin_id)
            for work in store.works(attempt.project, [attempt.bead_id]).works:
                end = plan.settling(work, judge(attempt, seen, now, Policy()), now)
                if end is None or store.commit(*plan.settle_changes(work, attempt, end)):
                    return


def _follow(store: BeadStore, attempt: Attempt, seen: Observation, now: float) -> bool:
    """False: somebody changed the bead meanwhile."""
    works = store.works(attempt.project, [attempt.bead_id]).works
    if not works:
        return True
    work = works[0]
    _refuse_if_gone_on(work, attempt)
    if work.unsettled is not None or work.status == "closed":
        return True
    text = f"gremlin {attempt.gremlin_id} is taken up again by a person"
    return store.commit(
        MoveBead(work, "in_progress", text_of(now)),
        AddAttempt(plan.adopted(work, attempt, seen, now)),
        Event(work.project, work.id, now, "adopted", text),
    )


def _refuse_if_gone_on(work: Work, attempt: Attempt) -> None:
    latest = work.latest
    if latest is not None and latest.gremlin_id != attempt.gremlin_id:
        raise Conflict(
            f"{attempt.gremlin_id}: its bead {work.id} has gone on to attempt {latest.number}",
            hint=f"that is gremlin {latest.gremlin_id}; `gremlins bead show {work.id}` tells the story",
        )
