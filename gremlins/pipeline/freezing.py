"""Writes and reads `frozen.json`: pipeline, prompts and settings of a launch, fixed for the gremlin's life."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gremlins.config import Settings
from gremlins.errors import CorruptRecord
from gremlins.files import read_file, write_atomic
from gremlins.pipeline.file import FrozenPipeline

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
