"""`gremlins schema`."""

from __future__ import annotations

from enum import StrEnum

import typer

from gremlins.cli.out import dump


class File(StrEnum):
    """The files that people write."""

    pipeline = "pipeline"
    config = "config"


def schema(file: File = typer.Argument(..., help="`.gremlins/pipelines/NAME.yaml`, or `config.toml`.")) -> None:
    """Print the JSON Schema of a file that you write, for your editor."""
    from gremlins.pipeline.schema import config_schema, pipeline_schema  # pydantic

    dump(pipeline_schema() if file is File.pipeline else config_schema())
