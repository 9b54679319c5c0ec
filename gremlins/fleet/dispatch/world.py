"""The state of a project's fleet at one moment: everything but the bead itself that a decision depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from gremlins.errors import CorruptRecord
from gremlins.fleet.beads.attempts import Episode, Work, gremlin_to_rescue
from gremlins.fleet.beads.bead import task_of
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
    """The expected cost of the next attempt."""
    outdated: frozenset[str] = frozenset()
    """Beads whose text was changed since the gremlin got it that would be rescued: a fresh one is started."""
    starts: Mapping[str, StartPoint] = field(default_factory=dict)
    """Start points of beads that had blockers; every other one starts at HEAD."""
    fault: str | None = None
    """The fault of settings, pipeline or providers, where that was looked at."""


def world_now(
    store: BeadStore, fleet: ReadOnlyFleet, project: str, policy: Policy, works: Sequence[Work], now: float
) -> World:
    """The world for these beads, to be shown. Slots count all gremlins of the project."""
    known = {work.id for work in works}
    others = [work for work in store.view(project, now, fresh=0).works if work.id not in known]
    world = world_of(store, fleet, project, policy, (*works, *others), now)
    return replace(world, fault=fleet.fault()) if any(_may_start(work) for work in works) else world


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
    over = {a.gremlin_id for a in under_way if _is_over(seen.get(a.gremlin_id))}
    average = store.average_usd(policy.pipeline)
    first_call = fleet.first_call_usd() if average is None else 0.0
    outdated = _outdated(store, project, works, seen)
    return World(
        now=now,
        policy=policy,
        seen=seen,
        episodes=store.episodes(project, since_seq),
        scopes=fleet.scopes(),
        paused=store.paused(project),
        working=sum(_is_working(seen.get(a.gremlin_id)) for a in under_way),
        parked=sum(_is_parked(seen.get(a.gremlin_id)) for a in under_way),
        day=day_ledger(fleet.spending(), store.unsettled_attempts(), over),
        expected_usd=expected_usd(policy, average, first_call),
        outdated=outdated,
        starts=_starts(store, fleet, project, works, outdated),
    )


def _may_start(work: Work) -> bool:
    return not work.blocked and work.hold is None and work.unsettled is None and work.status in ("open", "deferred")


def _outdated(
    store: BeadStore, project: str, works: Sequence[Work], seen: Mapping[str, Observation | None]
) -> frozenset[str]:
    """The beads that would be rescued with an old text. A text that cannot be read outdates nothing."""
    found = set()
    for work in works:
        gremlin_id = gremlin_to_rescue(work) if _may_start(work) else None
        known = seen.get(gremlin_id) if gremlin_id is not None else None
        if known is not None and known.task is not None:
            with suppress(CorruptRecord):
                bead = store.bead(project, work.id)
                found |= {work.id} if bead is not None and task_of(bead.issue) != known.task else set()
    return frozenset(found)


def _starts(
    store: BeadStore, fleet: ReadOnlyFleet, project: str, works: Sequence[Work], outdated: frozenset[str]
) -> dict[str, StartPoint]:
    """Start points of the beads that may begin with a new gremlin."""
    fresh = [w.id for w in works if _may_start(w) and (w.id in outdated or not gremlin_to_rescue(w))]
    return {bead_id: fleet.start_point(found) for bead_id, found in store.done_by(project, fresh).items()}


def _is_working(seen: Observation | None) -> bool:
    return seen is not None and seen.alive and seen.state != "parked"


def _is_parked(seen: Observation | None) -> bool:
    return seen is not None and seen.state in ("parked", "detached")


def _is_over(seen: Observation | None) -> bool:
    """True if it neither works nor is about to."""
    return seen is not None and not seen.alive and seen.state not in ("parked", "detached", "unborn")
