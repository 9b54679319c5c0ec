"""A long live `anthropic:` conversation of a real process, killed again and again: each turn is paid once, its cost is
right whenever it is looked at, and its records grow in proportion to its turns.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gremlins.records.prices import price
from gremlins.simulator import ModelReply, Simulator
from gremlins.simulator.api import ModelError
from tests.acceptance.sandbox import Sandbox
from tests.cluster.machines import soak
from tests.time_limit import DEADLINE

PIPELINE = "stages:\n  - {type: implement, mode: live}\n"
SEED = 20261128


class Talker:
    """Uses a tool in every turn but the last. It waits for the death of the process before it answers the turns of
    `unanswered`, and gives those of `in_tool` a command that makes a file and waits: at both, every answer that was
    paid for is on record."""

    def __init__(self) -> None:
        self.turns = 0
        self.unanswered: dict[int, threading.Event] = {}
        self.in_tool: dict[int, Path] = {}
        self.asked = 0

    def reply(self, params: Mapping[str, Any]) -> ModelReply | ModelError:
        self.asked = turn = 1 + sum(message["role"] == "assistant" for message in params["messages"])
        if (dead := self.unanswered.pop(turn, None)) is not None:
            assert dead.wait(DEADLINE)
            return ModelError("overloaded_error", "there is no reader any more")
        if turn == self.turns:
            return ModelReply("Done.")
        if (marker := self.in_tool.get(turn)) is not None:
            return _use(turn, "bash", command=f"[ -e '{marker}' ] || {{ touch '{marker}'; exec sleep {DEADLINE}; }}")
        if turn == 1:
            return _use(turn, "write", file_path="done.txt", content="done\n")
        return _use(turn, "read", file_path="long.txt")


def _use(turn: int, name: str, **given: str) -> ModelReply:
    block = {"type": "tool_use", "id": f"toolu_{turn:012}", "name": name, "input": given}
    return ModelReply(blocks=(block,), stop_reason="tool_use")


@pytest.fixture
def talker() -> Talker:
    return Talker()


@pytest.fixture
def simulator(talker: Talker) -> Iterator[Simulator]:
    with Simulator(model=talker) as running:
        yield running


def talk(sandbox: Sandbox, talker: Talker, turns: int, kills: Sequence[int], tmp_path: Path) -> list[int]:
    """Kill a conversation in these turns. Returns the bytes of its records at each kill and at its end."""
    talker.turns = turns
    talker.unanswered = {turn: threading.Event() for turn in kills[::2]}
    talker.in_tool = {turn: tmp_path / f"turn-{turn}" for turn in kills[1::2]}
    dead = dict(talker.unanswered)
    sandbox.env |= {"GREMLINS_LIVE__BASH": "true", "GREMLINS_SPEND__PER_ATTEMPT": "99", "GREMLINS_SPEND__PER_DAY": "99"}
    sandbox.repo.write({"long.txt": "one line of many\n" * 300})
    sandbox.pipeline("talk", PIPELINE)
    sandbox.repo.commit({}, "A long text")
    sandbox.ok("launch", "talk", "Read long.txt.", "--client", "anthropic:claude-sonnet-5-5", "--id", "g")
    sizes = []
    for turn in kills:
        marker = talker.in_tool.get(turn)
        is_there = marker.exists if marker else lambda turn=turn: talker.asked == turn
        sandbox.wait_for(is_there, f"turn {turn}")
        check_cost(sandbox, paid=turn if marker else turn - 1)
        sandbox.kill("g")
        if turn in dead:
            dead[turn].set()
        check_cost(sandbox, paid=turn if marker else turn - 1)
        sizes.append(record_bytes(sandbox))
        sandbox.ok("rescue", "g")
    assert sandbox.until("g", "finished", "dead", "bailed")["liveness"]["state"] == "finished", sandbox.logs()
    assert sandbox.repo.git("show", "gremlins/g:done.txt") == "done"
    check_cost(sandbox, paid=turns)
    return [*sizes, record_bytes(sandbox)]


def check_cost(sandbox: Sandbox, *, paid: int) -> None:
    """So many answers were paid for, and all that tells what they cost says the same."""
    billed = sandbox.simulator.billed
    assert len(billed) == paid
    due = sum(found.usd for b in billed if (found := price(b.model, b.usage, batch=False, at=b.at)))
    state = json.loads((sandbox.home / "gremlins/g/state.json").read_text())
    assert state["total_cost_usd"] == pytest.approx(due)
    assert sandbox.state("g")["cost"]["live_usd"] == pytest.approx(due)
    assert sandbox.run("cost", "--json").json()["total_usd"] == pytest.approx(due)


def record_bytes(sandbox: Sandbox) -> int:
    return sum(path.stat().st_size for path in (sandbox.home / "gremlins/g/calls").iterdir())


def test_a_long_conversation_is_killed_twice_and_paid_once(sandbox: Sandbox, talker: Talker, tmp_path: Path) -> None:
    sizes = talk(sandbox, talker, 20, [7, 14], tmp_path)
    assert sizes[-1] < 1.5 * 20 / 7 * sizes[0]


@soak
def test_two_hundred_turns_are_killed_in_eight_of_them_and_paid_once_soak(
    sandbox: Sandbox, talker: Talker, tmp_path: Path
) -> None:
    kills = sorted(random.Random(SEED).sample(range(20, 200), 8))
    sizes = talk(sandbox, talker, 200, kills, tmp_path)
    assert sizes[-1] < 1.5 * 200 / kills[0] * sizes[0]
