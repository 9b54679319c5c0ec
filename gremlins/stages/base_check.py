"""Tells a failure that a model cannot mend: a tool that is not there, a check that fails the same without the change.

The check runs on the base commit in a worktree of its own, once for each base and command; its result is an artifact.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from gremlins.files import read_file, write_json
from gremlins.outcome import Bail, Failed
from gremlins.repository.folder import create, remove, restore
from gremlins.repository.worktree import quiet_env, side_worktree
from gremlins.stages.base import StageContext
from gremlins.stages.commands import CommandResult, failure_sentence, first_failure
from gremlins.stages.readiness import make_ready

NOT_RUNNABLE = frozenset({126, 127})
"""Exit codes of a shell for a command that cannot be run, and for one that is not there."""
_VARYING = re.compile(r"0x[0-9a-f]+|\d+([.:]\d+)*|/\S{0,300}/worktrees/[^/\s]+")
"""The differences between two runs of one failure: addresses, counts, times, the worktree's own path."""


def beyond_a_model(
    failure: CommandResult, commands: Sequence[str], context: StageContext, *, timeout: float, first: bool
) -> Bail | Failed | None:
    """The outcome of class environment, or None: a model may mend it.

    first: nothing was asked yet, so that it is worth a look at the base. A person who rescues or answers the bail is
    not asked again.
    """
    said = f"{failure_sentence(failure)} (artifacts/{context.path.rpartition('/')[2]}*.log)"
    if failure.exit_code in NOT_RUNNABLE:
        advice = "no model can mend that: install it, or have `worktree.setup` do so"
        return Failed("environment", f"{said}; {advice}", exit_code=failure.exit_code)
    empty = [path for path in context.worktree.git.empty_submodules() if path in failure.tail]
    if empty:
        advice = "git leaves submodules empty in a worktree: the setting `worktree.submodules = true` fills them"
        return Failed("environment", f"{said}; {', '.join(empty)} is empty, for {advice}", exit_code=failure.exit_code)
    if first and context.session.attempt(context.path) == 1 and _fails_on_the_base(failure, commands, context, timeout):
        return Bail("environment", f"{said}; it fails in the same way on the base commit, without the change")
    return None


def _fails_on_the_base(failure: CommandResult, commands: Sequence[str], context: StageContext, timeout: float) -> bool:
    """False also where there is no change yet: then to mend the check is the task."""
    worktree = context.worktree
    if not worktree.git.differs(worktree.base, worktree.tip()):
        return False
    needed = [*commands[: commands.index(failure.command)], failure.command]
    key = hashlib.sha256(json.dumps([worktree.base, needed]).encode()).hexdigest()[:12]
    kept = context.artifacts / f"base-check-{key}.json"
    if not kept.is_file():
        found = _run_on_the_base(needed, context, timeout)
        if found is None:
            return False  # it cannot be told
        write_json(kept, {"base": worktree.base, "commands": needed, "failure": found})
    return bool(json.loads(read_file(kept))["failure"] == _fingerprint(failure))


def _run_on_the_base(commands: Sequence[str], context: StageContext, timeout: float) -> dict[str, object] | None:
    """The failure of the last command on the base commit, empty if there is none; None if the setup fails there."""
    side = side_worktree(context.worktree, "base check", context.worktree.base)
    create(side.repo, side.path, side.branch, side.base)
    restore(side)
    session = replace(context.session, worktree=side.path, git_env=partial(quiet_env, side, {}))
    inside = replace(context.inside("base"), worktree=side, session=session)
    context.log(f"{context.path}: runs the failing check on the base commit, {side.base[:12]}")
    try:
        if make_ready(inside) is not None:
            return None
        for number, command in enumerate(commands, 1):  # the earlier ones may build what the last one needs
            failure = first_failure([command], inside, timeout=timeout, log=f"check-{number}", mark="-")
        return _fingerprint(failure) if failure is not None else {}
    finally:
        remove(side, delete_branch=True, force=True)


def _fingerprint(failure: CommandResult) -> dict[str, object]:
    """The part that two runs of the same failure have in common."""
    return {"command": failure.command, "exit_code": failure.exit_code, "output": _VARYING.sub("#", failure.tail)}
