"""`land`: a finished gremlin's work onto a branch, recorded, and only then its worktree removed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from gremlins.clock import Clock
from gremlins.cluster.hands import at_hand, bring_here
from gremlins.errors import Conflict, GremlinsError
from gremlins.files import read_file
from gremlins.fleet.start_point import refuse_before
from gremlins.fleet.status import look
from gremlins.paths import GremlinPaths, Home
from gremlins.processes.locks import GremlinLock
from gremlins.records.gremlin import Finished, Gremlin, Landed, RunStore
from gremlins.records.journal import Journal
from gremlins.repository.folder import refuse_lost, remove
from gremlins.repository.git import Git
from gremlins.repository.github import TIMEOUT, GhFailed, GitHub, PullRequest, remote_of
from gremlins.repository.landing import LandedCommit, try_landing
from gremlins.repository.landing import land as land_branch
from gremlins.repository.project import find_project
from gremlins.repository.protected import protected
from gremlins.repository.worktree import Worktree
from gremlins.stages.pull_request import PULL_REQUEST, find_ours

LONGEST_BODY = 4000
"""Characters of a landing commit's body."""


@dataclass(frozen=True)
class Landing:
    """A landing. `sha` is the commit on `target`; with `by_hand` a person had merged it already.

    kept: the ref that holds files of its worktree which were in no commit. left: what could not be cleared away.
    notes: protected paths that it changes, and what git was configured to do and did not.
    """

    id: str
    sha: str
    target: str
    files_changed: int
    by_hand: bool = False
    kept: str | None = None
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def land(
    home: Home,
    gremlin_id: str,
    *,
    clock: Clock,
    mode: Literal["squash", "ff"] = "squash",
    into: str | None = None,
    keep: bool = False,
    message: str | None = None,
) -> Landing:
    """Land a finished gremlin; a `message` takes the place of its title and summary.

    Raises Conflict, with nothing changed, when tree, branch or gremlin do not allow it.
    """
    _refuse_unless_finished(home, gremlin_id, clock)
    store, paths = RunStore(home, clock), home.gremlin(gremlin_id)
    with (
        at_hand(home, gremlin_id, clock, in_clone=True),
        GremlinLock.acquire(paths.lock, "keeper", clock=clock) as lock,
    ):
        record = _finished(store, gremlin_id)
        refuse_before(home, record)
        done = land_branch(
            landing_place(record, into),
            record.branch,
            record.base,
            message=message or _message(record),
            token=_token(record),
            mode=mode,
            into=into,
        )
        return _landed(store, record, lock, _landing(record, done), keep=keep)


def try_to_land(
    home: Home,
    gremlin_id: str,
    *,
    clock: Clock,
    mode: Literal["squash", "ff"] = "squash",
    into: str | None = None,
) -> Landing:
    """The landing that `land` would make, with nothing changed. Raises what `land` raises."""
    _refuse_unless_finished(home, gremlin_id, clock)
    bring_here(home, gremlin_id, clock, commits=True)
    record = _finished(RunStore(home, clock), gremlin_id)
    refuse_before(home, record)
    place = landing_place(record, into)
    return _landing(record, try_landing(place, record.branch, record.base, token=_token(record), mode=mode, into=into))


def _token(record: Gremlin) -> str:
    return f"{record.id}/{record.uid}"


def _landing(record: Gremlin, done: LandedCommit) -> Landing:
    worktree = Worktree(Path(record.project), Path(record.worktree), record.branch, record.base)
    notes = () if done.by_hand else tuple(_notes(worktree))
    return Landing(
        record.id, done.sha, done.target_branch, done.files_changed, done.by_hand, left=done.left, notes=notes
    )


def _notes(worktree: Worktree) -> Iterator[str]:
    git = Git(worktree.repo)
    for sentence in protected(git.changed_paths(worktree.base, worktree.tip())):
        yield f"it changes {sentence}"
    values = (git.answer("config", "--bool", "--get-all", "commit.gpgSign") or "").split()
    if values[-2:-1] == ["true"]:  # the last one is ours
        yield "the commit is not signed: `git commit --amend --no-edit -S` signs it"


def landing_place(record: Gremlin, into: str | None) -> Path:
    """The working tree it was launched from; where a branch is named, any place of the repository."""
    project = Path(record.project)
    refuse_lost(Worktree(project, Path(record.worktree), record.branch, record.base))
    try:
        if not record.checkout or find_project(record.tree) == project:
            return record.tree
    except GremlinsError:
        pass  # it is gone
    if into is not None:
        return project
    raise Conflict(
        f"{record.tree}, from which it was launched, is not a working tree of {project} any more",
        hint=f"name a branch: `gremlins land {record.id} --into BRANCH`",
    )


def land_pr(
    home: Home, gremlin_id: str, *, clock: Clock, env: Mapping[str, str], keep: bool = False, patience: float = 60.0
) -> Landing:
    """Have GitHub merge its pull request, and see it merged, before anything is removed.

    Raises Conflict where it is closed, holds something else than the gremlin's branch, or is not green; GhFailed;
    NotReady.
    """
    _refuse_unless_finished(home, gremlin_id, clock)
    store, paths = RunStore(home, clock), home.gremlin(gremlin_id)
    with (
        at_hand(home, gremlin_id, clock, in_clone=True),
        GremlinLock.acquire(paths.lock, "keeper", clock=clock) as lock,
    ):
        record = _finished(store, gremlin_id)
        hub = GitHub(Path(record.project), env)
        pull = _mergeable(hub, record, paths)
        if pull.state != "MERGED":
            pull = _merge(hub, record, pull, clock, patience)
        return _landed(store, record, lock, _landing_of(record, pull), keep=keep)


def try_to_land_pr(home: Home, gremlin_id: str, *, clock: Clock, env: Mapping[str, str]) -> Landing:
    """The landing that `land_pr` would ask GitHub for, with nothing changed. Raises what `land_pr` raises."""
    _refuse_unless_finished(home, gremlin_id, clock)
    bring_here(home, gremlin_id, clock, commits=True)
    record = _finished(RunStore(home, clock), gremlin_id)
    pull = _mergeable(GitHub(Path(record.project), env), record, home.gremlin(gremlin_id))
    return changed(_landing_of(record, pull), by_hand=pull.state == "MERGED")


def _landing_of(record: Gremlin, pull: PullRequest) -> Landing:
    worktree = Worktree(Path(record.project), Path(record.worktree), record.branch, record.base)
    files = len(Git(worktree.repo).changed_paths(record.base, worktree.tip()))
    return Landing(record.id, pull.merge_commit or pull.head, pull.base, files)


def _mergeable(hub: GitHub, record: Gremlin, paths: GremlinPaths) -> PullRequest:
    """Its pull request, which may be merged, or is merged already. Raises Conflict."""
    worktree = Worktree(Path(record.project), Path(record.worktree), record.branch, record.base)
    pull = _pull_of(hub, worktree, paths)
    if pull.state == "MERGED" and _holds(worktree, pull, hub.login):
        return pull
    if pull.state == "MERGED":
        raise Conflict(
            f"pull request #{pull.number} was merged without all commits of {record.id}",
            hint=f"fetch the merge, then `gremlins land {record.id}` lands the rest here",
        )
    if pull.head != worktree.tip():
        raise Conflict(
            f"pull request #{pull.number} ends in {pull.head[:12]}, the branch of {record.id} in {worktree.tip()[:12]}",
            hint=f"push or fetch until both are the same: {pull.url}",
        )
    _refuse_unless_green(record, pull)
    return pull


def _merge(hub: GitHub, record: Gremlin, pull: PullRequest, clock: Clock, patience: float) -> PullRequest:
    """Have GitHub merge it, and wait until it has. An answer may be lost: only a look tells what became of it."""
    again = f"run `gremlins land {record.id} --pr` again ({pull.url})"
    refused: GhFailed | None = None
    try:
        hub.merge(pull.number, pull.head)
    except GhFailed as error:
        refused = error
    until, why = clock.monotonic() + patience, f"pull request #{pull.number} is not merged yet"
    while True:
        try:
            if (seen := hub.view(pull.number)).state == "MERGED":
                return seen
        except GhFailed as error:
            why = error.message
        else:
            if refused is not None:
                raise GremlinsError(f"{refused.message}; nothing was removed", hint=again)
        if clock.monotonic() >= until:
            raise GremlinsError(f"{why}; nothing was removed", hint=f"it may be queued: {again}")
        clock.sleep(2.0)


def _holds(worktree: Worktree, pull: PullRequest, login: Mapping[str, str]) -> bool:
    """True if the merge holds all of the gremlin's commits: other people may have added their own."""
    git, tip = Git(worktree.repo), worktree.tip()
    if pull.head == tip:
        return True
    if git.try_commit(pull.head) is None:
        words = ("fetch", "--quiet", "--no-write-fetch-head", remote_of(git), f"refs/pull/{pull.number}/head")
        git.attempt(*words, env=login, timeout=TIMEOUT)
    return git.try_commit(pull.head) is not None and git.is_ancestor(tip, pull.head)


def _pull_of(hub: GitHub, worktree: Worktree, paths: GremlinPaths) -> PullRequest:
    try:
        number = int(json.loads(read_file(paths.artifacts / PULL_REQUEST))["number"])
    except (OSError, ValueError, KeyError, TypeError):
        found = find_ours(hub, worktree)
        if found is None:
            raise Conflict(
                f"{paths.root.name} has no pull request", hint=f"`gremlins land {paths.root.name}` lands it here"
            ) from None
        return found
    return hub.view(number)


def _refuse_unless_green(record: Gremlin, pull: PullRequest) -> None:
    if pull.state == "CLOSED":
        raise Conflict(f"pull request #{pull.number} was closed", hint=f"reopen it: {pull.url}")
    red = [check for check in pull.checks if check.state != "passed"]
    if red:
        names = ", ".join(f"{check.name} {check.state}" for check in red[:8])
        raise Conflict(f"the checks of pull request #{pull.number} are not green: {names}", hint=f"see {pull.url}")
    latest = {run.path: run for run in record.stages}
    if not pull.checks and any(run.type == "wait_ci" and run.outcome == "done" for run in latest.values()):
        raise Conflict(f"pull request #{pull.number} shows no checks any more", hint=f"see {pull.url}")


def _refuse_unless_finished(home: Home, gremlin_id: str, clock: Clock) -> None:
    row = look(home, gremlin_id, clock)
    if isinstance(row.record.status, Landed):
        raise Conflict(
            f"{gremlin_id} has landed already, as {row.record.status.sha[:12]}",
            hint=f"`gremlins rm {gremlin_id}` removes what is left of it",
        )
    if row.life.state != "finished":
        raise Conflict(
            f"{gremlin_id} is {row.life.shown}, not finished",
            hint=f"`gremlins show {gremlin_id}` tells where it stands",
        )


def _finished(store: RunStore, gremlin_id: str) -> Gremlin:
    record = store.read(gremlin_id)
    if not isinstance(record.status, Finished):
        raise Conflict(f"{gremlin_id} is not finished any more")
    return record


def _landed(store: RunStore, record: Gremlin, lock: GremlinLock, landing: Landing, *, keep: bool) -> Landing:
    """On record first, then nothing of it is needed any more. It has landed, so what fails here is only told."""
    assert isinstance(record.status, Finished)
    now, (sha, target) = store.clock.now(), (landing.sha, landing.target)
    try:
        tip = Git(Path(record.project)).try_commit(f"refs/heads/{record.branch}")
        status = Landed(since=now, sha=sha, target=target, evidence=record.status.evidence, tip=tip)
        record = store.write(replace(record, status=status, ended_at=now), lock)
        journal = Journal(store.paths(record.id).log, store.clock)
        journal(f"landed on {target} as {sha[:12]}")
    except (GremlinsError, OSError) as error:
        left = f"its record could not be written ({error}): `gremlins land {record.id}` again writes it"
        return changed(landing, left=(*landing.left, left))
    return landing if keep else _clear_away(record, journal, landing)


def _clear_away(record: Gremlin, journal: Journal, landing: Landing) -> Landing:
    """Worktree and branch, now that what they held is safe."""
    worktree = Worktree(Path(record.project), Path(record.worktree), record.branch, record.base)
    try:
        kept = remove(worktree, delete_branch=True)
        if kept is not None:
            journal(f"files of its worktree that were in no commit are kept as {kept}")
        return changed(landing, kept=kept)
    except (GremlinsError, OSError) as error:
        left = f"its worktree could not be removed ({error}): `gremlins rm {record.id}` tries again"
        journal(left)
        return changed(landing, left=(*landing.left, left))


def _message(record: Gremlin) -> str:
    """The task's title, and as body the agent's summaries from the branch; the task itself where there are none."""
    task = record.task.strip()
    body = _summaries(record) or ("" if task == record.title else task)
    return f"{record.title or record.id}\n\n{body[:LONGEST_BODY]}".rstrip()


def _summaries(record: Gremlin) -> str:
    """The bodies of the branch's commits, oldest first, without our trailers."""
    span = f"{record.base}..refs/heads/{record.branch}"
    bodies = Git(Path(record.project)).text("log", "--reverse", "--no-merges", "--format=%b%x00", span).split("\0")
    lines = [[line for line in body.splitlines() if not line.startswith("Gremlins-")] for body in bodies]
    return "\n\n".join(text for body in lines if (text := "\n".join(body).strip()))
