"""`kilo:`, live: a server started and ended, a session followed to its end by its events."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gremlins.clients.base import CallUnsuccessful
from gremlins.clients.providers.kilo import KiloClient
from gremlins.clients.providers.kilo_run import KiloRun
from gremlins.config import Settings
from gremlins.errors import NotReady
from gremlins.outcome import Bail, Failed
from gremlins.processes import children as proc
from gremlins.processes.interrupt import Interrupt, InterruptibleClock, Terminated
from gremlins.records.calls import CallFailed, Intent, Reply
from tests.clients.providers.fake_kilo import BUSY, IDLE, FakeKilo, event, message, says, spent
from tests.clients.session_setup import QUICK, SECRET, SessionSetup
from tests.conftest import Repo
from tests.time_limit import wait_until

MODEL = "anthropic/claude-sonnet-5-5"


@pytest.fixture
def kilo(tmp_path: Path) -> FakeKilo:
    return FakeKilo(tmp_path / "bin")


@pytest.fixture
def around(tmp_path: Path, repo: Repo, kilo: FakeKilo) -> SessionSetup:
    env = {"GREMLINS_KILO_BIN": str(kilo.path), "KILO_API_URL": "https://kilo.example", "KILO_API_KEY": SECRET}
    return SessionSetup(tmp_path / "g", repo.path, env)


def ask(around: SessionSetup, **more: Any) -> str:
    return KiloClient(MODEL, around.session()).run("Do it.", label="implement", **more).text


def failure(around: SessionSetup) -> Failed | Bail:
    with pytest.raises(CallUnsuccessful) as caught:
        ask(around)
    return caught.value.outcome


def test_the_text_and_kilos_own_cost_are_taken_and_the_server_ended(around: SessionSetup, kilo: FakeKilo) -> None:
    assert ask(around) == "Done."
    (record,) = around.records
    assert record.cost is not None
    assert record.cost.usd == 0.25
    assert record.session_id == "ses_1"
    assert kilo.posted("prompt_async")[0]["parts"] == [{"type": "text", "text": "Do it."}]
    (start,) = kilo.notes("start")
    assert not proc.is_alive(start["pid"])


def test_the_persons_address_and_token_reach_the_child(around: SessionSetup, kilo: FakeKilo) -> None:
    around.env["ANTHROPIC_API_KEY"] = "other"
    ask(around)
    (start,) = kilo.notes("start")
    assert (start["env"]["KILO_API_URL"], start["env"]["KILO_API_KEY"]) == ("https://kilo.example", SECRET)
    assert "ANTHROPIC_API_KEY" not in start["env"]
    assert not any(SECRET in word for word in start["argv"])
    assert Path(start["cwd"]) == around.worktree


@pytest.mark.parametrize("name", ["KILO_API_URL", "KILO_API_KEY"])
def test_without_address_or_token_nothing_starts(around: SessionSetup, kilo: FakeKilo, name: str) -> None:
    del around.env[name]
    with pytest.raises(NotReady, match=name):
        KiloClient.check_ready(MODEL, "live", around.env, Settings())
    with pytest.raises(NotReady, match=name):
        ask(around)
    assert kilo.notes("start") == []


def test_the_model_is_named_as_kilo_does(around: SessionSetup, kilo: FakeKilo) -> None:
    ask(around)
    KiloClient("kilo-auto", around.session()).run("Do it.", label="plan")
    models = [body["model"] for body in kilo.posted("prompt_async")]
    assert models[0] == {"providerID": "anthropic", "modelID": "claude-sonnet-5-5"}
    assert models[1] == {"providerID": "kilo", "modelID": "kilo-auto"}


def test_a_call_that_only_reads_may_edit_nothing(around: SessionSetup, kilo: FakeKilo) -> None:
    ask(around)
    KiloClient(MODEL, around.session()).run("Do it.", label="other", edits_worktree=True)
    reads, edits = (body["permission"] for body in kilo.posted("/session"))
    allowed = {rule["permission"] for rule in reads if rule["action"] == "allow"}
    assert allowed == {"read", "glob", "grep", "list"}
    assert reads[0] == {"permission": "*", "pattern": "*", "action": "deny"}
    assert {"permission": "edit", "pattern": "*", "action": "allow"} in edits
    assert not any(rule["permission"] == "bash" for rule in edits)


ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"name": "ProviderAuthError", "data": {"message": "no"}}, "config"),
    ({"name": "APIError", "data": {"message": "no", "statusCode": 401}}, "config"),
    ({"name": "APIError", "data": {"message": "no", "statusCode": 400}}, "task"),
    ({"name": "UnknownError", "data": {"message": "Model not found: a/b."}}, "config"),
    ({"name": "Odd"}, "unknown"),
]


@pytest.mark.parametrize(("error", "cls"), ERRORS)
def test_an_error_has_its_class_and_its_cost(
    around: SessionSetup, kilo: FakeKilo, error: dict[str, Any], cls: str
) -> None:
    kilo.plan([BUSY, event("session.error", error=error), spent(0.125, 10, 10), IDLE])
    outcome = failure(around)
    assert isinstance(outcome, Failed)
    assert outcome.failure == cls
    assert around.ledger.total().total_usd == 0.125


def test_a_provider_that_is_asked_again_for_ever_is_given_up(around: SessionSetup, kilo: FakeKilo) -> None:
    around.live = QUICK.model_copy(update={"resume_backoff": ()})
    retries = [event("session.status", status={"type": "retry", "attempt": n, "message": "529"}) for n in range(1, 9)]
    kilo.plan([BUSY, *retries, {"sleep": 30}])
    outcome = failure(around)
    assert isinstance(outcome, Failed)
    assert outcome.failure == "capacity"
    assert kilo.posted("/abort")


def test_a_question_for_leave_is_answered_with_no_and_fails_the_call(around: SessionSetup, kilo: FakeKilo) -> None:
    kilo.plan([BUSY, event("permission.asked", id="per_1", permission="bash"), *says("Done.")])
    outcome = failure(around)
    assert isinstance(outcome, Failed)
    assert "bash" in outcome.reason
    assert kilo.posted("/permission/per_1/reply") == [{"reply": "reject"}]


def test_events_of_others_are_no_sign_of_life(around: SessionSetup, kilo: FakeKilo) -> None:
    around.live = QUICK.model_copy(update={"idle_timeout": 0.4, "resume_backoff": ()})
    beat = {"type": "server.heartbeat", "properties": {}}
    kilo.plan([BUSY, *([beat, {"sleep": 0.1}] * 30)])
    failure(around)
    status = around.records[0].status
    assert isinstance(status, CallFailed)
    assert status.kind == "stalled"


@pytest.mark.parametrize("plan", [[BUSY, {"die": 1}], [{"die": 1}]])
def test_a_server_that_dies_is_a_failure(around: SessionSetup, kilo: FakeKilo, plan: list[Any]) -> None:
    kilo.plan(plan)
    assert isinstance(failure(around), Failed)


def test_a_server_that_does_not_start_says_why(around: SessionSetup, kilo: FakeKilo) -> None:
    kilo.plan([], broken="error: database is locked")
    outcome = failure(around)
    assert isinstance(outcome, Failed)
    assert outcome.failure == "start"
    assert "database is locked" in outcome.reason


def test_a_try_of_a_killed_process_goes_on_in_its_session(around: SessionSetup, kilo: FakeKilo) -> None:
    ask(around)
    (record,) = around.records
    around.ledger.put(replace(record, status=Intent(), ended_at=None))
    kilo.plan([BUSY, message("Taken up."), spent(0.4, 1500, 150), IDLE])  # sums of the whole session
    after = around.respawned()
    assert ask(after) == "Taken up."
    assert len(kilo.posted("/session")) == 1
    assert after.ledger.total().total_usd == pytest.approx(0.4)


def test_a_session_that_is_gone_begins_anew(around: SessionSetup, kilo: FakeKilo) -> None:
    ask(around)
    (record,) = around.records
    around.ledger.put(replace(record, status=Intent(), ended_at=None))
    kilo.plan([], gone=True)
    after = around.respawned()
    after.live = QUICK.model_copy(update={"resume_backoff": ()})
    with pytest.raises(CallUnsuccessful):
        ask(after)
    assert len(kilo.posted("/session")) == 2


def test_a_stop_ends_session_and_server(around: SessionSetup, kilo: FakeKilo) -> None:
    kilo.plan([BUSY, {"sleep": 60}])
    interrupt = Interrupt()
    around.clock, around.stopping = InterruptibleClock(interrupt), interrupt.check
    around.more = {"interrupt_fd": interrupt.fd}

    def stop() -> None:
        wait_until(lambda: bool(kilo.posted("prompt_async")), "the prompt")
        interrupt.trigger("SIGTERM")

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(Terminated):
        ask(around)
    stopper.join(timeout=30)
    interrupt.close()
    assert not proc.is_alive(kilo.notes("start")[0]["pid"])
    assert kilo.posted("/abort")
    status = around.records[0].status
    assert isinstance(status, CallFailed)
    assert status.failure == "canceled"


def test_a_server_that_runs_already_is_used_and_left_alone(around: SessionSetup, kilo: FakeKilo) -> None:
    own = subprocess.Popen(
        [kilo.path, "serve"], env={**around.env, "KILO_SERVER_PASSWORD": "pw"}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert own.stdout is not None
        address = own.stdout.readline().split()[-1]
        around.env |= {"GREMLINS_KILO_SERVER": address, "KILO_SERVER_PASSWORD": "pw", "GREMLINS_KILO_BIN": "/none"}
        assert ask(around) == "Done."
        assert own.poll() is None
        assert len(kilo.notes("start")) == 1
    finally:
        own.kill()
        own.communicate(timeout=10)


def test_batch_is_refused(around: SessionSetup) -> None:
    with pytest.raises(NotImplementedError, match="kilo"):
        ask(around, mode="batch")


def test_a_reply_with_odd_fields_makes_a_record_that_can_be_read() -> None:
    message = {"info": {"role": "assistant", "modelID": 5, "finish": {}}, "parts": [{"type": "text", "text": "done"}]}
    reply = KiloRun("ses_1").verdict([message], str)
    assert isinstance(reply, Reply)
    assert msgspec.json.decode(msgspec.json.encode(reply), type=Reply) == reply
