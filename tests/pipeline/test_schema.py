"""The schemas that editors use agree with what is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gremlins.config import known_settings
from gremlins.pipeline.file import BUILT_IN
from gremlins.pipeline.schema import config_schema, pipeline_schema
from gremlins.stages.spec import STAGE_TYPES
from gremlins.yaml_lines import read_yaml


def every_ref(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {value["$ref"]} if "$ref" in value else set().union(*map(every_ref, value.values()))
    return set().union(*map(every_ref, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("made", [pipeline_schema(), config_schema()], ids=["pipeline", "config"])
def test_every_reference_leads_somewhere(made: dict[str, Any]) -> None:
    assert json.loads(json.dumps(made)) == made
    assert {ref.removeprefix("#/$defs/") for ref in every_ref(made)} <= made["$defs"].keys()


def test_every_stage_type_is_there_without_what_freezing_fills_in() -> None:
    made = pipeline_schema()
    types = [part["properties"]["type"]["enum"][0] for name, part in made["$defs"].items() if name != "stage"]
    assert sorted(types) == sorted(STAGE_TYPES)
    assert "wait-ci" in made["$defs"]["stage"]["anyOf"][0]["enum"]
    assert "prompt_text" not in json.dumps(made)
    assert made["$defs"]["LoopStage"]["properties"]["body"]["items"] == {"$ref": "#/$defs/stage"}


def test_the_built_in_pipelines_use_only_keys_it_knows() -> None:
    known = pipeline_schema()["properties"].keys()
    for path in BUILT_IN.glob("*.yaml"):
        assert read_yaml(path).value.keys() <= known


def test_every_setting_is_there() -> None:
    made = config_schema()
    keys = set()
    for name, part in made["properties"].items():
        section = made["$defs"].get(str(part.get("$ref", "")).removeprefix("#/$defs/"))
        keys |= {f"{name}.{inner}" for inner in section["properties"]} if section else {name}
    assert keys == {setting.key for setting in known_settings()}
    assert {"const": "none"} in made["$defs"]["SpendSettings"]["properties"]["per_day"]["anyOf"]
    assert {"type": "string"} in made["properties"]["verify"]["anyOf"]
