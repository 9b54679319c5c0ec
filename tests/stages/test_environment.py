"""A worktree that is ready to work in, and failures that no model is asked about."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from gremlins.fleet.land import land
from gremlins.processes.children import without_callers_own
from gremlins.records.gremlin import Bailed, FailedGremlin, Finished
from tests.conftest import Repo, make_repo
from tests.in_process import InProcessSandbox
from tests.stages.conftest import MakeScripted

FIX = {"edits": [{"path": "calc.py", "old": "return a - b", "new": "return a + b"}], "summary": "add adds"}
OTHER = {"edits": [{"path": "calc.py", "old": "return a * b", "new": "return b * a"}], "summary": "as good"}
CHECK = f"'{sys.executable}' -B -c 'import calc; assert calc.add(2, 3) == 5'"


def pipeline(*commands: str) -> str:
    cmds = ", ".join(f'"{command}"' for command in commands)
    return f"stages: [{{type: implement, mode: batch}}, {{type: verify, mode: batch, cmds: [{cmds}]}}]\n"


def configure(repo: Repo, text: str) -> None:
    repo.write({".gremlins/config.toml": text})


# ── what no model can mend ────────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_tool_is_the_environments_fault_and_no_model_is_asked(scripted: MakeScripted) -> None:
    it = scripted(FIX)
    gremlin = it.make(pipeline("no-such-package-manager ci"))
    status = it.run(gremlin).status
    assert isinstance(status, FailedGremlin)
    assert (status.failure, status.exit_code) == ("environment", 127)
    assert "no-such-package-manager" in status.reason
    assert len(it.simulator.batches) == 1


def test_an_empty_submodule_that_a_check_needs_is_named_and_no_model_is_asked(scripted: MakeScripted) -> None:
    it = scripted(FIX)
    it.repo.write({".gitmodules": '[submodule "lib"]\n\tpath = lib\n\turl = ./lib\n'})
    it.repo.git("add", ".gitmodules")
    it.repo.git("update-index", "--add", "--cacheinfo", f"160000,{it.repo.head()},lib")
    it.repo.git("commit", "--quiet", "-m", "a submodule")
    status = it.run(it.make(pipeline("cat lib/needed.txt"))).status
    assert isinstance(status, FailedGremlin)
    assert status.failure == "environment"
    assert "lib is empty" in status.reason
    assert "worktree.submodules" in status.reason
    assert len(it.simulator.batches) == 1


def with_submodule(it: InProcessSandbox, tmp_path: Path) -> None:
    library = make_repo(tmp_path / "library")
    library.commit({"needed.txt": "here\n"})
    allow = ("-c", "protocol.file.allow=always")
    it.repo.git(*allow, "submodule", "--quiet", "add", "--name", "the lib", str(library.path), "lib")
    it.repo.commit({".gremlins/config.toml": "[worktree]\nsubmodules = true\n"})
    library.path.rename(tmp_path / "gone")  # nothing may be fetched


def test_submodules_are_filled_from_the_local_store(scripted: MakeScripted, tmp_path: Path) -> None:
    it = scripted(FIX)
    with_submodule(it, tmp_path)
    before = it.repo.git("config", "--list", "--local"), it.repo.git("submodule", "status")
    gremlin = it.make(pipeline("cat lib/needed.txt"))
    assert isinstance(it.run(gremlin).status, Finished)
    assert (it.repo.git("config", "--list", "--local"), it.repo.git("submodule", "status")) == before
    land(it.home, gremlin, clock=it.clock)
    assert not it.worktree(gremlin).exists()
    assert it.repo.git("submodule", "status") == before[1]


def test_a_submodule_that_is_not_in_the_store_is_named(scripted: MakeScripted, tmp_path: Path) -> None:
    it = scripted(FIX)
    with_submodule(it, tmp_path)
    it.repo.git("submodule", "--quiet", "deinit", "--force", "lib")
    shutil.rmtree(it.repo.path / ".git" / "modules")
    status = it.run(it.make(pipeline("cat lib/needed.txt"))).status
    assert isinstance(status, FailedGremlin)
    assert "not in the local store: lib" in status.reason


def test_a_check_that_fails_the_same_on_the_base_asks_a_person_not_a_model(scripted: MakeScripted) -> None:
    it = scripted(FIX)
    gremlin = it.make(pipeline(CHECK, "echo the disk is $$ full; exit 3"))
    status = it.run(gremlin).status
    assert isinstance(status, Bailed)
    assert status.kind == "environment"
    assert "exit 3" in status.detail
    assert "base commit" in status.detail
    assert len(it.simulator.batches) == 1
    assert it.repo.git("branch", "--list", "gremlins/*").split() == ["+", f"gremlins/{gremlin}"]
    assert [path.name for path in it.home.worktrees.iterdir()] == [gremlin]


def test_a_check_that_fails_otherwise_than_on_the_base_is_mended_by_the_model(scripted: MakeScripted) -> None:
    worse = {"edits": [{"path": "calc.py", "old": "return a - b", "new": "return c"}], "summary": "c"}
    mended = {"edits": [{"path": "calc.py", "old": "return c", "new": "return a + b"}], "summary": "add adds"}
    it = scripted(worse, mended)
    assert isinstance(it.run(it.make(pipeline(CHECK))).status, Finished)
    assert len(it.simulator.batches) == 2


def test_the_check_on_the_base_is_in_a_worktree_of_its_own_that_was_set_up(scripted: MakeScripted) -> None:
    it = scripted(OTHER)
    configure(it.repo, "worktree.setup = ['echo ready > ready.txt']\n")
    gremlin = it.make(pipeline("test -e ready.txt || exit 4; exit 5"))
    status = it.run(gremlin).status
    assert isinstance(status, Bailed)
    assert "exited with 5" in status.detail


# ── setup ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_setup_runs_once_before_the_first_command(scripted: MakeScripted) -> None:
    it = scripted()
    configure(it.repo, "worktree.setup = ['echo set >> setup.log']\n")
    stages = "stages: [{type: exec, cmds: ['cat setup.log']}, {type: exec, cmds: ['true']}]\nevidence: none\n"
    gremlin = it.make(stages)
    assert isinstance(it.run(gremlin).status, Finished)
    assert (it.worktree(gremlin) / "setup.log").read_text() == "set\n"


def test_a_pipeline_that_works_with_answers_only_needs_no_setup(scripted: MakeScripted) -> None:
    it = scripted(FIX)
    configure(it.repo, "worktree.setup = ['exit 9']\n")
    assert isinstance(it.run(it.make("stages: [{type: implement, mode: batch}]\n")).status, Finished)


def test_a_setup_that_fails_is_the_environments_fault(scripted: MakeScripted) -> None:
    it = scripted()
    configure(it.repo, "worktree.setup = ['echo no registry; exit 9']\n")
    status = it.run(it.make("stages: [{type: exec, cmds: ['true']}]\nevidence: none\n")).status
    assert isinstance(status, FailedGremlin)
    assert (status.failure, status.exit_code) == ("environment", 9)
    assert "no registry" in status.reason


def test_ignored_files_that_are_named_are_copied_and_never_linked(scripted: MakeScripted) -> None:
    it = scripted()
    it.repo.write({".worktreeinclude": "/ignored/.env\n*.log\ncalc.py\n", "ignored/.env": "A=1\n", "a.log": "log\n"})
    it.repo.write({"ignored/other": "no\n", "not-ignored.txt": "no\n"})
    (it.repo.path / "ignored/outside").symlink_to("/etc/hostname")
    configure(it.repo, "worktree.copy = 'ignored/outside'\n")
    gremlin = it.make("stages: [{type: exec, cmds: ['true']}]\nevidence: none\n")
    it.run(gremlin)
    tree = it.worktree(gremlin)
    assert (tree / "ignored/.env").read_text() == "A=1\n"
    assert (tree / "a.log").read_text() == "log\n"
    assert not (tree / "ignored/other").exists()
    assert not (tree / "not-ignored.txt").exists()
    assert not (tree / "ignored/outside").is_symlink()
    (tree / "ignored/.env").write_text("A=2\n")
    assert it.repo.read("ignored/.env") == "A=1\n"


# ── the environment of commands ───────────────────────────────────────────────────────────────────────────────────


def test_nothing_of_the_callers_environment_reaches_a_command(scripted: MakeScripted) -> None:
    it = scripted()
    venv = str(it.repo.path / ".venv")
    env = {"VIRTUAL_ENV": venv, "PYTHONPATH": "/mine", "PATH": f"{venv}/bin:{os.environ['PATH']}"}
    own = 'test -z "$VIRTUAL_ENV$PYTHONPATH$NODE_PATH"; case "$PATH" in *prøject*) exit 7;; esac'
    gremlin = it.make(f"stages: [{{type: exec, cmds: ['{own}']}}]\nevidence: none\n", env=env)
    assert isinstance(it.run(gremlin, env).status, Finished)


def test_the_programs_of_the_worktree_itself_come_first(scripted: MakeScripted) -> None:
    it = scripted()
    configure(it.repo, "worktree.setup = ['mkdir -p .venv/bin', 'cp /bin/true .venv/bin/own']\n")
    assert isinstance(it.run(it.make("stages: [{type: exec, cmds: ['own']}]\nevidence: none\n")).status, Finished)


@pytest.mark.parametrize(
    ("env", "path"),
    [
        ({"VIRTUAL_ENV": "/v", "PATH": "/v/bin:/usr/bin"}, "/usr/bin"),
        ({"VIRTUAL_ENV": "/v", "PATH": "/v2/bin:/usr/bin"}, "/v2/bin:/usr/bin"),
        ({"NODE_PATH": "/n/a:/n/b", "PATH": "/n/b:/usr/bin:/n"}, "/usr/bin:/n"),
    ],
)
def test_entries_of_path_go_with_the_variable_that_named_them(env: dict[str, str], path: str) -> None:
    assert without_callers_own(env) == {"PATH": path}
