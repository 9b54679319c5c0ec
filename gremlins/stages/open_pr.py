"""The stage `open_pr`: push the gremlin's own branch, and open a pull request where there is none yet."""

from __future__ import annotations

import json

from gremlins.outcome import Bail, Done, Failed, Outcome
from gremlins.repository.github import GhFailed, PullRequest
from gremlins.stages.base import StageContext
from gremlins.stages.pull_request import PULL_REQUEST, bring_up, find_ours, github, over, own_branch
from gremlins.stages.spec import OpenPr

BODY_LIMIT = 30_000
TITLE_LIMIT = 200


def run(spec: OpenPr, context: StageContext) -> Outcome:
    """Push and open. A second time, after a crash or a fix, only what is missing is done."""
    worktree = own_branch(context)
    if not worktree.git.differs(worktree.base, worktree.tip()):
        return Done("no change, and so no pull request")
    if (problem := bring_up(context)) is not None:
        return problem
    try:
        found = find_ours(github(context), worktree) or _open(spec, context)
    except GhFailed as error:
        return Failed("host", error.message)
    if found is None:
        return Failed("host", "the pull request was opened, but GitHub does not list it yet")
    known = {"number": found.number, "url": found.url, "branch": worktree.branch, "base": found.base}
    context.write_artifact(PULL_REQUEST, json.dumps(known, indent=1))
    ended = over(found)
    if isinstance(ended, Bail):
        return ended
    return Done(f"pull request #{found.number}: {found.url}")


def _open(spec: OpenPr, context: StageContext) -> PullRequest | None:
    title = spec.title or context.title or context.worktree.branch
    task = context.round.goal if context.round else context.task
    body = f"{task.strip()[:BODY_LIMIT]}\n\nMade by gremlin `{context.session.gremlin_id}`.\n"
    hub = github(context)
    number = hub.create(
        branch=context.worktree.branch, title=title[:TITLE_LIMIT], body=body.lstrip(), base=spec.base, draft=spec.draft
    )
    return find_ours(hub, own_branch(context)) if number is None else hub.view(number)
