"""What may have been paid for and cannot be looked up: bounded in number, shown everywhere, and always a way out."""

from __future__ import annotations

import json

from gremlins.clock import SystemClock
from gremlins.paths import Home
from gremlins.web.views import money_page
from tests.acceptance.dispatch_project import bead, create, once, settle_in, statuses
from tests.acceptance.one_batch_call import calls, launch_one, park_one
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
    page = sandbox.ok("show", "g")
    assert "4 of unknown cost" in page
    assert "next: `gremlins rescue g` looks once more and sends nothing" in page
    assert sandbox.run("answer", "g", "again").code == 4  # it would send the call again
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
    figure = "$0.0000 and 2 sends of unknown cost, counted as $"
    assert f"has cost {figure}" in state["liveness"]["reason"]
    assert figure in sandbox.ok("dispatch", "status")
    assert money_page(Home(sandbox.home), SystemClock()).today.day.words.startswith(figure)
    assert state["cost"]["unknown_calls"] == 2


# ── always a way out ──────────────────────────────────────────────────────────────────────────────────────────────


def forgotten(sandbox: Sandbox) -> str:
    """A detached gremlin whose batch was deleted by another program. Returns the batch's id."""
    batch_id = str(park_one(sandbox)["batch"]["batch_id"])
    sandbox.kill("g")
    sandbox.simulator.store.meddle(batch_id, "forget")
    return batch_id


def test_a_batch_that_was_deleted_refuses_a_rescue_and_names_the_ways_out(sandbox: Sandbox) -> None:
    batch_id = forgotten(sandbox)
    ran = sandbox.run("rescue", "g")
    assert ran.code == 5
    assert batch_id in ran.err
    assert "gremlins rescue g --from summary" in ran.err
    assert "gremlins rm --force g" in ran.err
    assert sandbox.life("g") == "detached"


def test_rm_force_removes_it_with_its_cost_unknown(sandbox: Sandbox) -> None:
    forgotten(sandbox)
    assert sandbox.run("rm", "g").code == 4
    assert "g: removed" in sandbox.ok("rm", "--force", "g")
    assert sandbox.run("cost", "--json").json()["unknown_calls"] == 1


def test_rm_force_removes_what_no_key_can_follow(sandbox: Sandbox) -> None:
    park_one(sandbox)
    sandbox.kill("g")
    sandbox.ok("rm", "--force", "g", env={"ANTHROPIC_API_KEY": ""})
    assert sandbox.run("cost", "--json").json()["unknown_calls"] == 1


def test_rm_force_gives_an_api_up_that_is_silent(sandbox: Sandbox) -> None:
    park_one(sandbox, GREMLINS_BATCH__STOP_WAIT="0.1")
    sandbox.simulator.stop()
    sandbox.ok("rm", "--force", "g")
    assert sandbox.run("cost", "--json").json()["unknown_calls"] == 1


def test_rescue_from_says_what_may_be_paid_twice_and_asks_anew(sandbox: Sandbox) -> None:
    batch_id = forgotten(sandbox)
    sandbox.simulator.change(latency=0.0)
    ran = sandbox.run("rescue", "g", "--from", "summary")
    assert ran.code == 0, ran.err
    assert f"may be paid for twice: {batch_id}" in ran.err
    state = sandbox.until("g", "finished")
    assert len(sandbox.simulator.batches) == 2
    assert state["cost"]["unknown_calls"] == 1
    assert state["cost"]["total_usd"] > 0


def test_a_batch_that_does_not_end_is_said_and_its_wait_has_an_end(sandbox: Sandbox) -> None:
    sandbox.simulator.change(never_expires=True, expires_after=-7200.0)
    sandbox.simulator.fault("retrieve", "drop", times=0)
    sandbox.simulator.fault("list", "drop", skip=1, times=0)
    launch_one(sandbox)
    sandbox.wait_for(lambda: "past its expiry" in (sandbox.peek("g")["liveness"]["reason"] or ""), "its being overdue")
    assert "past its expiry" in sandbox.ok("status")
    assert "past its expiry" in sandbox.ok("show", "g")
    [check] = [c for c in sandbox.run("doctor", "--json").json()["checks"] if c["name"] == "overdue"]
    assert check["verdict"] == "warning"
    sandbox.simulator.faults.clear()
    state = sandbox.until("g", "bailed")
    assert state["bail"]["class"] == "unknown_cost"
    assert state["cost"]["unknown_calls"] == 1
    assert len(sandbox.simulator.batches) == 1


# ── under dispatch ────────────────────────────────────────────────────────────────────────────────────────────────


def test_under_dispatch_it_costs_its_bead_and_neither_the_breaker_nor_another_batch(sandbox: Sandbox) -> None:
    settle_in(sandbox)
    sandbox.simulator.change(latency=3600.0)
    bead_id = create(sandbox, "Ask")
    [spawned] = once(sandbox, "--pipeline", "asks")["spawned"]
    sandbox.until(spawned["gremlin"], "parked")
    sandbox.kill(spawned["gremlin"])
    sandbox.simulator.store.meddle(sandbox.simulator.batches[0].id, "forget")
    once(sandbox, "--pipeline", "asks")  # re-attaches it
    sandbox.until(spawned["gremlin"], "bailed")
    report = once(sandbox, "--pipeline", "asks")
    assert report["breaker"]["state"] == "closed"
    assert statuses(sandbox)[bead_id] == "failed"
    shown = bead(sandbox, bead_id)["gremlins"]
    assert (shown["attempts"], shown["failure"]["class"]) == (0, "permanent")
    assert "unknown_cost" in shown["failure"]["reason"]
    assert once(sandbox, "--pipeline", "asks")["spawned"] == []
    assert len(sandbox.simulator.batches) == 1


def test_under_dispatch_a_passing_404_changes_nothing(sandbox: Sandbox) -> None:
    settle_in(sandbox)
    sandbox.simulator.change(latency=0.0)
    sandbox.simulator.fault("results", "error", status=404, times=3)
    bead_id = create(sandbox, "Ask")
    [spawned] = once(sandbox, "--pipeline", "asks")["spawned"]
    sandbox.until(spawned["gremlin"], "finished")
    once(sandbox, "--pipeline", "asks")
    assert statuses(sandbox)[bead_id] == "closed"
    assert len(sandbox.simulator.batches) == 1


# ── the cost is in the records ────────────────────────────────────────────────────────────────────────────────────


def test_a_process_that_is_killed_before_it_wrote_its_record_shows_the_cost_of_its_calls(sandbox: Sandbox) -> None:
    launch_one(sandbox, latency=0.0)
    sandbox.until("g", "finished")
    path = sandbox.home / "gremlins/g/state.json"
    record = json.loads(path.read_text())
    record |= {"status": {"state": "running", "since": record["created_at"]}, "cost": {}, "total_cost_usd": 0.0}
    path.write_text(json.dumps(record | {"ended_at": None}))
    state = sandbox.state("g")
    assert state["liveness"]["state"] == "dead"
    assert state["cost"]["total_usd"] == calls(sandbox)[0]["cost"]["usd"] > 0
