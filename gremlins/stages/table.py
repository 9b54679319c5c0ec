"""The table of stages: which function runs which type."""

from __future__ import annotations

from collections.abc import Mapping

from gremlins.errors import GremlinsError
from gremlins.stages import (
    address_code,
    agent,
    exec_,
    handoff,
    implement,
    loop,
    open_pr,
    parallel,
    plan,
    review_code,
    verify,
    wait_ci,
    wait_review,
)
from gremlins.stages.base import StageFunction
from gremlins.stages.spec import (
    AddressCode,
    Exec,
    Handoff,
    Implement,
    LoopStage,
    OpenPr,
    Parallel,
    Plan,
    PromptStage,
    ReviewCode,
    Stage,
    Verify,
    WaitCi,
    WaitReview,
)

STAGES: Mapping[type[Stage], StageFunction] = {
    Plan: plan.run,
    Implement: implement.run,
    Verify: verify.run,
    ReviewCode: review_code.run,
    AddressCode: address_code.run,
    PromptStage: agent.run,
    Exec: exec_.run,
    Handoff: handoff.run,
    LoopStage: loop.run,
    Parallel: parallel.run,
    OpenPr: open_pr.run,
    WaitReview: wait_review.run,
    WaitCi: wait_ci.run,
}


def stage_function(spec: Stage) -> StageFunction:
    """The function that runs a stage. Raises GremlinsError for a type this version cannot run."""
    try:
        return STAGES[type(spec)]
    except KeyError:
        raise GremlinsError(f"this version cannot run stages of type `{getattr(spec, 'type', '?')}`") from None
