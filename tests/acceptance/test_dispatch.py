"""The dispatch loop from outside: the installed command, real gremlins, real kills."""

from __future__ import annotations

import json
import os
import random
import secrets
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.dispatch_project import bead, command, create, let_end, loop, once, settle_in, statuses
from tests.acceptance.one_batch_call import FOREVER, end_batches
from tests.acceptance.sandbox import Sandbox

SOAK = bool(os.environ.get("GREMLINS_SOAK"))
SEED = 20261121


@pytest.fixture
def project(sandbox: Sandbox) -> Sandbox:
    return settle_in(sandbox)


def test_a_bead_is_worked_on_and_closed_by_the_loop(project: Sandbox) -> None:
    bead_id = create(project, "Do the work")
    with loop(project) as process:
        project.wait_for(lambda: statuses(project)[bead_id] == "closed", "a closed bead")
        assert process.end() == 0, process.err
    assert "spawned" in process.out
    assert "drained" in process.out
    assert all(line.strip() for line in process.out.splitlines())


def test_until_idle_the_loop_leaves_by_itself_and_sums_up(project: Sandbox) -> None:
    done = create(project, "Do the work")
    said = project.ok("dispatch", "--until-idle")
    assert statuses(project)[done] == "closed"
    assert "1 gremlins started, 1 beads closed, $0.0000" in said
    assert project.run("dispatch", "--once", "--until-idle").code == 2


def test_beads_text_is_the_task(project: Sandbox) -> None:
    bead_id = create(project, "Mend it", "-d", "It is broken", "--acceptance", "It works", "--notes", "With care")
    gremlin = once(project)["spawned"][0]["gremlin"]
    task = project.state(gremlin)["task"]
    assert all(text in task for text in ("Mend it", "It is broken", "It works", "With care"))
    assert project.state(gremlin)["bead_id"] == bead_id


def test_failures_reach_the_cap_with_their_reasons(project: Sandbox) -> None:
    bead_id = create(project, "Hopeless")
    with loop(project, "--pipeline", "fails", "--retry-cap", "2"):
        project.wait_for(lambda: statuses(project)[bead_id] == "failed", "a failed bead")
    shown = bead(project, bead_id)
    assert shown["gremlins"]["attempts"] == 2
    assert shown["gremlins"]["failure"]["class"] == "task"
    assert [attempt["class"] for attempt in shown["gremlins"]["history"]] == ["task", "task"]
    assert all("7" in attempt["reason"] for attempt in shown["gremlins"]["history"])
    project.ok("bead", "retry", bead_id)
    assert bead(project, bead_id)["gremlins"]["attempts"] == 0
    assert bead(project, bead_id)["gremlins"]["epoch"] == 2


def test_without_a_key_nothing_is_started_and_no_bead_changes(project: Sandbox) -> None:
    bead_id = create(project, "Ask")
    before = bead(project, bead_id)
    ran = project.run("dispatch", "--once", "--pipeline", "asks", env={"ANTHROPIC_API_KEY": ""})
    assert ran.code == 5
    assert ran.err.startswith("error: ")
    assert "hint: " in ran.err
    why = project.run("dispatch", "--explain", bead_id, "--pipeline", "asks", env={"ANTHROPIC_API_KEY": ""})
    assert (why.code, ran.err.splitlines()[0].removeprefix("error: ") in why.out) == (0, True)
    assert bead(project, bead_id) == before
    assert not list((project.home / "gremlins").glob("*"))


def test_a_key_that_is_refused_is_found_out_before_the_claim(project: Sandbox) -> None:
    project.simulator.change(keys={"sk-right": "default"})
    bead_id = create(project, "Ask")
    ran = project.run("dispatch", "--once", "--pipeline", "asks")
    assert ran.code == 5
    assert bead(project, bead_id)["gremlins"]["spawns"] == 0


@pytest.mark.parametrize(("pipeline", "code"), [("nope", 6), ("broken", 1)])
def test_a_pipeline_that_cannot_work_is_refused(project: Sandbox, pipeline: str, code: int) -> None:
    bead_id = create(project, "Waits")
    project.pipeline("broken", "name: broken\nstages: [plann]\n")
    ran = project.run("dispatch", "--once", "--pipeline", pipeline)
    assert ran.code == code
    env = {"GREMLINS_DISPATCH__PIPELINE": pipeline}
    explained = project.run("dispatch", "--explain", bead_id, "--json", env=env).json()
    assert explained["reason"] in ran.err
    for verb in ("list", "ready"):
        [listed] = project.run("bead", verb, "--json", env=env).json()
        assert listed["gremlins"]["bucket_reason"] == explained["reason"], "one judgement for all verbs"


def test_a_second_loop_is_refused(project: Sandbox) -> None:
    with loop(project) as first:
        project.wait_for(lambda: first.pid is not None, "the loop")
        assert project.run("dispatch").code == 4
        assert project.run("dispatch", "--once").code == 4


def test_many_ticks_at_once_start_no_gremlin_twice_soak(project: Sandbox) -> None:
    """Eight forks of one process in the suite; in the soak, fifty commands of their own."""
    for n in range(3):
        create(project, f"Number {n}")
    words = ["dispatch", "--once", "--pipeline", "hangs", "--max-running", "2"]
    live = "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])" if SOAK else f"os._exit(run({words}))"
    script = (
        "import os, sys\n"
        "from gremlins.cli import dispatch\n"
        "from gremlins.cli.main import run\n"
        "children = []\n"
        f"for _ in range({50 if SOAK else 8}):\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        f"        {live}\n"
        "    children.append(pid)\n"
        "print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "-m", "gremlins", *words], cwd=project.repo.path, env=project.env,
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert set(json.loads(done.stdout.splitlines()[-1])) <= {0, 4}, done.stderr
    spawned = [row["gremlins"]["spawns"] for row in project.run("bead", "list", "--json").json()]
    assert sorted(spawned) == [0, 1, 1]
    assert len(list((project.home / "gremlins").glob("*"))) == 2
    project.ok("stop", "--all")


def test_a_loop_killed_between_claim_and_spawn_loses_nothing(project: Sandbox, tmp_path: Path) -> None:
    bead_id = create(project, "Interrupted")
    shim = tmp_path / "bin" / "git"
    shim.parent.mkdir()
    real = subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True, check=True).stdout.strip()
    shim.write_text(f'#!/bin/sh\ncase "$*" in *"worktree add"*) kill -9 $PPID; exit 1;; esac\nexec {real} "$@"\n')
    shim.chmod(0o755)
    killed = project.run("dispatch", "--once", env={"PATH": f"{shim.parent}:{os.environ['PATH']}"})
    assert killed.code == -signal.SIGKILL
    claimed = bead(project, bead_id)
    assert claimed["status"] == "in_progress"
    assert claimed["gremlins"]["bucket"] == "starting"
    again = once(project)
    assert again["spawned"] == [{"bead": bead_id, "gremlin": claimed["gremlins"]["gremlin_id"]}]
    project.until(claimed["gremlins"]["gremlin_id"], "finished")
    assert [row["bead"] for row in once(project)["closed"]] == [bead_id]
    assert bead(project, bead_id)["gremlins"]["spawns"] == 1


def test_a_loop_killed_after_the_spawn_changes_no_counter(project: Sandbox) -> None:
    bead_id = create(project, "Goes on")
    with loop(project, "--pipeline", "waits") as process:
        project.wait_for(lambda: bead(project, bead_id)["gremlins"]["gremlin_id"] is not None, "a claim")
        gremlin = bead(project, bead_id)["gremlins"]["gremlin_id"]
        log = project.home / "gremlins" / gremlin / "log"
        project.wait_for(lambda: log.exists() and "running `until" in log.read_text(), "a gremlin at work")
        assert process.end(signal.SIGKILL) == -signal.SIGKILL
    let_end(project)
    project.until(gremlin, "finished")
    assert [row["bead"] for row in once(project)["closed"]] == [bead_id]
    after = bead(project, bead_id)["gremlins"]
    assert (after["spawns"], after["attempts"], after["gremlin_id"]) == (1, 0, gremlin)


def test_a_killed_parked_gremlin_is_re_attached_and_its_batch_not_paid_twice(project: Sandbox) -> None:
    project.simulator.change(latency=FOREVER)
    bead_id = create(project, "Wait")
    gremlin = once(project, "--pipeline", "asks")["spawned"][0]["gremlin"]
    project.until(gremlin, "parked")
    project.kill(gremlin)
    again = once(project, "--pipeline", "asks")
    assert again["spawned"] == [{"bead": bead_id, "gremlin": gremlin}]
    end_batches(project)
    project.until(gremlin, "finished")
    assert bead(project, bead_id)["gremlins"]["spawns"] == 2
    assert bead(project, bead_id)["gremlins"]["attempts"] == 0
    assert len(project.simulator.batches) == 1


def test_a_person_who_stops_a_gremlin_holds_the_bead(project: Sandbox) -> None:
    bead_id = create(project, "Stop me")
    gremlin = once(project, "--pipeline", "waits")["spawned"][0]["gremlin"]
    project.until(gremlin, "running")
    project.ok("stop", gremlin)
    assert [row["bead"] for row in once(project)["held"]] == [bead_id]
    assert once(project)["spawned"] == []
    assert bead(project, bead_id)["gremlins"]["hold"]["kind"] == "stopped"
    project.ok("bead", "release", bead_id)
    assert once(project)["spawned"] == [{"bead": bead_id, "gremlin": gremlin}]


def test_finished_work_is_landed_before_its_bead_closes(project: Sandbox) -> None:
    bead_id = create(project, "Change")
    gremlin = once(project, "--pipeline", "changes")["spawned"][0]["gremlin"]
    project.until(gremlin, "finished")
    assert [row["bead"] for row in once(project, "--pipeline", "changes", "--land")["closed"]] == [bead_id]
    assert project.repo.read("new.txt") == "new\n"
    assert project.life(gremlin) == "landed"


@pytest.mark.installed  # what tells a person is a process of its own
def test_notices_are_handed_to_a_persons_command(project: Sandbox, tmp_path: Path) -> None:
    told = tmp_path / "told"
    (project.home).mkdir(exist_ok=True)
    (project.home / "config.toml").write_text(f"notify = ['/bin/sh', '-c', 'cat >> {told}; exit 3']\n")
    bead_id = create(project, "Tell me")
    gremlin = once(project)["spawned"][0]["gremlin"]
    project.until(gremlin, "finished")
    once(project)
    project.wait_for(lambda: told.exists() and '"closed"' in told.read_text(), "a notice")
    events = [json.loads(line) for line in told.read_text().splitlines()]
    closed = next(event for event in events if event["event"] == "closed")
    assert (closed["bead"], closed["gremlin"], closed["title"]) == (bead_id, gremlin, "Tell me")


def test_a_bad_record_of_one_gremlin_stops_no_other(project: Sandbox) -> None:
    first = create(project, "First")
    second = create(project, "Second")
    gremlins = {row["bead"]: row["gremlin"] for row in once(project)["spawned"]}
    for gremlin in gremlins.values():
        project.until(gremlin, "finished")
    (project.home / "gremlins" / gremlins[first] / "state.json").write_text("{half")
    report = once(project)
    assert [row["bead"] for row in report["closed"]] == [second]
    assert bead(project, first)["gremlins"]["bucket"] == "held"


def test_a_fleet_of_beads_ends_whatever_goes_wrong_soak(project: Sandbox) -> None:
    chance = random.Random(secrets.randbits(64) if SOAK else SEED)
    troubles = [("create", "drop"), ("create", "error"), ("retrieve", "error"), ("results", "error"), ("list", "error")]
    project.simulator.change(latency=0.2)
    for _ in range(30 if SOAK else 8):
        on, what = chance.choice(troubles)
        status = {"status": chance.choice([500, 503, 529])} if what == "error" else {}
        project.simulator.fault(on, what, times=1, skip=chance.randrange(6), **status)
    beads = [create(project, f"Number {n}") for n in range(30 if SOAK else 6)]
    with loop(project, "--pipeline", "asks", "--max-running", "4"):
        over = {"closed", "failed"}
        project.wait_for(lambda: set(statuses(project).values()) <= over, "every bead at its end")
    shown = {row["id"]: row for row in project.run("bead", "list", "--json").json()}
    assert all(shown[bead_id]["status"] == "closed" for bead_id in beads), shown
    assert all(row["gremlins"]["spawns"] <= 15 for row in shown.values())


def test_a_loop_killed_at_any_moment_starts_nothing_twice_soak(project: Sandbox) -> None:
    chance = random.Random(secrets.randbits(64) if SOAK else SEED)
    beads = [create(project, f"Number {n}") for n in range(12 if SOAK else 3)]
    for _ in range(40 if SOAK else 3):
        with loop(project, "--pipeline", "asks", "--max-running", "4") as process:
            project.wait_for(lambda process=process: process.pid is not None, "the loop")  # type: ignore[misc]
            select.select([], [], [], chance.uniform(0.0, 0.5))
            process.end(signal.SIGKILL)
    with loop(project, "--pipeline", "asks", "--max-running", "4"):
        project.wait_for(lambda: set(statuses(project).values()) == {"closed"}, "every bead closed")
    for bead_id in beads:
        shown = bead(project, bead_id)["gremlins"]
        assert (shown["attempts"], len(shown["history"])) == (0, 1), shown["history"]
    assert len(list((project.home / "gremlins").glob("*"))) == len(beads)
    assert len(project.simulator.batches) == len(beads)


def test_a_rescue_is_refused_once_the_bead_has_gone_on(project: Sandbox) -> None:
    bead_id = create(project, "Twice")
    first = once(project, "--pipeline", "fails")["spawned"][0]["gremlin"]
    project.until(first, "dead")
    once(project, "--pipeline", "fails")
    project.wait_for(lambda: bool(once(project, "--pipeline", "waits")["spawned"]), "a second attempt")
    ran = project.run("rescue", first)
    assert ran.code == 4
    assert bead_id in ran.err
    assert project.life(first) == "dead"


def test_a_bail_that_a_person_accepts_closes_the_bead_in_the_end(project: Sandbox) -> None:
    project.pipeline("empty", "name: empty\n" + command("true").replace("none", "commits"))
    bead_id = create(project, "Nothing to show")
    gremlin = once(project, "--pipeline", "empty", "--retry-cap", "1")["spawned"][0]["gremlin"]
    project.until(gremlin, "bailed")
    assert [row["bead"] for row in once(project, "--retry-cap", "1")["failed"]] == [bead_id]
    project.ok("ack", gremlin)
    project.until(gremlin, "finished")
    assert [row["bead"] for row in once(project)["closed"]] == [bead_id]
    assert bead(project, bead_id)["gremlins"]["attempts"] == 1


def test_what_is_cleaned_away_before_the_loop_saw_it_has_closed_its_bead(project: Sandbox) -> None:
    bead_id = create(project, "Quick")
    gremlin = once(project)["spawned"][0]["gremlin"]
    project.until(gremlin, "finished")
    project.ok("clean")
    assert not (project.home / "gremlins" / gremlin).exists()
    assert statuses(project)[bead_id] == "closed"
