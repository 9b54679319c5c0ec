"""Bad input at launch: one clear line, a hint, the right exit code, and nothing half made left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.sandbox import Ran, Sandbox
from tests.conftest import make_repo
from tests.time_limit import DEADLINE

GOOD = "stages: [{type: exec, cmds: ['true']}]\n"


def nothing_left(sandbox: Sandbox) -> None:
    assert not list((sandbox.home / "gremlins").glob("*"))
    assert not list((sandbox.home / "worktrees").glob("*"))
    assert sandbox.repo.git("branch", "--list", "gremlins/*") == ""
    assert len(sandbox.repo.git("worktree", "list").splitlines()) == 1


def one_clear_line(ran: Ran, code: int) -> str:
    assert ran.code == code, ran.err
    assert ran.out == ""
    lines = ran.err.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert len(lines) == 1 or lines[1].startswith("hint: ")
    assert "Traceback" not in ran.err
    return ran.err


@pytest.mark.parametrize(
    ("yaml", "where", "what"),
    [
        ("stages:\n  - {type: exec, cmds: [true}\n", "mine.yaml:2", ""),
        ("stages:\n  - plam\n", "mine.yaml:2", "plan"),
        ("stages:\n  - plan\ntimeout: 3\n", "mine.yaml:3", "timeout"),
        ("stages:\n  - {type: exec, cmd: ['true']}\n", "mine.yaml:2", "cmds"),
        ("client: cloud:x\nstages: [plan]\n", "mine.yaml:1", "claude"),
        ("stages: []\n", "mine.yaml", "stages"),
    ],
)
def test_a_wrong_pipeline_is_named_with_file_and_line(sandbox: Sandbox, yaml: str, where: str, what: str) -> None:
    sandbox.pipeline("mine", yaml)
    err = one_clear_line(sandbox.run("launch", "mine", "task"), 1)
    assert where in err
    assert what in err
    nothing_left(sandbox)


def test_an_unknown_pipeline_offers_the_nearest(sandbox: Sandbox) -> None:
    assert "batch" in one_clear_line(sandbox.run("launch", "bacth", "task"), 6)
    nothing_left(sandbox)


@pytest.mark.parametrize(
    ("toml", "where"),
    [
        ("[batch\n", "config.toml:1"),
        ("[batch]\npol_initial = 3\n", "config.toml:2"),
        ("batch.poll_initial = 'soon'\n", "config.toml:1"),
        ("api_key = 'sk-ant-x'\n", "config.toml:1"),
    ],
)
def test_wrong_settings_are_named_with_file_and_line(sandbox: Sandbox, toml: str, where: str) -> None:
    sandbox.pipeline("mine", GOOD)
    sandbox.repo.write({".gremlins/config.toml": toml})
    assert where in one_clear_line(sandbox.run("launch", "mine"), 1)
    nothing_left(sandbox)


def test_a_taken_id_is_refused(sandbox: Sandbox) -> None:
    sandbox.pipeline("mine", GOOD)
    sandbox.ok("launch", "mine", "--id", "same")
    one_clear_line(sandbox.run("launch", "mine", "--id", "same"), 4)
    sandbox.until("same", "finished")


@pytest.mark.parametrize("wrong", ["Big", "a_b", "x" * 65, "../x", "landing"])
def test_an_impossible_id_is_refused(sandbox: Sandbox, wrong: str) -> None:
    sandbox.pipeline("mine", GOOD)
    one_clear_line(sandbox.run("launch", "mine", "--id", wrong), 1)
    nothing_left(sandbox)


@pytest.mark.parametrize("pipeline", ["local", "its-own"])
def test_a_repository_that_cannot_be_used_is_said_before_an_unknown_pipeline(
    sandbox: Sandbox, tmp_path: Path, pipeline: str
) -> None:
    (tmp_path / "empty").mkdir()
    make_repo(tmp_path / "new")
    for folder, cause in (("empty", "not in a git repository"), ("new", "no commits")):
        assert cause in one_clear_line(sandbox.run("launch", pipeline, "task", cwd=tmp_path / folder), 5)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository to another user")
def test_a_repository_of_another_user_is_said_with_what_git_advises(sandbox: Sandbox, tmp_path: Path) -> None:
    foreign = make_repo(tmp_path / "foreign")
    foreign.commit({"f": ""})
    os.chown(foreign.path, 4242, 4242)
    os.chown(foreign.path / ".git", 4242, 4242)
    assert "safe.directory" in one_clear_line(sandbox.run("launch", "its-own", cwd=foreign.path), 5)


def test_a_folder_that_is_gone(sandbox: Sandbox, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = "import os, sys; from gremlins.cli.main import run; os.rmdir(os.getcwd()); sys.exit(run(sys.argv[1:]))"
    words = [sys.executable, "-c", program, "launch", "local", "task"]
    done = subprocess.run(words, cwd=gone, env=sandbox.env, capture_output=True, text=True, timeout=DEADLINE)
    assert "the current folder is gone" in one_clear_line(Ran(done.returncode, done.stdout, done.stderr), 5)


def test_a_base_ref_that_is_not_there(sandbox: Sandbox) -> None:
    assert "nowhere" in one_clear_line(sandbox.run("launch", "batch", "task", "--base-ref", "nowhere"), 1)
    nothing_left(sandbox)


def test_no_key(sandbox: Sandbox) -> None:
    ran = sandbox.run("launch", "batch", "task", env={"ANTHROPIC_API_KEY": ""})
    assert "ANTHROPIC_API_KEY" in one_clear_line(ran, 5)
    nothing_left(sandbox)


def test_an_environment_in_which_every_call_must_fail(sandbox: Sandbox) -> None:
    wrong = {
        "ANTHROPIC_BASE_URL": f"{sandbox.simulator.url}/v1",
        "ALL_PROXY": "socks5://127.0.0.1:9",
        "SSL_CERT_FILE": "/nothing/here.pem",
    }
    for variable, value in wrong.items():
        assert variable in one_clear_line(sandbox.run("launch", "batch", "task", env={variable: value}), 5)
    nothing_left(sandbox)
    assert sandbox.simulator.requests == {}


def test_a_key_that_is_refused(sandbox: Sandbox) -> None:
    sandbox.simulator.change(keys={"sk-right": "default"})
    err = one_clear_line(sandbox.run("launch", "batch", "task", env={"ANTHROPIC_API_KEY": "sk-ant-wrong-1"}), 5)
    assert "sk-ant-wrong-1" not in err
    nothing_left(sandbox)


def test_an_api_that_is_down_does_not_hold_a_launch_up(sandbox: Sandbox) -> None:
    sandbox.simulator.fault("models", "error", status=500)
    gremlin = sandbox.ok("launch", "batch", "a task").strip()
    sandbox.until(gremlin, "parked", "running", "finished")
    sandbox.ok("stop", gremlin)


def test_live_without_a_binary(sandbox: Sandbox, tmp_path: Path) -> None:
    ran = sandbox.run(
        "launch", "local", "task", "--mode", "live", env={"GREMLINS_CLAUDE_BIN": str(tmp_path / "no-claude")}
    )
    one_clear_line(ran, 5)
    nothing_left(sandbox)


def test_a_task_is_needed(sandbox: Sandbox) -> None:
    assert "task" in one_clear_line(sandbox.run("launch", "batch"), 1)
    nothing_left(sandbox)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full's kin")
def test_a_home_that_cannot_be_written(sandbox: Sandbox) -> None:
    sandbox.pipeline("mine", GOOD)
    err = one_clear_line(sandbox.run("launch", "mine", env={"GREMLINS_HOME": "/proc/no-such-home"}), 1)
    assert "GREMLINS_HOME" in err
    nothing_left(sandbox)


@pytest.mark.parametrize("words", ["status", "bead list", "cost", "doctor"])
def test_a_home_that_is_a_file_is_not_an_empty_fleet(sandbox: Sandbox, words: str) -> None:
    sandbox.repo.write({"file": ""})
    for home, code in (("file", 5), ("file/below", 1)):
        ran = sandbox.run(*words.split(), env={"GREMLINS_HOME": str(sandbox.repo.path / home)})
        assert str(sandbox.repo.path / "file") in one_clear_line(ran, code)


@pytest.mark.parametrize("verb", ["show", "log", "stop", "rescue", "ack", "land", "rm", "status"])
def test_an_unknown_gremlin(sandbox: Sandbox, verb: str) -> None:
    one_clear_line(sandbox.run(verb, "nobody"), 6)


def test_an_ambiguous_prefix_lists_its_matches(sandbox: Sandbox) -> None:
    sandbox.pipeline("mine", GOOD)
    for name in ("fix-one", "fix-two"):
        sandbox.ok("launch", "mine", "--id", name)
    err = one_clear_line(sandbox.run("show", "fix"), 6)
    assert "fix-one" in err
    assert "fix-two" in err
    assert sandbox.state("fix-o")["id"] == "fix-one"


def test_wrong_usage_is_2(sandbox: Sandbox) -> None:
    large = ["board", "--port", "70000"], ["simulate", "--port", "70000"], ["bead", "list", "-n", str(10**20)]
    for words in (["launch"], ["status", "--nope"], ["launch", "batch", "x", "--mode", "fast"], ["stop"], *large):
        ran = sandbox.run(*words)
        assert ran.code == 2, words
        assert ran.err.startswith("error: ")


@pytest.mark.parametrize("task", ["- [ ] a box to tick", "--- a line", "-x y"])
def test_a_task_that_begins_with_a_dash_is_a_task(sandbox: Sandbox, task: str) -> None:
    sandbox.pipeline("mine", GOOD)
    sandbox.ok("launch", "mine", task, "--id", "g")
    assert sandbox.peek("g")["task"] == task
    assert sandbox.run("launch", "mine", "--mood", "live").code == 2
    assert sandbox.run("launch", "mine", "-x").code == 2
    bead = sandbox.ok("bead", "create", task, "-d", "- described", "--silent").strip()
    shown = sandbox.run("bead", "show", bead, "--json").json()
    assert (shown["title"], shown["description"]) == (task, "- described")


def test_text_that_is_not_utf8_is_taken_as_far_as_it_can_be_read(sandbox: Sandbox) -> None:
    sandbox.pipeline("mine", GOOD)
    text = os.fsdecode(b"caf\xe9")
    sandbox.ok("launch", "mine", text, "--id", "g")
    assert sandbox.peek("g")["task"] == "caf\ufffd"
    assert "caf" in sandbox.ok("bead", "create", text, "--json")


def test_a_repository_whose_path_is_not_utf8_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    repo = make_repo(tmp_path / os.fsdecode(b"caf\xe9"))
    repo.commit({"f": ""})
    for words in (("launch", "local", "task"), ("bead", "list")):
        assert "is not UTF-8" in one_clear_line(sandbox.run(*words, cwd=repo.path), 5)


def test_a_launch_says_that_submodules_are_empty(sandbox: Sandbox) -> None:
    sandbox.pipeline("mine", GOOD)
    sandbox.repo.git("update-index", "--add", "--cacheinfo", f"160000,{sandbox.repo.head()},lib")
    sandbox.repo.git("commit", "--quiet", "-m", "a submodule")
    assert "submodules are empty in the worktree of g: lib;" in sandbox.run("launch", "mine", "--id", "g").err
    sandbox.repo.write({".gremlins/config.toml": "worktree.submodules = true\n"})
    assert "submodules" not in sandbox.run("launch", "mine").err


def test_a_launch_says_that_uncommitted_work_is_not_seen(sandbox: Sandbox) -> None:
    sandbox.pipeline("mine", GOOD)
    assert sandbox.run("launch", "mine").err == ""
    sandbox.repo.write({"tests/test_orchard.py": "changed\n", "new/one": "", "new/two": ""})
    ran = sandbox.run("launch", "mine", "--id", "g")
    assert (ran.code, ran.out) == (0, "g\n")
    assert ran.err.startswith("note: g does not see uncommitted work")
    assert ran.err.endswith(": new/, tests/test_orchard.py\n")
