"""A person's command is told how a gremlin ended; whatever it does, nobody waits and nothing is harmed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gremlins.processes.notify import event_of, notify
from gremlins.records.gremlin import (
    Bailed,
    Evidence,
    FailedGremlin,
    Finished,
    Interrupted,
    Parked,
    Running,
    Status,
    Stopped,
)
from tests.fleet.records import NOON, ago, parked_call, record
from tests.time_limit import wait_until


def told(tmp_path: Path, command: str, **kwargs: Any) -> None:
    notify(command, {"event": "finished", "title": "größer"}, os.environ, tmp_path, **kwargs)


def test_the_command_gets_one_document_on_its_standard_input(tmp_path: Path) -> None:
    told(tmp_path, "cat > out.part && mv out.part out")
    wait_until((tmp_path / "out").exists, "its file")
    assert json.loads((tmp_path / "out").read_text()) == {"event": "finished", "title": "größer"}


def test_a_list_runs_as_it_is(tmp_path: Path) -> None:
    notify(("touch", "a file; not a shell"), {}, os.environ, tmp_path)
    wait_until((tmp_path / "a file; not a shell").exists, "its file")


def test_a_command_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    told(tmp_path, "sleep 300 & echo $! > child; echo $$ > shell; wait", timeout=1.0)
    wait_until(lambda: (tmp_path / "shell").exists() and (tmp_path / "shell").read_text().strip() != "", "its pid")
    pids = [int((tmp_path / name).read_text()) for name in ("child", "shell")]
    wait_until(lambda: not any(_alive(pid) for pid in pids), "the end of both")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_is_no_child_of_ours_and_leaves_no_zombie(tmp_path: Path) -> None:
    before = _children()
    told(tmp_path, "touch out; sleep 0.2")
    assert _children() == before
    wait_until((tmp_path / "out").exists, "its file")
    assert _children() == before


def _children() -> str:
    return Path("/proc/thread-self/children").read_text()


def test_it_inherits_no_descriptor_and_no_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret-0123456789")
    with (tmp_path / "held").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        told(tmp_path, "(env; ls -l /proc/self/fd) > out.part; mv out.part out")
        wait_until((tmp_path / "out").exists, "its file")
    text = (tmp_path / "out").read_text()
    assert "sk-ant-secret" not in text
    assert "held" not in text


@pytest.mark.parametrize("setting", [("/no/such/program",), ("a\0b",), "exit 7", "kill -9 $$", None, ()])
def test_a_command_that_cannot_run_or_fails_is_passed_over(tmp_path: Path, setting: Any) -> None:
    notify(setting, {"event": "bailed"}, os.environ, tmp_path)


def test_a_folder_that_is_gone_does_not_keep_it_from_running(tmp_path: Path) -> None:
    notify(f"touch '{tmp_path}/out'", {}, os.environ, tmp_path / "gone")
    wait_until((tmp_path / "out").exists, "its file")


PROOF = Evidence(kind="commits", base="0", tip="1", holds=True)
ENDINGS: list[tuple[Status, str, str | None]] = [
    (Finished(since=ago(1), evidence=PROOF), "finished", None),
    (Bailed(since=ago(1), stage="plan", kind="unclear", detail="which?"), "bailed", "unclear: which?"),
    (FailedGremlin(since=ago(1), stage="verify", failure="task", reason="3 fail", exit_code=2), "dead", "3 fail"),
    (Interrupted(since=ago(1), signal="SIGTERM"), "dead", "ended by SIGTERM"),
    (Parked(since=ago(1), calls=(parked_call(),), reason="bad key", failure="config"), "detached", "bad key"),
]


@pytest.mark.parametrize(("status", "event", "reason"), ENDINGS)
def test_what_is_told_of_an_ending(status: Status, event: str, reason: str | None) -> None:
    found = event_of(record(status=status), NOON)
    assert found is not None
    assert (found["event"], found["reason"], found["id"]) == (event, reason, "fix-add")
    json.dumps(found)


@pytest.mark.parametrize(
    "status", [Running(since=ago(1)), Parked(since=ago(1), calls=()), Stopped(since=ago(1), by="a person")]
)
def test_nothing_is_told_of_what_goes_on_or_was_stopped(status: Status) -> None:
    assert event_of(record(status=status), NOON) is None
