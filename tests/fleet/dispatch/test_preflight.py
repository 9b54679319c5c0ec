"""Preflight: checks before a claim, and the cache of proofs by key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gremlins.clock import FakeClock
from gremlins.config import load_settings
from gremlins.errors import NotFound
from gremlins.fleet.dispatch.observation import Missing, SpawnOrder
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.dispatch.preflight import BELIEVED, DOUBTED, Readiness
from gremlins.paths import Home
from gremlins.simulator import Simulator
from tests.conftest import Repo

ASKS = "name: asks\nmode: batch\nevidence: none\nstages: [plan]\n"


class Gate:
    """A repository with a pipeline that asks a model, and the checks of its launches."""

    def __init__(self, repo: Repo, home: Path, simulator: Simulator) -> None:
        repo.commit({".gremlins/pipelines/asks.yaml": ASKS}, "a pipeline")
        self.repo, self.simulator, self.clock = repo, simulator, FakeClock()
        self.env = dict(simulator.env)
        self.policy = Policy(pipeline="asks")
        settings = lambda: load_settings(repo.path, Home(home), self.env)  # noqa: E731
        self.readiness = Readiness(
            Home(home), repo.path, self.clock, lambda: dict(self.env), settings, lambda: self.policy
        )

    def check(self, *, fresh: bool = False) -> Missing | None:
        return self.readiness.check(fresh=fresh)

    @property
    def asked(self) -> int:
        return sum(count for kind, count in self.simulator.requests.items() if "model" in kind)


@pytest.fixture
def gate(repo: Repo, tmp_path: Path) -> Iterator[Gate]:
    with Simulator(keys={"sk-right": "default", "sk-other": "default"}) as simulator:
        yield Gate(repo, tmp_path / "state", simulator)


def test_a_proven_key_is_believed_for_a_while_and_a_probe_asks_anew(gate: Gate) -> None:
    assert gate.check() is None
    asked = gate.asked
    gate.clock.advance(BELIEVED - 1)
    assert gate.check() is None
    assert gate.asked == asked
    assert gate.check(fresh=True) is None
    assert gate.asked == asked + 1
    gate.clock.advance(BELIEVED + 1)
    assert gate.check() is None
    assert gate.asked == asked + 2


def test_a_refused_key_is_asked_about_again_soon_and_goes_on_once_it_is_taken(gate: Gate) -> None:
    gate.env["ANTHROPIC_API_KEY"] = "sk-soon"
    refused = gate.check()
    assert isinstance(refused, Missing)
    assert (refused.exit_code, "sk-soon" in f"{refused.reason}{refused.hint}") == (5, False)
    asked = gate.asked
    gate.simulator.change(keys={"sk-soon": "default"})
    assert isinstance(gate.check(), Missing)
    assert gate.asked == asked
    gate.clock.advance(DOUBTED + 1)
    assert gate.check() is None


def test_another_key_is_another_question_at_once(gate: Gate) -> None:
    gate.env["ANTHROPIC_API_KEY"] = "sk-wrong"
    assert isinstance(gate.check(), Missing)
    before = gate.readiness.scopes()
    gate.env["ANTHROPIC_API_KEY"] = "sk-other"
    assert gate.check() is None
    assert gate.readiness.scopes() != before
    assert all("sk-" not in scope for scope in (*before, *gate.readiness.scopes()))


def test_an_api_that_does_not_answer_holds_nothing_up(gate: Gate) -> None:
    gate.simulator.fault("*", "error", status=503, times=0)
    assert gate.check() is None


@pytest.mark.parametrize(("pipeline", "code"), [("nope", 6), ("wrong", 1)])
def test_a_pipeline_that_cannot_work_is_missing_with_its_own_code(gate: Gate, pipeline: str, code: int) -> None:
    gate.repo.commit({".gremlins/pipelines/wrong.yaml": "stages: [plann]\n"})
    gate.policy = Policy(pipeline=pipeline)
    found = gate.check()
    assert isinstance(found, Missing)
    assert found.exit_code == code


def test_without_a_key_nothing_is_asked(gate: Gate) -> None:
    gate.env["ANTHROPIC_API_KEY"] = ""
    found = gate.check()
    assert isinstance(found, Missing)
    assert (found.exit_code, gate.asked) == (5, 0)
    assert found.hint


def test_a_spawn_takes_over_what_the_check_prepared(gate: Gate) -> None:
    assert gate.check() is None
    gate.repo.write({".gremlins/pipelines/asks.yaml": "stages: [plann]\n"})
    order = SpawnOrder("g-1", "b-1", 1, "asks", None, "A title", "Do it.")
    prepared = gate.readiness.prepared(order)
    assert (prepared.request.task, prepared.request.gremlin_id, prepared.pipeline.name) == ("Do it.", "g-1", "asks")
    with pytest.raises(NotFound):  # claimed by an earlier tick, with another pipeline
        gate.readiness.prepared(replace(order, pipeline="nope"))
