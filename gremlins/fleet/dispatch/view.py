"""A tick, the breakers and the state of dispatching as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from gremlins.fleet.beads.store.interface import Notice
from gremlins.fleet.dispatch.admit import Standing, World
from gremlins.fleet.dispatch.breaker import FLEET, Episode, duration
from gremlins.fleet.dispatch.tick import TickReport, breaker_state
from gremlins.fleet.times import text_of

ALIVE_BUCKETS = frozenset({"running", "parked", "starting"})


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
        "closed": [_moved(notice) for notice in report.moved if notice.kind == "closed"],
        "failed": [_moved(notice) for notice in report.moved if notice.kind == "failed"],
        "held": [_moved(notice) for notice in report.moved if notice.kind == "held"],
        "denied": {bead: sentence(deny) for bead, deny in report.denied.items() if deny.bucket not in ALIVE_BUCKETS},
        "breaker": breaker_json(report.episodes, scopes, report.now),
        "missing": None if report.missing is None else {"reason": report.missing.reason, "hint": report.missing.hint},
        "unreadable": list(report.bad),
        "next_wake_at": None if report.next_due is None else text_of(report.next_due),
    }


def _moved(notice: Notice) -> dict[str, Any]:
    return {key: notice.payload[key] for key in ("bead", "gremlin", "reason")}


def sentence(deny: Standing) -> str:
    """Why, and what comes."""
    return f"{deny.reason}; {deny.next}"


def breaker_json(episodes: Iterable[Episode], scopes: Sequence[str], now: float) -> dict[str, Any]:
    """The breakers that concern this project now: the worst of them on top, then each."""
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
    project: str, pid: int | None, world: World, placed: Iterable[Standing], counts: dict[str, int]
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
        "buckets": dict(sorted(Counter(where.bucket for where in placed).items())),
        "beads": counts,
        "breaker": breaker_json(world.episodes, world.scopes, world.now),
        "spend": {
            "today_usd": round(world.day.spent_usd, 10),
            "reserved_usd": round(world.day.reserved_usd, 10),
            "per_day": policy.per_day,
        },
    }
