"""The schemas that editors use agree with what is read."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from gremlins.config import known_settings, load_settings
from gremlins.errors import ConfigError
from gremlins.paths import Home
from gremlins.pipeline.file import BUILT_IN, PipelineFile, load_pipeline
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


# ── what an editor says agrees with what is read ──────────────────────────────────────────────────────────────────

DOCS = Path(__file__).parents[2] / "docs"


def blocks(language: str, *, but: str) -> list[Any]:
    """Files that the documents show, without those that hold `but`."""
    pages = [(page.stem, page.read_text()) for page in sorted(DOCS.glob("*.md"))]
    found = [
        (name, text) for name, page in pages for text in re.findall(rf"^```{language}\n(.*?)^```", page, re.M | re.S)
    ]
    return [pytest.param(text, id=f"{name}-{number}") for number, (name, text) in enumerate(found) if but not in text]


def complaints(schema: dict[str, Any], value: Any) -> list[str]:
    from jsonschema import Draft202012Validator  # seconds: not for each process that collects tests

    Draft202012Validator.check_schema(schema)
    return [error.message for error in Draft202012Validator(schema).iter_errors(value)]


@pytest.mark.parametrize(
    "text", [path.read_text() for path in sorted(BUILT_IN.glob("*.yaml"))] + blocks("yaml", but="replies:")
)
def test_a_right_pipeline_is_right_in_an_editor(text: str, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    load_pipeline(PipelineFile("p", file, "file"))
    assert complaints(pipeline_schema(), yaml.safe_load(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "stages: []",
        "stages: [plam]",
        "stages: [{type: exec}]",
        "stages: [{type: exec, cmds: []}]",
        "stages: [{type: plan, cmds: ['x']}]",
        "stages: [{type: plan, mode: slow}]",
        "stages: [{type: plan, prompt_text: x}]",
        "stages: [{type: agent, name: a}]",
        "stages: [{type: loop, until: 'true', body: [plan, {type: nope}]}]",
        "stages: [{type: parallel, branches: {}}]",
        "stages: [{type: verify, max_attempts: many}]",
        "stages: [plan]\nmoed: batch",
        "stages: [plan]\nevidence: maybe",
    ],
)
def test_a_wrong_pipeline_is_wrong_in_an_editor_too(text: str, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        load_pipeline(PipelineFile("p", file, "file"))
    assert complaints(pipeline_schema(), yaml.safe_load(text)) != []


@pytest.mark.parametrize("text", blocks("toml", but="[project."))
def test_right_settings_are_right_in_an_editor(text: str, tmp_path: Path) -> None:
    read_settings(tmp_path, text)
    assert complaints(config_schema(), tomllib.loads(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "verfy = 'make test'",
        "verify = 3",
        "[batch]\npoll_initial = 'soon'",
        "[batch]\non_expired = 'never'",
        "[spend]\nper_day = 'all'",
        "[dispatch]\nretry_cap = 0",
        "[worktree]\nsetups = 'npm ci'",
    ],
)
def test_wrong_settings_are_wrong_in_an_editor_too(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_settings(tmp_path, text)
    assert complaints(config_schema(), tomllib.loads(text)) != []


def read_settings(root: Path, text: str) -> None:
    """As a person's own file, which may set everything."""
    (root / "config.toml").write_text(text)
    load_settings(None, Home(root), {})
