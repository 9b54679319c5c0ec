"""The `notify` command gets its document; a command that hangs or fails blocks and harms nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gremlins.processes.children import is_alive
from gremlins.processes.notify import notify
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
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "the end of both")


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
