"""The stage `agent`: a prompt of the project's own; the reply's text is `artifacts/NAME.md`."""

from __future__ import annotations

from gremlins.outcome import Bail, Done, Failed, Outcome
from gremlins.stages.asking import ask
from gremlins.stages.base import StageContext
from gremlins.stages.context.briefing import Briefing, prompt_for
from gremlins.stages.edits.answer import NothingToDo, parse_verdict
from gremlins.stages.review_code import diff_under_review
from gremlins.stages.spec import PromptStage


def run(spec: PromptStage, context: StageContext) -> Outcome:
    """Ask, and keep the reply."""

    def brief() -> Briefing:
        sections = {
            "task": context.task,
            "plan": context.artifact("plan.md") or "",
            "diff": diff_under_review(context),
            "review": context.artifact("review.md") or "",
        }
        return Briefing("agent", sections, evidence=spec.prompt_text or "")

    answer = ask(spec, context, prompt_for(spec, context, brief))
    if isinstance(answer, Bail):
        return answer
    if not answer.text.strip():
        return Failed("task", f"the reply for `{spec.name}` came back empty")
    context.write_artifact(f"{spec.name}.md", answer.text)
    match parse_verdict(answer.text):
        case Bail() as bail:
            return bail
        case NothingToDo(reason=reason):
            return Done(f"nothing to do: {reason}", nothing_to_do=reason)
        case _:
            return Done(f"wrote artifacts/{spec.name}.md")
