from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gremlins.clock import FakeClock, SystemClock
from gremlins.errors import GitError
from gremlins.processes import children as proc
from gremlins.repository.git import Git

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can say")


def sleeper(tmp_path: Path, code: str = "", **options: object) -> subprocess.Popen[bytes]:
    """A child that says `ready` and then sleeps far longer than any test."""
    script = f"import signal, sys, time\n{code}\nprint('ready', flush=True)\ntime.sleep(600)"
    child = proc.start([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, **options)  # type: ignore[arg-type]
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait(timeout=10)
    assert child.stdout is not None
    child.stdout.close()


def test_a_child_gets_its_input_and_gives_its_output_and_code(tmp_path: Path) -> None:
    done = proc.run(["sh", "-c", "cat; echo no >&2; exit 3"], cwd=tmp_path, input="häh")
    assert (done.returncode, done.stdout, done.stderr) == (3, "häh", "no\n")


def test_output_that_is_not_utf8_is_kept_as_bytes(tmp_path: Path) -> None:
    done = proc.run(["printf", r"\377"], cwd=tmp_path)
    assert (done.stdout_bytes, done.stdout) == (b"\xff", "�")


def test_a_child_that_takes_too_long_is_killed_with_what_it_started(tmp_path: Path) -> None:
    with pytest.raises(proc.TimedOut):
        proc.run(["sh", "-c", "sleep 600 & echo $! > pid; wait"], cwd=tmp_path, timeout=0.5)
    grandchild = int((tmp_path / "pid").read_text())
    clock = SystemClock()
    deadline = clock.monotonic() + 10
    while proc.is_alive(grandchild) and clock.monotonic() < deadline:
        clock.sleep(0.01)
    assert not proc.is_alive(grandchild)


def test_a_child_that_prints_without_end_is_killed_and_said_to(tmp_path: Path) -> None:
    with pytest.raises(proc.TooMuchOutput, match="printed more than 1 MB"):
        proc.run(["sh", "-c", "echo $$ > pid; exec cat /dev/zero"], cwd=tmp_path, most=2**20)
    assert not proc.is_alive(int((tmp_path / "pid").read_text()))
    with pytest.raises(GitError, match="printed more than 128 MB"):  # of a foreign repository's own git settings
        Git(tmp_path).raw("-c", "alias.zero=!cat /dev/zero", "zero")


def test_of_endless_errors_the_end_is_kept(tmp_path: Path) -> None:
    done = proc.run(["sh", "-c", "head -c 3000000 /dev/zero >&2; echo end >&2; exit 3"], cwd=tmp_path)
    assert (done.returncode, len(done.stderr_bytes), done.stderr[-4:]) == (3, proc.MOST_ERRORS, "end\n")


def test_a_child_is_given_much_while_it_says_much_and_is_attended_to(tmp_path: Path) -> None:
    looked: list[int] = []
    data = os.urandom(3_000_000)
    done = proc.run(["cat"], cwd=tmp_path, input=data, timeout=600, check=lambda: looked.append(1))
    assert (done.stdout_bytes == data, done.returncode, bool(looked)) == (True, 0, True)
    assert proc.run(["true"], cwd=tmp_path, input=data).returncode == 0  # it reads nothing


def test_a_started_child_leads_a_group_of_its_own(tmp_path: Path) -> None:
    child = sleeper(tmp_path)
    try:
        assert os.getpgid(child.pid) == child.pid != os.getpgrp()
    finally:
        end(child)


def test_a_child_inherits_the_descriptors_it_is_given_and_no_others(tmp_path: Path) -> None:
    given, other = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(other, True)
    try:
        done = proc.run(["ls", "/dev/fd"], cwd=tmp_path, pass_fds=[given])
    finally:
        os.close(given)
        os.close(other)
    assert str(given) in done.stdout.split()
    assert str(other) not in done.stdout.split()


def test_a_group_ends_on_term(tmp_path: Path) -> None:
    child = sleeper(tmp_path)
    try:
        assert proc.terminate_group(child.pid, clock=SystemClock(), grace=10)
        assert child.wait(timeout=10) == -signal.SIGTERM
    finally:
        end(child)


def test_a_group_that_ignores_term_is_killed_after_the_grace(tmp_path: Path) -> None:
    child = sleeper(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    try:
        assert proc.terminate_group(child.pid, clock=SystemClock(), grace=0.2)
        assert child.wait(timeout=10) == -signal.SIGKILL
    finally:
        end(child)


def test_the_grace_is_waited_out_before_the_kill() -> None:
    clock, sent = FakeClock(), []
    ended = proc.terminate_group(
        99, clock=clock, grace=3, kill=lambda _, number: sent.append((number, clock.ticks)), alive=lambda _: True
    )
    assert not ended
    assert [number for number, _ in sent] == [signal.SIGTERM, signal.SIGKILL]
    assert 3 <= sent[1][1] < 3.2


def test_a_group_that_is_gone_is_not_waited_for() -> None:
    def gone(_: int, __: int) -> None:
        raise ProcessLookupError

    clock = FakeClock()
    assert proc.terminate_group(99, clock=clock, kill=gone)
    assert clock.slept == []


@pytest.mark.parametrize("pgid", [0, 1, -1, os.getpgrp()])
def test_our_own_group_and_that_of_all_processes_are_never_signalled(pgid: int) -> None:
    with pytest.raises(ValueError, match="refusing"):
        proc.terminate_group(pgid, clock=FakeClock(), kill=lambda *_: pytest.fail("signalled"))


def test_a_zombie_is_not_alive(tmp_path: Path) -> None:
    child = sleeper(tmp_path)
    assert proc.is_alive(child.pid)
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not proc.is_alive(child.pid)
    end(child)


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
def test_a_pid_that_stands_for_no_process_is_not_alive(pid: int) -> None:
    assert not proc.is_alive(pid)


@ON_LINUX
def test_the_age_of_a_process_is_counted_from_its_start(tmp_path: Path) -> None:
    child = sleeper(tmp_path)
    try:
        age, up = proc.age_of(child.pid), proc.uptime()
        assert age is not None
        assert up is not None
        assert 0 <= age < 60 < up
    finally:
        end(child)
    assert proc.age_of(child.pid) is None


@ON_LINUX
def test_the_holders_of_an_open_file_are_found(tmp_path: Path) -> None:
    path = tmp_path / "work.lock"
    path.touch()
    child = sleeper(tmp_path, "held = open('work.lock')")
    try:
        assert proc.holders(path) == [child.pid]
        assert proc.holders(tmp_path / "other") == []
    finally:
        end(child)


def test_commands_do_not_see_our_credentials() -> None:
    ours = [
        "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_CUSTOM_HEADERS", "ANTHROPIC_AWS_API_KEY",
        "CLAUDE_CODE_OAUTH_TOKEN", "OPENAI_API_KEY", "KILO_API_KEY", "COPILOT_GITHUB_TOKEN",
        "COPILOT_PROVIDER_API_KEY", "GH_TOKEN", "GITHUB_TOKEN", "GREMLINS_LOCK_FD", "GREMLINS_BATCH__STOP_WAIT",
        "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "AWS_BEARER_TOKEN_BEDROCK",
    ]  # fmt: skip
    theirs = [
        "PATH",
        "HOME",
        "LANG",
        "GREMLINS_HOME",
        "ANTHROPIC_MODEL",
        "GIT_AUTHOR_NAME",
        "GIT_SSH_COMMAND",
        "KEYBOARD",
    ]
    assert sorted(proc.command_env(dict.fromkeys(ours + theirs, "x"))) == sorted(theirs)


def test_an_address_with_a_password_in_it_is_a_credential() -> None:
    env = {"ANTHROPIC_BASE_URL": "https://me:secret@gateway.example"}
    assert proc.command_env(env) == {}
    assert proc.command_env({"ANTHROPIC_BASE_URL": "https://gateway.example"}) != {}
