"""`claude:` live: the binary's process, well-behaved and not, and what its record says afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gremlins.clients.base import CallUnsuccessful, Prompt, Room
from gremlins.clients.batch.engine import prompt_of
from gremlins.clients.claude import ClaudeClient
from gremlins.clients.live.claude_code import check_live, find_claude
from gremlins.clients.live.process import bound_to_us
from gremlins.clock import FakeClock, SystemClock
from gremlins.config import LiveSettings, Settings
from gremlins.errors import NotReady
from gremlins.outcome import Bail, Failed, SpendingCap
from gremlins.processes import children as proc
from gremlins.processes.interrupt import Interrupt, InterruptibleClock, Terminated
from gremlins.records.calls import CallFailed, Collected, Intent
from tests.clients.providers.fake_claude import FakeClaude, Step, answers, assistant, init, result
from tests.clients.session_setup import QUICK, SECRET, SessionSetup
from tests.conftest import Repo
from tests.time_limit import DEADLINE, wait_until

MODEL = "claude-sonnet-5-5"


@pytest.fixture
def claude(tmp_path: Path) -> FakeClaude:
    return FakeClaude(tmp_path / "bin")


@pytest.fixture
def around(tmp_path: Path, repo: Repo, claude: FakeClaude) -> SessionSetup:
    env = {"GREMLINS_CLAUDE_BIN": str(claude.path), "ANTHROPIC_API_KEY": SECRET}
    return SessionSetup(tmp_path / "g", repo.path, env)


def ask(around: SessionSetup, prompt: Prompt | str = "Do it.", *, label: str = "implement", **more: Any) -> str:
    client = ClaudeClient(MODEL, around.session())
    return client.run(prompt, label=label, **{"edits_worktree": True, **more}).text


def failure(around: SessionSetup, **more: Any) -> Failed | Bail:
    with pytest.raises(CallUnsuccessful) as caught:
        ask(around, **more)
    return caught.value.outcome


def failed_status(around: SessionSetup) -> CallFailed:
    status = around.records[-1].status
    assert isinstance(status, CallFailed)
    return status


# ── what is asked, and how ────────────────────────────────────────────────────────────────────────────────────────


def test_the_reply_and_all_that_is_known_of_it_are_on_record(around: SessionSetup, claude: FakeClaude) -> None:
    claude.plan(answers("All done.", num_turns=3))
    assert ask(around) == "All done."
    (record,) = around.records
    assert isinstance(record.status, Collected)
    assert (record.status.reply.turns, record.mode, record.client) == (3, "live", f"claude:{MODEL}")
    assert record.cost is not None
    assert record.cost.usd == 0.25
    assert record.usage is not None
    assert (record.usage.input_tokens, record.usage.output_tokens) == (1000, 100)
    assert record.session_id is not None
    assert record.session_id in claude.starts[0]["argv"]


@pytest.mark.parametrize("knows_it", [True, False])
def test_half_of_what_a_cap_leaves_is_the_agents_own_limit_and_is_reserved(
    around: SessionSetup, claude: FakeClaude, knows_it: bool
) -> None:
    around.more["room"] = lambda *_, **__: contextlib.nullcontext(Room(0.25, 1.5))
    if not knows_it:
        (claude.folder / "help").write_text("an older version")
    ask(around)
    argv = claude.starts[0]["argv"]
    assert ("--max-budget-usd" in argv) == knows_it
    assert not knows_it or argv[argv.index("--max-budget-usd") + 1] == "0.7500"
    assert around.records[0].reserved_usd == (0.75 if knows_it else 0.25)


@pytest.mark.parametrize(("left", "limit"), [(0.3, "0.2500"), (None, None)])
def test_a_limit_allows_one_message_at_least_and_there_is_none_without_caps(
    around: SessionSetup, claude: FakeClaude, left: float | None, limit: str | None
) -> None:
    around.more["room"] = lambda *_, **__: contextlib.nullcontext(Room(0.25, left))
    ask(around)
    argv = claude.starts[0]["argv"]
    assert (argv[argv.index("--max-budget-usd") + 1] if "--max-budget-usd" in argv else None) == limit
    assert around.records[0].reserved_usd == 0.25


def test_an_agent_at_its_limit_goes_on_in_its_session_if_the_caps_allow_it(
    around: SessionSetup, claude: FakeClaude
) -> None:
    capped = Failed("credit", "spend.per_attempt is $1.5", cap=SpendingCap("spend.per_attempt", 1.5))
    rooms: list[Room | Failed] = [Room(0.25, 1.5), capped]

    @contextlib.contextmanager
    def room(*_: object, **__: object) -> Iterator[Room]:
        found = rooms.pop(0)
        if isinstance(found, Failed):
            raise CallUnsuccessful(found)
        yield found

    around.more["room"] = room
    claude.plan([init(), result("", is_error=True, subtype="error_max_budget_usd")], answers())
    assert failure(around) == capped
    assert around.ledger.total().total_usd == 0.25
    rooms.append(Room(0.25, 3.0))  # the cap was raised
    assert ask(around.respawned()) == "Done."
    assert [("--resume" in start["argv"]) for start in claude.starts] == [False, True]


def test_what_is_finished_is_never_asked_again(around: SessionSetup, claude: FakeClaude) -> None:
    ask(around)
    assert ask(around.respawned(), "Something else.") == "Done."
    assert len(claude.starts) == 1


def test_the_prompt_comes_on_stdin_whole_however_long(around: SessionSetup, claude: FakeClaude) -> None:
    prompt = "ä" * 1_000_000  # 2 MB
    ask(around, prompt)
    assert claude.starts[0]["stdin"] == prompt
    assert not any("äää" in word for word in claude.starts[0]["argv"])


def test_an_agent_that_never_reads_its_prompt_blocks_nobody(around: SessionSetup, claude: FakeClaude) -> None:
    claude.plan([("deaf", None), *answers()])
    assert ask(around, "x" * 2_000_000) == "Done."


def test_the_agent_gets_its_own_key_and_nobody_elses(around: SessionSetup, claude: FakeClaude) -> None:
    around.env |= {"OPENAI_API_KEY": "other", "GREMLINS_HOME": "/x", "GH_TOKEN": "other", "HTTPS_PROXY": "http://p"}
    ask(around)
    env = claude.starts[0]["env"]
    assert env["ANTHROPIC_API_KEY"] == SECRET
    assert env["HTTPS_PROXY"] == "http://p"
    assert not {"OPENAI_API_KEY", "GREMLINS_HOME", "GH_TOKEN", "GREMLINS_CLAUDE_BIN"} & env.keys()


def test_a_secret_in_an_agents_output_is_written_nowhere(around: SessionSetup, claude: FakeClaude) -> None:
    claude.plan([init(), result(f"bad key {SECRET}", is_error=True, api_error_status=401)])
    outcome = failure(around)
    assert "***" in outcome.reason if isinstance(outcome, Failed) else False
    assert SECRET not in around.everything_said()
    raw = [path.read_text() for path in around.root.rglob("*.raw.jsonl")]
    assert any("bad key ***" in text for text in raw)
    assert not any(SECRET in text for text in raw)
    assert not any(SECRET in word for word in claude.starts[0]["argv"])


def test_a_call_that_edits_gets_editing_tools_and_no_others(around: SessionSetup, claude: FakeClaude) -> None:
    ask(around)
    argv = claude.starts[0]["argv"]
    tools = argv[argv.index("--tools") + 1].split(",")
    assert {"Edit", "Write"} <= set(tools)
    assert "Bash" not in tools
    assert argv[argv.index("--permission-mode") + 1] == "acceptEdits"


def test_a_call_that_only_reads_gets_no_tool_that_could_edit(around: SessionSetup, claude: FakeClaude) -> None:
    around.live = replace_live(QUICK, allowed_tools=("Bash(pytest:*)",), permission_mode="bypassPermissions")
    ask(around, edits_worktree=False)
    argv = claude.starts[0]["argv"]
    assert set(argv[argv.index("--tools") + 1].split(",")) == {"Read", "Glob", "Grep"}
    assert "bypassPermissions" not in argv
    assert "--allowedTools" not in argv


def test_tools_that_a_person_allows_are_offered_and_need_no_asking(around: SessionSetup, claude: FakeClaude) -> None:
    around.live = replace_live(QUICK, allowed_tools=("Bash(pytest:*)",))
    ask(around)
    argv = claude.starts[0]["argv"]
    assert "Bash" in argv[argv.index("--tools") + 1].split(",")
    assert argv[argv.index("--allowedTools") + 1] == "Bash(pytest:*)"


def test_the_repositorys_own_agent_settings_count_for_nothing(around: SessionSetup, claude: FakeClaude) -> None:
    ask(around)
    argv = claude.starts[0]["argv"]
    assert argv[argv.index("--setting-sources") + 1] == "user"
    assert "--strict-mcp-config" in argv


def test_the_projects_instructions_are_passed_on(around: SessionSetup, claude: FakeClaude, repo: Repo) -> None:
    repo.write({"CLAUDE.md": "Use tabs."})
    ask(around)
    argv = claude.starts[0]["argv"]
    assert "Use tabs." in argv[argv.index("--append-system-prompt") + 1]


def test_what_we_add_to_the_system_prompt_is_no_part_of_the_prompt(around: SessionSetup, claude: FakeClaude) -> None:
    ask(around, Prompt("Do it.", system="Be brief."))
    assert prompt_of(around.records[0].request) == Prompt("Do it.", system="Be brief.")
    argv = claude.starts[0]["argv"]
    given = argv[argv.index("--append-system-prompt") + 1]
    assert given.startswith("Be brief.")
    assert "unattended" in given


def test_a_system_prompt_too_long_for_an_argument_comes_on_stdin(around: SessionSetup, claude: FakeClaude) -> None:
    ask(around, Prompt("Do it.", system="brief " * 30_000))
    assert claude.starts[0]["stdin"].startswith("brief brief")
    assert claude.starts[0]["stdin"].endswith("Do it.")


def test_structured_output_is_the_replys_text(around: SessionSetup, claude: FakeClaude) -> None:
    claude.plan([init(), result("ignored", structured_output={"edits": []})])
    schema = {"type": "json_schema", "schema": {"type": "object"}}
    assert ask(around, Prompt("Plan it.", schema=schema)) == '{"edits": []}'
    argv = claude.starts[0]["argv"]
    assert argv[argv.index("--json-schema") + 1] == '{"type": "object"}'


def replace_live(live: LiveSettings, **changes: Any) -> LiveSettings:
    return live.model_copy(update=changes)


# ── how it can end badly ──────────────────────────────────────────────────────────────────────────────────────────

BAD_OUTPUT: list[tuple[str, list[Step], str, str]] = [
    ("rubbish", ["Segmentation fault?", "{not json"], "no_result", "unknown"),
    ("nothing", [], "no_result", "unknown"),
    ("half a line", [init(), ("raw", '{"type": "result", "subtype": "succ')], "no_result", "unknown"),
    ("no result", [init(), assistant()], "no_result", "unknown"),
    ("killed", [init(), assistant(), ("crash", None)], "no_result", "unknown"),
    ("a JSON list", ["[1, 2]", '"text"', "null", "17"], "no_result", "unknown"),
    ("deep nesting", ["[" * 200_000], "no_result", "unknown"),
    ("100 MB", [init(), ("big", 100)], "no_result", "unknown"),
    ("not started", [("stderr", "error: unknown option"), ("exit", 1)], "not_started", "start"),
]


@pytest.mark.parametrize(("steps", "kind", "cls"), [case[1:] for case in BAD_OUTPUT], ids=[c[0] for c in BAD_OUTPUT])
def test_bad_output_is_a_failure_with_its_class(
    around: SessionSetup, claude: FakeClaude, steps: list[Step], kind: str, cls: str
) -> None:
    claude.plan(steps)
    outcome = failure(around)
    assert isinstance(outcome, Failed)
    assert outcome.failure == cls
    assert failed_status(around).kind == kind
    assert len(claude.starts) == 1
    assert not proc.is_alive(claude.starts[0]["pid"])


def test_a_line_without_end_leaves_the_rest_readable(around: SessionSetup, claude: FakeClaude) -> None:
    claude.plan([init(), ("big", 20), result("Still here.")])
    assert ask(around) == "Still here."


def test_a_result_without_a_last_newline_counts(around: SessionSetup, claude: FakeClaude) -> None:
    claude.plan([init(), ("raw", '{"type": "result", "is_error": false, "result": "ok", "num_turns": 1}')])
    assert ask(around) == "ok"


ERRORS: list[tuple[str, list[Step], str]] = [
    ("400", [result("API Error: 400 bad", is_error=True, api_error_status=400)], "task"),
    ("401", [result("API Error: 401", is_error=True, api_error_status=401)], "config"),
    ("403", [result("API Error: 403", is_error=True, api_error_status=403)], "config"),
    ("model", [assistant(error="model_not_found"), result("?", is_error=True, api_error_status=404)], "config"),
    ("credit", [assistant(error="billing_error"), result("?", is_error=True, api_error_status=400)], "credit"),
    ("credit, old", [result("Credit balance is too low", is_error=True)], "credit"),
    ("login", [result("Not logged in · Please run /login", is_error=True)], "config"),
    ("too long", [assistant(error="invalid_request"), result("Prompt is too long", is_error=True)], "task"),
    ("turns", [result(None, is_error=True, subtype="error_max_turns")], "task"),
    ("execution", [result(None, is_error=False, subtype="error_during_execution", errors=["boom"])], "unknown"),
    ("in words", [result("API Error: 413 {}", is_error=True)], "task"),
    ("denied", [result("Done.", permission_denials=[{"tool_name": "Bash", "tool_input": {}}])], "task"),
    ("cut off", [result("Half of", stop_reason="max_tokens")], "task"),
]


@pytest.mark.parametrize(("steps", "cls"), [case[1:] for case in ERRORS], ids=[case[0] for case in ERRORS])
def test_an_error_has_its_class_and_its_cost_although_it_may_say_success(
    around: SessionSetup, claude: FakeClaude, steps: list[Step], cls: str
) -> None:
    claude.plan([init(), *steps])
    outcome = failure(around)
    assert isinstance(outcome, Failed)
    assert outcome.failure == cls
    assert around.ledger.total().total_usd == 0.25
    assert len(claude.starts) == 1


def test_a_denied_tool_is_named(around: SessionSetup, claude: FakeClaude) -> None:
    claude.plan([init(), result(permission_denials=[{"tool_name": "Bash", "tool_input": {"command": "rm"}}])])
    assert "Bash" in str(failure(around))


def test_a_refusal_bails(around: SessionSetup, claude: FakeClaude) -> None:
    claude.plan([init(), result("Unable to respond.", is_error=True, stop_reason="refusal")])
    outcome = failure(around)
    assert isinstance(outcome, Bail)
    assert outcome.kind == "refused"


def test_a_failure_of_this_spawn_is_raised_again_without_asking(around: SessionSetup, claude: FakeClaude) -> None:
    claude.plan([init(), result("no", is_error=True)])
    first = failure(around)
    assert failure(around) == first
    assert len(claude.starts) == 1


def test_a_failure_that_keeps_the_attempt_is_asked_again_by_the_next_spawn(
    around: SessionSetup, claude: FakeClaude
) -> None:
    claude.plan([("stderr", "cannot open shared object"), ("exit", 127)], answers())
    failure(around)
    assert ask(around.respawned()) == "Done."
    assert [record.key.try_ for record in around.records] == [1, 2]


def test_a_program_that_cannot_be_run_is_a_start_failure(around: SessionSetup, claude: FakeClaude) -> None:
    claude.path.write_text("#!/no/such/interpreter\n")
    outcome = failure(around)
    assert isinstance(outcome, Failed)
    assert outcome.failure == "start"


def test_an_agent_that_never_comes_to_an_end_is_ended(around: SessionSetup, claude: FakeClaude) -> None:
    claude.plan([init(), *(assistant(id=f"m{n}") for n in range(201)), ("sleep", 60)])
    outcome = failure(around)
    assert isinstance(outcome, Failed)
    assert (outcome.failure, "200 turns" in outcome.reason) == ("task", True)
    assert around.ledger.total().total_usd == pytest.approx(201 * 0.0045)
    assert not proc.is_alive(claude.starts[0]["pid"])


def test_a_full_disk_is_the_hosts_fault_and_leaves_no_agent(around: SessionSetup, claude: FakeClaude) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    claude.plan([init(), assistant(), ("sleep", 60)])
    around.more = {"price": full}
    with pytest.raises(OSError, match="No space"):
        ask(around)
    assert not proc.is_alive(claude.starts[0]["pid"])


# ── what it has cost ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_tokens_of_one_message_count_once_and_as_last_reported(around: SessionSetup, claude: FakeClaude) -> None:
    begun = {"input_tokens": 1000, "output_tokens": 1}
    start = {"type": "message_start", "message": {"id": "m", "model": MODEL, "usage": begun}}
    end = {"type": "message_delta", "usage": {"output_tokens": 500}}
    claude.plan(
        [
            init(),
            ("say", {"type": "stream_event", "event": start}),
            assistant("One.", id="m", usage=begun),
            assistant("Two.", id="m", usage=begun),
            ("say", {"type": "stream_event", "event": end}),
            ("crash", None),
        ]
    )
    failure(around)
    usage = around.records[0].usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (1000, 500)
    assert around.ledger.total().total_usd == pytest.approx(1000 * 3e-6 + 500 * 15e-6)


def test_an_unknown_model_is_unpriced_and_never_free(around: SessionSetup, claude: FakeClaude) -> None:
    message = {"id": "m", "model": "no-such", "content": [], "usage": {"input_tokens": 5, "output_tokens": 5}}
    claude.plan([init(), ("say", {"type": "assistant", "message": message}), result(total_cost_usd=None)])
    ask(around)
    assert around.ledger.total().unpriced_calls == 1


TOKENS = 1000 * 3e-6 + 100 * 15e-6  # USD of the one message of each run


@pytest.mark.parametrize(
    ("told", "billed"),
    [
        ([0.007, 0.014, 0.021, 0.028], 0.028),  # the sum of the session
        ([0.007, 0.0071, 0.0069, 0.007], 0.028),  # each run alone
        ([None, 0.007, 0.014, 0.021], TOKENS + 0.021),  # the sum, without a run that was killed
        ([None, 0.007, 0.0071, 0.0069], TOKENS + 0.021),
    ],
    ids=["sum", "alone", "sum without a killed run", "alone after a killed run"],
)
def test_runs_of_one_session_cost_what_they_cost_together(
    around: SessionSetup, claude: FakeClaude, told: list[float | None], billed: float
) -> None:
    busy = {"is_error": True, "api_error_status": 529}

    def end(usd: float | None, last: bool) -> Step:
        if usd is None:
            return ("crash", None)
        return result(total_cost_usd=usd) if last else result("busy", total_cost_usd=usd, **busy)

    runs = [[init(), assistant(), end(usd, n == len(told) - 1)] for n, usd in enumerate(told)]
    claude.plan(*runs)
    if told[0] is None:
        failure(around)
        around.ledger.put(replace(around.records[0], status=Intent(), ended_at=None))
    around = around.respawned()
    ask(around)
    assert ["--resume" in start["argv"] for start in claude.starts] == [False, True, True, True]
    assert around.ledger.total().total_usd == pytest.approx(billed)


def test_the_cost_is_on_record_while_the_agent_is_at_work(around: SessionSetup, claude: FakeClaude) -> None:
    claude.plan([init(), assistant(), ("sleep", 0.5), result()])
    seen: list[bool] = []

    def look() -> None:
        if len(claude.starts) == 1 and not seen and around.records[0].cost is not None:
            seen.append(isinstance(around.records[0].status, Intent))

    around.stopping = look
    ask(around)
    assert seen == [True]


# ── stalls, and what time heals ───────────────────────────────────────────────────────────────────────────────────


def test_a_silent_agent_is_ended_and_its_session_resumed(around: SessionSetup, claude: FakeClaude) -> None:
    around.live = replace_live(QUICK, idle_timeout=2.0)
    claude.plan([init(), assistant(id="a"), ("sleep", 30)], answers("Finished.", total_cost_usd=0.5))
    assert ask(around) == "Finished."
    first, second = claude.starts
    session = first["argv"][first["argv"].index("--session-id") + 1]
    assert second["argv"][second["argv"].index("--resume") + 1] == session
    assert "Do it." not in second["stdin"]
    assert around.ledger.total().total_usd == pytest.approx(0.5 + 1000 * 3e-6 + 100 * 15e-6)
    assert not proc.is_alive(first["pid"])


def test_rubbish_without_end_is_no_sign_of_life(around: SessionSetup, claude: FakeClaude) -> None:
    around.live = replace_live(QUICK, idle_timeout=0.4, resume_backoff=())
    claude.plan([init(), ("forever", None)])
    failure(around)
    assert failed_status(around).kind == "stalled"


def test_an_agent_that_stalls_for_ever_is_resumed_three_times_and_no_more(
    around: SessionSetup, claude: FakeClaude
) -> None:
    around.live = replace_live(QUICK, idle_timeout=1.0)
    claude.plan([init(), ("sleep", 30)])
    outcome = failure(around)
    assert isinstance(outcome, Failed)
    assert outcome.failure == "task"
    assert len(claude.starts) == 4


def test_an_overloaded_api_is_asked_again_after_the_settings_waits(around: SessionSetup, claude: FakeClaude) -> None:
    clock = FakeClock()
    around.clock, around.live = clock, LiveSettings()
    claude.plan([init(), assistant(error="overloaded"), result("529", is_error=True, api_error_status=529)])
    outcome = failure(around)
    assert isinstance(outcome, Failed)
    assert outcome.failure == "capacity"
    assert clock.ticks == 60 + 300 + 600
    assert len(claude.starts) == 4


def test_a_used_up_limit_says_when_to_come_back(around: SessionSetup, claude: FakeClaude) -> None:
    around.clock = FakeClock()
    limit = {"status": "rejected", "resetsAt": 1_795_300_000, "rateLimitType": "five_hour"}
    claude.plan([init(), ("say", {"type": "rate_limit_event", "rate_limit_info": limit}), result("?", is_error=True)])
    outcome = failure(around)
    assert isinstance(outcome, Failed)
    assert (outcome.failure, outcome.retry_at) == ("capacity", datetime(2026, 11, 21, 22, 26, 40, tzinfo=UTC))
    assert len(claude.starts) == 1


def test_a_limit_that_ends_soon_is_waited_for(around: SessionSetup, claude: FakeClaude) -> None:
    around.clock = clock = FakeClock()
    soon = int(clock.now().timestamp()) + 600
    claude.plan([result(f"Claude AI usage limit reached|{soon}", is_error=True)], answers())
    assert ask(around) == "Done."
    assert clock.ticks == 600


def test_nothing_is_asked_without_leave(around: SessionSetup, claude: FakeClaude) -> None:
    def no_money() -> None:
        raise CallUnsuccessful(Failed("credit", "over the cap"))

    around.guard = no_money
    assert failure(around) == Failed("credit", "over the cap")
    assert claude.starts == []
    assert around.records == []


# ── stops and crashes ─────────────────────────────────────────────────────────────────────────────────────────────


def stopped_at_work(around: SessionSetup, claude: FakeClaude) -> float:
    """Ask, send the stop once the agent has said something, and return how long the end took."""
    interrupt = Interrupt()
    around.clock = InterruptibleClock(interrupt)
    around.stopping = interrupt.check
    around.more = {"interrupt_fd": interrupt.fd}
    told = threading.Event()
    at = [0.0]

    def tell() -> None:
        for _ in range(400):
            if around.records and around.records[-1].cost is not None:
                break
            told.wait(0.05)
        at[0] = time.monotonic()
        interrupt.trigger("SIGTERM")

    teller = threading.Thread(target=tell)
    teller.start()
    try:
        with pytest.raises(Terminated):
            ask(around)
    finally:
        teller.join(timeout=30)
    ended = time.monotonic()
    interrupt.close()
    around.clock, around.stopping, around.more = SystemClock(), lambda: None, {}
    return ended - at[0]


def test_a_stop_ends_the_agent_books_it_and_the_next_spawn_takes_it_up(
    around: SessionSetup, claude: FakeClaude
) -> None:
    claude.plan([init(), assistant(), ("sleep", 60)], answers("After all."))
    assert stopped_at_work(around, claude) < 5
    assert not proc.is_alive(claude.starts[0]["pid"])
    assert failed_status(around).failure == "canceled"
    assert around.ledger.total().live_usd == pytest.approx(0.0045)
    assert ask(around.respawned()) == "After all."
    assert "--resume" in claude.starts[1]["argv"]


def test_an_agent_that_ignores_sigterm_is_killed(around: SessionSetup, claude: FakeClaude) -> None:
    claude.plan([("ignore_term", None), init(), assistant(), ("sleep", 60)])
    stopped_at_work(around, claude)
    assert not proc.is_alive(claude.starts[0]["pid"])


@pytest.mark.skipif(not proc.PROC.is_dir(), reason="only /proc tells whose a process is that left its group")
@pytest.mark.parametrize("holds_the_pipe", [False, True])
def test_what_an_agent_left_behind_is_ended_too(around: SessionSetup, claude: FakeClaude, holds_the_pipe: bool) -> None:
    claude.plan([("child", holds_the_pipe), *answers()])
    assert ask(around) == "Done."
    assert not proc.is_alive(claude.child)


def test_a_try_of_a_killed_process_is_taken_up_by_its_session(around: SessionSetup, claude: FakeClaude) -> None:
    claude.plan(answers("Taken up."))
    ask(around)
    (record,) = around.records
    around.ledger.put(replace(record, status=Intent(), ended_at=None))
    after = around.respawned()
    assert ask(after, "never used") == "Taken up."
    argv = claude.starts[1]["argv"]
    assert argv[argv.index("--resume") + 1] == record.session_id
    assert after.ledger.total().total_usd == 0.5  # what the killed one had cost stays booked
    assert after.records[1].request == record.request


LOST = "No conversation found with session ID: x"
LOST_RESULT = {"type": "result", "subtype": "error_during_execution", "is_error": True, "errors": [LOST]}


@pytest.mark.parametrize("said", [[], [("say", {**LOST_RESULT, "total_cost_usd": 0, "num_turns": 0})]])
def test_a_session_that_is_gone_begins_anew_with_the_whole_prompt(
    around: SessionSetup, claude: FakeClaude, said: list[Step]
) -> None:
    claude.plan([init(), ("exit", 3)], [("stderr", LOST), *said, ("exit", 1)], answers())
    failure(around)
    assert ask(around.respawned()) == "Done."
    assert claude.starts[2]["stdin"] == "Do it."
    assert "--session-id" in claude.starts[2]["argv"]


def test_a_correction_goes_to_the_session_of_the_reply_it_corrects(around: SessionSetup, claude: FakeClaude) -> None:
    ask(around)
    corrected = Prompt("Do it.", followups=(("Done.", "Not quite."),))
    ask(around, corrected, revision=1)
    assert claude.starts[1]["stdin"] == "Not quite."
    assert claude.starts[1]["argv"].count("--resume") == 1


ENDS: list[Any] = [
    signal.SIGTERM,
    pytest.param(
        signal.SIGKILL,
        marks=pytest.mark.skipif(bound_to_us(["x"]) == ["x"], reason="needs setpriv: apt install util-linux"),
    ),
]


RUNNER = """
import signal, sys
from pathlib import Path
from gremlins.clients.claude import ClaudeClient
from gremlins.processes.interrupt import Terminated
from tests.clients.session_setup import SessionSetup

def end(*_):
    raise Terminated("SIGTERM")

signal.signal(signal.SIGTERM, end)
folder, worktree, binary = sys.argv[1:]
around = SessionSetup(Path(folder), Path(worktree), {"GREMLINS_CLAUDE_BIN": binary, "ANTHROPIC_API_KEY": "k"})
ClaudeClient("claude-sonnet-5-5", around.session()).run("Do it.", label="implement")
"""


@pytest.mark.parametrize("how", ENDS)
def test_the_end_of_the_runner_alone_is_the_end_of_its_agent(
    around: SessionSetup, claude: FakeClaude, how: signal.Signals
) -> None:
    claude.plan([init(), ("sleep", 60)])
    argv = [sys.executable, "-c", RUNNER, around.root, around.worktree, claude.path]
    runner = subprocess.Popen(argv, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[3])
    wait_until(lambda: bool(claude.starts), "the agent")
    runner.send_signal(how)
    runner.wait(timeout=DEADLINE)
    wait_until(lambda: not proc.is_alive(claude.starts[0]["pid"]), "the end of the agent")


# ── where the binary is ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_binary_is_the_named_one_or_the_one_on_path(claude: FakeClaude) -> None:
    assert find_claude({"GREMLINS_CLAUDE_BIN": str(claude.path), "PATH": ""}) == claude.path
    assert find_claude({"PATH": str(claude.folder)}) == claude.path


def test_a_missing_binary_is_said_before_anything_starts(around: SessionSetup) -> None:
    around.env["GREMLINS_CLAUDE_BIN"] = "/no/such/claude"
    with pytest.raises(NotReady, match="/no/such/claude"):
        ask(around)
    assert around.records[:1] == [] or not isinstance(around.records[0].status, Collected)


def test_without_key_and_login_it_is_not_ready(claude: FakeClaude, around: SessionSetup) -> None:
    del around.env["ANTHROPIC_API_KEY"]
    with pytest.raises(NotReady, match="not logged in"):
        check_live(around.env, Settings())
    (claude.folder / "auth.json").write_text('{"loggedIn": true}')
    check_live(around.env, Settings())


def test_bypassing_permissions_as_root_is_refused_before_anything_starts(around: SessionSetup) -> None:
    settings = Settings(live=LiveSettings(permission_mode="bypassPermissions"))
    if os.geteuid() == 0:
        with pytest.raises(NotReady, match="root"):
            check_live(around.env, settings)
    check_live({**around.env, "IS_SANDBOX": "1"}, settings)
