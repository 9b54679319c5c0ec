"""The forms in which a person may say things: a task alone, standard input, the end of an id, a commit's message."""

from __future__ import annotations

import subprocess

import pytest

from gremlins.simulator import ExampleModel, Simulator
from gremlins.simulator.demo_repository import TASK
from tests.acceptance.sandbox import Sandbox
from tests.time_limit import DEADLINE

MAKE = "stages: [{type: exec, cmds: ['echo x > new.txt; git add new.txt; git commit -q -m new -m because']}]\n"


def piped(sandbox: Sandbox, text: str, *words: str) -> str:
    """The output of a command with this standard input."""
    argv = [sandbox.interpreter, "-m", "gremlins", *words]
    done = subprocess.run(
        argv, cwd=sandbox.repo.path, env=sandbox.env, input=text, text=True, capture_output=True, timeout=DEADLINE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_task_alone_takes_the_default_pipeline(sandbox: Sandbox) -> None:
    gremlin = sandbox.ok("launch", TASK, env={"GREMLINS_DISPATCH__PIPELINE": "batch"}).strip()
    assert sandbox.state(gremlin)["pipeline"] == "batch"
    assert sandbox.state(gremlin)["task"] == TASK
    sandbox.ok("stop", gremlin)


@pytest.mark.parametrize("words", [("-",), ("--plan", "-")])
def test_task_and_plan_come_from_standard_input(sandbox: Sandbox, words: tuple[str, ...]) -> None:
    sandbox.pipeline("planned", "stages: [plan]\nevidence: none\n")
    gremlin = piped(sandbox, "# Do it\n\nAll of it.\n", "launch", "planned", *words)
    assert "All of it." in sandbox.state(gremlin)["task"]
    assert sandbox.run("launch", "planned", "-", "--plan", "-").code == 2
    assert sandbox.run("launch", "planned", "-").code == 2, "nothing was piped"


def test_the_end_of_an_id_is_accepted_and_a_message_is_taken_as_it_is(sandbox: Sandbox) -> None:
    sandbox.pipeline("make", MAKE)
    said = sandbox.ok("launch", "make", "Write new", "--id", "write-new-1f2e", "--wait")
    assert "gremlins land write-new-1f2e" in said.splitlines()[-1]
    assert sandbox.run("land", "1f2e", "-m", " ").code == 2
    sandbox.ok("land", "1f2e", "-m", "My own words")
    assert sandbox.repo.git("log", "-1", "--format=%s") == "My own words"


def test_the_agents_summary_is_the_body_of_what_lands(sandbox: Sandbox) -> None:
    sandbox.pipeline("make", MAKE)
    sandbox.ok("launch", "make", "Write new", "--id", "g", "--wait")
    assert "ready to land · gremlins diff g · gremlins land g" in sandbox.ok("status")
    sandbox.ok("land", "g")
    assert sandbox.repo.git("log", "-1", "--format=%B").startswith("Write new\n\nbecause")
    assert "ready to land" not in sandbox.ok("status")


def test_clean_keeps_to_its_repository_and_leaves_a_question(sandbox: Sandbox) -> None:
    sandbox.pipeline("nothing", "stages: [{type: exec, cmds: ['true']}]\n")
    sandbox.ok("launch", "nothing", "--id", "done", "--wait")
    elsewhere = sandbox.repo.path.parent / "other"
    sandbox.repo.git("init", "--quiet", str(elsewhere))
    assert "nothing to clean in this repository" in sandbox.ok("clean", cwd=elsewhere)
    assert "done: removed" in sandbox.ok("clean", "--all", cwd=elsewhere)


def test_a_simulator_by_hand_goes_all_the_way_in_any_repository(sandbox: Sandbox) -> None:
    sandbox.env |= {"GREMLINS_VERIFY": "true", "GREMLINS_DISPATCH__PIPELINE": "batch"}
    with Simulator(latency=0.0, model=ExampleModel("tabs or blanks?")) as by_hand:
        sandbox.env |= by_hand.env
        asked = sandbox.run("launch", "Anything at all.", "--id", "g", "--wait")
        assert "tabs or blanks?" in asked.err
        sandbox.ok("answer", "g", "tabs")
        sandbox.until("g", "finished", "dead", "bailed")
        sandbox.ok("revise", "g", "Say it in a file of its own.")
        sandbox.until("g", "finished", "dead", "bailed")
        assert sandbox.ok("diff", "g", "--name-only").split() == ["SIMULATED-2.md", "SIMULATED.md"]
        sandbox.ok("land", "g")
        assert "> Say it in a file of its own." in sandbox.repo.read("SIMULATED-2.md")
