"""The real binaries: where `make live-check` has put them, or on PATH. Without them these tests are skipped."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gremlins.records.calls import Intent
from gremlins.simulator import ModelReply, ScriptedModel, Simulator
from tests.clients.session_setup import SessionSetup
from tests.conftest import Repo

BINARIES = os.environ.get("LIVE_BINARIES", "")
"""A folder that holds `claude`, `copilot` and `kilo`. Read here: tests see a scrubbed environment."""
_ids = itertools.count()


def binary(name: str) -> str:
    found = shutil.which(name, path=f"{BINARIES}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"no `{name}` here; `make live-check` installs one")
    return found


def use(name: str, **given: Any) -> ModelReply:
    """A model's reply that uses a tool."""
    block = {"type": "tool_use", "id": f"toolu_live{next(_ids):08}", "name": name, "input": given}
    return ModelReply(blocks=(block,), stop_reason="tool_use")


class Live:
    """A simulator with a script, and a gremlin whose agent is a real binary."""

    def __init__(self, sim: Simulator, model: ScriptedModel, around: SessionSetup) -> None:
        self.sim, self.model, self.around = sim, model, around

    @property
    def tools(self) -> set[str]:
        """The tools offered to the model. Some versions of Claude Code offer a placeholder that does nothing."""
        offered = {tool["name"] for tool in self.model.asked[0].get("tools", ())}
        return offered - {"DeferredToolPlaceholder"}


Start = Callable[..., Live]


@pytest.fixture
def start(tmp_path: Path, repo: Repo) -> Iterator[Start]:
    """`start(reply, …)`: a simulator that answers with these in turn, then with "Done."."""
    sims: list[Simulator] = []

    def start(*replies: Any, otherwise: Any = "Done.") -> Live:
        model = ScriptedModel(replies, otherwise=otherwise)
        sims.append(Simulator(model=model).start())
        return Live(sims[-1], model, SessionSetup(tmp_path / "g", repo.path))

    yield start
    for sim in sims:
        sim.stop()


def taken_up_without_its_session(live: Live, session_id: str, ask: Callable[[Live], str]) -> None:
    """A call whose agent was killed before it had saved its session begins anew, with the whole prompt."""
    ask(live)
    (record,) = live.around.records
    live.around.ledger.put(replace(record, status=Intent(), ended_at=None, session_id=session_id))
    live.around = live.around.respawned()
    assert ask(live) == "Done."
    assert [getattr(r.status, "kind", None) for r in live.around.records] == ["interrupted", "no_session", None]
    assert "Do it." in str(live.model.asked[-1]["messages"])
    assert "You were interrupted" not in str(live.model.asked[-1]["messages"])
