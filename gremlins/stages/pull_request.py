"""Shared by the stages around a pull request: find it, judge its state, wait for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from gremlins.clients.base import Park, Wait
from gremlins.errors import NotReady
from gremlins.files import make_private_dir, read_file, remove_file, write_json
from gremlins.outcome import Bail, Done, Failed, FailureClass, Outcome
from gremlins.repository.github import GhFailed, GitHub, PullRequest, PushRefused, push
from gremlins.repository.worktree import Worktree
from gremlins.stages.base import StageContext

PULL_REQUEST = "pull-request.json"
LONGEST = 300.0
"""Seconds between two looks, however long it takes."""
SHARE = 0.1
"""Of the time waited so far, what the next wait may be."""

T = TypeVar("T")


def github(context: StageContext) -> GitHub:
    return GitHub(context.worktree.path, context.session.env, context.session.check)


def the_pull_request(context: StageContext) -> PullRequest | None:
    """The pull request of this gremlin's branch as it is now, or None."""
    known = context.artifact(PULL_REQUEST)
    if known is not None:
        return github(context).view(int(json.loads(known)["number"]))
    return find_ours(github(context), own_branch(context))


def own_branch(context: StageContext) -> Worktree:
    """The worktree with the base that the gremlin's branch began at, also within a round of a loop."""
    return replace(context.worktree, base=context.round.base) if context.round else context.worktree


def find_ours(hub: GitHub, worktree: Worktree) -> PullRequest | None:
    """The one of the branch whose head is of this gremlin's making: an id may have been used before."""
    ours = set(worktree.git.text("rev-list", f"{worktree.base}..{worktree.tip()}").split())
    return next((pull for pull in hub.of_branch(worktree.branch) if pull.head in ours), None)


def over(pull: PullRequest, worktree: Worktree) -> Outcome | None:
    """The outcome if a person ended the pull request."""
    if pull.state == "MERGED":
        tip, merged = worktree.tip(), f"pull request #{pull.number} was merged by another person"
        known = worktree.git.try_commit(pull.head)
        if pull.head == tip or (known is not None and worktree.git.is_ancestor(tip, known)):
            return Done(merged)
        return Done(f"{merged} before {tip[:12]} was pushed: it is on {worktree.branch}, and not in the merge")
    if pull.state == "CLOSED":
        return Bail("pr_closed", f"pull request #{pull.number} was closed without merging it ({pull.url})")
    return None


def bring_up(context: StageContext) -> Outcome | None:
    """Push the branch. None: it is there. Raises GhFailed, to be tried again."""
    try:
        push(context.worktree.git, context.worktree.branch, github(context).login, context.session.check)
    except PushRefused as error:
        return Bail("push_refused", context.without_secrets(error.message))
    return None


# ── waiting ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Waiting:
    """A wait that is told by what it waits for (`about`), and survives the process: when it began is in an artifact."""

    def __init__(self, context: StageContext, name: str, about: str, poll: float) -> None:
        self.context = context
        self.poll = poll
        self.path: Path = context.artifacts / f"{name}.wait.json"
        known = self._known()
        about = f"{about} attempt {context.session.attempt(context.path)}"
        now = context.clock.now()
        if known.get("about") == about:
            self.began = min(datetime.fromisoformat(known["began"]), now)
        else:
            self.began = now
            make_private_dir(self.path.parent)
            write_json(self.path, {"about": about, "began": now.isoformat()})

    def _known(self) -> dict[str, Any]:
        try:
            return dict(json.loads(read_file(self.path)))
        except (OSError, ValueError, TypeError):
            return {}

    @property
    def waited(self) -> float:
        return (self.context.clock.now() - self.began).total_seconds()

    def forget(self) -> None:
        remove_file(self.path)

    def park(self, why: str, *, timeout: float) -> Park:
        """To raise: gives the process up until the next look, at the latest until the wait is over."""
        pause = max(self.poll, min(SHARE * self.waited, LONGEST)) * self.context.session.jitter()
        pause = max(0.1, min(pause, timeout - self.waited))
        return Park(Wait(self.context.clock.now() + timedelta(seconds=pause), why=why))


def patiently(waiting: Waiting, what: Callable[[], T], *, timeout: float) -> T | Failed:
    """Ask GitHub; where that does not work, or gh is not logged in, come back later until the time is over."""
    context = waiting.context
    try:
        return what()
    except (GhFailed, NotReady) as error:
        said = context.without_secrets(f"{error.message} ({error.hint})" if error.hint else error.message)
        if waiting.waited >= timeout:
            waiting.forget()  # who rescues it means to wait once more
            kind: FailureClass = "config" if isinstance(error, NotReady) else "host"
            return Failed(kind, f"{said}; it was tried for {timeout:g} s", exit_code=error.exit_code)
        context.log(f"{context.path}: {said}; it is tried again")
        raise waiting.park(f"{said}; it is tried again", timeout=timeout) from None
