"""Every bead comes to an end: gremlins that die, hang, lie, are refused or cost too much."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from gremlins.records.prices import price
from gremlins.simulator import Simulator
from gremlins.simulator.model import ScriptedModel
from tests.acceptance.dispatch_project import bead, create, let_end, loop, once, settle_in, statuses
from tests.acceptance.sandbox import Sandbox


@pytest.fixture
def project(sandbox: Sandbox) -> Sandbox:
    return settle_in(sandbox)


def ours(sandbox: Sandbox, bead_id: str) -> dict[str, Any]:
    return dict(bead(sandbox, bead_id)["gremlins"])


def test_gremlins_that_die_at_start_reach_the_cap_and_each_says_why(project: Sandbox) -> None:
    bead_id = create(project, "Dies")
    with loop(project, "--pipeline", "dies"):
        project.wait_for(lambda: statuses(project)[bead_id] == "failed", "a failed bead")
    shown = ours(project, bead_id)
    assert (shown["attempts"], shown["spawns"], shown["failure"]["class"]) == (5, 5, "start")
    assert all(attempt["charged"] and attempt["reason"] for attempt in shown["history"])
    assert len({attempt["gremlin_id"] for attempt in shown["history"]}) == 1  # taken up again, not begun anew
    assert "5 charged attempts" in project.ok("bead", "show", bead_id)


@pytest.mark.installed  # what tells a person is a process of its own
def test_when_all_die_at_start_the_breaker_opens_before_any_bead_fails(project: Sandbox) -> None:
    beads = [create(project, f"Dies {n}") for n in range(4)]
    told = project.home.parent / "told"
    (project.home / "config.toml").write_text(f"notify = ['/bin/sh', '-c', 'cat >> {told}']\n")
    with loop(project, "--pipeline", "dies") as process:
        project.wait_for(lambda: "breaker_opened" in (told.read_text() if told.exists() else ""), "the breaker")
        process.end()
    assert "breaker_opened" in process.out
    project.wait_for(lambda: once(project)["settled"] or set(statuses(project).values()) == {"open"}, "all at rest")
    assert [ours(project, bead_id)["attempts"] for bead_id in beads] == [0, 0, 0, 0]
    report = once(project, "--pipeline", "dies")
    assert (report["spawned"], report["breaker"]["state"], set(report["denied"])) == ([], "open", set(beads))
    assert {ours(project, bead_id)["bucket"] for bead_id in beads} == {"denied"}
    assert project.ok("dispatch", "breaker").startswith("the fleet's breaker: open for")
    project.ok("dispatch", "breaker", "reset")
    report = once(project)
    assert (len(report["spawned"]), report["breaker"]["state"]) == (3, "closed")
    project.wait_for(lambda: told.read_text().count("breaker_closed") == 1, "the end of the episode")


def test_what_is_spawned_too_often_without_an_end_is_held(project: Sandbox) -> None:
    env = {"GREMLINS_DISPATCH__SPAWN_CAP": "3"}
    project.simulator.change(latency=3600.0)
    bead_id = create(project, "Killed again and again")
    for _ in range(3):
        project.wait_for(lambda: bool(once(project, "--pipeline", "asks", env=env)["spawned"]), "a spawn")
        gremlin = ours(project, bead_id)["gremlin_id"]
        project.until(gremlin, "parked")
        project.kill(gremlin)
    project.wait_for(lambda: [r["bead"] for r in once(project, env=env)["held"]] == [bead_id], "it is held")
    shown = ours(project, bead_id)
    assert (shown["spawns"], shown["hold"]["kind"], shown["bucket"]) == (3, "spawn_cap", "held")
    assert once(project, env=env)["spawned"] == []
    assert len(project.simulator.batches) == 1


def test_work_over_its_deadline_ends_and_counts_as_the_beads_failure(project: Sandbox) -> None:
    env = {"GREMLINS_DISPATCH__DEADLINE": "0.5"}
    bead_id = create(project, "Hangs")
    with loop(project, "--pipeline", "hangs", "--retry-cap", "1", env=env):
        project.wait_for(lambda: statuses(project)[bead_id] == "failed", "a failed bead")
    shown = ours(project, bead_id)
    assert (shown["failure"]["class"], shown["attempts"]) == ("task", 1)
    assert "dispatch.deadline" in shown["failure"]["reason"]
    assert project.peek(shown["gremlin_id"])["liveness"]["pid"] is None


def test_a_conversation_that_completes_closes_its_bead_and_an_empty_one_fails_it(project: Sandbox) -> None:
    project.simulator.fault("outcome", "no_text", match="Silent", times=0)
    good, empty = create(project, "Chatty"), create(project, "Silent")
    with loop(project, "--pipeline", "talks", "--retry-cap", "1"):
        project.wait_for(lambda: set(statuses(project).values()) == {"closed", "failed"}, "both at their end")
    assert (statuses(project)[good], statuses(project)[empty]) == ("closed", "failed")
    assert ours(project, empty)["failure"]["class"] == "task"


def test_a_conversation_that_errored_for_good_fails_its_bead(project: Sandbox) -> None:
    project.simulator.fault("outcome", "errored", error="invalid_request_error", message="prompt is too long", times=0)
    bead_id = create(project, "Too long")
    with loop(project, "--pipeline", "talks", "--retry-cap", "2"):
        project.wait_for(lambda: statuses(project)[bead_id] == "failed", "a failed bead")
    assert "prompt is too long" in ours(project, bead_id)["failure"]["reason"]


def test_parked_gremlins_take_no_working_slot(project: Sandbox) -> None:
    project.simulator.change(latency=3600.0)
    beads = [create(project, f"Waits {n}") for n in range(3)]
    with loop(project, "--pipeline", "asks", "--max-running", "1") as process:
        project.wait_for(lambda: all(ours(project, b)["bucket"] == "parked" for b in beads), "all of them parked")
        assert process.end() == 0
    assert "3 gremlins go on by themselves" in process.out
    assert [project.life(ours(project, bead_id)["gremlin_id"]) for bead_id in beads] == ["parked"] * 3


def test_ctrl_c_drains_and_gremlins_at_work_go_on(project: Sandbox) -> None:
    bead_id = create(project, "Goes on")
    with loop(project, "--pipeline", "waits") as process:
        project.wait_for(
            lambda: (project.home / "gremlins").exists() and ours(project, bead_id)["spawns"] == 1, "a claim"
        )
        gremlin = ours(project, bead_id)["gremlin_id"]
        project.wait_for((project.home / "gremlins" / gremlin / "state.json").exists, "its record")
        project.until(gremlin, "running")
        assert process.end(signal.SIGINT) == 0
    let_end(project)
    assert project.until(gremlin, "finished")
    assert [row["bead"] for row in once(project)["closed"]] == [bead_id]


def test_a_refused_landing_holds_its_bead_until_the_tree_allows_it(project: Sandbox) -> None:
    """A dirty tree bought one finished change four times."""
    project.pipeline("fixes", "name: fixes\nstages:\n  - {type: implement, mode: batch}\n")
    project.repo.commit({}, "a pipeline that is paid for")
    bead_id = create(project, "Fix the average")
    land = ("--pipeline", "fixes", "--land")
    gremlin = once(project, *land)["spawned"][0]["gremlin"]
    project.until(gremlin, "finished")
    project.repo.write({"README.md": "half written\n"})
    assert [row["bead"] for row in once(project, *land)["held"]] == [bead_id]
    assert [once(project, *land)["spawned"] for _ in range(3)] == [[], [], []]
    failure = ours(project, bead_id)["failure"]
    assert failure["class"] == "landing"
    assert "README.md (commit or stash them first)" in failure["reason"]
    assert f"{gremlin}  to land" in project.ok("bead", "show", bead_id)
    assert project.ok("dispatch", "--until-idle", *land).endswith("drained; 0 gremlins go on by themselves\n")
    assert (ours(project, bead_id)["attempts"], ours(project, bead_id)["spawns"]) == (0, 1)
    project.repo.commit({}, "written")
    assert [row["bead"] for row in once(project, *land)["closed"]] == [bead_id]
    assert project.life(gremlin) == "landed"
    [billed] = project.simulator.billed
    due = price(billed.model, billed.usage, batch=True, at=billed.at)
    assert due is not None
    assert project.run("cost", "--json").json()["total_usd"] == pytest.approx(due.usd)


def test_a_conflict_waits_for_a_person_and_lands_once_it_is_resolved(project: Sandbox) -> None:
    bead_id = create(project, "Conflicts")
    gremlin = once(project, "--pipeline", "changes")["spawned"][0]["gremlin"]
    project.until(gremlin, "finished")
    project.repo.commit({"new.txt": "another's\n"}, "a conflict")
    once(project, "--pipeline", "changes", "--land")
    assert "new.txt" in ours(project, bead_id)["failure"]["reason"]
    assert project.repo.read("new.txt") == "another's\n"
    project.repo.git("rm", "-q", "new.txt")
    project.repo.commit({}, "out of its way")
    assert [row["bead"] for row in once(project, "--pipeline", "changes", "--land")["closed"]] == [bead_id]


BOTH = json.dumps({"edits": [{"path": "new.txt", "content": "another's\nnew\n"}], "summary": "Both lines."})
NEITHER = json.dumps({"edits": [{"path": "other.txt", "content": "x\n"}], "summary": "Something else."})


@pytest.mark.parametrize("reply", [BOTH, NEITHER])
def test_a_conflict_is_resolved_by_one_more_round_of_the_same_gremlin(sandbox: Sandbox, reply: str) -> None:
    """One batch; where markers are left in its reply, it asks, and nothing is bought before a person answers."""
    with Simulator(latency=0.05, model=ScriptedModel([reply], otherwise=BOTH)) as simulator:
        sandbox.simulator = simulator
        sandbox.env |= {"ANTHROPIC_BASE_URL": simulator.url, "ANTHROPIC_API_KEY": simulator.key}
        _meets_a_conflict(settle_in(sandbox), resolved=reply == BOTH)


def _meets_a_conflict(project: Sandbox, *, resolved: bool) -> None:
    project.pipeline(
        "agreed",
        "evidence: commits\nstages:\n  - {type: exec, name: work, cmds: ['echo new > new.txt && git add -A "
        "&& git commit -qm new']}\n  - {type: address_code, mode: batch}\n",
    )
    project.repo.commit({}, "another pipeline")
    bead_id = create(project, "Conflicts")
    land = ("--pipeline", "agreed", "--land")
    gremlin = once(project, *land)["spawned"][0]["gremlin"]
    project.until(gremlin, "finished")
    project.repo.commit({"new.txt": "another's\n"}, "a conflict")
    assert once(project, *land)["spawned"] == [{"bead": bead_id, "gremlin": gremlin}]
    project.until(gremlin, "finished", "bailed")
    report = once(project, *land)
    assert (len(project.simulator.batches), report["spawned"]) == (1, [])
    assert (ours(project, bead_id)["attempts"], ours(project, bead_id)["spawns"]) == (0, 2)
    if not resolved:
        assert [row["bead"] for row in report["held"]] == [bead_id]
        assert "conflict markers are left in new.txt" in report["held"][0]["reason"]
        assert project.repo.read("new.txt") == "another's\n"
        assert "resolve it in its worktree" in project.ok("show", gremlin)
        assert project.run("ack", gremlin).code == 4
        project.ok("answer", gremlin, "Keep both lines.")
        project.until(gremlin, "finished", "bailed")
        report = once(project, *land)
        assert len(project.simulator.batches) == 2
    assert [row["bead"] for row in report["closed"]] == [bead_id]
    assert project.repo.read("new.txt") == "another's\nnew\n"
    assert project.repo.git("rev-list", "--count", "--first-parent", "HEAD") == "5"


def test_an_edit_of_a_bead_at_work_is_said_at_once_and_can_start_it_anew(project: Sandbox) -> None:
    bead_id = create(project, "Edited")
    first = once(project, "--pipeline", "waits")["spawned"][0]["gremlin"]
    project.until(first, "running")
    ran = project.run("bead", "update", bead_id, "-d", "The new text.")
    assert f"gremlin {first} has the text from before" in ran.err
    assert project.run("bead", "update", bead_id, "-d", "The new text.", "--add-label", "urgent").err == ""
    row = {**json.loads(project.ok("bead", "show", bead_id, "--json")), "title": "Imported", "status": "open"}
    row["updated_at"] = "2100-01-01T00:00:00Z"
    (project.home.parent / "beads.jsonl").write_text(json.dumps(row))
    ran = project.run("bead", "import", str(project.home.parent / "beads.jsonl"))
    assert f"gremlin {first} has the text from before" in ran.err
    assert json.loads(project.ok("bead", "show", bead_id, "--json"))["status"] == "in_progress"
    project.ok("bead", "update", bead_id, "--restart")
    assert project.life(first) == "stopped"
    let_end(project)
    second = once(project, "--pipeline", "waits")["spawned"][0]["gremlin"]
    assert second != first
    assert "The new text." in json.loads(project.ok("status", second, "--json"))[0]["task"]
    project.until(second, "finished")
    assert [row["bead"] for row in once(project)["closed"]] == [bead_id]


def test_a_dependent_has_its_blockers_code(project: Sandbox) -> None:
    blocker = create(project, "First")
    first = once(project, "--pipeline", "changes")["spawned"][0]["gremlin"]
    project.until(first, "finished")
    bead_id = create(project, "Second", "--deps", blocker)
    project.ok("dispatch", "pause")
    once(project)  # closes the first; its branch has not landed
    project.ok("dispatch", "resume")
    explained = project.ok("dispatch", "--explain", bead_id)
    assert f"from the work of {first}" in explained
    assert f"starts from the work of {first}" in project.ok("bead", "show", bead_id)
    landed = {"GREMLINS_DISPATCH__START_FROM": "landed"}
    assert "ready when landed" in project.ok("dispatch", "--explain", bead_id, env=landed)
    second = next(row["gremlin"] for row in once(project)["spawned"])
    assert (project.home / "worktrees" / second / "new.txt").read_text() == "new\n"
    assert json.loads(project.ok("show", second, "--json"))["builds_on"] == [first]


def test_work_that_the_branch_has_already_closes_its_bead_without_a_landing(project: Sandbox) -> None:
    beads = [create(project, f"The same {n}") for n in range(2)]
    for row in once(project, "--pipeline", "changes")["spawned"]:
        project.until(row["gremlin"], "finished")
    report = once(project, "--pipeline", "changes", "--land")
    assert sorted(row["bead"] for row in report["closed"]) == sorted(beads)
    assert all("landed on main" in row["reason"] for row in report["closed"])
    assert project.repo.git("rev-list", "--count", "--first-parent", "main") == "3"


def test_without_land_the_branch_is_left_and_the_bead_says_so(project: Sandbox) -> None:
    bead_id = create(project, "Left")
    gremlin = once(project, "--pipeline", "changes")["spawned"][0]["gremlin"]
    project.until(gremlin, "finished")
    once(project)
    assert f"gremlins land {gremlin}" in bead(project, bead_id)["close_reason"]
    assert not (project.repo.path / "new.txt").exists()


def test_finishing_with_nothing_to_show_is_a_failed_attempt(project: Sandbox) -> None:
    project.pipeline("lies", "name: lies\nevidence: commits\nstages:\n  - {type: exec, name: w, cmds: ['exit 0']}\n")
    bead_id = create(project, "Lies")
    with loop(project, "--pipeline", "lies", "--retry-cap", "2"):
        project.wait_for(lambda: statuses(project)[bead_id] == "failed", "a failed bead")
    shown = ours(project, bead_id)
    assert (shown["attempts"], shown["failure"]["class"]) == (2, "task")


def test_a_days_cap_leaves_beads_alone_until_there_is_room(project: Sandbox) -> None:
    bead_id = create(project, "Dear")
    report = once(project, env={"GREMLINS_SPEND__PER_DAY": "0"})
    assert report["spawned"] == []
    assert "spend.per_day" in report["denied"][bead_id]
    assert len(once(project, env={"GREMLINS_SPEND__PER_DAY": "5"})["spawned"]) == 1


def test_a_bead_whose_cap_is_used_up_is_held_with_its_sums_and_goes_on_when_it_is_raised(project: Sandbox) -> None:
    bead_id = create(project, "Dear")
    env = {"GREMLINS_SPEND__PER_ATTEMPT": "0.000001"}
    again = "{type: agent, name: again, prompt: .gremlins/talk.md}"
    project.pipeline("twice", f"name: twice\nmode: batch\nevidence: none\nstages: [plan, {again}]\n")
    gremlin = once(project, "--pipeline", "twice", env=env)["spawned"][0]["gremlin"]
    project.until(gremlin, "dead", "bailed")
    report = once(project, "--pipeline", "twice", env=env)
    assert (report["spawned"], [row["bead"] for row in report["held"]]) == ([], [bead_id])
    assert "spend.per_attempt" in report["denied"][bead_id]
    assert (ours(project, bead_id)["attempts"], ours(project, bead_id)["failure"]["class"]) == (0, "credit")
    assert len(project.simulator.batches) == 0  # its first call may cost more
    assert once(project, "--pipeline", "twice", env={"GREMLINS_SPEND__PER_ATTEMPT": "5"})["spawned"] == [
        {"bead": bead_id, "gremlin": gremlin}
    ]
    project.until(gremlin, "finished")
    assert len(project.simulator.batches) == 2


def test_what_is_missing_is_said_once_and_waited_for_and_the_loop_goes_on_by_itself(project: Sandbox) -> None:
    prompt = project.repo.path / ".gremlins" / "talk.md"
    text = prompt.read_text()
    prompt.unlink()
    bead_id = create(project, "Ask")
    with loop(project, "--pipeline", "talks") as process:
        assert process.process.stdout is not None
        lines = [process.process.stdout.readline() for _ in range(2)]
        assert "nothing is started" in lines[1], lines
        assert ours(project, bead_id)["spawns"] == 0
        prompt.write_text(text)
        project.wait_for(lambda: statuses(project)[bead_id] == "closed", "a closed bead")
        process.end()
    assert "nothing is started" not in process.out


def test_a_loop_without_a_key_changes_nothing_and_says_so_once(project: Sandbox) -> None:
    bead_id = create(project, "Ask")
    report = once(project, "--pipeline", "asks", code=5, env={"ANTHROPIC_API_KEY": ""})
    assert report["spawned"] == []
    assert report["missing"]["reason"] in report["denied"][bead_id]
    assert ours(project, bead_id)["attempts"] == ours(project, bead_id)["spawns"] == 0


def test_a_key_reaches_the_agent_but_neither_record_nor_log(project: Sandbox) -> None:
    secret = "sk-ant-only-in-the-environment"
    bead_id = create(project, "Ask")
    gremlin = once(project, "--pipeline", "asks", env={"ANTHROPIC_API_KEY": secret})["spawned"][0]["gremlin"]
    project.until(gremlin, "finished")
    once(project, env={"ANTHROPIC_API_KEY": secret})
    assert statuses(project)[bead_id] == "closed"
    for path in Path(project.home).rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
    assert secret not in project.ok("bead", "export")


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the loop looks every half second instead")
def test_the_loop_wakes_when_a_gremlin_ends_not_at_its_next_tick(project: Sandbox) -> None:
    project.home.mkdir(exist_ok=True)
    (project.home / "config.toml").write_text("dispatch.interval = 300\n")
    project.repo.write({".gremlins/config.toml": "dispatch.pipeline = 'work'\n"})
    first = create(project, "First")
    second = create(project, "Second", "--deps", first)
    with loop(project):
        project.wait_for(lambda: statuses(project)[second] == "closed", "both closed")
