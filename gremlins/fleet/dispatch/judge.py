"""Decides from an observation of the gremlin how its attempt goes on. Pure.

Failure classes come from recorded results, never from the words of a log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from gremlins.fleet.beads.attempts import Attempt, Settlement, due
from gremlins.fleet.dispatch.observation import Observation
from gremlins.fleet.dispatch.policy import Policy
from gremlins.outcome import UNKNOWN_COST, FailureClass

PERMANENT_BAILS = frozenset({"needs_human", "refused", "environment", UNKNOWN_COST})


@dataclass(frozen=True)
class Watch:
    """Nothing to do yet; look again at the next tick."""

    reason: str


@dataclass(frozen=True)
class Settle:
    """The attempt is over."""

    settlement: Settlement


@dataclass(frozen=True)
class Land:
    """The gremlin has finished. Land its work, then settle with `settlement`."""

    settlement: Settlement


@dataclass(frozen=True)
class End:
    """The gremlin hangs: send SIGTERM."""

    reason: str


@dataclass(frozen=True)
class Kill:
    """The gremlin was asked to end and did not: send SIGKILL."""


@dataclass(frozen=True)
class Respawn:
    """The process was never started: start it under the same id. Not counted as another spawn."""


@dataclass(frozen=True)
class Reattach:
    """A batch is outstanding, or a finished change to be brought up to date, and no process is there: start one.
    Counted as a spawn, never charged."""


Judgement = Watch | Settle | Land | End | Kill | Respawn | Reattach


def judge(attempt: Attempt, seen: Observation | None, now: float, policy: Policy) -> Judgement:
    """The next step of an unsettled attempt."""
    if seen is None:
        return _gone(attempt, now, policy)
    if attempt.spawned_at is None and never_started(attempt, seen):
        return Respawn()
    if seen.alive:
        return _alive(attempt, seen, now, policy)
    match seen.state:
        case "unborn" if seen.caught_up:
            return Reattach()
        case "unborn":
            return _failed(attempt, seen, now, "start", "its process ended before it recorded anything")
        case "running" | "parked" | "stalled" | "stopping" | "unreadable":
            return Watch(seen.reason or "its record cannot be read; `gremlins doctor` says more")
        case "detached":
            return _detached(attempt, seen, now, policy)
        case "finished" | "landed":
            return _finished(attempt, seen, now, policy)
        case "bailed":
            failure: FailureClass = "permanent" if seen.bail in PERMANENT_BAILS else "task"
            return _failed(attempt, seen, now, failure, f"bailed: {seen.reason}")
        case "stopped" if attempt.ending is None:
            return _failed(attempt, seen, now, "canceled", seen.reason or "stopped by a person")
        case "stopped" | "dead":
            return _dead(attempt, seen, now, policy)
        case _:
            assert_never(seen.state)


def never_started(attempt: Attempt, seen: Observation) -> bool:
    """True if the latest spawn left no trace."""
    if seen.alive or seen.state in ("finished", "landed", "unreadable"):
        return False
    return seen.spawn <= attempt.base_spawn or seen.state == "unborn"


def is_healthy(attempt: Attempt, seen: Observation | None, now: float, policy: Policy, *, start_only: bool) -> bool:
    """True if a running probe has proven that the fault is over: it has a reply or a commit.

    start_only: only starts failed, so a gremlin that is parked or older than the start window proves it too.
    """
    if seen is None or not seen.alive:
        return False
    if seen.replies > attempt.base_replies:
        return True
    if not start_only or seen.state not in ("running", "parked"):
        return False
    return seen.state == "parked" or _age(attempt, seen, now) > policy.start_window


def worked_seconds(attempt: Attempt, seen: Observation, now: float) -> float:
    """Seconds since the latest spawn, without parked time."""
    return _age(attempt, seen, now) - max(0.0, seen.parked_seconds - attempt.base_parked)


def _age(attempt: Attempt, seen: Observation, now: float) -> float:
    return now - attempt.began if seen.age_seconds is None else seen.age_seconds


def _gone(attempt: Attempt, now: float, policy: Policy) -> Judgement:
    if attempt.spawned_at is None:
        return Respawn()
    if abs(now - attempt.spawned_at) <= policy.start_window:
        return _failed(attempt, None, now, "start", "it was started and left nothing behind")
    return _failed(attempt, None, now, "canceled", "its gremlin was removed")


def _alive(attempt: Attempt, seen: Observation, now: float, policy: Policy) -> Judgement:
    if attempt.ending is not None:
        asked = attempt.ending.at
        over = due(asked + policy.kill_after, asked, now)
        return Kill() if over else Watch(f"asked to end: {attempt.ending.reason}")
    if seen.state == "stalled":
        return End(f"stalled: {seen.reason or 'silent for too long'}")
    if seen.state != "parked" and not seen.waits and worked_seconds(attempt, seen, now) > policy.deadline:
        return End(f"worked for more than dispatch.deadline ({policy.deadline:g} s)")
    return Watch("at work")


def _detached(attempt: Attempt, seen: Observation, now: float, policy: Policy) -> Judgement:
    if seen.failure is not None:
        return _failed(attempt, seen, now, seen.failure, seen.reason)
    if attempt.reattached and _died_at_start(attempt, seen, policy):
        return _failed(attempt, seen, now, "start", "it ended again as soon as it was re-attached")
    return Reattach()


def _finished(attempt: Attempt, seen: Observation, now: float, policy: Policy) -> Judgement:
    proof = seen.proof
    if proof is None or not proof.holds:
        detail = proof.detail if proof is not None else ""
        return _failed(attempt, seen, now, "task", f"it finished without evidence of work{detail and ': ' + detail}")
    settlement = Settlement(at=now, failure=None, reason=_done_reason(attempt, seen), cost_usd=_cost(attempt, seen))
    if policy.land and seen.state == "finished" and proof.kind == "commits":
        return Land(settlement)
    return Settle(settlement)


def _done_reason(attempt: Attempt, seen: Observation) -> str:
    proof = seen.proof
    assert proof is not None
    match proof.kind:
        case "nothing_to_do":
            return f"nothing to do: {proof.detail}" if proof.detail else "the agent said there is nothing to do"
        case "commits" if seen.state == "landed":
            return f"done and landed by gremlin {attempt.gremlin_id}"
        case "commits":
            where = f", {proof.base[:10]}..{proof.tip[:10]}" if proof.base and proof.tip else ""
            return f"done by gremlin {attempt.gremlin_id}{where}; `gremlins land {attempt.gremlin_id}` takes it over"
        case "none":
            return f"done by gremlin {attempt.gremlin_id}"
        case _:
            assert_never(proof.kind)


def _dead(attempt: Attempt, seen: Observation, now: float, policy: Policy) -> Judgement:
    if attempt.ending is not None:
        return _failed(attempt, seen, now, "task", attempt.ending.reason)
    reason = seen.reason or "its process died without recording why"
    if seen.failure is not None:
        return _failed(attempt, seen, now, seen.failure, reason)
    if seen.rebooted:
        return _failed(attempt, seen, now, "host", "the machine was restarted")
    return _failed(attempt, seen, now, "start" if _died_at_start(attempt, seen, policy) else "unknown", reason)


def _died_at_start(attempt: Attempt, seen: Observation, policy: Policy) -> bool:
    """True if it died within the start window, without a reply or a commit since its latest spawn."""
    if seen.replies > attempt.base_replies or seen.rebooted:
        return False
    return seen.ended_at is None or seen.ended_at - attempt.began <= policy.start_window


def _failed(attempt: Attempt, seen: Observation | None, now: float, failure: FailureClass, reason: str) -> Settle:
    return Settle(
        Settlement(
            at=now,
            failure=failure,
            reason=reason or f"it ended without a reason ({failure})",
            exit_code=seen.exit_code if seen else None,
            retry_at=seen.retry_at if seen else None,
            cost_usd=_cost(attempt, seen),
            cap=seen.cap if seen else None,
        )
    )


def _cost(attempt: Attempt, seen: Observation | None) -> float:
    return max(0.0, seen.cost_usd - attempt.base_cost_usd) if seen else 0.0
