"""The stage `address_code`: what a review found, taken one by one. No change is an answer too."""

from __future__ import annotations

import re
from typing import Literal

from gremlins.outcome import CONFLICT, Bail, Done, Failed, Outcome
from gremlins.records.persons_words import REMARKS
from gremlins.repository.catching_up import unresolved
from gremlins.repository.git import some_of
from gremlins.stages.base import StageContext
from gremlins.stages.context.briefing import Briefing, prompt_for
from gremlins.stages.context.prompting import Kind
from gremlins.stages.edits.answer import NothingToDo, parse_verdict
from gremlins.stages.edits.code_change import change_code
from gremlins.stages.review_code import diff_under_review
from gremlins.stages.spec import AddressCode


def run(spec: AddressCode, context: StageContext) -> Outcome:
    """Ask for what the review wants changed, or why not; the answer is `artifacts/addressed.md`."""
    remarks = context.artifact(REMARKS)
    if remarks is not None:
        return _address(spec, context, "remarks", remarks)
    review = context.artifact("review.md") or ""
    if not review.strip() or review.startswith("There is no change to review."):
        return Done("no review to address")
    if is_clean(review):
        return Done("the review has no findings; nothing was asked")
    return _address(spec, context, "review", review)


def _address(spec: AddressCode, context: StageContext, tag: Literal["review", "remarks"], text: str) -> Outcome:
    """Ask for the changes of a review, or of a person's remarks in its place."""

    def brief() -> Briefing:
        sections = {
            "task": context.task,
            "plan": context.artifact("plan.md") or "",
            "diff": diff_under_review(context),
            tag: text,
        }
        kind: Kind = "revise" if tag == "remarks" else "address_code"
        return Briefing(kind, sections, evidence=text, diff_base=context.worktree.base)

    result = change_code(
        spec,
        context,
        prompt_for(spec, context, brief),
        label=context.path,
        subject=f"Address the {tag}: {context.title}"[:72],
    )
    if isinstance(result, Failed):
        return result
    if result.text.strip():
        context.write_artifact("addressed.md", result.text)
    if isinstance(result.verdict, Bail):
        return result.verdict
    if left := unresolved(context.worktree):
        return Bail(CONFLICT, f"conflict markers are left in {some_of(left)}")
    return Done(f"committed what the {tag} asked for" if result.changed else "nothing to change; see addressed.md")


def is_clean(review: str) -> bool:
    """True if every review in the text approves, or the last sees nothing to do, and none has a finding."""
    verdicts = re.findall(r"^\W*VERDICT\W*:\W*(\w+)", review, re.MULTILINE | re.IGNORECASE)
    content = bool(verdicts) or isinstance(parse_verdict(review), NothingToDo)
    approved = content and all(verdict.lower() == "approve" for verdict in verdicts)
    return approved and not re.search(r"^#+\s*F\d+\b|^\W*F\d+\b", review, re.MULTILINE)
