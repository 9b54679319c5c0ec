"""One gremlin with one batch call, for tests of stops, rescues and kills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.acceptance.sandbox import Sandbox

ASK = """
evidence: none
stages:
  - {type: agent, name: summary, prompt: .gremlins/prompts/summary.md, mode: batch}
"""
FOREVER = 3600.0


def launch_one(sandbox: Sandbox, gremlin_id: str = "g", *, latency: float = FOREVER, **env: str) -> str:
    """A gremlin that asks one thing in batch mode. Its batch does not end by itself unless `latency` says so."""
    sandbox.simulator.change(latency=latency)
    sandbox.repo.write({".gremlins/prompts/summary.md": "Say in one line what this project does.\n"})
    sandbox.pipeline("ask", ASK)
    return sandbox.ok("launch", "ask", "--id", gremlin_id, env=env).strip()


def park_one(sandbox: Sandbox, gremlin_id: str = "g", **env: str) -> dict[str, Any]:
    """The same, once its batch is known and the process has become the waiter."""
    launch_one(sandbox, gremlin_id, **env)

    def is_parked() -> bool:
        state = sandbox.peek(gremlin_id)
        return state["liveness"]["state"] == "parked" and state["batch"]["batch_id"] is not None

    sandbox.wait_for(is_parked, "it parked")
    pid = sandbox.peek(gremlin_id)["liveness"]["pid"]
    if Path(f"/proc/{pid}").exists():
        sandbox.wait_for(lambda: b"waiter.py" in Path(f"/proc/{pid}/cmdline").read_bytes(), "the waiter")
    return sandbox.peek(gremlin_id)


def end_batches(sandbox: Sandbox) -> None:
    """Let everything outstanding end well, now."""
    sandbox.simulator.change(latency=0.0)
    sandbox.simulator.advance(FOREVER + 1)


def calls(sandbox: Sandbox, gremlin_id: str = "g") -> list[dict[str, Any]]:
    folder = sandbox.home / "gremlins" / gremlin_id / "calls"
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def billed_once(sandbox: Sandbox, gremlin_id: str = "g") -> None:
    """One batch, one booking, and the artifact is the reply."""
    assert len(sandbox.simulator.batches) == 1
    [call] = calls(sandbox, gremlin_id)
    assert call["status"]["state"] == "collected"
    state = json.loads((sandbox.home / "gremlins" / gremlin_id / "state.json").read_text())
    assert state["total_cost_usd"] == call["cost"]["usd"] > 0
    assert sandbox.artifact(gremlin_id, "summary.md").strip() == call["status"]["reply"]["text"].strip()
