"""The stage `review_code`: the diff and what it touches, read by a model; its text is `artifacts/review.md`."""

from __future__ import annotations

from gremlins.outcome import Bail, Done, Failed, Outcome
from gremlins.repository.protected import protected
from gremlins.stages.asking import ask
from gremlins.stages.base import StageContext
from gremlins.stages.context.briefing import Briefing, prompt_for
from gremlins.stages.edits.answer import parse_verdict
from gremlins.stages.secrecy import screen_diff
from gremlins.stages.spec import ReviewCode

DIFF_LIMIT = 200_000
"""Characters of a diff that go into a prompt as they are; a longer one is cut, and says so."""


def run(spec: ReviewCode, context: StageContext) -> Outcome:
    """Review the branch against its base. A branch without a difference has nothing to review."""
    worktree = context.worktree
    if not worktree.git.differs(worktree.base, worktree.tip()):
        context.write_artifact("review.md", "There is no change to review.")
        return Done("no change to review")

    def brief() -> Briefing:
        diff = diff_under_review(context)
        paths = "\n".join(protected(worktree.git.changed_paths(worktree.base, worktree.tip())))
        plan = context.artifact("plan.md") or ""
        sections = {"task": context.task, "plan": plan, "protected_paths": paths, "diff": diff}
        return Briefing("review_code", sections, diff_base=worktree.base)

    answer = ask(spec, context, prompt_for(spec, context, brief))
    if isinstance(answer, Bail):
        return answer
    if not answer.text.strip():
        return Failed("task", "the review came back empty")
    context.write_artifact("review.md", answer.text)
    verdict = parse_verdict(answer.text)
    return verdict if isinstance(verdict, Bail) else Done("wrote artifacts/review.md")


def diff_under_review(context: StageContext) -> str:
    """The branch's difference to its base."""
    worktree = context.worktree
    diff = screen_diff(worktree.git.diff(worktree.base, worktree.tip()))
    if len(diff) <= DIFF_LIMIT:
        return diff
    return f"{diff[:DIFF_LIMIT]}\n… ({len(diff) - DIFF_LIMIT} more characters of the diff are left out)\n"
