"""The stage `wait_ci`: wait for the pull request's checks, and let an agent fix what fails, at most so many times."""

from __future__ import annotations

from gremlins.outcome import Bail, Done, Failed, Outcome
from gremlins.redaction import Redactor
from gremlins.repository.github import CommitCheck, PullRequest
from gremlins.stages.base import StageContext
from gremlins.stages.context.briefing import Briefing, prompt_for
from gremlins.stages.edits.answer import NothingToDo
from gremlins.stages.edits.code_change import change_code
from gremlins.stages.pull_request import Waiting, bring_up, github, over, own_branch, patiently, the_pull_request
from gremlins.stages.spec import WaitCi

LOG_PATIENCE = 600.0
"""Seconds for which the log of a failed check is asked for; then the fix is asked for without it."""


def run(spec: WaitCi, context: StageContext) -> Outcome:
    """Look; fix, push and look again. Each fix that is on record is only finished, never asked again."""
    fixes = 0
    while _is_asked(context, fixes + 1):
        fixes += 1
        if (outcome := _fix(spec, context, fixes, "")) is not None:
            return outcome
    while True:
        seen = _look(spec, context)
        if not isinstance(seen, list):
            return seen
        if fixes >= spec.max_attempts:
            return Failed("task", f"checks still fail after {fixes} fixes: {_names(seen)}")
        fixes += 1
        if (outcome := _fix(spec, context, fixes, _shown(spec, context, seen))) is not None:
            return outcome


def _look(spec: WaitCi, context: StageContext) -> Outcome | list[CommitCheck]:
    """The result of the branch's checks: an outcome, or the failed ones. Parks while they run."""
    tip = context.worktree.tip()
    waiting = Waiting(context, spec.name, tip, spec.poll)
    pull = patiently(waiting, lambda: the_pull_request(context), timeout=spec.timeout)
    if isinstance(pull, Failed):
        return pull
    if pull is None:
        return _without(context)
    if (ended := over(pull, context.worktree)) is not None:
        return ended
    if pull.head != tip:
        return _behind(spec, context, waiting, pull)
    running = [check for check in pull.checks if check.state == "pending"]
    failed = [check for check in pull.checks if check.state == "failed"]
    # Right after a push some checks may not have reported yet, and the others may all be green.
    if pull.checks and not running and waiting.waited >= min(spec.poll, spec.timeout):
        return failed or Done(f"{len(pull.checks)} checks passed")
    if waiting.waited >= spec.timeout:
        return _too_late(spec, pull, running)
    what = _names(running) if running else "the checks"
    raise waiting.park(f"waiting for {what} of #{pull.number}", timeout=spec.timeout)


def _without(context: StageContext) -> Outcome:
    worktree = own_branch(context)
    if worktree.git.differs(worktree.base, worktree.tip()):
        return Failed("config", "there is no pull request to wait for; `open_pr` comes first in a pipeline")
    return Done("no change, and so no pull request")


def _behind(spec: WaitCi, context: StageContext, waiting: Waiting, pull: PullRequest) -> Outcome:
    """GitHub has another commit than the branch: push ours, if that adds to theirs, and give it time to notice."""
    problem = patiently(waiting, lambda: bring_up(context), timeout=spec.timeout)
    if problem is not None:
        return problem
    if waiting.waited >= spec.timeout:
        return Failed("host", f"GitHub still shows {pull.head[:12]} as the head of #{pull.number}")
    raise waiting.park(f"pushed to #{pull.number}", timeout=spec.timeout)


def _too_late(spec: WaitCi, pull: PullRequest, running: list[CommitCheck]) -> Bail:
    limit = f"within {spec.timeout:g} s ({pull.url})"
    if not pull.checks:
        return Bail("no_checks", f"no check of #{pull.number} has reported {limit}")
    return Bail("checks_pending", f"not ended {limit}: {_names(running) or 'some checks'}")


def _is_asked(context: StageContext, number: int) -> bool:
    label = f"{context.path}/fix[{number}]"
    return bool(context.session.ledger.of_call(label, context.session.attempt(label)))


def _fix(spec: WaitCi, context: StageContext, number: int, shown: str) -> Outcome | None:
    """Ask for a fix. None: look again."""
    label = f"{context.path}/fix[{number}]"

    def brief() -> Briefing:
        sections = {"task": context.task, "plan": context.artifact("plan.md") or "", "failure": shown}
        return Briefing("verify", sections, evidence=shown)

    subject = f"Fix what the checks found: {context.title}"[:72]
    result = change_code(spec, context, prompt_for(spec, context, brief, label=label), label=label, subject=subject)
    if isinstance(result, Failed):
        return result
    match result.verdict:
        case Bail() as bail:
            return bail
        case NothingToDo(reason=reason) if not result.changed:
            return Failed("task", f"the checks fail, and the agent sees nothing to fix: {reason}")
        case _ if not result.changed:
            return Failed("task", "the checks fail, and the agent changed nothing")
        case _:
            return None


def _shown(spec: WaitCi, context: StageContext, failed: list[CommitCheck]) -> str:
    parts = [f"{check.name} failed ({check.url})\n{_log(spec, context, check)}".strip() for check in failed]
    return Redactor(context.session.env).message("\n\n".join(parts))


def _log(spec: WaitCi, context: StageContext, check: CommitCheck) -> str:
    waiting = Waiting(context, f"{spec.name}.log", f"{check.url} {context.worktree.tip()}", spec.poll)
    log = patiently(waiting, lambda: github(context).failed_log(check), timeout=LOG_PATIENCE)
    return "" if isinstance(log, Failed) else log


def _names(checks: list[CommitCheck]) -> str:
    return ", ".join(check.name for check in checks[:8])
