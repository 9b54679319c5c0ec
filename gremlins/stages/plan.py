"""The stage `plan`: the reply's text is `artifacts/plan.md`, in both modes."""

from __future__ import annotations

from gremlins.outcome import Bail, Done, Failed, Outcome
from gremlins.stages.asking import ask
from gremlins.stages.base import StageContext
from gremlins.stages.context.briefing import Briefing, prompt_for
from gremlins.stages.edits.answer import NothingToDo, parse_verdict
from gremlins.stages.plan_tasks import has_tasks
from gremlins.stages.spec import Plan


def run(spec: Plan, context: StageContext) -> Outcome:
    """Ask for a plan and keep it."""
    brief = Briefing("plan", {"task": context.task})
    answer = ask(spec, context, prompt_for(spec, context, lambda: brief))
    if isinstance(answer, Bail):
        return answer
    if not answer.text.strip():
        return Failed("task", "the plan came back empty")
    context.write_artifact("plan.md", answer.text)
    match parse_verdict(answer.text):
        case Bail() as bail:
            return bail
        case NothingToDo(reason=reason):
            return Done(f"nothing to do: {reason}", nothing_to_do=reason)
        case _ if not has_tasks(answer.text) and not _names_the_task(answer.text):
            return Bail("empty_plan", f"the plan holds no task: {' '.join(answer.text.split())[:300]}")
        case _:
            return Done("wrote artifacts/plan.md")


def _names_the_task(plan: str) -> bool:
    """True if it is headings only, which may say all there is to do."""
    return all(line.startswith("#") for line in plan.splitlines() if line.strip())
