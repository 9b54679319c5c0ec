"""The state of a project's fleet at one moment: everything but the bead itself that a decision depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gremlins.fleet.beads.attempts import Episode, Work, gremlin_to_rescue
from gremlins.fleet.beads.store.interface import BeadStore
from gremlins.fleet.dispatch.observation import Observation, ReadOnlyFleet
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.dispatch.spending import DayLedger, day_ledger, expected_usd
from gremlins.fleet.start_point import StartPoint


@dataclass(frozen=True)
class World:
    """Everything except the bead itself that admission depends on."""

    now: float
    policy: Policy
    seen: Mapping[str, Observation | None]
    """Observations by gremlin id: of unsettled attempts, and of each bead's latest failed one."""
    episodes: tuple[Episode, ...] = ()
    scopes: tuple[str, ...] = ()
    paused: str | None = None
    working: int = 0
    parked: int = 0
    day: DayLedger = field(default_factory=DayLedger)
    expected_usd: float = 0.0
    """What the next attempt is expected to cost."""
    starts: Mapping[str, StartPoint] = field(default_factory=dict)
    """Where a bead starts that had blockers; every other one starts at HEAD."""


def world_now(
    store: BeadStore, fleet: ReadOnlyFleet, project: str, policy: Policy, works: Sequence[Work], now: float
) -> World:
    """The world for these beads. Slots count all gremlins of the project."""
    known = {work.id for work in works}
    others = [work for work in store.view(project, now, fresh=0).works if work.id not in known]
    return world_of(store, fleet, project, policy, (*works, *others), now)


def world_of(
    store: BeadStore,
    fleet: ReadOnlyFleet,
    project: str,
    policy: Policy,
    works: Sequence[Work],
    now: float,
    since_seq: int = 0,
) -> World:
    """The world, if these are all beads under way. `since_seq`: leaves out episodes that closed before."""
    seen = {
        attempt.gremlin_id: fleet.observe(attempt.gremlin_id)
        for work in works
        if (attempt := work.latest) is not None
        and (attempt.settled is None or (attempt.settled.failed and not work.terminal))
    }
    under_way = [a for w in works if (a := w.unsettled) is not None]
    parked = sum(_is_parked(seen.get(a.gremlin_id)) for a in under_way)
    over = {a.gremlin_id for a in under_way if _is_over(seen.get(a.gremlin_id))}
    average = store.average_usd(policy.pipeline)
    first_call = fleet.first_call_usd() if average is None else 0.0
    return World(
        now=now,
        policy=policy,
        seen=seen,
        episodes=store.episodes(project, since_seq),
        scopes=fleet.scopes(),
        paused=store.paused(project),
        working=len(under_way) - parked - len(over),
        parked=parked,
        day=day_ledger(fleet.spending(), store.unsettled_attempts(), over),
        expected_usd=expected_usd(policy, average, first_call),
        starts=_starts(store, fleet, project, works),
    )


def _starts(store: BeadStore, fleet: ReadOnlyFleet, project: str, works: Sequence[Work]) -> dict[str, StartPoint]:
    """Where the beads start that may begin with a new gremlin."""
    fresh = [
        work.id
        for work in works
        if not work.blocked
        and work.hold is None
        and work.status in ("open", "deferred")
        and not gremlin_to_rescue(work)
    ]
    return {bead_id: fleet.start_point(found) for bead_id, found in store.done_by(project, fresh).items()}


def _is_parked(seen: Observation | None) -> bool:
    return seen is not None and seen.state in ("parked", "detached")


def _is_over(seen: Observation | None) -> bool:
    """True if it neither works nor is about to."""
    return seen is not None and not seen.alive and seen.state not in ("parked", "detached", "unborn")
