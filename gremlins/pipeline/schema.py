"""JSON Schema of the files that people write, for their editors; made from the models that read them."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from gremlins.config import Settings
from gremlins.pipeline.file import PipelineHeader
from gremlins.stages.spec import STAGE_TYPES, StageSpec

DRAFT = "https://json-schema.org/draft/2020-12/schema"
ONE_OR_MORE = frozenset({"cmds", "verify", "setup", "copy"})
"""Lists for which a single string stands too."""


def pipeline_schema() -> dict[str, Any]:
    """Of `.gremlins/pipelines/NAME.yaml`."""
    stages = TypeAdapter(StageSpec).json_schema()
    models = {model.__name__: model for model in STAGE_TYPES.values()}
    parts = {name: _stage(part, models[name]) for name, part in stages["$defs"].items() if name in models}
    types = [spelling for name in STAGE_TYPES for spelling in _spellings(name)]
    any_stage = {"anyOf": [{"enum": types}, *({"$ref": f"#/$defs/{name}"} for name in parts)]}
    header = PipelineHeader.model_json_schema()
    several = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/stage"}}
    document = {
        "$schema": DRAFT,
        "title": "A pipeline of gremlins",
        "type": "object",
        "properties": {**header["properties"], "stages": several},
        "required": ["stages"],
        "additionalProperties": False,
        "$defs": {**parts, "stage": any_stage},
    }
    found: dict[str, Any] = _for_editors(document)
    return found


def config_schema() -> dict[str, Any]:
    """Of `config.toml`, a repository's and a person's."""
    made = Settings.model_json_schema()
    for part in (made, *made["$defs"].values()):
        part["additionalProperties"] = False
    found: dict[str, Any] = _for_editors({"$schema": DRAFT, **made, "title": "Settings of gremlins"})
    return found


def _stage(part: dict[str, Any], model: Any) -> dict[str, Any]:
    """One stage type, without the fields that only freezing fills in."""
    name = model.model_fields["type"].default
    kept = {key: value for key, value in part["properties"].items() if key not in model.frozen_only}
    kept["type"] = {"enum": _spellings(name), "description": _first_line(model)}
    required = sorted({"type", *part.get("required", ())})
    return {"type": "object", "properties": kept, "required": required, "additionalProperties": False}


def _spellings(name: str) -> list[str]:
    return list(dict.fromkeys([name, name.replace("_", "-")]))


def _first_line(model: Any) -> str:
    return str(model.__doc__ or "").strip().splitlines()[0]


def _for_editors(value: Any, key: str = "") -> Any:
    """The same schema in the words of the files: `none` for null, one string for a list, a stage for its union."""
    if isinstance(value, list):
        return [_for_editors(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "null":
        return {"const": "none"}
    if "discriminator" in value:
        return {"$ref": "#/$defs/stage"}
    made = {name: _for_editors(item, name) for name, item in value.items() if name != "title" or "$schema" in value}
    if key in ONE_OR_MORE and made.get("type") == "array":
        return {"anyOf": [made, {"type": "string"}], **{k: made.pop(k) for k in ("description",) if k in made}}
    return made
