"""A round of revision: a person's remarks on a finished change are addressed, then verified where the pipeline does."""

from __future__ import annotations

from collections.abc import Sequence

from gremlins.config import ClientSpec
from gremlins.stages.spec import AddressCode, AgentStage, OpenPr, Stage, StageSpec, Verify, walk, with_changes


def round_name(stages: Sequence[StageSpec]) -> str:
    """The name of the rounds in paths, `revise[1]/address_code`, and folders, `revise-1`; no stage's name."""
    name, taken = "revise", {stage.name for stage in stages}
    while name in taken:
        name += "-round"
    return name


def round_stages(stages: Sequence[StageSpec], default: ClientSpec) -> tuple[Stage, ...]:
    """`address_code`, then `verify`, then the push of a pull request, each if the pipeline has it.

    A pipeline without `address_code` has one made for its first stage that changes code, else for its first agent.
    """
    found = [stage for _, stage in walk(stages)]
    asking = [stage for stage in found if isinstance(stage, AgentStage)]
    like = next((stage for stage in asking if stage.changes_code), next(iter(asking), None))
    address = next((stage for stage in found if isinstance(stage, AddressCode)), None) or AddressCode(
        client=str(like.settled_client if like else default), mode=like.settled_mode if like else None
    )
    rest = [next((stage for stage in found if isinstance(stage, kind)), None) for kind in (Verify, OpenPr)]
    return (
        with_changes(address, name="address_code"),
        *(with_changes(stage, name=stage.type) for stage in rest if stage is not None),
    )
