"""Plans a tick: changes to commit and processes to start, from records and observations. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, assert_never

from gremlins.fleet.beads.attempts import (
    Attempt,
    AttemptKind,
    Episode,
    Settlement,
    Work,
    charged,
    host_failures,
    last_failure,
)
from gremlins.fleet.beads.bead import BeadStatus, Hold, gremlin_id_for
from gremlins.fleet.beads.store.interface import (
    AddAttempt,
    ChangeAttempt,
    Event,
    MoveBead,
    Notice,
    PutEpisode,
    SettleAttempt,
    StoreChange,
)
from gremlins.fleet.dispatch import breaker
from gremlins.fleet.dispatch.admit import Admit, Standing, admit, start_words, takes_slot, was_rescued
from gremlins.fleet.dispatch.judge import End, Judgement, Kill, Land, Reattach, Respawn, Settle, Watch, never_started
from gremlins.fleet.dispatch.observation import Observation
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.dispatch.world import World
from gremlins.fleet.times import span, text_of

LOOP = "dispatch"


@dataclass(frozen=True)
class Spawn:
    """A process to start, once `changes` are committed."""

    work: Work
    attempt: Attempt
    admitted: Admit
    changes: tuple[StoreChange, ...]


def settlement_of(work: Work, judgement: Judgement, now: float) -> Settlement | None:
    """The settlement that follows from a judgement; None if the attempt goes on. Terminal beads get no new process."""
    match judgement:
        case Settle(settlement) | Land(settlement):
            return settlement
        case Respawn() | Reattach() if work.terminal:
            return Settlement(at=now, failure="canceled", reason=f"its bead is {work.status}")
        case Watch() | End() | Kill() | Respawn() | Reattach():
            return None
        case _:
            assert_never(judgement)


def settle_changes(work: Work, attempt: Attempt, end: Settlement) -> tuple[StoreChange, ...]:
    """Settle an attempt and move its bead. A bead that is no longer in progress stays as it is."""
    word = "succeeded" if not end.failed else f"failed ({end.failure})"
    text = f"attempt {attempt.number} {word}: {end.reason}"
    changes: list[StoreChange] = [SettleAttempt(attempt, end), _event(work, end.at, "settled", text)]
    if work.status != "in_progress":
        return tuple(changes)
    if not end.failed:
        return (*changes, *_move(work, "closed", end.at, end.reason))
    match end.failure:
        case "permanent":
            return (*changes, *_move(work, "failed", end.at, end.reason))
        case "canceled":
            hold = Hold("stopped", f"gremlin {attempt.gremlin_id}: {end.reason}", LOOP, end.at)
            return (*changes, *_move(work, "open", end.at, hold.reason, hold))
        case _:
            told = (_notice(work, "held", end.at, end.reason),) if end.cap is not None else ()
            return (*changes, MoveBead(work, "open", text_of(end.at), hold=work.hold), *told)


def hold_done(work: Work, kind: Literal["to_land", "edited"], reason: str, at: float) -> tuple[StoreChange, ...]:
    """Hold a bead whose finished work does not close it. A person's hold stays, and so does the same reason."""
    hold = work.hold
    if hold is not None and (work.done_and is None or (hold.kind, hold.reason) == (kind, reason)):
        return ()
    changes = _move(work, "in_progress", at, reason, Hold(kind, reason, LOOP, at))
    return changes if hold is None else changes[:-1]  # a person is told once


def catching_up(work: Work, attempt: Attempt, why: str, at: float) -> tuple[StoreChange, ...]:
    """A finished change is brought up to date: a hold that waited for its landing ends."""
    text = f"gremlin {attempt.gremlin_id} brings its finished change up to date: {why}"
    return (MoveBead(work, "in_progress", text_of(at)), _event(work, at, "catching_up", text))


def left_to_a_person(end: Settlement) -> Settlement:
    """The end of a finished change that could not be brought up to date. It is not bought again."""
    reason = f"its finished change conflicts with the project, and resolving that failed: {end.reason}"
    return replace(end, failure="canceled", reason=reason)


def refused_landing(attempt: Attempt, why: str) -> str:
    return f"to land: gremlin {attempt.gremlin_id} has finished, and landing it is refused: {why}"


def edited_meanwhile(work: Work, attempt: Attempt, seen: Observation) -> str:
    who = attempt.gremlin_id
    revise = f"`gremlins revise {who} …` adds to its work, " if seen.state == "finished" else ""
    return (
        f"gremlin {who} has done it as it was before it was edited: {revise}"
        f"`gremlins bead close {work.id}` accepts it, `gremlins bead retry {work.id}` does the new text"
    )


def _move(work: Work, status: BeadStatus, at: float, reason: str, hold: Hold | None = None) -> tuple[StoreChange, ...]:
    """Close, fail or hold a bead, with the event and the notice."""
    kind = "held" if hold is not None else status
    return (
        MoveBead(work, status, text_of(at), reason, hold),
        _event(work, at, kind, reason),
        _notice(work, kind, at, reason),
    )


def _notice(work: Work, kind: str, at: float, reason: str) -> Notice:
    gremlin = work.latest.gremlin_id if work.latest is not None else None
    payload = {"event": kind, "project": work.project, "bead": work.id, "gremlin": gremlin, "reason": reason}
    return Notice(work.project, at, kind, payload | {"at": text_of(at)})


def _event(work: Work, at: float, kind: str, text: str) -> Event:
    return Event(work.project, work.id, at, kind, text)


def breaker_changes(
    episodes: Sequence[Episode],
    recent: Sequence[Attempt],
    probes: Mapping[str, tuple[Attempt, Observation | None]],
    now: float,
    policy: Policy,
) -> list[tuple[StoreChange, ...]]:
    """Changes for the episodes that begin, change or end now, with notices of begin and end."""
    before = {(e.scope, e.number): e for e in episodes}
    return [
        (PutEpisode(after), *episode_notice(before.get((after.scope, after.number)), after, now))
        for after in breaker.assess(episodes, recent, dict(probes), now, policy)
    ]


def is_kept_from_starting(work: Work, attempt: Attempt, seen: Observation | None) -> bool:
    """True for a claimed attempt that never started and may not now. A breaker must not wait for such a probe."""
    came = (
        attempt.settled is not None
        or attempt.spawned_at is not None
        or (seen is not None and not never_started(attempt, seen))
    )
    return not came and (work.hold is not None or work.blocked)


def episode_notice(before: Episode | None, after: Episode, now: float) -> tuple[Notice, ...]:
    """A notice if an episode begins or ends; none if it opens again."""
    if before is None:
        kind = "breaker_opened"
        reason = f"{breaker.title(after.scope)} opened for {span(after.until - now)}: {after.reason}"
    elif before.open and not after.open:
        kind = "breaker_closed"
        reason = f"{breaker.title(after.scope)} closed: {after.closed_why}"
    else:
        return ()
    payload = {
        "event": kind,
        "project": after.project,
        "scope": after.scope,
        "reason": reason,
        "at": text_of(now),
        "until": text_of(after.until) if after.open else None,
    }
    return (Notice(after.project, now, kind, payload),)


def transition(work: Work, world: World) -> tuple[StoreChange, ...]:
    """Changes that follow from a bead's counters, or from a rescue of its gremlin by a person."""
    latest = work.latest
    if work.terminal or work.unsettled is not None or latest is None:
        return _spawn_cap(work, world) if work.unsettled is not None and not work.terminal else ()
    seen = world.seen.get(latest.gremlin_id)
    if seen is not None and was_rescued(latest, seen) and work.status in ("open", "deferred"):
        return adopt_changes(work, latest, seen, world.now)
    if work.status not in ("open", "deferred") or work.hold is not None:
        return ()
    count = charged(work, world.episodes)
    if count >= world.policy.retry_cap:
        failure = last_failure(work)
        last = f", the last: {failure.settled.reason}" if failure and failure.settled else ""
        return _move(
            work, "failed", world.now, f"failed after {count} charged attempt{'' if count == 1 else 's'}{last}"
        )
    hosts = host_failures(work)
    if hosts >= world.policy.host_cap:
        reason = f"the machine failed it {hosts} times; `gremlins bead retry {work.id}` starts it over"
        return _move(work, "open", world.now, reason, Hold("host", reason, LOOP, world.now))
    return _spawn_cap(work, world)


def _spawn_cap(work: Work, world: World) -> tuple[StoreChange, ...]:
    """Hold a bead that was spawned too often, unless its process still runs."""
    if work.hold is not None or work.spawns < world.policy.spawn_cap:
        return ()
    attempt = work.unsettled
    if attempt is not None:
        seen = world.seen.get(attempt.gremlin_id)
        if seen is None or seen.state != "detached" or attempt.spawned_at is None:
            return ()
    reason = f"spawned {work.spawns} times without an end; `gremlins bead retry {work.id}` starts it over"
    status: BeadStatus = "open" if attempt is None else "in_progress"
    return _move(work, status, world.now, reason, Hold("spawn_cap", reason, LOOP, world.now))


def adopt_changes(
    work: Work, latest: Attempt, seen: Observation, now: float, *, kind: AttemptKind = "adopted"
) -> tuple[StoreChange, ...]:
    """Let a bead follow the gremlin of its latest attempt, which a person rescues or answers."""
    how = "its question is answered" if kind == "answered" else "it is rescued"
    return (
        MoveBead(work, "in_progress", text_of(now)),
        AddAttempt(adopted(work, latest, seen, now, kind)),
        _event(work, now, "adopted", f"gremlin {latest.gremlin_id}: {how} by a person"),
    )


def adopted(work: Work, latest: Attempt, seen: Observation, now: float, kind: AttemptKind) -> Attempt:
    """An attempt for a gremlin that a person brings back: followed, but not counted.

    If the gremlin does not run yet, the spawn is pending: should the person's command die, the loop does it instead.
    """
    back = seen.alive or seen.state in ("finished", "landed")
    return replace(
        latest,
        number=latest.number + 1,
        epoch=work.epoch,
        kind=kind,
        probe=False,
        expected_usd=0.0,
        claimed_at=now,
        spawns=0,
        spawned_at=now if back else None,
        base_spawn=seen.spawn - 1 if back else seen.spawn,
        base_replies=seen.replies,
        base_parked=seen.parked_seconds,
        base_cost_usd=seen.cost_usd,
        ending=None,
        settled=None,
    )


def spawns(works: Iterable[Work], world: World) -> tuple[list[Spawn], dict[str, Standing]]:
    """The spawns of this tick, in order, and where every other bead stands.

    Unsettled attempts go first, then priority and age decide. While a breaker is half open, only its probe starts: the
    eligible bead with the fewest spawns.
    """
    planned: list[Spawn] = []
    denied: dict[str, Standing] = {}
    probes: list[Spawn] = []
    for work in sorted(works, key=lambda w: (w.unsettled is None, w.order)):
        decision = admit(work, world)
        if isinstance(decision, Standing):
            denied[work.id] = decision
            continue
        spawn = plan_spawn(work, decision, world)
        if decision.probe_for:
            probes.append(spawn)
            continue
        planned.append(spawn)
        world = _after(world, spawn)
    if probes:
        first = min(probes, key=lambda s: (s.work.spawns, s.work.order))
        planned.append(first)
        reason = f"{breaker.title(first.admitted.probe_for[0].scope)} is half open; {first.work.id} goes first"
        for spawn in probes:
            if spawn is not first:
                denied[spawn.work.id] = Standing("denied", reason, "its probe ends")
    return planned, denied


def _after(world: World, spawn: Spawn) -> World:
    """The world after a claim."""
    day = world.day
    if spawn.work.unsettled is None:
        day = replace(day, reserved_usd=day.reserved_usd + spawn.attempt.expected_usd)
    return replace(world, working=world.working + takes_slot(world.seen.get(spawn.attempt.gremlin_id)), day=day)


def plan_spawn(work: Work, admitted: Admit, world: World) -> Spawn:
    """A spawn with the changes that must be on disk before its process exists."""
    match admitted.how:
        case "respawn":
            return _respawn(work, admitted)
        case "reattach":
            return _reattach(work, admitted, world)
        case "fresh" | "rescue":
            return _claim(work, admitted, world)
        case _:
            assert_never(admitted.how)


def _respawn(work: Work, admitted: Admit) -> Spawn:
    """Counted when it was claimed. If a breaker has opened since, it becomes the probe."""
    attempt = work.unsettled
    assert attempt is not None
    if not admitted.probe_for:
        return Spawn(work, attempt, admitted, ())
    after = replace(attempt, probe=True)
    return Spawn(work, after, admitted, (ChangeAttempt(attempt, after), *_probes(admitted, attempt)))


def _reattach(work: Work, admitted: Admit, world: World) -> Spawn:
    attempt = work.unsettled
    assert attempt is not None
    probe = attempt.probe or bool(admitted.probe_for)
    after = replace(attempt, spawns=attempt.spawns + 1, spawned_at=None, probe=probe)
    after = _with_base(after, world.seen.get(attempt.gremlin_id))
    event = _event(work, world.now, "reattached", f"gremlin {attempt.gremlin_id} is re-attached")
    return Spawn(work, after, admitted, (ChangeAttempt(attempt, after), *_probes(admitted, attempt), event))


def _with_base(attempt: Attempt, seen: Observation | None) -> Attempt:
    """The attempt with the gremlin's figures of now as the base of its next spawn."""
    if seen is None:
        return replace(attempt, base_spawn=0, base_replies=0, base_parked=0.0)
    return replace(attempt, base_spawn=seen.spawn, base_replies=seen.replies, base_parked=seen.parked_seconds)


def _claim(work: Work, admitted: Admit, world: World) -> Spawn:
    number = work.latest.number + 1 if work.latest is not None else 1
    gremlin_id = admitted.gremlin_id or gremlin_id_for(work.project, work.id, number, world.now)
    seen = world.seen.get(gremlin_id)
    attempt = Attempt(
        project=work.project,
        bead_id=work.id,
        number=number,
        epoch=work.epoch,
        gremlin_id=gremlin_id,
        kind="rescue" if admitted.how == "rescue" else "fresh",
        pipeline=world.policy.pipeline,
        mode=world.policy.mode,
        scopes=world.scopes,
        probe=bool(admitted.probe_for),
        expected_usd=world.expected_usd,
        claimed_at=world.now,
        base_cost_usd=seen.cost_usd if seen else 0.0,
    )
    attempt = _with_base(attempt, seen)
    how = f"gremlin {gremlin_id} is " + ("rescued" if seen else f"started{start_words(work, world)}")
    probe = " as a probe" if attempt.probe else ""
    changes: tuple[StoreChange, ...] = (
        MoveBead(work, "in_progress", text_of(world.now)),
        AddAttempt(attempt),
        *_probes(admitted, attempt),
        _event(work, world.now, "claimed", f"attempt {number}: {how}{probe}"),
    )
    return Spawn(work, attempt, admitted, changes)


def _probes(admitted: Admit, attempt: Attempt) -> tuple[PutEpisode, ...]:
    return tuple(PutEpisode(replace(e, probe=attempt.key, version=e.version + 1)) for e in admitted.probe_for)


def next_due(
    works: Iterable[Work], denied: Mapping[str, Standing], world: World, deferred: float | None
) -> float | None:
    """The time something is due next; None if only an outside event can change anything."""
    moments = [deny.until for deny in denied.values() if deny.until is not None]
    moments += [] if deferred is None else [deferred]
    if any(work.unsettled is not None and work.done_and is None for work in works):
        moments.append(world.now + world.policy.interval)
    return max(world.now, min(moments)) if moments else None
