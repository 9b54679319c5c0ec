"""A sandbox for stages: a gremlin run in-process against a model that answers as scripted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gremlins.paths import Home
from gremlins.simulator import ScriptedModel, Simulator
from tests.conftest import Repo
from tests.in_process import InProcessSandbox

MakeScripted = Callable[..., InProcessSandbox]


def text_of(reply: object) -> Any:
    """A scripted reply: text as it is, an object as JSON, a function as one."""
    return reply if isinstance(reply, str) or callable(reply) else json.dumps(reply)


@pytest.fixture
def scripted(repo: Repo, tmp_path: Path) -> Iterator[MakeScripted]:
    """`scripted(reply, …)` answers in order; `when=[(words, reply), …]` answers by what is asked."""
    running: list[Simulator] = []

    def make(*replies: object, when: Sequence[tuple[str, object]] = (), **options: Any) -> InProcessSandbox:
        model = ScriptedModel([text_of(r) for r in replies], when=[(word, text_of(r)) for word, r in when])
        simulator = Simulator(model=model, **options).start()
        running.append(simulator)
        return InProcessSandbox(repo, Home(tmp_path / "state"), simulator)

    yield make
    for simulator in running:
        simulator.stop()
