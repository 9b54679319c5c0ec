"""Circuit breakers: nothing starts while starts fail for all beads. Pure functions over records.

There is one for the fleet and one per credential. An episode begins when a breaker opens and ends when a probe is
healthy or a person resets it. A breaker that opens again soon continues its episode, so a person is told once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from gremlins.fleet.beads.attempts import FLEET, LONGEST_HOLD, Attempt, Cause, Episode, Settlement, due
from gremlins.fleet.dispatch.judge import is_healthy
from gremlins.fleet.dispatch.observation import Observation
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.times import text_of

FIRST_OPEN = 60.0
LONGEST_OPEN = 4 * 3600.0
WINDOW = 600.0
"""Seconds. Failures are counted over this time, and an episode continues if it closed within it."""
FEWEST_FAILURES, FEWEST_BEADS, SHARE, ROW = 5, 3, 0.5, 3

START_TROUBLE = frozenset({"start", "host"})
CREDENTIAL_TROUBLE: dict[str, Cause] = {"config": "config", "credit": "credit", "capacity": "capacity"}


@dataclass(frozen=True)
class Closed:
    """Beads may start."""


@dataclass(frozen=True)
class Open:
    """Nothing starts before `until`; None: before the probe under way has ended."""

    reason: str
    until: float | None
    cause: Cause


@dataclass(frozen=True)
class HalfOpen:
    """One bead may start, as the probe of these episodes."""

    episodes: tuple[Episode, ...]


Gate = Closed | Open | HalfOpen


def duration(level: int) -> float:
    """Seconds an episode stays open: 60, doubled with each level, up to four hours."""
    return LONGEST_OPEN if level > 20 else min(FIRST_OPEN * 2.0**level, LONGEST_OPEN)


def gate(episodes: Iterable[Episode], scopes: Sequence[str], now: float) -> Gate:
    """The combined state of the fleet's breaker and those of these credentials."""
    concerned = [e for e in episodes if e.open and e.scope in (FLEET, *scopes)]
    if not concerned:
        return Closed()
    for episode in concerned:
        if episode.probe is not None:
            return Open(f"{title(episode.scope)} is open; its probe {episode.probe} is under way", None, episode.cause)
    waiting = [e for e in concerned if not is_due(e, now)]
    if not waiting:
        return HalfOpen(tuple(concerned))
    last = max(waiting, key=lambda e: e.until)
    when = text_of(last.until)
    return Open(f"{title(last.scope)} is open until {when}: {last.reason}", last.until, last.cause)


def is_due(episode: Episode, now: float) -> bool:
    """True if a probe may start."""
    return due(episode.until, episode.shut_at, now)


def breaker_state(episodes: Iterable[Episode], now: float) -> str:
    """`closed`, `open` or `half_open`, for several episodes together."""
    opened = [e for e in episodes if e.open]
    if not opened:
        return "closed"
    waiting = [e for e in opened if e.probe is None and not is_due(e, now)]
    return "open" if waiting else "half_open"


def title(scope: str) -> str:
    return "the fleet's breaker" if scope == FLEET else f"the breaker of {scope}"


def assess(
    episodes: Sequence[Episode],
    recent: Sequence[Attempt],
    probes: dict[str, tuple[Attempt, Observation | None]],
    now: float,
    policy: Policy,
) -> list[Episode]:
    """The episodes that change or begin now.

    recent: settled attempts of the last `WINDOW` seconds and a few before, in the order of their settlement.
    probes: the attempts that open episodes name as their probes, with observations.
    """
    changed: dict[tuple[str, int], Episode] = {}
    for episode in episodes:
        if episode.open:
            after = _follow(episode, probes, recent, now, policy)
            if after != episode:
                changed[episode.scope, episode.number] = after
    known = {(e.scope, e.number): e for e in episodes} | changed
    for opened in _openings(list(known.values()), recent, now):
        changed[opened.scope, opened.number] = opened
    return [
        replace(e, version=e.version + 1) if e.number in _numbers(episodes, e.scope) else e for e in changed.values()
    ]


def close(episode: Episode, why: str, seq: int, now: float) -> Episode:
    """The closed episode. Settlements up to `seq` no longer open a breaker."""
    return replace(episode, probe=None, closed_at=now, closed_seq=seq, closed_why=why, version=episode.version + 1)


def _numbers(episodes: Sequence[Episode], scope: str) -> set[int]:
    return {e.number for e in episodes if e.scope == scope}


def _follow(
    episode: Episode,
    probes: dict[str, tuple[Attempt, Observation | None]],
    recent: Sequence[Attempt],
    now: float,
    policy: Policy,
) -> Episode:
    """An open episode, updated from its probe and from later settlements."""
    if episode.cause == "capacity":
        episode = _wait_longer(episode, recent)
    if episode.probe is None:
        return episode
    attempt, seen = probes.get(episode.probe, (None, None))
    if attempt is None:
        return replace(episode, probe=None)
    settled = attempt.settled
    seq = max((a.settled.seq for a in recent if a.settled), default=0)
    if settled is None:
        start_only = episode.cause in ("start", "capacity")
        if is_healthy(attempt, seen, now, policy, start_only=start_only):
            return replace(episode, probe=None, closed_at=now, closed_seq=seq, closed_why="its probe is healthy")
        return (
            replace(episode, probe=None) if seen is not None and seen.state in ("detached", "unreadable") else episode
        )
    if not settled.failed:
        return replace(episode, probe=None, closed_at=now, closed_seq=seq, closed_why="its probe succeeded")
    if settled.failure == "canceled":
        return replace(episode, probe=None)  # proves nothing
    return _again(episode, settled, now)


def _again(episode: Episode, settled: Settlement, now: float) -> Episode:
    level = episode.level + 1
    until = now + duration(level)
    if settled.failure == "capacity" and settled.retry_at is not None:
        until = max(until, min(settled.retry_at, now + LONGEST_HOLD))
    return replace(episode, probe=None, level=level, shut_at=now, until=until, reason=settled.reason)


def _wait_longer(episode: Episode, recent: Sequence[Attempt]) -> Episode:
    """Extend `until` to the latest `retry_at` of the episode."""
    asked = [
        min(a.settled.retry_at, a.settled.at + LONGEST_HOLD)
        for a in recent
        if a.settled and a.settled.seq >= episode.since_seq and a.settled.retry_at and episode.scope in a.scopes
    ]
    return replace(episode, until=max([episode.until, *asked]))


def _openings(episodes: Sequence[Episode], recent: Sequence[Attempt], now: float) -> list[Episode]:
    found = []
    scopes = {scope for a in recent for scope in a.scopes}
    for scope in sorted(scopes):
        if _latest_open(episodes, scope) is None and (opening := _credential_opening(episodes, recent, scope, now)):
            found.append(opening)
    if _latest_open(episodes, FLEET) is None and (opening := _fleet_opening(episodes, recent, now)):
        found.append(opening)
    return found


def _latest_open(episodes: Sequence[Episode], scope: str) -> Episode | None:
    return next((e for e in episodes if e.scope == scope and e.open), None)


def _since_last_close(episodes: Sequence[Episode], recent: Sequence[Attempt], scope: str) -> list[Attempt]:
    boundary = max((e.closed_seq or 0 for e in episodes if e.scope == scope), default=0)
    told = (a for a in recent if a.settled and a.settled.seq > boundary)
    return [a for a in told if a.settled and a.settled.failure != "canceled" and a.settled.cap is None]


def _own_breaker(attempt: Attempt) -> bool:
    """True if a failure counts for its credential's breaker, not for the fleet's."""
    settled = attempt.settled
    if settled is None or not attempt.scopes or settled.cap is not None:
        return False
    if settled.failure == "capacity":
        return settled.retry_at is not None
    return settled.failure in CREDENTIAL_TROUBLE


def _credential_opening(
    episodes: Sequence[Episode], recent: Sequence[Attempt], scope: str, now: float
) -> Episode | None:
    for attempt in _since_last_close(episodes, recent, scope):
        settled = attempt.settled
        if settled is None or scope not in attempt.scopes or not _own_breaker(attempt) or settled.failure is None:
            continue
        until = now + FIRST_OPEN
        if settled.failure == "capacity" and settled.retry_at is not None:
            until = min(settled.retry_at, now + LONGEST_HOLD)
        cause = CREDENTIAL_TROUBLE[settled.failure]
        return _open(episodes, attempt, scope, cause, settled.reason, settled.seq, now, until)
    return None


def _fleet_opening(episodes: Sequence[Episode], recent: Sequence[Attempt], now: float) -> Episode | None:
    counted = [a for a in _since_last_close(episodes, recent, FLEET) if not _own_breaker(a)]
    row = counted[-ROW:]
    in_a_row = len(row) == ROW and all(a.settled and a.settled.failure in START_TROUBLE for a in row)
    if in_a_row and len({a.bead_id for a in row}) >= 2:
        return _fleet_episode(episodes, row, "start", f"{ROW} failures to start in a row", now)
    window = [a for a in counted if a.settled and -WINDOW <= now - a.settled.at <= WINDOW]
    failures = [a for a in window if a.settled and a.settled.failed]
    beads = {a.bead_id for a in failures}
    if len(failures) >= FEWEST_FAILURES and len(beads) >= FEWEST_BEADS and len(failures) >= SHARE * len(window):
        reason = f"{len(failures)} of {len(window)} attempts failed within ten minutes"
        return _fleet_episode(episodes, failures, "rate", reason, now)
    return None


def _fleet_episode(
    episodes: Sequence[Episode], failures: Sequence[Attempt], cause: Cause, what: str, now: float
) -> Episode:
    last, first = failures[-1], failures[0]
    assert first.settled is not None
    assert last.settled is not None
    reason = f"{what}, the last: {last.settled.reason}"
    return _open(episodes, last, FLEET, cause, reason, first.settled.seq, now, now + FIRST_OPEN)


def _open(
    episodes: Sequence[Episode],
    attempt: Attempt,
    scope: str,
    cause: Cause,
    reason: str,
    since_seq: int,
    now: float,
    until: float,
) -> Episode:
    """A new episode, or the last one again if a probe closed it within `WINDOW`."""
    last = max((e for e in episodes if e.scope == scope), key=lambda e: e.number, default=None)
    if last is not None and last.probed_healthy and abs(now - (last.closed_at or 0.0)) <= WINDOW:
        level = last.level + 1
        return replace(
            last, cause=cause, reason=reason, level=level, shut_at=now, until=max(until, now + duration(level)),
            closed_at=None, closed_seq=None, closed_why="",
        )  # fmt: skip
    number = last.number + 1 if last is not None else 1
    return Episode(attempt.project, scope, number, cause, reason, since_seq, now, 0, now, until)
