"""The stage `implement`: change the code as planned. No change bails, unless there was nothing to do."""

from __future__ import annotations

from gremlins.outcome import Bail, Done, Failed, Outcome
from gremlins.stages.base import StageContext
from gremlins.stages.context.briefing import Briefing, prompt_for
from gremlins.stages.edits.answer import NothingToDo
from gremlins.stages.edits.code_change import change_code
from gremlins.stages.spec import Implement


def run(spec: Implement, context: StageContext) -> Outcome:
    """Ask for the change and commit it."""

    def brief() -> Briefing:
        plan = context.artifact("plan.md") or ""
        return Briefing("implement", {"task": context.task, "plan": plan})

    result = change_code(
        spec, context, prompt_for(spec, context, brief), label=context.path, subject=context.title or "Implement"
    )
    if isinstance(result, Failed):
        return result
    match result.verdict:
        case Bail() as bail:
            return bail
        case NothingToDo(reason=reason) if not result.changed:
            return Done(f"nothing to do: {reason}", nothing_to_do=reason)
        case _ if result.changed:
            return Done("committed the change")
        case _:
            said = " ".join(result.text.split())[:300]
            return Bail("empty_implementation", f"nothing was changed; the agent said: {said or 'nothing'}")
