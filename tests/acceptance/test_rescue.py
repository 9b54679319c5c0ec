"""Rescues from the outside: one at a time, of what is dead only, and never beside what the dead have left running."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gremlins.processes import children as proc
from tests.acceptance.one_batch_call import billed_once, end_batches, launch_one, park_one
from tests.acceptance.sandbox import Sandbox
from tests.time_limit import DEADLINE

WORK = """
evidence: none
stages:
  - {type: exec, name: work, cmds: ['sh work.sh']}
"""


@pytest.fixture
def at_once(sandbox: Sandbox) -> Iterator[Callable[..., list[tuple[int, str]]]]:
    """Start several commands at the same moment. Returns their exit codes and what they said."""
    started: list[subprocess.Popen[str]] = []

    def run(*commands: tuple[str, ...]) -> list[tuple[int, str]]:
        for words in commands:
            started.append(
                subprocess.Popen(
                    [sandbox.interpreter, "-m", "gremlins", *words],
                    cwd=sandbox.repo.path,
                    env=sandbox.env,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        return [(child.wait(DEADLINE), child.communicate(timeout=DEADLINE)[0]) for child in started]

    yield run
    for child in started:
        child.kill()
        child.wait(DEADLINE)


# ── two at once ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_many_rescues_at_once_one_brings_it_back(
    sandbox: Sandbox, at_once: Callable[..., list[tuple[int, str]]]
) -> None:
    park_one(sandbox)
    sandbox.kill("g")
    ended = at_once(*[("rescue", "g")] * 4)
    assert sorted(code for code, _ in ended) == [0, 4, 4, 4], ended
    sandbox.until("g", "parked")
    end_batches(sandbox)
    sandbox.until("g", "finished")
    billed_once(sandbox)
    assert record(sandbox)["spawn"] == 2


def test_rescues_at_once_of_a_call_that_may_have_been_sent_send_it_once(
    sandbox: Sandbox, at_once: Callable[..., list[tuple[int, str]]]
) -> None:
    sandbox.simulator.fault("create", "hang", when="after")
    launch_one(sandbox, latency=0.0)
    sandbox.wait_for(lambda: len(sandbox.simulator.batches) == 1, "the batch")
    sandbox.kill("g")
    assert sandbox.life("g") == "detached"
    ended = at_once(("rescue", "g"), ("rescue", "--all"), ("rescue", "g"))
    assert [code for code, _ in ended].count(0) >= 1, ended
    sandbox.until("g", "finished")
    billed_once(sandbox)


def test_a_stop_and_a_rescue_at_once_end_in_one_of_the_two(
    sandbox: Sandbox, at_once: Callable[..., list[tuple[int, str]]]
) -> None:
    park_one(sandbox)
    sandbox.kill("g")
    sandbox.env["GREMLINS_BATCH__STOP_WAIT"] = f"{DEADLINE / 2}"  # on a busy machine too
    ended = at_once(("stop", "g"), ("rescue", "g"))
    assert ended[0][0] == 0, ended
    sandbox.until("g", "stopped", "parked")
    sandbox.ok("stop", "g")
    assert sandbox.life("g") == "stopped"
    batches = sandbox.simulator.batches  # the stop may have been settled first: then the rescue has asked anew
    assert len(batches) <= 2
    assert all(batch.cancel_initiated_at is not None for batch in batches)


# ── what is not dead ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_parked_is_not_rescued(sandbox: Sandbox) -> None:
    before = park_one(sandbox)
    ran = sandbox.run("rescue", "g")
    assert ran.code == 4
    assert "parked" in ran.err
    assert sandbox.peek("g")["liveness"]["pid"] == before["liveness"]["pid"]
    assert record(sandbox)["spawn"] == 1


def test_what_is_running_is_not_rescued(sandbox: Sandbox) -> None:
    sandbox.repo.commit({"work.sh": "sleep 600\n"})
    sandbox.pipeline("work", WORK)
    sandbox.ok("launch", "work", "--id", "g")
    sandbox.wait_for(lambda: bool(sandbox.peek("g")["liveness"]["pid"]), "its process")
    pid = sandbox.peek("g")["liveness"]["pid"]
    ran = sandbox.run("rescue", "g")
    assert ran.code == 4
    assert "running" in ran.err
    assert sandbox.peek("g")["liveness"]["pid"] == pid
    sandbox.ok("stop", "g")


def test_what_has_finished_is_not_rescued(sandbox: Sandbox) -> None:
    launch_one(sandbox, latency=0.0)
    sandbox.until("g", "finished")
    assert sandbox.run("rescue", "g").code == 4
    billed_once(sandbox)


# ── what the dead leave behind ────────────────────────────────────────────────────────────────────────────────────

HALF = """
echo $$ >> "$PIDS"
if [ -e "$PIDS.again" ]; then
  git status --porcelain > "$PIDS.seen"
  echo whole > made.txt
  exit 0
fi
echo half > made.txt
echo changed >> README.md
sleep 300 & echo $! >> "$PIDS"
touch "$PIDS.again"
wait
"""


def killed_at_work(sandbox: Sandbox, pids: Path) -> list[int]:
    """kill -9 while a command works in the worktree. Returns the pids of the command and its child."""
    sandbox.repo.commit({"work.sh": HALF})
    sandbox.env["PIDS"] = str(pids)
    sandbox.pipeline("work", WORK)
    sandbox.ok("launch", "work", "--id", "g")
    sandbox.wait_for(lambda: Path(f"{pids}.again").exists(), "the command at work")
    sandbox.kill("g")
    assert sandbox.life("g") == "dead"
    left = [int(line) for line in pids.read_text().split()]
    assert all(proc.is_alive(pid) for pid in left), "the command should have outlived its gremlin"
    return left


def test_a_command_that_outlived_its_gremlin_is_ended_before_it_goes_on(sandbox: Sandbox, tmp_path: Path) -> None:
    left = killed_at_work(sandbox, tmp_path / "pids")
    sandbox.ok("rescue", "g")
    assert [pid for pid in left if proc.is_alive(pid)] == []
    sandbox.until("g", "finished")


def test_what_a_killed_command_had_half_made_is_kept_aside_and_not_mixed_in(sandbox: Sandbox, tmp_path: Path) -> None:
    killed_at_work(sandbox, tmp_path / "pids")
    sandbox.ok("rescue", "g")
    sandbox.until("g", "finished")
    git = sandbox.repo.git
    [ref] = git("for-each-ref", "--format=%(refname)", "refs/gremlins/g/interrupted-*").splitlines()
    assert git("show", f"{ref}:made.txt") == "half"
    assert "changed" in git("show", f"{ref}:README.md")
    assert Path(f"{tmp_path / 'pids'}.seen").read_text() == "", "the second run saw what the first had left"
    assert (sandbox.home / "worktrees/g/made.txt").read_text() == "whole\n"
    assert ref in sandbox.ok("log", "g")


def test_temporary_files_of_a_killed_process_are_swept_by_the_next(sandbox: Sandbox, tmp_path: Path) -> None:
    live = f"[ -f '{tmp_path}/go' ] || {{ touch '{tmp_path}/go'; kill -9 $PPID; }}"
    sandbox.pipeline("once", f"evidence: none\nstages: [{{type: exec, name: work, cmds: [{json.dumps(live)}]}}]\n")
    sandbox.ok("launch", "once", "--id", "g")
    sandbox.until("g", "dead")
    left = sandbox.home / "gremlins" / "g" / "tmp"
    (left / "gremlins-index-x").mkdir()
    (left / "gremlins-index-x" / "index").write_text("half an index")
    sandbox.ok("rescue", "g")
    sandbox.until("g", "finished")
    assert list(left.iterdir()) == []


def test_a_stop_of_a_dead_one_ends_what_it_left(sandbox: Sandbox, tmp_path: Path) -> None:
    left = killed_at_work(sandbox, tmp_path / "pids")
    sandbox.ok("stop", "g")
    assert [pid for pid in left if proc.is_alive(pid)] == []


def record(sandbox: Sandbox) -> dict[str, int]:
    return dict(json.loads((sandbox.home / "gremlins/g/state.json").read_text()))


def test_a_rescue_takes_verify_and_setup_as_they_are_now_and_says_so(sandbox: Sandbox) -> None:
    pipeline = (
        "evidence: none\nmode: batch\nstages: [verify, {type: parallel, branches: {b: [{type: exec, cmds: ['%s']}]}}]\n"
    )
    sandbox.pipeline("checks", pipeline % "no-such-tool")
    sandbox.repo.write({".gremlins/config.toml": "verify = ['no-such-tool']\n"})
    sandbox.ok("launch", "checks", "--id", "g")
    sandbox.until("g", "dead")
    assert "exited with 127" in sandbox.state("g")["liveness"]["reason"]
    sandbox.repo.write({".gremlins/config.toml": "verify = ['test -e made']\nworktree.setup = ['touch made']\n"})
    said = sandbox.ok("rescue", "g")
    assert "verify = ['test -e made']" in said
    assert "worktree settings" in said
    assert "exited with 127" in sandbox.until("g", "dead")["liveness"]["reason"]
    sandbox.pipeline("checks", pipeline % "true")
    assert "as they are now: parallel/b/exec.cmds = ['true']" in sandbox.ok("rescue", "g")
    sandbox.until("g", "finished")
    (sandbox.repo.path / ".gremlins/pipelines/checks.yaml").unlink()
    assert "the pipeline stays as it was: " in sandbox.ok("rescue", "g", "--from", "verify")
    sandbox.until("g", "finished")


# ── killed while the worktree is made ready ───────────────────────────────────────────────────────────────────────


def hangs_once(marker: Path) -> str:
    """A command that waits to be killed the first time, and ends at once from then on."""
    return f"[ -e {marker} ] || {{ touch {marker}; exec sleep 300; }}"


def kill_once_at(sandbox: Sandbox, marker: Path) -> None:
    sandbox.wait_for(marker.exists, f"the command of {marker.name}")
    sandbox.kill("g")
    sandbox.ok("rescue", "g")


def test_a_setup_that_was_killed_is_repeated_and_one_that_had_finished_is_not(sandbox: Sandbox, tmp_path: Path) -> None:
    setup = ["echo ran >> $LOG", hangs_once(tmp_path / "setup")]
    sandbox.env["LOG"] = str(tmp_path / "log")
    sandbox.repo.write({".gremlins/config.toml": f"worktree.setup = {json.dumps(setup)}\n"})
    sandbox.pipeline("work", f"evidence: none\nstages: [{{type: exec, cmds: ['{hangs_once(tmp_path / 'work')}']}}]\n")
    sandbox.ok("launch", "work", "--id", "g")
    for name in ("setup", "work"):
        kill_once_at(sandbox, tmp_path / name)
    sandbox.until("g", "finished")
    assert (tmp_path / "log").read_text() == "ran\nran\n"


def test_a_check_on_the_base_that_was_killed_goes_on_and_leaves_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    elsewhere = "case $PWD in */g) exit 3;; esac; "
    setup = elsewhere.replace("3", "0") + hangs_once(tmp_path / "setup")
    sandbox.repo.write({".gremlins/config.toml": f"worktree.setup = ['{setup}']\n"})
    check = f"{elsewhere}{hangs_once(tmp_path / 'check')}; exit 3"
    stages = f"[{{type: exec, cmds: ['echo x >> README.md']}}, {{type: verify, mode: batch, cmds: ['{check}']}}]"
    sandbox.pipeline("work", f"stages: {stages}\n")
    sandbox.ok("launch", "work", "--id", "g")
    for name in ("setup", "check"):
        kill_once_at(sandbox, tmp_path / name)
    bail = sandbox.until("g", "bailed", "dead", "finished")["bail"]
    assert (bail["class"], "base commit" in bail["detail"]) == ("environment", True)
    assert sandbox.simulator.batches == []
    assert [path.name for path in (sandbox.home / "worktrees").iterdir()] == ["g"]
    assert sandbox.repo.git("branch", "--list", "gremlins/*").split() == ["+", "gremlins/g"]
