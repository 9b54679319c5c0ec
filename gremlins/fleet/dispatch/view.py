"""Beads, ticks, breakers and the loop for display: where each stands, and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gremlins.fleet.beads.attempts import FLEET, Attempt, Episode, Work, charged, eligible_at, is_charged, last_failure
from gremlins.fleet.beads.bead import Bead
from gremlins.fleet.beads.store.interface import BeadStore, Event
from gremlins.fleet.dispatch.admit import Standing, standing
from gremlins.fleet.dispatch.breaker import breaker_state, duration
from gremlins.fleet.dispatch.observation import ReadOnlyFleet
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.dispatch.tick import TickReport
from gremlins.fleet.dispatch.world import World, world_now
from gremlins.fleet.times import text_of

ALWAYS = (
    "id", "title", "description", "status", "priority", "issue_type", "labels", "created_at", "updated_at",
    "started_at", "closed_at",
)  # fmt: skip
"""Fields of an issue that are shown even if they are empty."""
MOVED = ("bead", "gremlin", "reason")
A_FEW = 20
"""Up to this many blocked beads, one query each is cheaper than one for all."""


@dataclass(frozen=True)
class BeadInBucket:
    """A bead, and where it stands."""

    bead: Bead
    work: Work
    where: Standing
    world: World


def with_buckets(
    store: BeadStore, fleet: ReadOnlyFleet, project: str, policy: Policy, beads: Sequence[Bead], now: float
) -> Iterator[BeadInBucket]:
    """The bucket of each of these beads. Unreadable beads are left out."""
    works = {work.id: work for work in store.works(project, [bead.id for bead in beads]).works}
    world, where = buckets_of(store, fleet, project, policy, list(works.values()), now)
    for bead in beads:
        if work := works.get(bead.id):
            yield BeadInBucket(bead, work, where[bead.id], world)


def buckets_of(
    store: BeadStore, fleet: ReadOnlyFleet, project: str, policy: Policy, works: Sequence[Work], now: float
) -> tuple[World, dict[str, Standing]]:
    """The world, and where each of these beads stands."""
    world = world_now(store, fleet, project, policy, works, now)
    where = {work.id: standing(work, world) for work in works}
    blocked = [work for work in works if where[work.id].bucket == "blocked"]
    known = store.all_blockers(project) if len(blocked) > A_FEW else {}
    for work in blocked:
        found = known[work.id] if work.id in known else store.blockers(project, work.id)
        where[work.id] = blocked_by(work.id, where[work.id], found)
    return world, where


def explained(store: BeadStore, work: Work, where: Standing) -> Standing:
    """Add the blockers to the standing of a blocked bead."""
    if where.bucket != "blocked":
        return where
    return blocked_by(work.id, where, store.blockers(work.project, work.id))


def blocked_by(bead_id: str, where: Standing, blockers: Sequence[tuple[str, str, str]]) -> Standing:
    """A blocked standing that names its blockers. blockers: (id, status, the bead or ancestor that it blocks)."""
    if not blockers:  # they are closed, and their work has not landed
        return where
    told, failed = [], []
    for blocker, status, whom in blockers:
        via = "" if whom == bead_id else f" (blocks its parent {whom})"
        told.append(f"{blocker}, {status}{via}")
        failed += [blocker] if status == "failed" else []
    then = where.next
    if failed:
        then = f"nothing before a person retries or closes {', '.join(failed)}"
    return Standing("blocked", "blocked by " + "; ".join(told), then)


def bead_json(bucketed: BeadInBucket) -> dict[str, Any]:
    """One bead of `bead … --json`."""
    bead, issue = bucketed.bead, bucketed.bead.issue
    dumped = issue.model_dump(mode="json")
    shown = {key: dumped[key] for key in ALWAYS} | issue.model_dump(mode="json", exclude_defaults=True)
    shown.pop("_type", None)
    dependencies = (dep.model_dump(mode="json", exclude_unset=True) for dep in issue.dependencies)
    shown["dependencies"] = [{"issue_id": issue.id, "type": "blocks"} | dependency for dependency in dependencies]
    shown |= {"status": bead.status, "close_reason": issue.close_reason or None}
    shown["gremlins"] = _ours(bucketed)
    return shown


def _ours(bucketed: BeadInBucket) -> dict[str, Any]:
    bead, work, where, world = bucketed.bead, bucketed.work, bucketed.where, bucketed.world
    failure, latest = last_failure(work), work.latest
    return {
        "project": bead.project,
        "attempts": charged(work, world.episodes),
        "spawns": work.spawns,
        "epoch": bead.epoch,
        "next_eligible_at": _next_eligible(work, where, world),
        "hold": _hold(bead, where),
        "failure": _to_land(work) or _failure(failure),
        "gremlin_id": latest.gremlin_id if latest is not None else None,
        "starts_from": list(start.unlanded) if (start := world.starts.get(work.id)) is not None else [],
        "bucket": where.bucket,
        "bucket_reason": where.reason,
        "next": where.next,
        "next_at": text_of(where.until) if where.until is not None else None,
    }


def _next_eligible(work: Work, where: Standing, world: World) -> str | None:
    if work.terminal:
        return None
    moment = eligible_at(work, initial=world.policy.backoff_initial, maximum=world.policy.backoff_max)
    moments = [m for m in (moment, work.defer_at) if m is not None]
    if where.bucket in ("denied", "held") and where.until is not None:
        moments.append(where.until)
    return text_of(max(moments)) if moments else None


def _hold(bead: Bead, where: Standing) -> dict[str, Any] | None:
    hold = bead.hold
    if hold is not None:
        shown = {"kind": hold.kind, "reason": hold.reason, "by": hold.by, "since": text_of(hold.at)}
        return shown | ({"status": hold.status} if hold.status is not None else {})
    if where.hold is not None:
        return {"kind": where.hold, "reason": where.reason, "by": "dispatch", "since": None}
    return None


def _to_land(work: Work) -> dict[str, Any] | None:
    """The refusal of a landing: its attempt goes on, so it is no failed one."""
    attempt, hold = work.unsettled, work.hold
    if attempt is None or hold is None or work.done_and != "to_land":
        return None
    told = {"class": "landing", "reason": hold.reason, "gremlin_id": attempt.gremlin_id}
    return told | {"exit_code": None, "at": text_of(hold.at)}


def _failure(attempt: Attempt | None) -> dict[str, Any] | None:
    if attempt is None or attempt.settled is None:
        return None
    settled = attempt.settled
    return {
        "class": settled.failure,
        "reason": settled.reason,
        "gremlin_id": attempt.gremlin_id,
        "exit_code": settled.exit_code,
        "at": text_of(settled.at),
    }


def history_json(bucketed: BeadInBucket, events: Sequence[Event]) -> dict[str, Any]:
    """The attempts and events that `bead show` adds."""
    return {
        "history": [_attempt_json(bucketed, attempt) for attempt in bucketed.work.attempts],
        "events": [{"at": text_of(e.at), "kind": e.kind, "text": e.text} for e in events],
    }


def _attempt_json(bucketed: BeadInBucket, attempt: Attempt) -> dict[str, Any]:
    settled = attempt.settled
    return {
        "attempt": attempt.number,
        "epoch": attempt.epoch,
        "gremlin_id": attempt.gremlin_id,
        "kind": attempt.kind,
        "probe": attempt.probe,
        "spawns": attempt.spawns,
        "claimed_at": text_of(attempt.claimed_at),
        "settled_at": text_of(settled.at) if settled else None,
        "outcome": None if settled is None else "failed" if settled.failed else "done",
        "class": settled.failure if settled else None,
        "charged": is_charged(bucketed.work, attempt, bucketed.world.episodes),
        "reason": settled.reason if settled else None,
        "exit_code": settled.exit_code if settled else None,
        "cost_usd": round(settled.cost_usd, 10) if settled else None,
    }


def tick_json(report: TickReport, scopes: Sequence[str]) -> dict[str, Any]:
    """The document of `dispatch --once --json`."""
    return {
        "spawned": [{"bead": bead, "gremlin": gremlin} for bead, gremlin in report.spawned],
        "settled": [
            {
                "bead": attempt.bead_id,
                "gremlin": attempt.gremlin_id,
                "outcome": "failed" if end.failed else "done",
                "class": end.failure,
                "reason": end.reason,
            }
            for attempt, end in report.settled
        ],
        **{
            kind: [{key: notice.payload[key] for key in MOVED} for notice in report.moved if notice.kind == kind]
            for kind in ("closed", "failed", "held")
        },
        "denied": {
            bead: f"{where.reason}; {where.next}"
            for bead, where in report.denied.items()
            if where.bucket not in ("running", "parked", "starting")
        },
        "breaker": breaker_json(report.episodes, scopes, report.now),
        "missing": None if report.missing is None else {"reason": report.missing.reason, "hint": report.missing.hint},
        "unreadable": list(report.bad),
        "next_wake_at": None if report.next_due is None else text_of(report.next_due),
    }


def breaker_json(episodes: Iterable[Episode], scopes: Sequence[str], now: float) -> dict[str, Any]:
    """The project's breakers: their combined state, then each open one."""
    opened = [e for e in episodes if e.open]
    mine = [e for e in opened if e.scope in (FLEET, *scopes)]
    worst = max(mine, key=lambda e: e.until, default=None)
    return {
        "state": breaker_state(mine, now),
        "scope": worst.scope if worst else None,
        "reason": worst.reason if worst else None,
        "until": text_of(worst.until) if worst else None,
        "breakers": [_episode(episode, episode in mine, now) for episode in opened],
    }


def _episode(episode: Episode, in_use: bool, now: float) -> dict[str, Any]:
    return {
        "scope": episode.scope,
        "state": breaker_state([episode], now),
        "cause": episode.cause,
        "reason": episode.reason,
        "opened_at": text_of(episode.opened_at),
        "until": text_of(episode.until),
        "open_seconds": duration(episode.level),
        "probe": episode.probe,
        "in_use": in_use,
    }


def status_json(
    project: str, pid: int | None, world: World, bucketed: Iterable[Standing], counts: dict[str, int]
) -> dict[str, Any]:
    """The document of `dispatch status --json`."""
    policy = world.policy
    return {
        "project": project,
        "loop": None if pid is None else {"pid": pid},
        "paused": world.paused,
        "pipeline": policy.pipeline,
        "running": world.working,
        "max_running": policy.max_running,
        "parked": world.parked,
        "max_parked": policy.max_parked,
        "buckets": dict(sorted(Counter(where.bucket for where in bucketed).items())),
        "beads": counts,
        "breaker": breaker_json(world.episodes, world.scopes, world.now),
        "spend": {
            "today_usd": round(world.day.spent.usd, 10),
            "reserved_usd": round(world.day.reserved_usd, 10),
            "unpriced_calls": world.day.spent.unpriced_calls,
            "unknown_calls": world.day.spent.unknown_calls,
            "per_day": policy.per_day,
        },
    }
