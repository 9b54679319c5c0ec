"""A finished change that conflicts at landing is merged with the project and resolved in one more round."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gremlins.clock import FakeClock
from gremlins.fleet.catch_up import catch_up
from gremlins.fleet.land import land
from gremlins.paths import Home
from gremlins.records.gremlin import Bailed, Finished
from gremlins.repository.merging import MergeConflict
from gremlins.simulator import ScriptedModel, Simulator
from tests.conftest import Repo
from tests.in_process import InProcessSandbox

STAGES = """
stages:
  - {type: exec, name: work, cmds: ['echo new > new.txt && git add -A && git commit -qm new']}
  - {type: address_code, mode: batch}
"""


def both(text: str) -> str:
    return json.dumps({"edits": [{"path": "new.txt", "content": text}], "summary": "Both."})


def meets(sandbox: InProcessSandbox, gremlin: str, text: str) -> bool:
    """The project changes the same file: landing conflicts, and a round is recorded. False: it is a person's."""
    sandbox.repo.commit({"new.txt": text}, "the project went on")
    with pytest.raises(MergeConflict):
        land(sandbox.home, gremlin, clock=FakeClock())
    return catch_up(sandbox.home, gremlin, clock=sandbox.clock)


def test_each_conflict_has_a_round_and_a_third_one_is_a_persons(repo: Repo, tmp_path: Path) -> None:
    """While the second round waited for its batch, its markers were taken for those of the first."""
    model = ScriptedModel([both("one\nnew\n"), both("two\nnew\n")], otherwise=both("never\n"))
    with Simulator(model=model) as simulator:
        sandbox = InProcessSandbox(repo, Home(tmp_path / "state"), simulator)
        gremlin = sandbox.make(STAGES)
        sandbox.run(gremlin)
        for text in ("one\n", "two\n"):
            assert meets(sandbox, gremlin, text)
            assert isinstance(sandbox.run(gremlin).status, Finished), sandbox.log(gremlin)
        assert not meets(sandbox, gremlin, "three\n")
        assert len(simulator.batches) == 2
        repo.git("checkout", "-q", "HEAD^")
        repo.git("switch", "-q", "-c", "earlier")
        land(sandbox.home, gremlin, clock=FakeClock())
        assert repo.read("new.txt") == "two\nnew\n"


def test_markers_that_are_left_are_a_bail_that_keeps_the_change_as_it_was(repo: Repo, tmp_path: Path) -> None:
    other = json.dumps({"edits": [{"path": "other.txt", "content": "x\n"}], "summary": "Something else."})
    with Simulator(model=ScriptedModel(otherwise=other)) as simulator:
        sandbox = InProcessSandbox(repo, Home(tmp_path / "state"), simulator)
        gremlin = sandbox.make(STAGES)
        tip = sandbox.run(gremlin).status.evidence.tip  # type: ignore[union-attr]
        assert meets(sandbox, gremlin, "one\n")
        status = sandbox.run(gremlin).status
        assert isinstance(status, Bailed)
        assert "conflict markers are left in new.txt" in status.detail
        assert repo.git("merge-base", tip, f"gremlins/{gremlin}") == tip
        assert len(simulator.batches) == 1
