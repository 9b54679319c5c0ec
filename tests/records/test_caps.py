"""Each call asks for room under the spending caps: what is booked and what outstanding calls may cost at worst."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gremlins.clock import SystemClock
from gremlins.config import SpendSettings
from gremlins.outcome import Failed, SpendingCap
from gremlins.paths import Home
from gremlins.processes.locks import locked
from gremlins.records.calls import BatchCall, Ledger
from gremlins.records.caps import Granted, Occupied, room
from gremlins.records.gremlin import FailedGremlin, Finished, Parked, Queued, Running
from gremlins.records.spend import all_spending, archive
from gremlins.records.totals import Totals, caps_lock
from gremlins.simulator import Fault, ModelReply, ScriptedModel, Simulator
from tests.conftest import Repo
from tests.in_process import InProcessSandbox

TWO = """
mode: batch
stages:
  - {type: agent, name: one, prompt: .gremlins/ask.md}
  - {type: agent, name: two, prompt: .gremlins/ask.md}
"""
ONE = TWO.rpartition("  - ")[0]
BRANCHES = "".join(f"\n      b{n}: [{{type: agent, name: s{n}, prompt: .gremlins/ask.md}}]" for n in range(6))
SIX = f"""
mode: batch
stages:
  - type: parallel
    on_failure: collect
    branches:{BRANCHES}
"""
DEAR = {"GREMLINS_BATCH__MAX_TOKENS": "10000"}
"""A call costs at most $0.053, and these replies cost $0.05."""
DEAR_REPLY = "x" * 40_000


@pytest.fixture
def sandbox(repo: Repo, tmp_path: Path) -> Iterator[InProcessSandbox]:
    repo.write({".gremlins/ask.md": "Say something.\n"})
    with Simulator(model=ScriptedModel(otherwise=DEAR_REPLY)) as simulator:
        yield InProcessSandbox(repo, Home(tmp_path / "state"), simulator)


def spent(sandbox: InProcessSandbox) -> float:
    return sum(line.usd or 0.0 for line in all_spending(sandbox.home)[0])


def test_a_call_that_may_cost_more_than_is_left_is_not_sent(sandbox: InProcessSandbox) -> None:
    gremlin = sandbox.make(TWO, env=DEAR)
    status = sandbox.run(gremlin, env={"GREMLINS_SPEND__PER_ATTEMPT": "0.075"}).status
    assert isinstance(status, FailedGremlin)
    assert status.failure == "credit"
    assert "spend.per_attempt is $0.075, and this gremlin has cost $0.050" in status.reason
    assert f"GREMLINS_SPEND__PER_ATTEMPT=1 gremlins rescue {gremlin}" in status.reason
    assert len(sandbox.simulator.batches) == 1


def test_branches_side_by_side_stay_below_the_cap_together(sandbox: InProcessSandbox) -> None:
    gremlin = sandbox.make(SIX, env=DEAR)
    status = sandbox.run(gremlin, env={"GREMLINS_SPEND__PER_ATTEMPT": "0.12"}).status
    assert isinstance(status, FailedGremlin)
    assert status.cap == SpendingCap("spend.per_attempt", 0.12)
    assert len(sandbox.simulator.batches) == 2
    assert spent(sandbox) <= 0.12


def test_gremlins_that_start_together_stay_below_the_cap_of_the_day_together(sandbox: InProcessSandbox) -> None:
    """Eight beads cost $6.00 under `per_day = 4.2`."""
    cap = {"GREMLINS_SPEND__PER_DAY": "0.22"}
    sandbox.simulator.change(latency=3600.0)
    gremlins = [sandbox.make(ONE, env=DEAR) for _ in range(8)]
    for gremlin in gremlins:
        sandbox.run(gremlin, env=cap, waits=1)
    assert len(sandbox.simulator.batches) == 4
    ends = [sandbox.run(gremlin, env=cap).status for gremlin in gremlins]
    assert {end.cap for end in ends if isinstance(end, FailedGremlin)} == {SpendingCap("spend.per_day", 0.22)}
    assert len(sandbox.simulator.batches) == 4
    assert spent(sandbox) == pytest.approx(0.2, abs=0.004)


def test_what_outstanding_calls_do_not_use_goes_to_those_that_wait(sandbox: InProcessSandbox) -> None:
    """Each may cost ten times what it does: one after the other, all six find room."""
    gremlin = sandbox.make(SIX, env={"GREMLINS_BATCH__MAX_TOKENS": "60000"})
    assert isinstance(sandbox.run(gremlin, env={"GREMLINS_SPEND__PER_ATTEMPT": "0.9"}).status, Finished)
    assert len(sandbox.simulator.batches) == 6
    assert any("waiting for room under spend.per_attempt" in wait.why for wait in sandbox.waits)


ENDS: list[dict[str, Any]] = [
    {"on": "create", "do": "error", "status": 400},
    {"on": "create", "do": "error", "status": 529, "times": 2},
    {"on": "create", "do": "drop"},
    {"on": "create", "do": "drop", "when": "after"},
    {"on": "create", "do": "error", "status": 500, "when": "after"},
    {"on": "create", "do": "garbage", "when": "after"},
    {"on": "results", "do": "error", "status": 404, "times": 0},
    {"on": "outcome", "do": "errored", "error": "invalid_request_error"},
    {"on": "outcome", "do": "errored", "error": "of_next_year_error"},
    {"on": "outcome", "do": "expired", "times": 0},
    {"on": "outcome", "do": "canceled"},
    {"on": "outcome", "do": "max_tokens", "times": 0},
]


@pytest.mark.parametrize("fault", ENDS, ids=lambda fault: " ".join(map(str, fault.values())))
def test_a_reservation_ends_with_its_call_however_it_ends(sandbox: InProcessSandbox, fault: dict[str, Any]) -> None:
    """And what may have been billed counts from then on."""
    sandbox.simulator.faults.add(Fault(**fault))
    status = sandbox.run(sandbox.make(ONE, env=DEAR)).status
    assert not isinstance(status, Parked | Running | Queued)
    totals = Totals(sandbox.home)
    totals.refresh()
    assert totals.reserved_usd() == 0.0
    billed = sum(each.usage["output_tokens"] for each in sandbox.simulator.billed) * 5 / 1e6
    assert totals.today(sandbox.clock.now()).at_most >= billed


def test_a_day_counts_every_gremlin_and_begins_anew_at_midnight(sandbox: InProcessSandbox) -> None:
    cap = {"GREMLINS_SPEND__PER_DAY": "0.12"}
    assert isinstance(sandbox.run(sandbox.make(TWO, env=DEAR)).status, Finished)
    second = sandbox.make(TWO, env=DEAR)
    status = sandbox.run(second, env=cap).status
    assert isinstance(status, FailedGremlin)
    assert status.retry_at is not None
    assert status.retry_at > sandbox.clock.now()
    assert status.cap == SpendingCap("spend.per_day", 0.12)
    assert len(sandbox.simulator.batches) == 2


def test_an_unpriced_call_counts_as_the_dearest(sandbox: InProcessSandbox) -> None:
    gremlin = sandbox.make(TWO, client="claude:claude-unknown-9", env=DEAR)
    status = sandbox.run(gremlin, env={"GREMLINS_SPEND__PER_ATTEMPT": "0.5"}).status
    assert isinstance(status, FailedGremlin)
    assert "has cost $0.0000 and 1 call without a price, counted as $0.3" in status.reason
    assert len(sandbox.simulator.batches) == 1


def test_by_default_an_attempt_and_a_day_are_capped_and_none_lifts_a_cap(sandbox: InProcessSandbox) -> None:
    assert (SpendSettings().per_attempt, SpendSettings().per_bead, SpendSettings().per_day) == (5.0, None, 25.0)
    sandbox.home.root.mkdir(parents=True, exist_ok=True)
    sandbox.home.config.write_text('[spend]\nper_attempt = "none"\nper_day = "none"\n')
    gremlin = sandbox.make(TWO)
    assert json.loads(sandbox.home.gremlin(gremlin).frozen.read_text())["settings"]["spend"]["per_day"] is None
    assert isinstance(sandbox.run(gremlin).status, Finished)


def test_a_live_call_shows_its_cost_while_it_goes_on(sandbox: InProcessSandbox) -> None:
    """`state.json` said $0.00 through 43 turns."""
    seen: list[float] = []
    use = {"type": "tool_use", "id": "toolu_1", "name": "glob", "input": {"pattern": "*"}}

    def second_turn(params: object) -> str:
        seen.append(sandbox.read(gremlin).total_cost_usd)
        return "Done."

    script = ScriptedModel([ModelReply(blocks=(use,), stop_reason="tool_use"), second_turn])
    with Simulator(model=script) as simulator:
        live = InProcessSandbox(sandbox.repo, sandbox.home, simulator)
        one = (
            "stages:\n  - {type: agent, name: one, prompt: .gremlins/ask.md, mode: live,"
            " client: 'anthropic:claude-sonnet-5-5'}\n"
        )
        gremlin = live.make(one)
        assert isinstance(live.run(gremlin).status, Finished)
    assert seen[0] > 0


# ── outstanding calls of other gremlins and processes ─────────────────────────────────────────────────────────────


def outstanding(sandbox: InProcessSandbox, *, times: int = 1) -> str:
    """A gremlin whose first batch is in progress."""
    sandbox.simulator.change(latency=3600.0)
    gremlin = sandbox.make(TWO, env=DEAR)
    sandbox.run(gremlin, waits=times)
    return gremlin


def ask(sandbox: InProcessSandbox, gremlin: str, caps: SpendSettings, worst: float) -> Granted | Occupied | Failed:
    with room(sandbox.home, sandbox.read(gremlin), caps, worst, sandbox.clock.now()) as found:
        return found


def test_a_wait_for_room_asks_the_api_nothing_and_looks_less_and_less_often(sandbox: InProcessSandbox) -> None:
    outstanding(sandbox)
    second, before = sandbox.make(ONE, env=DEAR), sandbox.simulator.requests
    sandbox.waits.clear()
    began = sandbox.clock.now()
    sandbox.run(second, env={"GREMLINS_SPEND__PER_DAY": "0.1"}, waits=40)
    assert sandbox.simulator.requests == before
    moments = [began, *(wait.until for wait in sandbox.waits)]
    pauses = [(later - sooner).total_seconds() for sooner, later in pairwise(moments)]
    assert (pauses[0], pauses[-1]) == (60.0, 600.0)


def test_room_counts_the_worst_case_of_what_is_outstanding(sandbox: InProcessSandbox) -> None:
    first = outstanding(sandbox)
    [call] = sandbox.calls(first)
    assert isinstance(call, BatchCall)
    assert call.reservation == pytest.approx(0.05, abs=0.004)
    other = sandbox.make(TWO)
    day = SpendSettings(per_attempt=None, per_day=0.1)
    assert isinstance(ask(sandbox, other, day, 0.04), Granted)
    assert isinstance(ask(sandbox, other, day, 0.06), Occupied)
    assert isinstance(ask(sandbox, other, day, 0.11), Failed)


def test_a_check_waits_for_the_check_of_another_process(sandbox: InProcessSandbox) -> None:
    gremlin = sandbox.make(TWO)
    with (
        room(sandbox.home, sandbox.read(gremlin), SpendSettings(), 0.01, sandbox.clock.now()),
        locked(caps_lock(sandbox.home), clock=SystemClock(), patience=0.0) as held,
    ):
        assert not held


def test_sums_are_those_of_the_records_whatever_changes(sandbox: InProcessSandbox) -> None:
    """The cache of sums follows a reply, a removal, and a record written by hand."""
    gremlin = sandbox.make(TWO)
    sandbox.run(gremlin)
    today = sandbox.clock.now()

    def total() -> float:
        totals = Totals(sandbox.home)
        totals.refresh(keep=True)
        return totals.today(today).usd

    assert total() == pytest.approx(spent(sandbox))
    assert total() == pytest.approx(spent(sandbox))
    ledger = Ledger(sandbox.home.gremlin(gremlin))
    [call, *_] = ledger.files()
    call.unlink()
    assert total() == pytest.approx(spent(sandbox))
    assert total() > 0
    archive(sandbox.home, sandbox.read(gremlin))
    assert total() == pytest.approx(spent(sandbox))
    for file in ledger.files():
        file.unlink()
    sandbox.home.gremlin(gremlin).state.unlink()
    assert total() == pytest.approx(spent(sandbox))
    assert total() > 0
