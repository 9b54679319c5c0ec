"""Makes a worktree ready to work in, once: submodules, the person's ignored files to copy, then the setup commands.

A file in the worktree's own git directory says that it is done, so that it is done again in a worktree made anew.
"""

from __future__ import annotations

import json

from gremlins.files import write_atomic
from gremlins.outcome import Failed
from gremlins.repository.git import short_text
from gremlins.repository.inclusion import include_files
from gremlins.repository.submodules import fill_submodules
from gremlins.stages.base import StageContext
from gremlins.stages.commands import failure_sentence, first_failure
from gremlins.stages.spec import AgentStage, Exec, LoopStage, Stage, Verify

TIMEOUT = 1800.0
"""Seconds for one setup command."""
DONE = "gremlins-setup.json"


def works_in_the_tree(spec: Stage, context: StageContext) -> bool:
    """True if the stage runs commands or an agent in its worktree."""
    match spec:
        case Exec():
            return True
        case Verify():
            return bool(spec.cmds or context.settings.verify)
        case LoopStage():
            return spec.until != "done"
        case AgentStage():
            return spec.settled_mode == "live"
        case _:
            return False


def make_ready(context: StageContext) -> Failed | None:
    """Copy and set up, unless that was done. Its failure is the machine's or the project's, never the task's."""
    wanted = context.settings.worktree
    mark, content = context.worktree.git.git_dir() / DONE, json.dumps([wanted.setup, wanted.copy])
    if wanted.submodules and (missing := fill_submodules(context.worktree.git)):
        return Failed(
            "environment",
            f"submodules are not in the local store: {', '.join(missing[:5])}; `git submodule update --init` in "
            f"{context.worktree.repo} fetches them",
        )
    if short_text(mark) == content:
        return None
    try:
        copied = include_files(context.worktree.repo, context.worktree.path, wanted.copy)
    except OSError as error:
        return Failed(
            "environment", f"a file could not be copied into the worktree: {error.filename}: {error.strerror}"
        )
    if copied:
        context.log(f"{context.path}: copied {len(copied)} ignored files into the worktree")
    failure = first_failure(wanted.setup, context, timeout=TIMEOUT, log="setup", mark="-") if wanted.setup else None
    if failure is not None:
        reason = f"the setup of the worktree failed: {failure_sentence(failure)} (artifacts/setup*.log)"
        return Failed("environment", reason, exit_code=failure.exit_code)
    write_atomic(mark, content)
    return None
