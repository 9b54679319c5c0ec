"""`anthropic:` live, against the simulator: tools inside the worktree, and turns that are never paid twice."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gremlins.clients.base import CallUnsuccessful, Prompt, Room
from gremlins.clients.next_step import INTERRUPTED
from gremlins.clients.providers.anthropic import AnthropicClient
from gremlins.config import LiveSettings
from gremlins.errors import NotReady
from gremlins.outcome import Bail, Failed
from gremlins.processes.interrupt import Interrupt, InterruptibleClock, Terminated
from gremlins.records.calls import CallFailed, Collected, Intent, hash_request, summarize
from gremlins.simulator import ModelReply, ScriptedModel, Simulator
from tests.clients.session_setup import QUICK, SessionSetup
from tests.conftest import Repo

MODEL = "claude-sonnet-5-5"
_ids = iter(range(1_000_000))


def use(name: str, **given: Any) -> ModelReply:
    block = {"type": "tool_use", "id": f"toolu_{next(_ids):012}", "name": name, "input": given}
    return ModelReply(blocks=({"type": "text", "text": "So."}, block), stop_reason="tool_use")


class World:
    """A simulator with a script, and a gremlin that talks to it."""

    def __init__(self, sim: Simulator, model: ScriptedModel, around: SessionSetup) -> None:
        self.sim, self.model, self.around = sim, model, around

    def ask(self, prompt: Prompt | str = "Do it.", **more: Any) -> str:
        client = AnthropicClient(MODEL, self.around.session())
        return client.run(prompt, label="implement", **{"edits_worktree": True, **more}).text

    def failure(self, **more: Any) -> Failed | Bail:
        with pytest.raises(CallUnsuccessful) as caught:
            self.ask(**more)
        return caught.value.outcome

    def results(self) -> list[dict[str, Any]]:
        """The tool results that the model was last given."""
        content = self.model.asked[-1]["messages"][-1]["content"]
        return [block for block in content if block["type"] == "tool_result"]


@pytest.fixture
def make(tmp_path: Path, repo: Repo) -> Any:
    sims: list[Simulator] = []

    def make(*replies: Any, otherwise: Any = "Done.") -> World:
        model = ScriptedModel(replies, otherwise=otherwise)
        sim = Simulator(model=model).start()
        sims.append(sim)
        return World(sim, model, SessionSetup(tmp_path / "g", repo.path, dict(sim.env)))

    yield make
    for sim in sims:
        sim.stop()


def test_a_file_is_read_edited_and_written_and_every_turn_is_a_record(make: Any, repo: Repo) -> None:
    world = make(
        use("read", file_path="calc.py"),
        use("edit", file_path="calc.py", old_string="a - b", new_string="a + b"),
        use("write", file_path="new/NOTES.md", content="fixed\n"),
        "All fixed.",
    )
    assert world.ask() == "All fixed."
    assert "return a + b" in repo.read("calc.py")
    assert repo.read("new/NOTES.md") == "fixed\n"
    assert [record.key.turn for record in world.around.records] == [1, 2, 3, 4]
    assert all(isinstance(r.status, Collected) and r.cost and r.cost.usd for r in world.around.records)


def test_what_is_finished_is_never_asked_again(make: Any) -> None:
    world = make(use("glob", pattern="*.py"), "Done.")
    world.ask()
    world.around = world.around.respawned()
    assert world.ask("Something else.") == "Done."
    assert len(world.model.asked) == 2


def test_the_conversation_is_cached_and_streamed(make: Any) -> None:
    world = make("Hello.")
    world.ask()
    assert world.model.asked[0]["stream"] is True
    assert world.model.asked[0]["cache_control"] == {"type": "ephemeral"}


def test_a_long_conversation_takes_disk_in_proportion_to_its_turns(make: Any, repo: Repo) -> None:
    """Every record held the whole conversation: 55 MB after 43 turns."""
    repo.write({"long.txt": "x" * 5000 + "\n"})
    booked: list[int] = []
    world = make(*[use("read", file_path="long.txt") for _ in range(12)], "Done.")
    world.around.more["booked"] = lambda: booked.append(1)
    assert world.ask() == "Done."
    records = world.around.records
    sizes = [len(str(record.request["messages"])) for record in records]
    assert max(sizes[1:]) < 2 * min(sizes[1:])
    assert [len(r.request["messages"]) for r in records] == [1] + [2] * 12
    assert len(booked) >= 2 * 13  # each turn shows its cost when it begins and when it ends


def test_a_turn_asks_for_room_for_its_own_messages_and_for_the_tokens_before_them(make: Any) -> None:
    world = make(use("glob", pattern="*"), replace_usage(use("glob", pattern="*"), 50_000, 7_000), "Done.")
    asked: list[tuple[int, int]] = []

    @contextlib.contextmanager
    def room(request: Any, client: str, *, batch: bool, counted: int = 0) -> Iterator[Room]:
        asked.append((len(request["messages"]), counted))
        yield Room(0.25)

    world.around.more["room"] = room
    world.ask()
    first = world.around.records[0].usage
    assert asked == [(1, 0), (2, first.input_tokens), (2, 57_000)]


def replace_usage(reply: ModelReply, sent: int, read: int) -> ModelReply:
    return dataclasses.replace(reply, usage={"input_tokens": sent, "cache_read_input_tokens": read})


def test_a_conversation_of_an_earlier_version_goes_on(make: Any) -> None:
    """Its records hold the whole conversation each."""
    world = make(use("glob", pattern="*"), use("read", file_path="calc.py"), "Done.")
    world.ask()
    first, second, third = world.around.records
    whole = [*first.request["messages"], *second.request["messages"]]
    request = {**second.request, "messages": whole}
    world.around.ledger.put(
        replace(second, request=request, request_sha256=hash_request(request), messages_before=0)  # type: ignore[call-arg]
    )
    (world.around.ledger.paths.calls / third.key.filename).unlink()
    world.around = world.around.respawned()
    assert world.ask("never used") == "Done."
    assert world.model.asked[-1]["messages"] == [*whole, *third.request["messages"]]


OUTSIDE = [
    ("write", {"file_path": "/tmp/outside", "content": "x"}),
    ("write", {"file_path": "../outside", "content": "x"}),
    ("write", {"file_path": "link/outside", "content": "x"}),
    ("write", {"file_path": ".git/hooks/pre-commit", "content": "x"}),
    ("read", {"file_path": "/etc/passwd"}),
    ("edit", {"file_path": "link/file", "old_string": "secret", "new_string": "x"}),
]


@pytest.mark.parametrize(("tool", "given"), OUTSIDE)
def test_a_path_outside_the_worktree_is_refused(
    make: Any, repo: Repo, tmp_path: Path, tool: str, given: dict[str, str]
) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "file").write_text("secret")
    (repo.path / "link").symlink_to(outside)
    world = make(use(tool, **given), "I could not.")
    world.ask()
    assert world.results()[0]["is_error"]
    assert [p.name for p in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "secret"
    assert not (repo.path / ".git/hooks/pre-commit").exists()


def test_a_call_that_only_reads_has_no_tool_that_writes(make: Any) -> None:
    world = make("Plan.")
    world.ask(edits_worktree=False)
    assert {tool["name"] for tool in world.model.asked[0]["tools"]} == {"read", "glob", "grep"}


def test_commands_are_a_matter_of_setting(make: Any) -> None:
    world = make("Hm.")
    world.ask()
    assert "bash" not in {tool["name"] for tool in world.model.asked[0]["tools"]}


def test_a_command_runs_in_the_worktree_without_our_key(make: Any, repo: Repo) -> None:
    world = make(use("bash", command="ls; echo key=$ANTHROPIC_API_KEY; exit 3"), "Ran.")
    world.around.live = QUICK.model_copy(update={"bash": True})
    world.ask()
    shown = str(world.results()[0]["content"])
    assert "calc.py" in shown
    assert "exit code 3" in shown
    assert world.sim.key not in shown


def test_a_command_that_never_ends_is_ended_and_the_model_told(make: Any) -> None:
    world = make(use("bash", command="sleep 60 & sleep 60"), "Too slow.")
    world.around.live = QUICK.model_copy(update={"bash": True, "idle_timeout": 1.0})
    assert world.ask() == "Too slow."
    assert "took longer" in str(world.results()[0]["content"])


def test_structured_output_is_asked_for_as_the_api_wants_it(make: Any) -> None:
    world = make('{"edits": []}')
    schema = {"type": "json_schema", "schema": {"type": "object", "properties": {}, "additionalProperties": False}}
    assert world.ask(Prompt("Plan.", schema=schema)) == '{"edits": []}'
    assert world.model.asked[0]["output_config"]["format"] == schema


# ── crashes and stops ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_crash_after_a_reply_repeats_no_turn(make: Any, repo: Repo) -> None:
    world = make(use("glob", pattern="*"), use("read", file_path="calc.py"), "Done.")
    world.ask()
    last = world.around.records[-1]
    (world.around.ledger.paths.calls / last.key.filename).unlink()  # as if the process had died before it
    world.model.asked.clear()
    world.around = world.around.respawned()
    assert world.ask("never used") == "Done."
    (asked,) = world.model.asked
    assert [m["role"] for m in asked["messages"]] == ["user", "assistant", "user", "assistant", "user"]
    assert asked["messages"][0]["content"] == "Do it."
    assert "return a - b" in str(asked["messages"][-1])


def test_a_turn_of_a_killed_process_is_asked_again_as_it_was(make: Any) -> None:
    world = make(use("glob", pattern="*"), "Done.", "Done once more.")
    world.ask()
    last = world.around.records[-1]
    world.around.ledger.put(replace(last, status=Intent(), ended_at=None))
    world.around = world.around.respawned()
    assert world.ask() == "Done once more."
    tries = [r for r in world.around.records if r.key.turn == 2]
    assert isinstance(tries[0].status, CallFailed)
    assert tries[0].status.kind == INTERRUPTED
    assert tries[0].cost == last.cost
    assert tries[1].request == tries[0].request


def test_a_stop_in_the_middle_of_a_reply_ends_it_and_books_its_beginning(make: Any) -> None:
    world = make("word " * 2000)
    world.sim.change(stream_delay=0.05)
    interrupt = Interrupt()
    world.around.clock = InterruptibleClock(interrupt)
    world.around.stopping = interrupt.check
    world.around.more = {"interrupt_fd": interrupt.fd, "activity": lambda: timer.start() if not timer.ident else None}
    timer = threading.Timer(0.1, interrupt.trigger, ["SIGTERM"])
    with pytest.raises(Terminated):
        world.ask()
    timer.join()
    interrupt.close()
    (record,) = world.around.records
    assert isinstance(record.status, CallFailed)
    assert record.status.failure == "canceled"
    assert record.cost is not None
    assert record.cost.usd


def test_an_overloaded_api_is_asked_again(make: Any) -> None:
    world = make()
    world.sim.fault("messages", "error", status=529, times=2)
    assert world.ask() == "Done."
    assert [r.key.try_ for r in world.around.records] == [1, 2, 3]
    assert [r.cost is None for r in world.around.records] == [True, True, False], "an error is not billed"


@pytest.mark.parametrize("how", ["drop", "cut", "stall", "stream_error", "garbage"])
def test_a_reply_that_breaks_off_is_asked_again(make: Any, how: str) -> None:
    world = make(otherwise="Whole. " * 100)
    world.around.live = LiveSettings(resume_backoff=(0.0,), idle_timeout=2.0)
    world.sim.fault("messages", how, times=1)
    assert world.ask().startswith("Whole.")
    lost, whole = world.around.records
    assert (lost.cost is not None, whole.cost is not None) == (True, True), "what may be billed is counted"
    assert summarize([lost]).unknown_calls == (how in ("drop", "garbage"))


ERRORS = [(400, "task"), (401, "config"), (403, "config"), (404, "config"), (413, "task"), (529, "capacity")]


@pytest.mark.parametrize(("status", "cls"), ERRORS)
def test_an_error_has_its_class(make: Any, status: int, cls: str) -> None:
    world = make()
    world.sim.fault("messages", "error", status=status, times=0)
    outcome = world.failure()
    assert isinstance(outcome, Failed)
    assert outcome.failure == cls
    assert world.sim.key not in world.around.everything_said()


def test_a_refusal_bails_and_is_paid_for(make: Any) -> None:
    world = make()
    world.sim.fault("messages", "refusal", times=0)
    outcome = world.failure()
    assert isinstance(outcome, Bail)
    assert outcome.kind == "refused"
    assert world.around.ledger.total().total_usd > 0


def test_a_reply_that_is_cut_off_is_asked_once_more_and_larger(make: Any) -> None:
    world = make(otherwise="word " * 400)
    outcome = world.failure(max_tokens=100)
    assert isinstance(outcome, Failed)
    assert [asked["max_tokens"] for asked in world.model.asked] == [100, 200]


def test_a_paused_turn_goes_on_and_its_text_belongs_to_the_whole(make: Any) -> None:
    world = make(ModelReply("First, ", stop_reason="pause_turn"), "then.")
    assert world.ask() == "First, then."


def test_nothing_is_asked_without_leave(make: Any) -> None:
    world = make(use("glob", pattern="*"), "Done.")
    left = [1]

    def guard() -> None:
        if not left:
            raise CallUnsuccessful(Failed("credit", "over the cap"))
        left.pop()

    world.around.guard = guard
    assert world.failure() == Failed("credit", "over the cap")
    assert len(world.model.asked) == 1


def test_without_a_key_it_is_not_ready(make: Any) -> None:
    world = make()
    del world.around.env["ANTHROPIC_API_KEY"]
    with pytest.raises(NotReady):
        world.ask()
