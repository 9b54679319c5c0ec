"""The runner's own end when it meets a bug."""

from __future__ import annotations

from pathlib import Path

from gremlins.processes.locks import GremlinLock
from gremlins.records.gremlin import FailedGremlin
from gremlins.runner import INTERNAL_ERROR, put_down_bug
from tests.fleet.records import record, state_root


def test_a_crash_log_hides_every_secret_that_the_command_line_hides(tmp_path: Path) -> None:
    env = {"DB_PASSWORD": "hunter2-hunter2"}
    root = state_root(tmp_path)
    root.put(record("g"))
    with GremlinLock.acquire(root.home.gremlin("g").lock, "runner") as lock:
        try:
            raise RuntimeError("cannot connect with hunter2-hunter2")
        except RuntimeError:
            assert put_down_bug(root.home, "g", lock, root.clock, env) == INTERNAL_ERROR
    (log,) = root.home.crashes.iterdir()
    assert "cannot connect with ***" in log.read_text()
    status = root.store.read("g").status
    assert isinstance(status, FailedGremlin)
    assert "hunter2" not in status.reason
