"""The shared poll: any one asks for all, and its failure holds up no other."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gremlins.clients.account import find_account
from gremlins.clients.batch.api import AnthropicBatchApi
from gremlins.clients.batch.shared_poll import AccountPoll, ask
from gremlins.clients.batch.waiter import NOTHING_LEARNED, NOTHING_NEW, SOMETHING_TO_DO
from gremlins.clients.transport import ApiFailure
from gremlins.clock import FakeClock
from gremlins.simulator import Simulator

REQUEST = {"model": "claude-sonnet-5-5", "max_tokens": 10, "messages": [{"role": "user", "content": "a plan"}]}
FRESH = 10.0


class Poll:
    """An account with its simulator."""

    def __init__(self, folder: Path, simulator: Simulator, clock: FakeClock) -> None:
        self.account = AccountPoll(folder / "account")
        self.simulator = simulator
        self.clock = clock
        self.api = AnthropicBatchApi(find_account(simulator.env), timeout=5)

    def create(self, custom_id: str) -> str:
        """A batch, made without the SDK's weight. Returns its id."""
        body = json.dumps({"requests": [{"custom_id": custom_id, "params": REQUEST}]}).encode()
        headers = {"x-api-key": self.simulator.key, "anthropic-version": "2026-10-21"}
        asked = urllib.request.Request(f"{self.simulator.url}/v1/messages/batches", body, headers)
        with urllib.request.urlopen(asked, timeout=5) as reply:
            return str(json.loads(reply.read())["id"])

    def submit(self, gremlin_id: str) -> dict[str, float]:
        """A batch of this gremlin's, registered. Returns what it waits for."""
        mine = {self.create(gremlin_id): self.clock.now().timestamp()}
        self.account.register(gremlin_id, mine.items())
        return mine

    def ask(self, gremlin_id: str, mine: dict[str, float]) -> bool:
        return ask(self.account, self.api, gremlin_id, mine, FRESH, self.clock)

    @property
    def requests(self) -> dict[str, int]:
        return {k: v for k, v in self.simulator.requests.items() if k != "create"}

    def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.account.answer.read_text())
        return found


@pytest.fixture
def poll(tmp_path: Path) -> Iterator[Poll]:
    clock = FakeClock()
    with Simulator(clock=clock, latency=100.0) as simulator:
        yield Poll(tmp_path, simulator, clock)


def test_who_waits_alone_asks_for_its_own_batch_only(poll: Poll) -> None:
    assert not poll.ask("a", poll.submit("a"))
    assert poll.requests == {"retrieve": 1}


def test_one_list_answers_for_all_who_wait(poll: Poll) -> None:
    waiting = {name: poll.submit(name) for name in "abc"}
    assert not any(poll.ask(name, mine) for name, mine in waiting.items())
    assert poll.requests == {"list": 1}
    poll.clock.advance(200)
    assert all(poll.ask(name, mine) for name, mine in waiting.items())
    assert poll.requests == {"list": 2}


def test_a_batch_that_is_not_in_a_fresh_answer_is_asked_for_by_itself(poll: Poll) -> None:
    a, b = poll.submit("a"), poll.submit("b")
    poll.ask("a", a)
    c = poll.submit("c")
    assert not poll.ask("c", c)
    assert poll.requests == {"list": 1, "retrieve": 1}
    assert set(poll.answer()["batches"]) == {*a, *b, *c}


def test_asking_for_ones_own_does_not_make_what_is_known_of_others_look_newer(poll: Poll) -> None:
    a, _ = poll.submit("a"), poll.submit("b")
    poll.ask("a", a)
    at = poll.answer()["at"]
    poll.clock.advance(FRESH / 2)
    poll.ask("c", poll.submit("c"))
    assert poll.answer()["at"] == at


def test_a_list_turns_pages_until_it_has_found_all_who_wait(poll: Poll) -> None:
    a = poll.submit("a")
    for number in range(120):
        poll.create(f"other-{number}")
    b = poll.submit("b")
    assert not poll.ask("b", b)
    assert poll.requests == {"list": 2}
    assert set(poll.answer()["batches"]) == {*a, *b}


def test_a_list_reaches_no_further_back_than_the_oldest_who_waits(poll: Poll) -> None:
    for number in range(120):
        poll.create(f"old-{number}")
    poll.clock.advance(10_000)
    b, c = poll.submit("b"), poll.submit("c")
    poll.account.register("ghost", [("msgbatch_that_is_gone", poll.clock.now().timestamp())])
    assert not poll.ask("b", b)
    assert not poll.ask("c", c)
    assert poll.requests == {"list": 1}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_final_answer_is_for_the_runner_to_explain(poll: Poll, status: int) -> None:
    mine = poll.submit("a")
    poll.simulator.fault("retrieve", "error", status=status)
    assert poll.ask("a", mine)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_list_is_no_reason_to_sleep_on(poll: Poll, status: int) -> None:
    a, _ = poll.submit("a"), poll.submit("b")
    poll.simulator.fault("*", "error", status=status, times=0)
    assert poll.ask("a", a)


def test_a_list_that_fails_is_made_up_for_by_asking_for_ones_own(poll: Poll) -> None:
    a, _ = poll.submit("a"), poll.submit("b")
    poll.simulator.fault("list", "error", status=500, times=0)
    assert not poll.ask("a", a)
    poll.clock.advance(200)
    assert poll.ask("a", a)


def test_an_api_that_is_down_teaches_nothing(poll: Poll) -> None:
    mine = poll.submit("a")
    poll.simulator.stop()
    with pytest.raises(ApiFailure):
        poll.ask("a", mine)


def test_whoever_hangs_with_the_lock_holds_nobody_up(poll: Poll) -> None:
    mine = poll.submit("a")
    poll.submit("b")
    held = os.open(poll.account.lock, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        assert not poll.ask("a", mine)
        poll.clock.advance(200)
        assert poll.ask("a", mine)
    finally:
        os.close(held)
    assert poll.requests == {"retrieve": 2}


def test_the_apis_wish_to_be_left_alone_is_heard_by_all(poll: Poll) -> None:
    a, b = poll.submit("a"), poll.submit("b")
    poll.simulator.fault("list", "error", status=429, retry_after=120)
    for name, mine in (("a", a), ("b", b)):
        with pytest.raises(ApiFailure):
            poll.ask(name, mine)
    assert poll.requests == {"list": 1}
    poll.clock.advance(121)
    assert poll.ask("b", b)


def test_a_wish_beyond_all_reason_is_heard_for_an_hour(poll: Poll) -> None:
    mine = poll.submit("a")
    poll.simulator.fault("retrieve", "error", status=429, retry_after=10**9)
    with pytest.raises(ApiFailure):
        poll.ask("a", mine)
    poll.clock.advance(3601)
    assert poll.ask("a", mine)


@pytest.mark.parametrize("rubbish", [b"", b"[]", b"{}", b'{"at": "x", "batches": {}}', b"\xff", b"[" * 100_000])
def test_rubbish_left_behind_stops_nobody(poll: Poll, rubbish: bytes) -> None:
    mine = poll.submit("a")
    poll.submit("b")
    for path in (poll.account.answer, poll.account.pause_file, poll.account.waiting / "c", poll.account.waiting / ".t"):
        path.write_bytes(rubbish)
    assert not poll.ask("a", mine)
    poll.clock.advance(200)
    assert poll.ask("a", mine)


def test_a_clock_set_back_makes_no_old_answer_fresh(poll: Poll) -> None:
    a, b = poll.submit("a"), poll.submit("b")
    poll.ask("a", a)
    poll.clock.advance(200)
    poll.clock.jump(-3600)
    poll.simulator.advance(3600)
    assert poll.ask("b", b)


def test_registrations_of_the_dead_are_forgotten(poll: Poll) -> None:
    poll.submit("dead")
    poll.clock.advance(27 * 3600)
    poll.ask("b", poll.submit("b"))
    assert not (poll.account.waiting / "dead").exists()


def test_who_has_left_is_not_looked_for(poll: Poll) -> None:
    a, _ = poll.submit("a"), poll.submit("b")
    poll.account.leave("b")
    poll.ask("a", a)
    assert poll.requests == {"retrieve": 1}


def test_files_of_the_shared_poll_are_for_their_owner_only(poll: Poll) -> None:
    a, _ = poll.submit("a"), poll.submit("b")
    poll.ask("a", a)
    for path in (poll.account.folder, *poll.account.folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


# ── the child ───────────────────────────────────────────────────────────────────────────────────────────────────────


def child(poll: Poll, mine: dict[str, float], **env: str) -> int:
    """The short-lived process that asks. Returns its exit code."""
    plan = {
        "until": 0,
        "calls": [{"batch_id": batch_id, "submitted_at": at} for batch_id, at in mine.items()],
        "answer": str(poll.account.answer),
        "http_timeout": 5,
        "poll_initial": 20,
    }
    poll.account.answer.unlink(missing_ok=True)
    path = poll.account.folder.parent / "wait.json"
    path.write_text(json.dumps(plan))
    words = [sys.executable, "-P", "-m", "gremlins.clients.batch.shared_poll", str(path), "a"]
    known = {**os.environ, **poll.simulator.env, **env}
    done = subprocess.run(words, env=known, timeout=60, check=False, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode


def test_the_child_says_by_its_exit_code_what_is_to_be_done(poll: Poll) -> None:
    mine = poll.submit("a")
    assert child(poll, mine) == NOTHING_NEW
    assert child(poll, mine, ANTHROPIC_API_KEY="") == SOMETHING_TO_DO
    poll.simulator.fault("retrieve", "drop", times=0)
    assert child(poll, mine) == NOTHING_LEARNED
    poll.simulator.faults.clear()
    poll.clock.advance(200)
    assert child(poll, mine) == SOMETHING_TO_DO


def test_the_child_imports_neither_the_sdk_nor_pydantic() -> None:
    heavy = {"anthropic", "pydantic", "httpx2"}
    look = f"import sys, gremlins.clients.batch.shared_poll; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
