"""Commands in a real bubblewrap: each attack leaves nothing behind, and what a test suite needs is there."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gremlins.config import SandboxSettings
from gremlins.errors import NotReady
from gremlins.processes.sandbox import SECRET_PLACES, check_sandbox, why_not
from gremlins.repository.enclosed import enclosed
from tests.conftest import Repo
from tests.time_limit import DEADLINE

Shell = Callable[..., subprocess.CompletedProcess[str]]
PATH = os.pathsep.join([os.environ["PATH"], str(Path(sys.prefix) / "sandbox/usr/bin")])
"""`.ci/run` unpacks bubblewrap below .venv for these tests only."""
NONE = why_not(SandboxSettings(), {"PATH": PATH})
works = pytest.mark.skipif(NONE is not None, reason=f"{NONE}: apt install bubblewrap")


@pytest.fixture
def person(tmp_path: Path) -> Path:
    """A home with secrets, a cache and a program's settings."""
    home = tmp_path / "home"
    for name in (".ssh", ".aws", ".config/gh", ".cache/pip", ".local/state/gremlins/gremlins/other"):
        (home / name).mkdir(parents=True)
    for name in (".ssh/id", ".aws/credentials", ".config/gh/hosts.yml", ".netrc", ".npmrc"):
        (home / name).write_text("canary")
    (home / ".local/state/gremlins/gremlins/other/state.json").write_text("canary")
    (home / ".bashrc").write_text("mine")
    (home / "link").symlink_to(".bashrc")
    return home


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def shell(person: Path, repo: Repo, said: list[str]) -> Shell:
    state = person / ".local/state/gremlins"
    worktree = state / "worktrees" / "one"
    repo.git("worktree", "add", "--quiet", "-b", "gremlins/one", str(worktree))

    def run(command: str, **settings: object) -> subprocess.CompletedProcess[str]:
        env = {"HOME": str(person), "PATH": f"{Path(sys.executable).parent}:{PATH}"}
        chosen = SandboxSettings(**settings)  # type: ignore[arg-type]
        env |= {
            "GREMLINS_HOME": str(state),
            "XDG_RUNTIME_DIR": f"{person}/run",
            "SSH_AUTH_SOCK": f"{person}/run/agent.1",
        }
        with enclosed(command, chosen, worktree, env, said.append) as argv:
            return subprocess.run(
                argv, cwd=worktree, env=env, capture_output=True, text=True, timeout=DEADLINE, check=False
            )

    return run


def all_files(folder: Path) -> dict[str, bytes]:
    plain = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path): path.read_bytes() for path in plain if "worktrees/one" not in str(path) or ".git" in path.parts}


@works
@pytest.mark.parametrize(
    "attack",
    [
        "echo x >> ~/.bashrc",
        "rm -rf ~ ",
        "rm -rf ~/.ssh ~/.local",
        "echo x > {repo}/calc.py",
        "rm -rf {repo}",
        "git -C {repo} update-ref -d refs/heads/main; git update-ref -d refs/heads/main",
        "git config core.fsmonitor evil; git config --global core.fsmonitor evil",
        "mkdir -p {repo}/.git/hooks; echo evil > {repo}/.git/hooks/pre-commit",
        "rm -f .git; mkdir .git; echo gitdir: /elsewhere > .git",
        "umount ~/.ssh; mount -t tmpfs none {repo}; mount -o remount,rw / && touch /pwned",
        "touch /tmp/pwned /var/tmp/pwned /dev/shm/pwned /pwned",
        "kill -9 -1; kill -9 {pid}",
        "rm -f $(git rev-parse --git-dir)/index",
        "cd $(git rev-parse --git-common-dir)/objects && echo x > f && git hash-object -w f && mkfifo pack/pack-x.pack"
        " info/commit-graph 00 && ln -s /dev/zero pack/pack-y.pack && ln -s {repo}/.git/objects/* .; mkdir -p ab;"
        " mkfifo ab/$(printf %038d 0); git update-ref refs/heads/gremlins/one $(printf ab%038d 0); truncate -s 40G"
        " $(git rev-parse --git-dir)/index",
    ],
)
def test_an_attack_changes_nothing_outside(shell: Shell, person: Path, repo: Repo, attack: str) -> None:
    before = {**all_files(person), **all_files(repo.path)}
    shell(attack.format(repo=repo.path, pid=os.getpid()))
    assert {**all_files(person), **all_files(repo.path)} == before
    assert not [place for place in ("/tmp", "/var/tmp", "/dev/shm", "/") if Path(place, "pwned").exists()]
    assert repo.git("fsck", "--no-progress") == ""


@works
def test_no_secret_can_be_read(shell: Shell, person: Path) -> None:
    found = shell("grep -rs canary ~ ; cat ~/.ssh/id ~/.netrc ~/.npmrc; ls -A ~/.local/state/gremlins")
    assert "canary" not in found.stdout
    assert found.stdout.split() == ["worktrees"]


@works
def test_programs_of_the_session_cannot_be_asked_to_run_something(
    shell: Shell, person: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person / "run" / "systemd").mkdir(parents=True)
    monkeypatch.chdir(person / "run")  # a socket's path may have 107 bytes
    names = ("bus", "systemd/private", "agent.1", "other")
    with contextlib.ExitStack() as stack:
        for name in names:
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(name)
            listening.listen()
        ask = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1]); print(sys.argv[1])"
        done = shell(f"cd ~/run; for name in {' '.join(names)}; do '{sys.executable}' -c '{ask}' $name; done")
    assert done.stdout.split() == ["other"]


@works
def test_every_secret_place_is_hidden(shell: Shell, person: Path) -> None:
    for place in SECRET_PLACES:
        path = person / place
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("canary")
    assert shell("grep -rs canary ~").stdout == ""


@works
def test_what_a_test_suite_needs_is_there(shell: Shell, person: Path) -> None:
    done = shell(
        "set -e; echo x > made; mkdir -p ~/.newtool; echo y > ~/.newtool/file; cat ~/link; echo z > ~/.cache/pip/wheel;"
        "echo t > /tmp/t; git status --short; git log --oneline -1; python -c 'import pytest; print(pytest.__name__)'"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "mine?? made"
    assert done.stdout.splitlines()[-1] == "pytest"
    assert (person / ".cache/pip/wheel").read_text() == "z\n"
    assert not (person / ".newtool").exists()
    assert (person / ".local/state/gremlins/worktrees/one/made").read_text() == "x\n"


@works
def test_commits_of_commands_come_to_the_branch(shell: Shell, person: Path, repo: Repo) -> None:
    before = repo.git("for-each-ref")
    done = shell(
        "set -e; git config user.name A; git config user.email a@b; echo 1 > one; git add one; git commit -qm one;"
        "echo 2 > two; git add two; git commit -qm two; git tag theirs; git branch other;"
        "git update-ref refs/heads/main HEAD"
    )
    assert done.returncode == 0, done.stderr
    assert repo.git("log", "--format=%s", "main..gremlins/one").split() == ["two", "one"]
    after = repo.git("for-each-ref").splitlines()
    assert [line for line in before.splitlines() if line not in after] == [
        line for line in before.splitlines() if line.endswith("refs/heads/gremlins/one")
    ]
    assert len(after) == len(before.splitlines())
    worktree = Repo(person / ".local/state/gremlins/worktrees/one")
    assert worktree.git("status", "--porcelain") == ""
    assert repo.git("fsck", "--no-progress", "--connectivity-only") == ""
    assert not list(Path(tempfile.gettempdir()).glob("gremlins-git-*"))
    assert shell("git log --format=%s -2").stdout.split() == ["two", "one"]


@works
def test_a_stash_that_commands_made_is_kept_and_said(shell: Shell, repo: Repo, said: list[str]) -> None:
    done = shell(
        "set -e; git config user.name A; git config user.email a@b; echo 1 >> calc.py; git stash -q; echo 2 >> calc.py;"
        "git stash -q; git stash pop -q; git checkout -q calc.py"
    )
    assert done.returncode == 0, done.stderr
    kept = repo.git("for-each-ref", "--format=%(refname)", "refs/gremlins/one").split()
    assert len(kept) == len(said) == 1
    assert kept[0] in said[0]
    assert repo.git("show", f"{kept[0]}:calc.py").endswith("1")
    assert "refs/stash" not in repo.git("for-each-ref")


@works
def test_commits_on_a_branch_that_commands_packed_come_home(shell: Shell, repo: Repo) -> None:
    done = shell(
        "set -e; git config user.name A; git config user.email a@b; git commit -q --allow-empty -m one;"
        "git pack-refs --all"
    )
    assert done.returncode == 0, done.stderr
    assert repo.git("log", "--format=%s", "main..gremlins/one").split() == ["one"]


@works
def test_refs_that_others_change_meanwhile_are_no_hindrance(shell: Shell, repo: Repo) -> None:
    repo.git("pack-refs", "--all")
    repo.git("update-ref", "refs/bisect/bad", "main")
    (repo.path / ".git/refs/heads/other.lock").touch()
    (repo.path / ".git/refs/heads/gone").symlink_to("nowhere")
    (repo.path / ".git/packed-refs.lock").touch()
    done = shell("git branch other main && git pack-refs --all && git for-each-ref --format='%(refname)'")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["refs/heads/gremlins/one", "refs/heads/main", "refs/heads/other"]


@works
def test_a_git_directory_that_commands_spoiled_is_not_believed(shell: Shell, person: Path, repo: Repo) -> None:
    before = {**all_files(person), **all_files(repo.path)}
    shell(
        "cd $(git rev-parse --git-common-dir); echo ../../../evil > refs/heads/gremlins/one; rm -rf objects worktrees;"
        "ln -s /etc/passwd HEAD; mkfifo worktrees; printf '[core]\nfsmonitor = touch /tmp/evil\n' >> config"
    )
    assert {**all_files(person), **all_files(repo.path)} == before
    assert repo.git("fsck", "--no-progress") == ""


@works
def test_exit_codes_and_words_pass_through(shell: Shell) -> None:
    done = shell("echo out; echo 'err \"$1\"' >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", 'err "$1"\n')


@works
@pytest.mark.parametrize("network", [True, False])
def test_the_network_is_as_allowed(shell: Shell, network: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        call = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        assert (shell(f'python -c "{call}"', network=network).returncode == 0) is network


@works
def test_limits_hold(shell: Shell) -> None:
    assert shell("ulimit -u 2> /dev/null || ulimit -p", processes=77).stdout == "77\n"
    greedy = "python -c \"print(len(b'x' * 300_000_000))\""
    assert shell(greedy).stdout == "300000000\n"
    assert "MemoryError" in shell(greedy, memory=100).stderr


def test_off_and_a_missing_bubblewrap(tmp_path: Path) -> None:
    nowhere = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    for settings in (SandboxSettings(mode="off"), SandboxSettings()):
        with enclosed("true", settings, tmp_path, nowhere, print) as argv:
            assert argv == ["/bin/sh", "-c", "true"]
    assert "off" in str(why_not(SandboxSettings(mode="off"), os.environ))
    with pytest.raises(NotReady, match="not installed"):
        check_sandbox(SandboxSettings(mode="require"), nowhere)
