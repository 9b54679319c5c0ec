"""Specifications of stages: one frozen model per stage type. Data only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from gremlins.config import ClientSpec, Command, Count, Dollars, Seconds
from gremlins.errors import ConfigError
from gremlins.records.gremlin import Mode

StageName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Part of paths in records and of artifacts' file names."""


class Stage(BaseModel):
    """The fields of every stage. Unknown keys are ignored, because a frozen copy may be newer than this program; in a
    pipeline file they are errors.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str
    name: StageName = ""
    """Its type where the pipeline gives none; unique among its neighbours once a pipeline is loaded."""

    frozen_only: ClassVar[frozenset[str]] = frozenset()
    """Fields that freezing fills in, which a pipeline file cannot set."""

    may_commit: ClassVar[bool] = False
    must_commit: ClassVar[bool] = False

    @property
    def changes_code(self) -> bool:
        """True if it, or a stage inside, may commit to the gremlin's branch."""
        return self.may_commit or any(stage.changes_code for inner in children(self).values() for stage in inner)

    @property
    def owes_commits(self) -> bool:
        """True if its pipeline owes commits. `verify` may make some, but owes none."""
        return self.must_commit or any(stage.owes_commits for inner in children(self).values() for stage in inner)


class AgentStage(Stage):
    """A stage that asks a model. After freezing, client and mode are settled and the prompt's text is here."""

    default_mode: ClassVar[Mode] = "live"
    frozen_only: ClassVar[frozenset[str]] = frozenset({"prompt_text", "mode_asked"})

    client: str | None = None
    mode: Mode | None = None
    prompt: Command | None = None
    """Path of a file in the repository that replaces the built-in prompt."""
    max_tokens: Count | None = None
    """Most tokens of one answer; the setting `batch.max_tokens` where there is none."""
    prompt_text: str | None = None
    mode_asked: bool = False
    """True if a person chose the mode. A type's default may give way to another mode."""

    @field_validator("client")
    @classmethod
    def _client(cls, value: str | None) -> str | None:
        return checked_client(value)

    @property
    def settled_client(self) -> ClientSpec:
        """The client of a frozen stage."""
        return ClientSpec.parse(self.client or "")

    @property
    def settled_mode(self) -> Mode:
        return self.mode or self.default_mode


class Plan(AgentStage):
    """Writes `artifacts/plan.md`."""

    type: Literal["plan"] = "plan"
    default_mode: ClassVar[Mode] = "batch"


class Implement(AgentStage):
    """Changes the code as planned."""

    type: Literal["implement"] = "implement"
    may_commit: ClassVar[bool] = True
    must_commit: ClassVar[bool] = True


class Verify(AgentStage):
    """Runs commands and lets an agent fix what fails."""

    type: Literal["verify"] = "verify"
    may_commit: ClassVar[bool] = True
    cmds: tuple[Command, ...] = ()
    max_attempts: Count = 3
    timeout: Seconds = 1800.0

    @field_validator("cmds", mode="before")
    @classmethod
    def _one(cls, value: object) -> object:
        return one_command(value)


class ReviewCode(AgentStage):
    """Writes `artifacts/review.md`."""

    type: Literal["review_code"] = "review_code"
    default_mode: ClassVar[Mode] = "batch"


class AddressCode(AgentStage):
    """Changes the code as the review asks. No change is an answer too."""

    type: Literal["address_code"] = "address_code"
    may_commit: ClassVar[bool] = True
    must_commit: ClassVar[bool] = True


class Handoff(AgentStage):
    """Decides what the next round of a loop does, or that all is done."""

    type: Literal["handoff"] = "handoff"
    default_mode: ClassVar[Mode] = "batch"


class PromptStage(AgentStage):
    """Asks with a prompt of the project's own and writes `artifacts/NAME.md`."""

    type: Literal["agent"] = "agent"
    name: StageName
    prompt: Command


class Exec(Stage):
    """Runs commands; the first that fails fails the stage."""

    type: Literal["exec"] = "exec"
    cmds: Annotated[tuple[Command, ...], Field(min_length=1)]
    timeout: Seconds = 1800.0

    @field_validator("cmds", mode="before")
    @classmethod
    def _one(cls, value: object) -> object:
        return one_command(value)


class LoopStage(Stage):
    """Runs its body in rounds until a handoff in it says done, or a shell command succeeds."""

    type: Literal["loop"] = "loop"
    body: Annotated[tuple[StageSpec, ...], Field(min_length=1)]
    until: Command = "done"
    max: Count = 10
    max_usd: Dollars | None = None

    @model_validator(mode="after")
    def _can_end(self) -> LoopStage:
        if self.until == "done" and not any(isinstance(stage, Handoff) for stage in _round(self.body)):
            raise ValueError("ends when a handoff says done, but its body has no handoff; name a command in `until`")
        return self


class Parallel(Stage):
    """Runs branches of stages side by side."""

    type: Literal["parallel"] = "parallel"
    branches: Annotated[dict[StageName, Annotated[tuple[StageSpec, ...], Field(min_length=1)]], Field(min_length=1)]
    max_concurrent: Count | None = None
    on_failure: Literal["fail_fast", "collect"] = "fail_fast"

    @property
    def concurrency(self) -> int:
        return self.max_concurrent or len(self.branches)


class OpenPr(Stage):
    """Pushes the branch and opens a pull request."""

    type: Literal["open_pr"] = "open_pr"
    title: Command | None = None
    draft: bool = False
    base: Command | None = None


class WaitReview(Stage):
    """Waits until the pull request has been reviewed."""

    type: Literal["wait_review"] = "wait_review"
    timeout: Seconds = 86_400.0
    poll: Seconds = 60.0
    reviewer: Command | None = None


class WaitCi(AgentStage):
    """Waits for the pull request's checks and lets an agent fix what fails."""

    type: Literal["wait_ci"] = "wait_ci"
    may_commit: ClassVar[bool] = True
    timeout: Seconds = 7200.0
    poll: Seconds = 30.0
    max_attempts: Count = 3


StageSpec = Annotated[
    Plan
    | Implement
    | Verify
    | ReviewCode
    | AddressCode
    | Handoff
    | PromptStage
    | Exec
    | LoopStage
    | Parallel
    | OpenPr
    | WaitReview
    | WaitCi,
    Field(discriminator="type"),
]

LoopStage.model_rebuild()
Parallel.model_rebuild()

STAGE_TYPES: Mapping[str, type[Stage]] = {
    model.model_fields["type"].default: model for model in get_args(get_args(StageSpec)[0])
}
"""Every stage type by its name in a pipeline."""

S = TypeVar("S", bound=Stage)


def with_changes(stage: S, **changes: Any) -> S:
    """A copy of a stage with some fields replaced. The new values are trusted to be right."""
    return stage.model_copy(update=changes)


def children(stage: Stage) -> Mapping[str, tuple[StageSpec, ...]]:
    """The lists of stages inside a stage, by the part that they add to a path: "" for a loop's body."""
    match stage:
        case LoopStage():
            return {"": stage.body}
        case Parallel():
            return stage.branches
        case _:
            return {}


def named(stages: Sequence[StageSpec]) -> tuple[StageSpec, ...]:
    """The same stages with a name each, unique at every level: the type where there is none, then `-2`, `-3`."""
    taken: set[str] = set()
    wanted = {stage.name for stage in stages}
    result: list[StageSpec] = []
    for stage in stages:
        base = name = stage.name or stage.type
        count = 1
        while name in taken or (count > 1 and name in wanted):
            count += 1
            name = f"{base[:60]}-{count}"
        taken.add(name)
        result.append(_named_inside(with_changes(stage, name=name)))
    return tuple(result)


def walk(stages: Sequence[StageSpec], prefix: str = "") -> Iterator[tuple[str, StageSpec]]:
    """Every stage with its path, outer ones first. A loop's path has no round here: `loop/plan`."""
    for stage in stages:
        path = prefix + stage.name
        yield path, stage
        for part, inner in children(stage).items():
            yield from walk(inner, f"{path}/{part}/" if part else f"{path}/")


def changed_throughout(
    stages: Sequence[StageSpec], change: Callable[[str, StageSpec], StageSpec], prefix: str = ""
) -> tuple[StageSpec, ...]:
    """The same stages, each as `change` makes it of its path and itself; those inside a stage too."""
    made: list[StageSpec] = []
    for stage in stages:
        path = prefix + stage.name
        match changed := change(path, stage):
            case LoopStage():
                changed = with_changes(changed, body=changed_throughout(changed.body, change, f"{path}/"))
            case Parallel():
                inner = {
                    name: changed_throughout(branch, change, f"{path}/{name}/")
                    for name, branch in changed.branches.items()
                }
                changed = with_changes(changed, branches=inner)
        made.append(changed)
    return tuple(made)


def checked_client(value: str | None) -> str | None:
    """For validators: a client as it is written, or ValueError."""
    try:
        return None if value is None else str(ClientSpec.parse(value))
    except ConfigError:
        raise ValueError("should be PROVIDER:MODEL") from None


def one_command(value: object) -> object:
    """For validators: a single string stands for a list of one."""
    return (value,) if isinstance(value, str) else value


def _named_inside(stage: StageSpec) -> StageSpec:
    match stage:
        case LoopStage():
            return with_changes(stage, body=named(stage.body))
        case Parallel():
            return with_changes(stage, branches={name: named(inner) for name, inner in stage.branches.items()})
        case _:
            return stage


def _round(stages: Sequence[StageSpec]) -> Iterator[StageSpec]:
    """The stages within one round of a loop, without those of an inner loop."""
    for stage in stages:
        yield stage
        if not isinstance(stage, LoopStage):
            for inner in children(stage).values():
                yield from _round(inner)
