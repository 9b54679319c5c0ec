"""Keys are never written or shown, can be rotated, and one of another workspace is refused before anything is sent."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gremlins.simulator import Simulator
from gremlins.simulator.demo_repository import TASK
from tests.acceptance.one_batch_call import billed_once, calls, end_batches, launch_one, park_one
from tests.acceptance.sandbox import Ran, Sandbox
from tests.conftest import Repo

CANARY = "sk-ant-canary-5f3b9c2e71d04a86"
ROTATED, STRANGERS = "sk-ant-rotated-000001", "sk-ant-stranger-00002"
LIFE = """
mode: batch
stages:
  - plan
  - implement
  - {type: exec, name: look, cmds: ['env; echo "$PIDS"']}
"""


def argv_log(sandbox: Sandbox, folder: Path) -> Path:
    """Log the arguments of every git that is started from now on. Returns the log."""
    folder.mkdir()
    log, real = folder / "argv", shutil.which("git")
    log.touch()
    (folder / "git").write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> "{log}"\nexec "{real}" "$@"\n')
    (folder / "git").chmod(0o755)
    sandbox.env["PATH"] = f"{folder}:{sandbox.env['PATH']}"
    return log


def assert_not_written(sandbox: Sandbox, *places: Path) -> None:
    wanted = CANARY.encode()
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    files = [path for path in files if not path.name.endswith(".raw.jsonl")]  # raw results stay as they came
    assert len(files) > 30
    assert [path for path in files if wanted in path.read_bytes()] == []
    assert CANARY not in sandbox.repo.git("log", "--all", "-p", "--notes")


def assert_in_no_argv() -> None:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert CANARY.encode() not in path.read_bytes()
        except OSError:
            continue


def say_it_back(sandbox: Sandbox) -> None:
    """An API that repeats the key it was called with, wherever it can."""
    leak = f"your key {CANARY} is fine, but no"
    sandbox.simulator.fault("create", "error", status=429, message=leak, retry_after=0)
    sandbox.simulator.fault("create", "error", status=500, message=leak, when="after")
    sandbox.simulator.fault("list", "error", status=500, message=leak)
    sandbox.simulator.fault("retrieve", "error", status=529, message=leak, times=2)
    sandbox.simulator.fault("results", "error", status=500, message=leak)
    sandbox.simulator.fault("outcome", "errored", error="overloaded_error", message=leak)


def test_the_key_is_in_no_file_argv_log_or_export_of_a_whole_life(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.simulator.change(keys={CANARY: "ours"})
    sandbox.env["ANTHROPIC_API_KEY"] = CANARY
    argv = argv_log(sandbox, tmp_path / "shim")
    say_it_back(sandbox)
    sandbox.pipeline("life", LIFE)
    sandbox.ok("launch", "life", TASK, "--id", "g")
    sandbox.wait_for(lambda: sandbox.peek("g")["liveness"]["state"] in ("parked", "finished"), "it parked")
    assert_in_no_argv()
    sandbox.until("g", "finished")
    sandbox.ok("bead", "create", "A bead")
    shown = [sandbox.ok(*words) for words in (("show", "g"), ("show", "g", "--json"), ("log", "g"), ("bead", "export"))]
    sandbox.ok("land", "g", "--keep")
    assert not any(CANARY in text for text in shown)
    assert len(argv.read_text().splitlines()) > 20
    assert CANARY not in argv.read_text()
    assert "PATH=" in sandbox.artifact("g", "look.log")
    assert_not_written(sandbox, sandbox.home, sandbox.repo.path)


def test_a_key_that_the_api_repeats_when_it_is_refused_is_not_passed_on(sandbox: Sandbox) -> None:
    sandbox.simulator.change(keys={CANARY: "ours"})
    park_one(sandbox, ANTHROPIC_API_KEY=CANARY)
    sandbox.simulator.fault("retrieve", "error", status=403, message=f"{CANARY} may not", times=0)
    state = sandbox.until("g", "detached")
    ran = sandbox.run("rescue", "g", env={"ANTHROPIC_API_KEY": CANARY})
    assert ran.code == 5
    assert "*** may not" in ran.err
    assert CANARY not in f"{state} {ran.err} {sandbox.logs()} {sandbox.ok('show', 'g')}"
    assert_not_written(sandbox, sandbox.home, sandbox.repo.path)


@pytest.mark.parametrize("variable", ["ANTHROPIC_API_KEY", "DB_PASSWORD"])
def test_a_crash_log_does_not_hold_a_secret(sandbox: Sandbox, variable: str) -> None:
    script = (
        "import io, os, sys\n"
        "class Out(io.StringIO):\n"
        "    def write(self, text):\n"
        f"        raise RuntimeError('the key is ' + os.environ['{variable}'])\n"
        "sys.stdout = Out()\n"
        "from gremlins.cli.main import run\n"
        "sys.exit(run(['status', '--json']))\n"
    )
    env = {**sandbox.env, variable: CANARY}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert CANARY not in done.stderr
    [log] = (sandbox.home / "crashes").iterdir()
    assert "the key is ***" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


MASK = """
mode: batch
stages:
  - plan
  - implement
  - {type: exec, name: look, cmds: ['umask; mkdir made; touch made/by-a-command']}
"""


def test_our_files_are_for_their_owner_only_and_the_projects_as_the_person_makes_them(sandbox: Sandbox) -> None:
    sandbox.pipeline("mask", MASK)
    sandbox.simulator.fault("create", "drop", when="after")
    sandbox.ok("launch", "mask", TASK, "--id", "g", umask=0o002)
    sandbox.until("g", "finished")
    sandbox.ok("bead", "create", "A bead", umask=0)
    worktree = sandbox.home / "worktrees" / "g"
    assert sandbox.artifact("g", "look.log").strip() == "0002"
    assert (worktree / "made").stat().st_mode & 0o777 == 0o775
    assert (worktree / "made" / "by-a-command").stat().st_mode & 0o777 == 0o664
    (sandbox.repo.path / ".git" / "index").chmod(0o664)
    sandbox.ok("land", "g", "--keep", umask=0o002)
    landed = [sandbox.repo.path / name for name in sandbox.repo.git("diff", "--name-only", "HEAD~1").splitlines()]
    index = sandbox.repo.path / ".git" / "index"
    main = sandbox.repo.path / ".git" / "refs" / "heads" / "main"
    assert {path.stat().st_mode & 0o777 for path in (*landed, index, main)} == {0o664}
    wrong = []
    for path in [sandbox.home, *sandbox.home.rglob("*")]:
        if sandbox.home / "worktrees" in path.parents:  # what is inside is the project's, as git makes it
            continue
        wanted = 0o700 if path.is_dir() else 0o600
        if not path.is_symlink() and path.stat().st_mode & 0o777 != wanted:
            wrong.append(f"{path} is {oct(path.stat().st_mode)}")
    assert wrong == []


def test_a_rotated_key_goes_on(sandbox: Sandbox) -> None:
    sandbox.simulator.change(keys={sandbox.simulator.key: "ours", ROTATED: "ours"})
    park_one(sandbox)
    sandbox.kill("g")
    sandbox.ok("rescue", "g", env={"ANTHROPIC_API_KEY": ROTATED})
    end_batches(sandbox)
    sandbox.until("g", "finished")
    billed_once(sandbox)


def test_a_rotated_key_goes_on_with_a_call_that_may_have_been_sent(sandbox: Sandbox) -> None:
    first = sandbox.simulator.key
    sandbox.simulator.change(keys={first: "ours", ROTATED: "ours"})
    launch_one(sandbox, "before", latency=0.0)
    sandbox.until("before", "finished")  # a batch that both keys can see
    sandbox.simulator.fault("create", "hang", when="after")
    launch_one(sandbox, latency=0.0)
    sandbox.wait_for(lambda: len(sandbox.simulator.batches) == 2, "the batch")
    sandbox.kill("g")
    sandbox.ok("rescue", "g", env={"ANTHROPIC_API_KEY": ROTATED})
    sandbox.until("g", "finished")
    assert len(sandbox.simulator.batches) == 2
    assert [call["status"]["state"] for call in calls(sandbox)] == ["collected"]


def refused(sandbox: Sandbox, ran: Ran) -> None:
    assert ran.code == 5, ran.err
    assert "this key cannot see" in ran.err
    assert STRANGERS not in ran.err
    assert sandbox.peek("g")["liveness"]["state"] == "detached"
    assert len(sandbox.simulator.batches) == 1


def test_another_workspaces_key_is_refused_with_nothing_sent_and_the_right_one_goes_on(sandbox: Sandbox) -> None:
    sandbox.simulator.change(keys={sandbox.simulator.key: "ours", STRANGERS: "theirs"})
    park_one(sandbox)
    sandbox.kill("g")
    before = sandbox.simulator.requests
    refused(sandbox, sandbox.run("rescue", "g", env={"ANTHROPIC_API_KEY": STRANGERS}))
    refused(sandbox, sandbox.run("rescue", "g", env={"ANTHROPIC_API_KEY": STRANGERS}))
    sent = {kind: count - before.get(kind, 0) for kind, count in sandbox.simulator.requests.items()}
    assert {kind for kind, count in sent.items() if count} == {"retrieve"}
    sandbox.ok("rescue", "g")
    end_batches(sandbox)
    sandbox.until("g", "finished")
    billed_once(sandbox)


@pytest.mark.parametrize("how", ["results_url", "redirect"])
def test_the_key_goes_to_no_other_host_whatever_a_reply_says(sandbox: Sandbox, how: str) -> None:
    with Simulator() as stranger:
        if how == "results_url":
            sandbox.simulator.change(results_base=stranger.url)
        else:
            for endpoint in ("list", "create", "retrieve", "results"):
                sandbox.simulator.fault(endpoint, "error", status=307, message=stranger.url)
        launch_one(sandbox, latency=0.0)
        sandbox.until("g", "finished")
        billed_once(sandbox)
        assert stranger.seen == []


LOOK = [
    "env",
    "cat /proc/$PPID/cmdline /proc/$PPID/environ",
    'for file in /proc/$PPID/fd/*; do if [ -f "$file" ]; then cat "$file"; fi; done; true',
]


@pytest.mark.installed
def test_a_command_of_the_project_and_git_do_not_get_the_key(sandbox: Sandbox, tmp_path: Path) -> None:
    """The command looks into its parent, too: what a process once had in its environment can be read there."""
    shim, seen = tmp_path / "shim", tmp_path / "seen"
    shim.mkdir()
    (shim / "git").write_text(f'#!/bin/sh\nenv >> "{seen}"\nexec "{shutil.which("git")}" "$@"\n')
    (shim / "git").chmod(0o755)
    sandbox.pipeline(
        "env", f"evidence: none\nmode: batch\nstages: [plan, {{type: exec, name: look, cmds: {json.dumps(LOOK)}}}]\n"
    )
    keys = {
        "ANTHROPIC_API_KEY": CANARY,
        "ANTHROPIC_AUTH_TOKEN": CANARY,
        "OPENAI_API_KEY": CANARY,
        "ANTHROPIC_CUSTOM_HEADERS": f"x-gate: {CANARY}",
        "PATH": f"{shim}:{sandbox.env['PATH']}",
    }
    sandbox.simulator.change(keys={CANARY: "ours"})
    sandbox.ok("launch", "env", TASK, "--id", "g", env=keys)
    sandbox.until("g", "finished")
    assert f"HOME={os.environ['HOME']}" in sandbox.artifact("g", "look-1.log")
    assert "GREMLINS_HOME=" in sandbox.artifact("g", "look-2.log")
    assert len(seen.read_text()) > 1000
    assert_not_written(sandbox, sandbox.home, sandbox.repo.path, tmp_path)


def test_a_program_that_a_partial_clone_fetches_with_gets_no_key(sandbox: Sandbox, tmp_path: Path) -> None:
    """Its settings name a command for missing files, and a second promisor whose address is a command."""
    seen, ran, program = tmp_path / "seen", tmp_path / "ran", tmp_path / "upload-pack"
    program.write_text(f'#!/bin/sh\nenv >> "{seen}"\nexec git-upload-pack "$@"\n')
    program.chmod(0o755)
    origin = sandbox.repo
    origin.git("config", "uploadpack.allowFilter", "true")
    for words in ("older words\n", "the old words\n", "new words\n"):
        origin.commit({"old.txt": words})
    origin.git("clone", "--quiet", "--filter=blob:none", f"file://{origin.path}", str(tmp_path / "partial"))
    sandbox.repo = Repo(tmp_path / "partial")
    settings = sandbox.repo.path / ".git" / "config"
    evil = f'[remote "evil"]\n\turl = ext::touch {ran}\n\tpromisor = true\n[protocol "ext"]\n\tallow = always\n'
    settings.write_text(settings.read_text() + evil)
    sandbox.repo.git("config", "remote.origin.uploadpack", str(program))
    sandbox.pipeline("old", "evidence: none\nstages: [{type: exec, name: look, cmds: [cat old.txt]}]\n")
    keys = {"ANTHROPIC_API_KEY": CANARY, "GH_TOKEN": CANARY}
    sandbox.ok("launch", "old", TASK, "--id", "g", "--base-ref", "HEAD~1", "--trust", env=keys)
    sandbox.until("g", "finished")
    assert "the old words" in sandbox.artifact("g", "look.log")
    assert "HOME=" in seen.read_text()
    assert CANARY not in seen.read_text()
    settings.write_text(evil + settings.read_text())  # the first promisor is asked first, and git may end with it
    assert sandbox.run("launch", "old", TASK, "--id", "h", "--base-ref", "HEAD~2", "--trust", env=keys).code in (0, 1)
    assert not ran.exists()
