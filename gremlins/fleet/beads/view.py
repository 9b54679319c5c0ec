"""How a bead looks from outside: beads' own fields, and under `gremlins` where it stands here and what comes next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gremlins.fleet.beads.attempts import Attempt, Work, charged, eligible_at, is_charged, last_failure
from gremlins.fleet.beads.bead import Bead
from gremlins.fleet.beads.store.interface import BeadStore, Event
from gremlins.fleet.dispatch.admit import Standing, World, standing
from gremlins.fleet.dispatch.observation import ReadOnlyFleet
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.dispatch.tick import world_of
from gremlins.fleet.times import text_of

A_FEW = 20
"""Blocked beads up to which each is asked about for itself."""


@dataclass(frozen=True)
class Placed:
    """A bead and where it stands."""

    bead: Bead
    work: Work
    where: Standing
    world: World


def place(
    store: BeadStore, fleet: ReadOnlyFleet, project: str, policy: Policy, beads: Sequence[Bead], now: float
) -> Iterator[Placed]:
    """Where each of these stands now. Beads whose rows cannot be read are left out."""
    works = {work.id: work for work in store.works(project, [bead.id for bead in beads]).works}
    world, where = place_works(store, fleet, project, policy, list(works.values()), now)
    for bead in beads:
        if work := works.get(bead.id):
            yield Placed(bead, work, where[bead.id], world)


def place_works(
    store: BeadStore, fleet: ReadOnlyFleet, project: str, policy: Policy, works: Sequence[Work], now: float
) -> tuple[World, dict[str, Standing]]:
    """The world, and where each of these stands in it."""
    world = world_now(store, fleet, project, policy, works, now)
    where = {work.id: standing(work, world) for work in works}
    blocked = [work for work in works if where[work.id].bucket == "blocked"]
    known = store.all_blockers(project) if len(blocked) > A_FEW else {}
    for work in blocked:
        found = known[work.id] if work.id in known else store.blockers(project, work.id)
        where[work.id] = blocked_by(work.id, where[work.id], found)
    return world, where


def world_now(
    store: BeadStore, fleet: ReadOnlyFleet, project: str, policy: Policy, works: Sequence[Work], now: float
) -> World:
    """The world as admission sees it, whichever beads are asked about: slots count all that is under way."""
    known = {work.id for work in works}
    others = [work for work in store.view(project, now, fresh=0).works if work.id not in known]
    seen = {
        attempt.gremlin_id: fleet.observe(attempt.gremlin_id)
        for work in (*works, *others)
        if (attempt := work.latest) is not None and _matters(work, attempt)
    }
    return world_of(store, fleet, project, policy, (*works, *others), seen, now)


def _matters(work: Work, attempt: Attempt) -> bool:
    return attempt.settled is None or (attempt.settled.failed and not work.terminal)


def explained(store: BeadStore, work: Work, where: Standing) -> Standing:
    """Where a bead is; if it is blocked, by what, and whether that will ever end."""
    if where.bucket != "blocked":
        return where
    return blocked_by(work.id, where, store.blockers(work.project, work.id))


def blocked_by(bead_id: str, where: Standing, blockers: Sequence[tuple[str, str, str]]) -> Standing:
    """Blocked by these: (blocker, its status, whom of the bead and its ancestors it blocks)."""
    told, failed = [], []
    for blocker, status, whom in blockers:
        via = "" if whom == bead_id else f" (blocks its parent {whom})"
        told.append(f"{blocker}, {status}{via}")
        failed += [blocker] if status == "failed" else []
    then = where.next
    if failed:
        then = f"nothing before a person retries or closes {', '.join(failed)}"
    return Standing("blocked", "blocked by " + "; ".join(told or ["something unknown"]), then)


def bead_json(placed: Placed) -> dict[str, Any]:
    """One bead of `bead … --json`."""
    bead, issue = placed.bead, placed.bead.issue
    shown: dict[str, Any] = {
        "id": issue.id,
        "title": issue.title,
        "description": issue.description,
        "status": bead.status,
        "priority": issue.priority,
        "issue_type": issue.issue_type,
        "labels": list(issue.labels),
        "dependencies": [{"issue_id": issue.id, "type": dep.type} | dep.model_dump(mode="json", exclude_unset=True)
                         for dep in issue.dependencies],
        "created_at": issue.created_at,
        "updated_at": issue.updated_at,
        "started_at": issue.started_at,
        "closed_at": issue.closed_at,
        "close_reason": issue.close_reason or None,
    }  # fmt: skip
    more = issue.model_dump(mode="json", exclude_defaults=True)
    shown |= {key: value for key, value in more.items() if key not in shown and key != "_type"}
    shown["gremlins"] = _ours(placed)
    return shown


def _ours(placed: Placed) -> dict[str, Any]:
    bead, work, where, world = placed.bead, placed.work, placed.where, placed.world
    failure, latest = last_failure(work), work.latest
    return {
        "project": bead.project,
        "attempts": charged(work, world.episodes),
        "spawns": work.spawns,
        "epoch": bead.epoch,
        "next_eligible_at": _next_eligible(work, where, world),
        "hold": _hold(bead, where),
        "failure": _failure(failure),
        "gremlin_id": latest.gremlin_id if latest is not None else None,
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


def history_json(placed: Placed, events: Sequence[Event]) -> dict[str, Any]:
    """What `bead show` adds: every attempt with its reason, and what happened."""
    return {
        "history": [_attempt_json(attempt, placed.world) for attempt in placed.work.attempts],
        "events": [{"at": text_of(e.at), "kind": e.kind, "text": e.text} for e in events],
    }


def _attempt_json(attempt: Attempt, world: World) -> dict[str, Any]:
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
        "charged": is_charged(attempt, world.episodes),
        "reason": settled.reason if settled else None,
        "exit_code": settled.exit_code if settled else None,
        "cost_usd": round(settled.cost_usd, 10) if settled else None,
    }
