"""The real Claude Code hands work to `gremlins mcp` as a person's interactive agent does, and lands it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gremlins.simulator import ModelReply, RulesModel, ScriptedModel, Simulator
from gremlins.simulator.demo_repository import FILES, RULE, TASK
from tests.acceptance.sandbox import Sandbox
from tests.conftest import make_repo
from tests.live.conftest import binary, use
from tests.time_limit import DEADLINE

pytestmark = pytest.mark.live
pytest.importorskip("mcp", reason="needs the extra: pip install -e '.[mcp]'")


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    repo = make_repo(tmp_path / "project")
    repo.commit(FILES)
    with Simulator(model=RulesModel([RULE]), latency=0.05) as simulator:
        made = Sandbox(repo, tmp_path / "state", simulator)
        yield made
        made.close()


def claude_says(sandbox: Sandbox, tmp_path: Path, tool: str, **given: str) -> str:
    """A session of Claude Code whose model uses one tool of gremlins. Returns the tool's result."""
    config = tmp_path / "mcp.json"
    server = {"command": sys.executable, "args": ["-m", "gremlins", "mcp"], "env": sandbox.env}
    config.write_text(json.dumps({"mcpServers": {"gremlins": server}}))
    name = f"mcp__gremlins__{tool}"

    def reply(params: Mapping[str, Any]) -> str | ModelReply:
        offered = any(item.get("name") == name for item in params.get("tools", ()))  # titles are asked for without
        return "Done." if results(params) or not offered else use(name, **given)

    model = ScriptedModel(otherwise=reply)
    with Simulator(model=model) as api:
        done = subprocess.run(
            [binary("claude"), "-p", "Hand it over.", "--mcp-config", config, "--strict-mcp-config",
             "--allowedTools", "mcp__gremlins"],
            cwd=sandbox.repo.path, env={**sandbox.env, **api.env}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
    assert done.stdout.strip() == "Done.", done.stdout + done.stderr
    (result,) = next(found for params in model.asked if (found := results(params)))
    return str(result["content"])


def results(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The results of tools that a request holds."""
    contents = [message["content"] for message in params["messages"] if isinstance(message["content"], list)]
    return [block for content in contents for block in content if block.get("type") == "tool_result"]


def test_work_is_handed_over_seen_and_landed(sandbox: Sandbox, tmp_path: Path) -> None:
    assert "the-mean" in claude_says(sandbox, tmp_path, "launch", task=TASK, pipeline="batch")
    (gremlin,) = (sandbox.home / "gremlins").iterdir()
    sandbox.until(gremlin.name, "finished", "dead", "bailed")
    assert "+" in claude_says(sandbox, tmp_path, "diff", gremlin=gremlin.name)
    assert "it asks nothing" in claude_says(sandbox, tmp_path, "answer", gremlin=gremlin.name, text="yes")
    assert "landed on main" in claude_says(sandbox, tmp_path, "land", gremlin=gremlin.name)
    assert sandbox.life(gremlin.name) == "landed"
