"""`doctor`: every fault is found, said with what to do about it, and told by the exit code."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gremlins.cli.doctor import MARKS, as_json, doctor
from gremlins.cli.main import run
from gremlins.fleet.doctor import Check, Health, examine
from gremlins.pipeline.freezing import FrozenLaunch
from gremlins.simulator import Options, Simulator
from tests.conftest import Repo
from tests.fleet.records import Root, call, record, state_root


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(Options()) as running:
        yield running


@pytest.fixture
def root(tmp_path: Path) -> Root:
    made = state_root(tmp_path)
    made.home.root.chmod(0o700)
    return made


@pytest.fixture
def env(simulator: Simulator) -> dict[str, str]:
    """A machine with a key that works, and git and nothing else on its path."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": os.environ["HOME"],
        "ANTHROPIC_BASE_URL": simulator.url,
        "ANTHROPIC_API_KEY": simulator.key,
    }


def check(health: Health, name: str) -> Check:
    return next(found for found in health.checks if found.name == name)


def test_all_is_well(root: Root, repo: Repo, env: dict[str, str]) -> None:
    health = examine(root.home, repo.path, env)
    assert [c for c in health.checks if c.verdict in ("problem", "not_ready")] == []
    assert health.worst is None
    assert check(health, "credentials").verdict == "ok"
    assert "Test Person" in check(health, "identity").detail


def test_no_key_is_not_ready(root: Root, repo: Repo, env: dict[str, str]) -> None:
    del env["ANTHROPIC_API_KEY"]
    health = examine(root.home, repo.path, env)
    assert check(health, "credentials").verdict == "not_ready"
    assert health.worst is not None
    assert health.worst.verdict == "not_ready"


@pytest.mark.parametrize("options", [Options(keys={}), Options(forbidden_keys=frozenset({"sk-ant-wrong-key"}))])
def test_a_key_that_is_refused_is_not_ready_and_never_shown(
    root: Root, repo: Repo, env: dict[str, str], options: Options
) -> None:
    with Simulator(options) as refusing:
        wrong = {**env, "ANTHROPIC_BASE_URL": refusing.url, "ANTHROPIC_API_KEY": "sk-ant-wrong-key"}
        health = examine(root.home, repo.path, wrong)
    assert check(health, "credentials").verdict == "not_ready"
    assert "sk-ant-wrong-key" not in json.dumps(as_json(health))


def test_an_api_that_does_not_answer_is_a_problem_of_today(root: Root, repo: Repo, env: dict[str, str]) -> None:
    health = examine(root.home, repo.path, {**env, "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"})
    assert check(health, "credentials").verdict == "problem"
    assert health.worst is not None
    assert health.worst.verdict == "problem"


def test_a_missing_binary_leaves_batch_stages(root: Root, repo: Repo, env: dict[str, str]) -> None:
    live = check(examine(root.home, repo.path, env), "live claude")
    assert live.verdict in ("ok", "warning")
    named = examine(root.home, repo.path, {**env, "GREMLINS_CLAUDE_BIN": "/no/such/claude"})
    assert check(named, "live claude").verdict == "not_ready"


def test_every_setting_says_where_it_comes_from(root: Root, repo: Repo, env: dict[str, str]) -> None:
    root.home.config.write_text("[batch]\npoll_max = 30\n")
    health = examine(root.home, repo.path, {**env, "GREMLINS_BATCH__POLL_INITIAL": "0.5"})
    sources = {setting.key: (setting.value, setting.source) for setting in health.settings}
    assert sources["batch.poll_initial"] == (0.5, "GREMLINS_BATCH__POLL_INITIAL")
    assert sources["batch.poll_max"] == (30.0, f"{root.home.config}:2")
    assert sources["batch.on_expired"] == ("live", "default")


def test_a_wrong_setting_is_named_by_file_and_line(root: Root, repo: Repo, env: dict[str, str]) -> None:
    root.home.config.write_text("\nclientt = 'x'\n")
    found = check(examine(root.home, repo.path, env), "settings")
    assert found.verdict == "problem"
    assert f"{root.home.config}:2" in found.detail
    assert found.hint == "did you mean `client`?"


def test_a_wrong_pipeline_of_the_project_is_named(root: Root, repo: Repo, env: dict[str, str]) -> None:
    repo.write({".gremlins/pipelines/mine.yaml": "stages: [plam]\n"})
    assert "plam" in check(examine(root.home, repo.path, env), "pipeline mine").detail


def records(health: Health) -> list[str]:
    return [found.detail for found in health.checks if found.name == "record"]


def test_records_that_cannot_be_read_are_named_one_by_one(root: Root, repo: Repo, env: dict[str, str]) -> None:
    root.put(record("one"), call())
    root.put(record("two"), call())
    for paths in (root.home.gremlin("one"), root.home.gremlin("two")):
        write_frozen(paths.frozen)
    root.home.gremlin("one").state.write_text("{")
    (root.home.gremlin("two").calls / "plan.a1.t1.r1.json").write_text("{")
    root.home.spend.write_text("nonsense\n")
    health = examine(root.home, repo.path, env)
    found = records(health)
    assert len(found) == 3
    for name in ("one/state.json", "two/calls/plan.a1.t1.r1.json", "spend.jsonl: line 1"):
        assert any(name in line for line in found), name
    assert health.worst is not None
    assert health.worst.verdict == "problem"


def write_frozen(path: Path) -> None:
    text = json.dumps(
        {"program": "0", "pipeline": {"name": "p", "file": "p.yaml", "stages": [], "evidence": "none"}, "settings": {}}
    )
    path.write_text(text)
    FrozenLaunch.model_validate_json(text)


def test_one_that_is_just_being_launched_is_no_fault(root: Root, repo: Repo, env: dict[str, str]) -> None:
    lock = root.store.claim("new")
    assert records(examine(root.home, repo.path, env)) == []
    lock.release()


def test_a_broken_database_of_beads_is_found(root: Root, repo: Repo, env: dict[str, str]) -> None:
    root.home.beads.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    assert check(examine(root.home, repo.path, env), "beads").verdict == "problem"
    root.home.beads.unlink()
    sqlite3.connect(root.home.beads).close()
    root.home.beads.touch()
    assert check(examine(root.home, repo.path, env), "beads").verdict == "ok"


def test_a_state_root_open_to_others_is_a_warning(root: Root, repo: Repo, env: dict[str, str]) -> None:
    root.home.root.chmod(0o755)
    health = examine(root.home, repo.path, env)
    assert check(health, "privacy").hint == f"chmod 700 {root.home.root}"
    assert health.worst is None


def test_a_worktree_of_no_gremlin_is_a_warning(root: Root, repo: Repo, env: dict[str, str]) -> None:
    (root.home.worktrees / "left-over").mkdir(parents=True)
    assert "left-over" in check(examine(root.home, repo.path, env), "worktrees").detail


def test_outside_of_a_repository_it_looks_at_the_rest(root: Root, tmp_path: Path, env: dict[str, str]) -> None:
    health = examine(root.home, tmp_path, env)
    assert check(health, "repository").verdict == "info"
    assert health.worst is None


def test_looking_makes_nothing(tmp_path: Path, repo: Repo, env: dict[str, str]) -> None:
    home = state_root(tmp_path).home
    home.gremlins.rmdir()
    home.root.rmdir()
    assert examine(home, repo.path, env).worst is None
    assert not home.root.exists()


def test_the_verb_tells_it_all_and_ends_with_its_code(
    root: Root, repo: Repo, env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**env, "GREMLINS_HOME": str(root.home.root)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(repo.path)
    assert doctor(json=False, settings=False) == 0
    assert "all is well" in (out := capsys.readouterr().out)
    assert "batch.poll_max" not in out, "a setting at its default is not worth a line"
    assert doctor(json=False, settings=True) == 0
    assert "batch.poll_max" in capsys.readouterr().out
    assert doctor(json=True, settings=False) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert {"name", "verdict", "detail", "hint"} == set(found["checks"][0])


def test_problems_come_last(
    root: Root, repo: Repo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GREMLINS_HOME", str(root.home.root))
    monkeypatch.chdir(repo.path)
    assert run(["doctor"]) == 5
    shown = capsys.readouterr()
    assert shown.err.startswith("error: credentials: "), "as any other error, on stderr"
    lines = shown.out.splitlines()
    marks = [line[:9].strip() for line in lines if line[:9].strip() in MARKS.values()]
    assert marks == sorted(marks, key=list(MARKS.values()).index)
    assert run(["doctor", "--json"]) == 5
    shown = capsys.readouterr()
    assert json.loads(shown.out)["ok"] is False
    assert shown.err.startswith("error: ")


def test_an_editable_install_of_this_project_is_warned_of(root: Root, repo: Repo, env: dict[str, str]) -> None:
    note = ".venv/lib/python3.11/site-packages/calc-1.dist-info/direct_url.json"
    repo.write({note: json.dumps({"url": repo.path.as_uri(), "dir_info": {"editable": True}})})
    found = check(examine(root.home, repo.path, env), "python")
    assert found.verdict == "warning"
    assert "worktree.setup" in str(found.hint)
