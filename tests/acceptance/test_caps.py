"""Caps hold over processes, and over their deaths."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from gremlins.simulator import ScriptedModel, Simulator
from tests.acceptance.one_batch_call import ASK, FOREVER, end_batches
from tests.acceptance.sandbox import Sandbox

DEAR = {"GREMLINS_BATCH__MAX_TOKENS": "10000", "GREMLINS_SPEND__PER_DAY": "0.11"}
"""A call costs at most $0.053, and these replies cost $0.05: the day has room for two."""


def test_processes_that_are_killed_stay_below_the_cap_of_the_day_together(sandbox: Sandbox) -> None:
    with Simulator(latency=FOREVER, model=ScriptedModel(otherwise="x" * 40_000)) as simulator:
        sandbox.simulator = simulator
        sandbox.env |= {"ANTHROPIC_BASE_URL": simulator.url, "ANTHROPIC_API_KEY": simulator.key, **DEAR}
        sandbox.repo.write({".gremlins/prompts/summary.md": "Say in one line what this project does.\n"})
        sandbox.pipeline("ask", ASK)
        _take_turns(sandbox, ["g1", "g2", "g3", "g4"])


def _take_turns(sandbox: Sandbox, ids: list[str]) -> None:
    def all_wait() -> bool:
        seen = [json.loads((sandbox.home / "gremlins" / name / "state.json").read_text())["status"] for name in ids]
        parked = [status for status in seen if status["state"] == "parked" and status["calls"]]
        asleep = [status for status in seen if "room under spend.per_day" in str(status.get("waiting_for"))]
        return (len(parked), len(asleep)) == (2, 2)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: sandbox.ok("launch", "ask", "--id", name), ids))
        for _ in range(2):
            sandbox.wait_for(all_wait, "two batches, and two that wait for room")
            for name in ids:
                sandbox.kill(name)
            list(pool.map(lambda name: sandbox.ok("rescue", name), ids))
    end_batches(sandbox)
    ends = [sandbox.until(name, "finished", "dead") for name in ids]
    assert sorted(end["liveness"]["state"] for end in ends) == ["dead", "dead", "finished", "finished"]
    assert all("spend.per_day" in end["liveness"]["reason"] for end in ends if end["liveness"]["state"] == "dead")
    assert len(sandbox.simulator.batches) == len(sandbox.simulator.billed) == 2
