"""The stage `open_pr`: push the gremlin's own branch, and open a pull request where there is none yet."""

from __future__ import annotations

import json

from gremlins.outcome import Bail, Done, Outcome
from gremlins.repository.github import GhFailed, PullRequest
from gremlins.repository.worktree import Worktree
from gremlins.stages.base import StageContext
from gremlins.stages.pull_request import PULL_REQUEST, Waiting, bring_up, find_ours, github, over, own_branch, patiently
from gremlins.stages.spec import OpenPr

BODY_LIMIT = 30_000
TITLE_LIMIT = 200
PATIENCE = 3600.0
"""Seconds for which a push or a pull request that does not work is tried again."""


def run(spec: OpenPr, context: StageContext) -> Outcome:
    """Push and open. A second time, after a crash or a fix, only what is missing is done."""
    worktree = own_branch(context)
    if not worktree.git.differs(worktree.base, worktree.tip()):
        return Done("no change, and so no pull request")
    waiting = Waiting(context, spec.name, worktree.tip(), context.settings.batch.retry_initial)
    found = patiently(waiting, lambda: _push_and_open(spec, context, worktree), timeout=PATIENCE)
    if not isinstance(found, PullRequest):
        return found
    known = {"number": found.number, "url": found.url, "branch": worktree.branch, "base": found.base}
    context.write_artifact(PULL_REQUEST, json.dumps(known, indent=1))
    ended = over(found, worktree)
    if isinstance(ended, Bail):
        return ended
    return Done(f"pull request #{found.number}: {found.url}")


def _push_and_open(spec: OpenPr, context: StageContext, worktree: Worktree) -> PullRequest | Outcome:
    """The branch's pull request. Raises GhFailed, to be tried again: what is there by then is found."""
    if (problem := bring_up(context)) is not None:
        return problem
    found = find_ours(github(context), worktree) or _open(spec, context)
    if found is None:
        raise GhFailed("the pull request was opened, but GitHub does not list it yet")
    return found


def _open(spec: OpenPr, context: StageContext) -> PullRequest | None:
    title = spec.title or context.title or context.worktree.branch
    task = context.round.goal if context.round else context.task
    body = f"{task.strip()[:BODY_LIMIT]}\n\nMade by gremlin `{context.session.gremlin_id}`.\n"
    hub = github(context)
    number = hub.create(
        branch=context.worktree.branch,
        title=context.without_secrets(title)[:TITLE_LIMIT],
        body=context.without_secrets(body).lstrip(),
        base=spec.base,
        draft=spec.draft,
    )
    return find_ours(hub, own_branch(context)) if number is None else hub.view(number)
