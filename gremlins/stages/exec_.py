"""The stage `exec`."""

from __future__ import annotations

from gremlins.outcome import Done, Failed, FailureClass, Outcome
from gremlins.stages.base import StageContext
from gremlins.stages.base_check import NOT_RUNNABLE
from gremlins.stages.commands import failure_sentence, first_failure
from gremlins.stages.spec import Exec


def run(spec: Exec, context: StageContext) -> Outcome:
    """Run the commands in order; the first that fails fails the stage, with its exit code."""
    failure = first_failure(spec.cmds, context, timeout=spec.timeout, log=spec.name, mark="-")
    if failure is not None:
        kind: FailureClass = "environment" if failure.exit_code in NOT_RUNNABLE else "task"
        return Failed(kind, failure_sentence(failure), exit_code=failure.exit_code)
    return Done(f"{len(spec.cmds)} command{'s' if len(spec.cmds) > 1 else ''} ended well")
