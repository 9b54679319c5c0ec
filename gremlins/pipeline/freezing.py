"""Writes and reads `frozen.json`: pipeline, prompts and settings of a launch, fixed for the gremlin's life."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gremlins.config import Settings
from gremlins.errors import CorruptRecord
from gremlins.files import read_file, write_atomic
from gremlins.pipeline.file import BUILT_IN, FrozenPipeline, PipelineFile, load_pipeline
from gremlins.stages.spec import Exec, StageSpec, Verify, changed_throughout, walk, with_changes

SCHEMA = 1


class FrozenLaunch(BaseModel):
    """The content of `frozen.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: int = Field(default=SCHEMA, alias="schema")
    program: str
    """The version of gremlins that launched it."""
    pipeline: FrozenPipeline
    settings: Settings


def write_frozen(path: Path, frozen: FrozenLaunch) -> None:
    write_atomic(path, frozen.model_dump_json(indent=1, by_alias=True) + "\n")


def read_frozen(path: Path) -> FrozenLaunch:
    """Raises CorruptRecord."""
    try:
        frozen = FrozenLaunch.model_validate_json(read_file(path))
    except OSError as error:
        raise CorruptRecord(path, error.strerror or str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CorruptRecord(path, f"cannot be read ({where or 'file'}: {first['msg']})") from error
    if frozen.schema_ > SCHEMA:
        raise CorruptRecord(path, f"written by a newer gremlins (schema {frozen.schema_})")
    return frozen


def with_commands_of_now(pipeline: FrozenPipeline) -> tuple[FrozenPipeline, list[str]]:
    """The pipeline with `cmds` and `timeout` of its stages as its file has them now, and in words what changed.

    Raises ConfigError if the file cannot be read any more.
    """
    path = Path(pipeline.file)
    if path.parent == BUILT_IN:
        return pipeline, []
    now = dict(walk(load_pipeline(PipelineFile(pipeline.name, path, "file")).stages))
    said: list[str] = []

    def change(place: str, stage: StageSpec) -> StageSpec:
        new = now.get(place)
        if not (isinstance(stage, Verify | Exec) and isinstance(new, Verify | Exec)):
            return stage
        if new.cmds != stage.cmds:
            said.append(f"{place}.cmds = {list(new.cmds)}")
        if new.timeout != stage.timeout:
            said.append(f"{place}.timeout = {new.timeout:g}")
        return with_changes(stage, cmds=new.cmds, timeout=new.timeout)

    return pipeline.model_copy(update={"stages": changed_throughout(pipeline.stages, change)}), said
