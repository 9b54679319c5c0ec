"""Caps hold over processes, and over their deaths."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from gremlins.simulator import ScriptedModel, Simulator
from tests.acceptance.one_batch_call import ASK, FOREVER, end_batches
from tests.acceptance.sandbox import Sandbox

DEAR = {"GREMLINS_BATCH__MAX_TOKENS": "10000", "GREMLINS_SPEND__PER_DAY": "0.11"}
"""A call costs at most $0.053, and these replies cost $0.05: the day has room for two."""


SIX = "stages:\n  - type: parallel\n    name: six\n    branches:\n" + "".join(
    f"      b{n}: [{{type: agent, name: s{n}, prompt: .gremlins/prompts/summary.md, mode: batch}}]\n" for n in range(6)
)


def test_six_branches_at_half_a_dollar_stay_below_sixty_cents(sandbox: Sandbox) -> None:
    with Simulator(latency=0.05, model=ScriptedModel(otherwise="x" * 400_000)) as simulator:
        _spend_on(sandbox, simulator, GREMLINS_BATCH__MAX_TOKENS="100000", GREMLINS_SPEND__PER_ATTEMPT="0.6")
        sandbox.pipeline("six", SIX)
        sandbox.ok("launch", "six", "--id", "g")
        end = sandbox.until("g", "finished", "dead")
        assert "spend.per_attempt is $0.6, and this gremlin has cost $0.50" in end["liveness"]["reason"]
        assert len(simulator.batches) == len(simulator.billed) == 1


def test_eight_beads_at_sixty_cents_stay_below_the_cap_of_the_day(sandbox: Sandbox) -> None:
    with Simulator(latency=0.05, model=ScriptedModel(otherwise="x" * 508_000)) as simulator:
        _spend_on(sandbox, simulator, GREMLINS_BATCH__MAX_TOKENS="127000", GREMLINS_SPEND__PER_DAY="4.2")
        sandbox.pipeline("ask", ASK)
        for number in range(8):
            sandbox.ok("bead", "create", "Say it", "--id", f"b{number}")
        for _ in range(2):
            report = json.loads(sandbox.ok("dispatch", "--once", "--pipeline", "ask", "--max-running", "8", "--json"))
            for row in report["spawned"]:
                sandbox.until(row["gremlin"], "finished")
        assert (len(report["closed"]), sorted(report["denied"])) == (6, ["b6", "b7"])
        assert "spend.per_day ($4.2) leaves no room: $3.81" in report["denied"]["b6"]
        assert len(simulator.batches) == len(simulator.billed) == 6


def _spend_on(sandbox: Sandbox, simulator: Simulator, **env: str) -> None:
    sandbox.simulator = simulator
    sandbox.env |= {"ANTHROPIC_BASE_URL": simulator.url, "ANTHROPIC_API_KEY": simulator.key, **env}
    sandbox.repo.write({".gremlins/prompts/summary.md": "Say in one line what this project does.\n"})


def test_processes_that_are_killed_stay_below_the_cap_of_the_day_together(sandbox: Sandbox) -> None:
    with Simulator(latency=FOREVER, model=ScriptedModel(otherwise="x" * 40_000)) as simulator:
        _spend_on(sandbox, simulator, **DEAR)
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
