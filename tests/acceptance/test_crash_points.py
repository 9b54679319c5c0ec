"""Killed at any step, and rescued: one batch, one booking, the same artifact, the same tree.

The steps are counted first, in the real processes, and not named here: every write, rename and fsync, every connection,
request and answer, every program started, from `launch` to the end. The soak takes each of them.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gremlins.simulator import RulesModel, ScriptedModel, Simulator
from gremlins.simulator.demo_repository import RULE
from tests import kill_points
from tests.acceptance.crash_scenarios import (
    ANSWER,
    CALL,
    CONFLICT,
    EDITS,
    REMOVAL,
    REVISION,
    STOP,
    ResettableSandbox,
    Scenario,
    landing,
    meet_a_conflict,
)
from tests.acceptance.fork_server import ForkServer
from tests.acceptance.one_batch_call import billed_once, launch_one
from tests.acceptance.sandbox import Sandbox

SOAK = bool(os.environ.get("GREMLINS_SOAK"))
SEED = 20261121
LANDINGS = [landing(), landing("--ff"), landing("--into", "release")]


@pytest.fixture
def place(tmp_path: Path, fork_server: ForkServer) -> Iterator[ResettableSandbox]:
    with Simulator(latency=0.0, model=RulesModel([RULE])) as simulator:
        yield ResettableSandbox(tmp_path, simulator, fork_server.python)


@pytest.fixture
def finished(place: ResettableSandbox) -> ResettableSandbox:
    """A place where the gremlin `g` has fixed the bug and waits to be landed."""
    EDITS.undisturbed(place)
    place.sandbox.repo.git("branch", "release", "HEAD")
    place.keep()
    return place


def spread(steps: int, count: int) -> Sequence[int]:
    """So many of the steps, evenly spread, one from each stretch."""
    if SOAK or steps <= count:
        return range(1, steps + 1)
    chance = random.Random(SEED)
    edges = [round(n * steps / count) for n in range(count + 1)]
    return [chance.randint(low + 1, high) for low, high in pairwise(edges)]


def die_everywhere(scenario: Scenario, place: ResettableSandbox, count: int, least: int) -> dict[str, Any]:
    """Kill it at so many steps. Returns the outcome, which is that of the run that was not killed."""
    steps, wanted = scenario.undisturbed(place)
    assert steps >= least, "the steps are no longer seen"
    wrong = []
    for step in spread(steps, count):
        where, outcome = scenario.killed(place, step)
        differs = {key: (outcome.get(key), wanted[key]) for key in wanted if outcome.get(key) != wanted[key]}
        if differs:
            wrong.append(f"killed at step {step} of {steps}, {where}: {differs}\n{place.sandbox.logs()}")
    assert not wrong, "\n".join(wrong)
    return wanted


def test_a_call_killed_at_any_step_soak(place: ResettableSandbox) -> None:
    die_everywhere(CALL, place, 4, least=100)


def test_edits_killed_at_any_step_soak(place: ResettableSandbox) -> None:
    die_everywhere(EDITS, place, 3, least=100)


def test_a_request_for_more_killed_at_any_step_soak(tmp_path: Path, fork_server: ForkServer) -> None:
    edit = {"path": "orchard/harvest.py", "old": "(len(counts) - 1)", "new": "len(counts)"}
    model = ScriptedModel(
        when=[("This is what you asked for", json.dumps({"edits": [edit], "summary": "s"}))],
        otherwise=json.dumps({"need": [{"path": "README.md"}, {"search": "baskets"}], "why": "w"}),
    )
    with Simulator(latency=0.0, model=model) as simulator:
        place = ResettableSandbox(tmp_path, simulator, fork_server.python)
        die_everywhere(EDITS, place, 3, least=100)
        assert EDITS.undisturbed(place)[1]["batches"] == 2


def test_a_stop_killed_at_any_step_leaves_nothing_at_work_soak(place: ResettableSandbox) -> None:
    die_everywhere(STOP, place, 3, least=100)


def test_what_is_removed_after_a_kill_at_any_step_leaves_its_costs_soak(place: ResettableSandbox) -> None:
    die_everywhere(REMOVAL, place, 3, least=100)


@pytest.mark.parametrize("scenario", LANDINGS, ids=lambda scenario: scenario.name)
def test_a_landing_killed_at_any_step_soak(finished: ResettableSandbox, scenario: Scenario) -> None:
    die_everywhere(scenario, finished, 2, least=20)


def test_a_conflict_at_landing_killed_at_any_step_is_resolved_once_soak(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    both = {"edits": [{"path": "new.txt", "content": "another's\nnew\n"}], "summary": "Both lines."}
    with Simulator(latency=0.0, model=ScriptedModel(otherwise=json.dumps(both))) as simulator:
        place = ResettableSandbox(tmp_path, simulator, fork_server.python)
        meet_a_conflict(place)
        assert die_everywhere(CONFLICT, place, 2, least=100)["batches"] == 1


def test_a_revision_killed_at_any_step_soak(finished: ResettableSandbox) -> None:
    die_everywhere(REVISION, finished, 3, least=100)


def test_an_answer_killed_at_any_step_soak(tmp_path: Path, fork_server: ForkServer) -> None:
    model = ScriptedModel(
        when=[("It is the first", "An orchard.")], otherwise="BAIL: needs_human: the first or the second?"
    )
    with Simulator(latency=0.0, model=model) as simulator:
        place = ResettableSandbox(tmp_path, simulator, fork_server.python)
        assert place.sandbox.run("launch", "ask", "Say it.", "--id", "g").code == 0
        assert place.until_over() == "bailed"
        place.keep()
        die_everywhere(ANSWER, place, 3, least=100)


@pytest.mark.parametrize("scenario", [CALL, EDITS], ids=lambda scenario: scenario.name)
def test_killed_again_on_the_way_back_soak(place: ResettableSandbox, scenario: Scenario) -> None:
    die_twice(scenario, place)


def test_a_landing_killed_twice_soak(finished: ResettableSandbox) -> None:
    die_twice(LANDINGS[0], finished)


def die_twice(scenario: Scenario, place: ResettableSandbox) -> None:
    steps, wanted = scenario.undisturbed(place)
    chance = random.Random(SEED)
    for _ in range(60 if SOAK else 1):
        pair = chance.randint(1, steps), chance.randint(1, steps)
        where, outcome = scenario.killed(place, *pair)
        assert outcome == wanted, f"killed at {pair}: {where}\n{place.sandbox.logs()}"


NETWORK: list[dict[str, Any]] = [
    {"do": "drop"},
    {"do": "drop", "when": "after"},
    {"do": "error", "status": 500, "when": "after"},
    {"do": "error", "status": 529},
    {"do": "error", "status": 429, "retry_after": 0},
    {"do": "garbage", "when": "after"},
    {"do": "truncate"},
    {"do": "slow", "seconds": 0.3, "when": "after"},
]


@pytest.mark.parametrize("scenario", [CALL, EDITS], ids=lambda scenario: scenario.name)
def test_killed_on_a_network_that_fails_soak(place: ResettableSandbox, scenario: Scenario) -> None:
    steps, wanted = scenario.undisturbed(place)
    chance = random.Random(SEED)
    for _ in range(80 if SOAK else 1):
        faults = [(chance.choice(["create", "list", "retrieve", "results"]), chance.choice(NETWORK)) for _ in range(3)]
        for endpoint, fault in faults:
            place.simulator.fault(endpoint, **fault)
        at = chance.randint(1, steps + 20)
        where, outcome = scenario.killed(place, at)
        place.simulator.faults.clear()
        assert outcome == wanted, f"killed at {at}: {where}, with {faults}\n{place.sandbox.logs()}"


# ── the same without a fork_server ────────────────────────────────────────────────────────────────────────────────────

CUSTOMIZED = """
import os, socket, subprocess, sys
if any("gremlins" in word for word in sys.orig_argv):
    sys.path.insert(0, {folder!r})
    import kill_points
    kill_points.install_from(os.environ)
"""
POST = "POST /v1/messages/batches HTTP/1.1"
STEPS = [f"answer to {POST}", f"send {POST}"]


@pytest.mark.installed
@pytest.mark.parametrize("step", STEPS if SOAK else STEPS[:1])
def test_the_installed_command_killed_before_it_hears_that_its_batch_was_made_soak(
    sandbox: Sandbox, tmp_path: Path, step: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CUSTOMIZED.format(folder=str(Path(kill_points.__file__).parent)))
    trace = tmp_path / "trace"
    launch_one(sandbox, latency=0.0, PYTHONPATH=str(tmp_path), **{kill_points.TRACE: str(trace), kill_points.AT: step})
    sandbox.until("g", "detached")
    steps = [line.split(maxsplit=1) for line in trace.read_text().splitlines()]
    killed = [pid for pid, words in steps if words.strip() == step]  # `launch` goes on beside the killed process
    assert [words.strip() for pid, words in steps if pid in killed][-1] == step
    assert len(sandbox.simulator.batches) == (step == STEPS[0])
    sandbox.ok("rescue", "g")
    sandbox.until("g", "finished")
    billed_once(sandbox)
