"""The stage `wait_review`: wait for a review on the pull request; it becomes `artifacts/review.md` for what follows."""

from __future__ import annotations

import json
from collections.abc import Sequence

from gremlins.files import make_private_dir, write_json
from gremlins.outcome import Done, Failed, Outcome
from gremlins.repository.github import Comment, PullRequest, Review
from gremlins.stages.base import StageContext
from gremlins.stages.pull_request import Waiting, github, over, patiently, the_pull_request
from gremlins.stages.spec import WaitReview

TAKEN = "reviews-taken.json"
"""The reviews taken, by stage: a second `wait_review` waits for another one."""


def run(spec: WaitReview, context: StageContext) -> Outcome:
    """Wait for a review. None within the time is no failure."""
    waiting = Waiting(context, spec.name, "a review", spec.poll)
    pull = patiently(waiting, lambda: the_pull_request(context), timeout=spec.timeout)
    if isinstance(pull, Failed):
        return pull
    ended = Done("there is no pull request to review") if pull is None else over(pull, context.worktree)
    if pull is None or ended is not None:
        _nothing(context, "there is no open pull request")
        return ended or Done()
    reviews = _fresh(spec, context, pull)
    if reviews:
        remarks = patiently(waiting, lambda: github(context).remarks(pull.number), timeout=spec.timeout)
        if isinstance(remarks, Failed):
            return remarks
        remarks = [remark for remark in remarks if _wanted(spec, context, f"remark {remark.id}", remark.author)]
        context.write_artifact("review.md", render(pull, reviews, remarks))
        _take(context, [*(review.id for review in reviews), *(f"remark {remark.id}" for remark in remarks)])
        return Done(f"reviewed by {', '.join(sorted({review.author for review in reviews}))}")
    if waiting.waited >= spec.timeout:
        _nothing(context, f"no review came within {spec.timeout:g} s")
        return Done(f"no review came for #{pull.number} within {spec.timeout:g} s")
    raise waiting.park(f"waiting for a review of #{pull.number}", timeout=spec.timeout)


def _nothing(context: StageContext, why: str) -> None:
    """In place of an older review, which would be addressed a second time."""
    context.write_artifact("review.md", f"No review from GitHub.\n\nVERDICT: approve: {why}")


def _fresh(spec: WaitReview, context: StageContext, pull: PullRequest) -> list[Review]:
    """Reviews that were handed in."""
    given = ("APPROVED", "CHANGES_REQUESTED", "COMMENTED")
    return [r for r in pull.reviews if r.state in given and _wanted(spec, context, r.id, r.author)]


def _wanted(spec: WaitReview, context: StageContext, name: str, author: str) -> bool:
    """True if the named reviewer wrote it and no other stage has taken it."""
    by_them = _login(author).startswith(_login(spec.reviewer or ""))
    return by_them and _taken(context).get(name, context.path) == context.path


def _login(name: str) -> str:
    """One word for one account: GitHub gives a bot's login with and without `[bot]`, and Copilot's in three ways."""
    plain = name.lower().removeprefix("@").removesuffix("[bot]")
    return "copilot" if plain == "copilot-pull-request-reviewer" else plain


def _taken(context: StageContext) -> dict[str, str]:
    try:
        return dict(json.loads(context.artifact(TAKEN) or "{}"))
    except (ValueError, TypeError):
        return {}


def _take(context: StageContext, names: Sequence[str]) -> None:
    make_private_dir(context.artifacts)
    write_json(context.artifacts / TAKEN, {**_taken(context), **dict.fromkeys(names, context.path)})


def render(pull: PullRequest, reviews: Sequence[Review], remarks: Sequence[Comment]) -> str:
    """A review in the form the stage `address_code` knows: findings by number, and a verdict."""
    findings = [(f"{review.author}", review.body.strip()) for review in reviews if review.body.strip()]
    for remark in remarks:
        if remark.body.strip():
            line = f":{remark.line}" if remark.line else ""
            findings.append((f"`{remark.path}{line}` ({remark.author})", remark.body.strip()))
    parts = [f"# Review of pull request #{pull.number}"]
    parts += [f"### F{number} {where}\n{body}" for number, (where, body) in enumerate(findings, 1)]
    approved = all(review.state != "CHANGES_REQUESTED" for review in reviews)
    said = "approve" if approved else "changes requested"
    parts.append(f"VERDICT: {said}: {', '.join(f'{r.author} {r.state.lower()}' for r in reviews)}")
    return "\n\n".join(parts)
