"""An upgrade removes the environment that a parked gremlin was started from: the new program goes on with it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.acceptance.one_batch_call import billed_once, end_batches, park_one
from tests.acceptance.sandbox import Sandbox

pytestmark = pytest.mark.installed


@pytest.fixture
def old_environment(sandbox: Sandbox, tmp_path: Path) -> Path:
    """A virtual environment with the same packages. What is launched from it parks, and then it is removed."""
    made, new = tmp_path / "old environment", sandbox.interpreter
    (made / "bin").mkdir(parents=True)
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", made)
    (made / "lib").symlink_to(Path(sys.prefix) / "lib")
    (made / "bin/python").symlink_to(os.path.realpath(sys.executable))
    sandbox.interpreter = str(made / "bin/python")
    park_one(sandbox)
    sandbox.interpreter = new
    shutil.rmtree(made)
    return made


def test_what_waited_with_a_program_that_is_gone_is_rescued_by_the_new_one(
    sandbox: Sandbox, old_environment: Path
) -> None:
    os.kill(sandbox.peek("g")["liveness"]["pid"], signal.SIGTERM)  # by itself it allows an installer half a minute
    sandbox.until("g", "detached")
    end_batches(sandbox)
    assert not old_environment.exists()
    sandbox.ok("rescue", "--all")
    sandbox.until("g", "finished")
    billed_once(sandbox)


def test_a_stop_is_settled_by_the_new_program(sandbox: Sandbox, old_environment: Path) -> None:
    sandbox.ok("stop", "g")
    assert sandbox.life("g") == "stopped"
    assert sandbox.simulator.batches[0].cancel_initiated_at is not None
