"""The stage `loop`: its body in rounds, each with its own calls, artifacts and cost, until it is done or a cap is hit.

A round leaves what says how far it came: the stages done in the record, the handoff's decision in the round's folder,
and a ref where it began. Replaying goes through the rounds from the first and finds nothing to do in those that are
over.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gremlins.files import make_private_dir, read_file
from gremlins.outcome import Bail, Done, Outcome
from gremlins.records.calls import CallRecord, summarize
from gremlins.repository.interrupted import snapshot_around_commands
from gremlins.stages.base import Round, StageContext
from gremlins.stages.commands import commit_changes, run_command
from gremlins.stages.edits.code_change import remember_start, start_ref
from gremlins.stages.handoff import CHILD_PLAN, decision_in
from gremlins.stages.spec import Handoff, LoopStage, Stage

UNTIL_TIMEOUT = 1800.0
"""Seconds for the command of `until`."""


def run(spec: LoopStage, context: StageContext) -> Outcome:
    """Round after round. A rescue or an ack after a cap was hit allows as many rounds, and as much money, again."""
    grants = context.session.attempt(context.path)
    nothing_to_do: str | None = None
    for number in range(1, spec.max * grants + 1):
        outcome = _round(spec, context, number, grants)
        if not isinstance(outcome, Done):
            return outcome
        nothing_to_do = outcome.nothing_to_do or nothing_to_do
        if _is_over(spec, context, number):
            rounds = f"{number} round{'s' if number > 1 else ''}"
            return Done(f"done after {rounds}", nothing_to_do=nothing_to_do)
    return Bail(
        "max_rounds", f"not done after {spec.max * grants} rounds; `gremlins rescue` allows {spec.max} more (max)"
    )


def _round(spec: LoopStage, context: StageContext, number: int, grants: int) -> Outcome:
    """One round, one stage after the other: a handoff that says done ends it, and a child plan becomes its task."""
    path = f"{context.path}[{number}]"
    inside = _inside(context, spec, number)
    nothing_to_do: str | None = None
    for stage in spec.body:
        if decided_done(inside):
            break
        if (bail := _too_dear(spec, context, f"{path}/{stage.name}", grants)) is not None:
            return bail
        outcome = context.steps((stage,), f"{path}/", _for_stage(inside, stage))
        if not isinstance(outcome, Done):
            return outcome
        nothing_to_do = outcome.nothing_to_do or nothing_to_do
    return Done(nothing_to_do=nothing_to_do)


def _inside(context: StageContext, spec: LoopStage, number: int) -> StageContext:
    """The surroundings of a round: artifacts of its own, and a worktree that begins where the round did."""
    inside = context.inside(f"{spec.name}-{number}")
    make_private_dir(inside.artifacts)
    worktree = context.worktree
    began = remember_start(worktree, f"{context.path}[{number}]")
    base = context.round.base if context.round else worktree.base
    round_ = Round(number, inside.artifacts, context.task, base)
    return replace(inside, worktree=replace(worktree, base=began), round=round_)


def _for_stage(inside: StageContext, stage: Stage) -> StageContext:
    """With the newest child plan as its task: a handoff may stand at a round's end as well as at its beginning."""
    assert inside.round is not None
    child = _newest_child_plan(inside.round)
    if isinstance(stage, Handoff) or child is None:
        return inside
    title = next((line.strip("# ").strip() for line in child.splitlines() if line.strip("# ").strip()), "")
    return replace(inside, task=child, title=title[:72] or inside.title)


def _newest_child_plan(round_: Round) -> str | None:
    name = round_.folder.name.removesuffix(f"-{round_.number}")
    for number in (round_.number, round_.number - 1):
        path = round_.shared / f"{name}-{number}" / CHILD_PLAN
        if path.is_file():
            return read_file(path).decode(errors="replace")
    return None


def decided_done(inside: StageContext) -> bool:
    assert inside.round is not None
    decision = decision_in(inside.round.folder)
    return decision is not None and decision.decision == "done"


def _is_over(spec: LoopStage, context: StageContext, number: int) -> bool:
    """True if the round that just ended is the last. A round that has a successor is not asked again."""
    if context.worktree.git.try_commit(start_ref(context.worktree, f"{context.path}[{number + 1}]")) is not None:
        return False
    folder: Path = context.artifacts / f"{spec.name}-{number}"
    decision = decision_in(folder)
    if decision is not None and decision.decision == "done":
        return True
    if spec.until == "done":
        return False
    log_name = f"{spec.name}-{number}-until.log"
    with snapshot_around_commands(context.worktree):
        passed = run_command(spec.until, context, timeout=UNTIL_TIMEOUT, log_name=log_name).exit_code == 0
    if passed:
        commit_changes(context, spec.until)
    return passed


def _too_dear(spec: LoopStage, context: StageContext, path: str, grants: int) -> Bail | None:
    """Looked at before a stage begins: what is at work already is let finish, for it is paid for."""
    if spec.max_usd is None or path in context.done() or calls_within(context, path):
        return None
    spent = spent_in(context)
    limit = spec.max_usd * grants
    if spent < limit:
        return None
    return Bail(
        "max_usd", f"the loop has cost ${spent:.4f} of ${limit:.2f}; `gremlins rescue` allows ${spec.max_usd:.2f} more"
    )


def spent_in(context: StageContext) -> float:
    """Cost of all rounds so far."""
    return summarize(calls_within(context, context.path)).total_usd


def calls_within(context: StageContext, path: str) -> list[CallRecord]:
    """The records of every call of a stage and of what it holds, of all its attempts."""
    inside = (f"{path}/", f"{path}[")
    records = context.session.ledger.readable()[0]
    return [r for r in records if r.key.stage == path or r.key.stage.startswith(inside)]
