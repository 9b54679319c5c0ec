"""The stage `verify`: run the project's own commands, and let the agent fix what fails."""

from __future__ import annotations

from gremlins.outcome import Bail, Done, Failed, Outcome
from gremlins.stages.base import StageContext
from gremlins.stages.base_check import beyond_a_model
from gremlins.stages.commands import CommandResult, failure_sentence, first_failure
from gremlins.stages.context.briefing import Briefing, prompt_for
from gremlins.stages.edits.answer import NothingToDo
from gremlins.stages.edits.code_change import change_code
from gremlins.stages.spec import Verify


def run(spec: Verify, context: StageContext) -> Outcome:
    """Run, fix, run again; at most `max_attempts` fixes. A round whose fix is on record does not run again first."""
    commands = spec.cmds or context.settings.verify
    if not commands:
        context.log(f"{context.path}: skipped, for no commands are set (`verify` in .gremlins/config.toml)")
        return Done("skipped: no verify commands are set")
    for round_ in range(1, spec.max_attempts + 1):
        label = f"{context.path}/fix[{round_}]"
        asked = bool(context.session.ledger.of_call(label, context.session.attempt(label)))
        failure = None if asked else _run_all(spec, context, commands, round_)
        if not asked and failure is None:
            return Done("the commands pass" + (f" after {round_ - 1} fixes" if round_ > 1 else ""))
        first = round_ == 1
        if failure and (beyond := beyond_a_model(failure, commands, context, timeout=spec.timeout, first=first)):
            return beyond
        outcome = _fix(spec, context, label, failure, commands)
        if outcome is not None:
            return outcome
    failure = _run_all(spec, context, commands, spec.max_attempts + 1)
    if failure is None:
        return Done(f"the commands pass after {spec.max_attempts} fixes")
    sentence = failure_sentence(failure)
    return Failed("task", f"still failing after {spec.max_attempts} fixes: {sentence}", exit_code=failure.exit_code)


def _run_all(spec: Verify, context: StageContext, commands: tuple[str, ...], round_: int) -> CommandResult | None:
    """The first command that fails, or None."""
    log = f"{context.path.rpartition('/')[2]}-{round_}"
    return first_failure(commands, context, timeout=spec.timeout, log=log, mark=".")


def _fix(
    spec: Verify, context: StageContext, label: str, failure: CommandResult | None, commands: tuple[str, ...]
) -> Outcome | None:
    """Ask for a fix. None: run the commands again."""

    def brief() -> Briefing:
        # Without a failure at hand the call is on record, and its prompt is never made.
        shown = _shown(failure) if failure else ""
        sections = {
            "task": context.task,
            "plan": context.artifact("plan.md") or "",
            "commands": "\n".join(commands),
            "failure": shown,
        }
        return Briefing("verify", sections, evidence=shown)

    result = change_code(
        spec,
        context,
        prompt_for(spec, context, brief, label=label),
        label=label,
        subject=f"Fix what verification found: {context.title}"[:72],
    )
    if isinstance(result, Failed):
        return result
    match result.verdict:
        case Bail() as bail:
            return bail
        case NothingToDo(reason=reason) if not result.changed:
            return Failed("task", f"the commands fail, and the agent sees nothing to fix: {reason}")
        case _:
            return None


def _shown(failure: CommandResult) -> str:
    return f"$ {failure.command}\n{failure.tail.rstrip()}\n[exit code {failure.exit_code}]"
