"""What may have been paid for and cannot be looked up: bounded in number, shown everywhere, and always a way out."""

from __future__ import annotations

from tests.acceptance.one_batch_call import launch_one
from tests.acceptance.sandbox import Sandbox


def test_sends_that_cannot_be_found_end_for_a_person_and_are_shown_everywhere(sandbox: Sandbox) -> None:
    sandbox.simulator.fault("create", "error", status=500, when="after", times=0)
    sandbox.simulator.fault("list", "empty", times=0)
    launch_one(sandbox, latency=0.0)
    state = sandbox.until("g", "bailed")
    assert state["bail"]["class"] == "unknown_cost"
    assert "sent 4 times" in state["bail"]["detail"]
    assert "Anthropic Console" in state["bail"]["detail"]
    assert (state["cost"]["unknown_calls"], state["cost"]["total_usd"]) == (4, 0.0)
    assert sandbox.run("cost", "--json").json()["unknown_calls"] == 4
    assert "4 sends may have been billed" in sandbox.ok("cost")
    assert "4 of unknown cost" in sandbox.ok("show", "g")
    [check] = [c for c in sandbox.run("doctor", "--json").json()["checks"] if c["name"] == "unknown cost"]
    assert (check["verdict"], "4 sends" in check["detail"]) == ("warning", True)

    sandbox.ok("rescue", "g")
    sandbox.until("g", "bailed")
    assert len(sandbox.simulator.batches) == 4
    assert sandbox.peek("g")["cost"]["unknown_calls"] == 4

    sandbox.ok("rm", "g")
    assert sandbox.run("cost", "--json").json()["unknown_calls"] == 4


def test_sends_of_unknown_cost_count_against_a_cap(sandbox: Sandbox) -> None:
    sandbox.simulator.fault("create", "drop", times=0)
    launch_one(sandbox, latency=0.0, GREMLINS_SPEND__PER_ATTEMPT="0.2", GREMLINS_BATCH__MAX_TOKENS="16000")
    state = sandbox.until("g", "dead", "bailed")
    assert "spend.per_attempt" in state["liveness"]["reason"]
    assert "of unknown cost" in state["liveness"]["reason"]
    assert state["cost"]["unknown_calls"] == 2
