"""The model of `gremlins simulate`: with edits, with tools, as a handoff, and what it leaves alone."""

from __future__ import annotations

import json
from typing import Any

from gremlins.simulator import ExampleModel, ModelReply
from tests.simulator.conftest import params
from tests.simulator.test_rules import EDITS

WRITE = {"name": "Write", "input_schema": {"properties": {"file_path": {}, "content": {}}}}
TASK = "<task>\nMend it.\n</task>\n"


def reply(prompt: str, *more: Any, **given: Any) -> ModelReply:
    asked = params(f"Working directory: /repo\n{prompt}", **given)
    return ExampleModel().reply({**asked, "messages": [*asked["messages"], *more]})


def change(prompt: str) -> Any:
    return json.loads(reply(prompt, output_config={"format": EDITS}).text)


def test_each_change_adds_a_file_that_is_not_there() -> None:
    (first,) = change(TASK)["edits"]
    assert (first["path"], "> Mend it.\n" in first["content"]) == ("SIMULATED.md", True)
    assert change(f"{TASK}<diff>\n+++ b/SIMULATED.md\n</diff>")["edits"][0]["path"] == "SIMULATED-2.md"


def test_a_failing_check_is_left_alone() -> None:
    assert "NOTHING TO DO" in change(f"{TASK}<failure>\nred\n</failure>\n")["summary"]


def test_a_tool_that_writes_files_is_used_once_and_again_where_that_failed() -> None:
    (use,) = reply(TASK, tools=[WRITE]).blocks
    assert use["input"]["file_path"] == "/repo/SIMULATED.md"
    said = {"role": "assistant", "content": [use]}
    result = {"type": "tool_result", "tool_use_id": use["id"], "content": "exists"}
    done = reply(TASK, said, {"role": "user", "content": [result]}, tools=[WRITE])
    assert "Added `SIMULATED.md`" in done.text
    (other,) = reply(TASK, said, {"role": "user", "content": [result | {"is_error": True}]}, tools=[WRITE]).blocks
    assert other["input"]["file_path"] == "/repo/SIMULATED-2.md"


def test_a_handoff_asks_for_one_round() -> None:
    schema = {"type": "object", "properties": {"decision": {"type": "string"}}}
    asked = {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    decisions = [
        json.loads(reply(f"<landed>\n{text}\n</landed>", **asked).text)["decision"] for text in ("", "SIMULATED.md")
    ]
    assert decisions == ["next", "done"]
