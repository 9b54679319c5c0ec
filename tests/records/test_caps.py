"""Spending caps are looked at before every call."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gremlins.outcome import SpendingCap
from gremlins.paths import Home
from gremlins.records.gremlin import FailedGremlin, Finished
from gremlins.simulator import ScriptedModel, Simulator
from tests.conftest import Repo
from tests.in_process import InProcessSandbox

TWO = """
mode: batch
stages:
  - {type: agent, name: one, prompt: ask.md}
  - {type: agent, name: two, prompt: ask.md}
"""


@pytest.fixture
def sandbox(repo: Repo, tmp_path: Path) -> Iterator[InProcessSandbox]:
    repo.write({"ask.md": "Say something.\n"})
    with Simulator(model=ScriptedModel(["first", "second", "third", "fourth"])) as simulator:
        yield InProcessSandbox(repo, Home(tmp_path / "state"), simulator)


def test_a_gremlin_at_its_cap_asks_nothing_more_and_says_so(sandbox: InProcessSandbox) -> None:
    gremlin = sandbox.make(TWO)
    status = sandbox.run(gremlin, env={"GREMLINS_SPEND__PER_ATTEMPT": "0.000001"}).status
    assert isinstance(status, FailedGremlin)
    assert status.failure == "credit"
    assert "spend.per_attempt" in status.reason
    assert len(sandbox.simulator.batches) == 1


def test_a_day_counts_every_gremlin_and_begins_anew_at_midnight(sandbox: InProcessSandbox) -> None:
    cap = {"GREMLINS_SPEND__PER_DAY": "0.000001"}
    assert isinstance(sandbox.run(sandbox.make(TWO)).status, Finished)
    status = sandbox.run(sandbox.make(TWO), env=cap).status
    assert isinstance(status, FailedGremlin)
    assert status.retry_at is not None
    assert status.retry_at > sandbox.clock.now()
    assert status.cap == SpendingCap("spend.per_day", 0.000001)
    assert len(sandbox.simulator.batches) == 2


def test_an_unpriced_call_counts_as_the_dearest(sandbox: InProcessSandbox) -> None:
    gremlin = sandbox.make(TWO, client="claude:claude-unknown-9")
    status = sandbox.run(gremlin, env={"GREMLINS_SPEND__PER_ATTEMPT": "0.000001"}).status
    assert isinstance(status, FailedGremlin)
    assert status.failure == "credit"


def test_below_its_caps_nothing_is_held_up(sandbox: InProcessSandbox) -> None:
    roomy = {f"GREMLINS_SPEND__PER_{what}": "100" for what in ("ATTEMPT", "BEAD", "DAY")}
    assert isinstance(sandbox.run(sandbox.make(TWO), env=roomy).status, Finished)
