"""Branches of a `parallel` stage: their worktrees, ends, merge and artifacts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gremlins.errors import Conflict
from gremlins.files import make_private_dir, read_file, write_json
from gremlins.outcome import Bail, Failed
from gremlins.repository.folder import create, remove, restore
from gremlins.repository.interrupted import undo_killed_commands
from gremlins.repository.worktree import (
    Worktree,
    clear_stale_locks,
    merge_branch,
    quiet_env,
    side_worktree,
)
from gremlins.stages.base import StageContext
from gremlins.stages.edits.code_change import remember_start, start_ref
from gremlins.stages.spec import Parallel, StageSpec

BRANCH_TRAILER = "Gremlins-Branch"


@dataclass(frozen=True)
class Branch:
    """One branch. `own` is its worktree, None for one that changes no code and reads in the gremlin's."""

    name: str
    path: str
    stages: Sequence[StageSpec]
    context: StageContext
    own: Worktree | None
    trailer: str
    outcome_file: Path


def open_branches(spec: Parallel, context: StageContext, *, make: bool = True) -> list[Branch]:
    """Every branch with its surroundings; with `make`, worktrees that are missing are made."""
    branches = [_branch(name, stages, spec, context) for name, stages in spec.branches.items()]
    if make:
        fork = remember_start(context.worktree, context.path)
        for branch in branches:
            make_private_dir(branch.context.artifacts)
            if branch.own is not None:
                _make_whole(branch, branch.own, fork, context)
    return branches


def _branch(name: str, stages: Sequence[StageSpec], spec: Parallel, context: StageContext) -> Branch:
    path = f"{context.path}/{name}"
    inside = context.inside(f"{spec.name}/{name}")
    trailer = f"{BRANCH_TRAILER}: {path} a{context.session.attempt(context.path)}"
    own: Worktree | None = None
    if any(stage.changes_code for stage in stages):
        # A review in a branch sees all that the gremlin has changed, so its base is the gremlin's, not the fork.
        own = side_worktree(context.worktree, name, context.worktree.base)
        session = replace(context.session, worktree=own.path, git_env=partial(quiet_env, own, {}))
        inside = replace(inside, worktree=own, session=session)
    return Branch(name, path, stages, inside, own, trailer, context.artifacts / spec.name / f"{name}.outcome.json")


def _make_whole(branch: Branch, own: Worktree, fork: str, context: StageContext) -> None:
    """New at the fork, or as it was left."""
    git = context.worktree.git
    begun = any(done.startswith(f"{branch.path}/") for done in context.done())
    tip = git.try_commit(own.ref)
    if not begun and tip is not None and not git.is_ancestor(fork, tip):
        # Of an earlier round, never merged: a person accepted its conflict.
        kept = start_ref(own, branch.path).replace("/start/", "/before/")
        git.update_ref(kept, tip, reason="gremlins: never merged")
        _remove(own, context)
        tip = None
    if not begun and tip is None:
        create(own.repo, own.path, own.branch, fork)
        return
    if (found := restore(own)) is not None:  # raises where a person removed a branch that held work
        context.log(f"{branch.path}: files of its incomplete worktree are kept as {found}")
    clear_stale_locks(own, clock=context.clock)
    if (aside := undo_killed_commands(own)) is not None:
        context.log(f"{branch.path}: what commands had half made when they were cut short was kept as {aside}")


def was_merged(spec: Parallel, context: StageContext) -> bool:
    """True if this attempt has merged all its branches; their worktrees may be gone."""
    try:
        return bool(json.loads(read_file(_merged_file(spec.name, context))) == _this_attempt(context))
    except (OSError, ValueError):
        return False


def _merged_file(name: str, context: StageContext) -> Path:
    return context.artifacts / name / "merged.json"


def _this_attempt(context: StageContext) -> dict[str, object]:
    return {"path": context.path, "attempt": context.session.attempt(context.path)}


# ── how a branch ended ────────────────────────────────────────────────────────────────────────────────────────────


def remember_outcome(branch: Branch, outcome: Bail | Failed, context: StageContext) -> None:
    """That a branch did not end well, so that coming back from a wait does not run it once more."""
    kind = "failed" if isinstance(outcome, Failed) else "bailed"
    at = context.clock.now().isoformat()
    write_json(
        branch.outcome_file, {"spawn": context.session.spawn, "at": at, "kind": kind, "outcome": asdict(outcome)}
    )


def branch_outcome(branch: Branch, context: StageContext) -> tuple[str, Bail | Failed] | None:
    """The time and kind of its end, if that was since the gremlin was last launched or rescued."""
    try:
        known: Mapping[str, Any] = json.loads(read_file(branch.outcome_file))
        if known["spawn"] != context.session.spawn:
            return None
        made = Failed if known["kind"] == "failed" else Bail
        return str(known["at"]), made(**known["outcome"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


# ── bringing it together ──────────────────────────────────────────────────────────────────────────────────────────


def merge_branches(branches: Sequence[Branch], context: StageContext) -> Bail | None:
    """Merge in order what the branches committed, then remove their worktrees. A conflict changes nothing."""
    for branch in branches:
        if branch.own is None:
            continue
        tip = context.worktree.git.try_commit(branch.own.ref)
        if tip is None:  # a person removed it, or all are merged and it is cleared away
            continue
        message = f"Merge branch {branch.name} of {context.path.rpartition('/')[2]}"
        try:
            merge_branch(context.worktree, tip, message=message, trailer=branch.trailer)
        except Conflict as conflict:
            return Bail(
                "merge_conflict",
                f"branch {branch.name} ({branch.own.branch}): {conflict.message}; merge it by hand in "
                f"{context.worktree.path} and rescue the gremlin",
            )
    write_json(_merged_file(context.path.rpartition("/")[2], context), _this_attempt(context))
    for branch in branches:
        if branch.own is not None:
            _remove(branch.own, context)
    return None


def _remove(own: Worktree, context: StageContext) -> None:
    try:
        kept = remove(own, delete_branch=True)
    except Conflict as conflict:  # a person's: locked, in use, or with a repository of its own in it
        context.log(f"{own.path} stays: {conflict.message}")
        return
    if kept is not None:
        context.log(f"what {own.path} had in no commit is kept as {kept}")


def publish_artifacts(branches: Sequence[Branch], context: StageContext) -> None:
    """Copy the branches' artifacts to the next stages; files of one name become one text, a heading for each branch."""
    found: dict[str, list[tuple[str, str]]] = {}
    for branch in branches:
        for path in sorted(branch.context.artifacts.glob("*.md")):
            if not path.name.startswith("context-"):
                found.setdefault(path.name, []).append((branch.name, read_file(path).decode(errors="replace")))
    for name, texts in found.items():
        if name == "plan.md" and context.artifact(name) is not None:
            continue  # the plan of the whole stays what it is
        parts = [f"<!-- branch {branch} -->\n\n{text.strip()}" for branch, text in texts]
        context.write_artifact(name, texts[0][1] if len(texts) == 1 else "\n\n".join(parts))
