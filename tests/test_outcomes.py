"""Every answer of the API, and the lack of one, ends in a state that a person understands from `status` and `show`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gremlins.cli.show import show
from gremlins.clock import SystemClock
from gremlins.fleet.status import as_json, look
from gremlins.paths import Home
from gremlins.records.gremlin import Finished
from gremlins.simulator import ModelReply, ScriptedModel, Simulator
from tests.conftest import Repo
from tests.in_process import InProcessSandbox

ASK = "evidence: none\nstages: [{type: agent, name: summary, prompt: .gremlins/prompts/summary.md, mode: batch}]\n"
ALWAYS = {"times": 0}
SAID = "these are its words"


def errored(kind: str, code: str | None = None, message: str = SAID) -> dict[str, Any]:
    details = {"error_code": code} if code else None
    return {"on": "outcome", "do": "errored", "error": kind, "message": message, "details": details, **ALWAYS}


def refused(on: str, status: int, kind: str = "", **more: Any) -> dict[str, Any]:
    return {"on": on, "do": "error", "status": status, "error": kind or None, "message": SAID, **ALWAYS, **more}


@dataclass(frozen=True)
class Case:
    """A fault, and its report: the state, the class of the failure, and words of the reason."""

    faults: tuple[dict[str, Any], ...]
    state: str
    failure: str | None
    words: str
    options: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


def dead(failure: str, words: str, *faults: dict[str, Any], **options: Any) -> Case:
    return Case(faults, "dead", failure, words, options)


def undecided(words: str, *faults: dict[str, Any]) -> Case:
    """It may have been billed, so a person decides."""
    return Case(faults, "bailed", None, words)


CREDIT = "Your credit balance is too low to access the Anthropic API."
LOST = {"on": "create", "do": "drop", "when": "after"}
HOURLY = {"GREMLINS_BATCH__RETRY_INITIAL": "3600", "GREMLINS_BATCH__RETRY_MAX": "3600"}
PAUSES = ScriptedModel(otherwise=ModelReply("and so on", stop_reason="pause_turn"))

CASES = {
    **{
        f"{kind}, three times": dead("capacity", SAID, errored(f"{kind}_error"))
        for kind in ("overloaded", "api", "timeout", "rate_limit")
    },
    "invalid request": dead("task", SAID, errored("invalid_request_error")),
    "too large": dead("task", SAID, errored("request_too_large")),
    "credit, by its code": dead("credit", SAID, errored("invalid_request_error", "credit_balance_too_low")),
    "a spending limit": dead("credit", SAID, errored("permission_error", "enforced_spend_limit_reached")),
    "a contract's limit": dead("credit", SAID, errored("invalid_request_error", "contract_spend_limit_reached")),
    "an organisation on hold": dead("credit", SAID, errored("permission_error", "organization_on_hold")),
    "credit, by its sentence": dead("credit", CREDIT, errored("invalid_request_error", None, CREDIT)),
    "billing": dead("credit", SAID, errored("billing_error")),
    "permission": dead("config", SAID, errored("permission_error")),
    "authentication": dead("config", SAID, errored("authentication_error")),
    "not found": dead("config", SAID, errored("not_found_error")),
    "a kind of next year": dead("unknown", "of_next_year_error: " + SAID, errored("of_next_year_error")),
    "a result of next year": dead("unknown", "unknown type 'postponed'", {"on": "outcome", "do": "unknown", **ALWAYS}),
    "cut off twice": dead("task", "did not fit into", {"on": "outcome", "do": "max_tokens", **ALWAYS}),
    "a refusal": Case(({"on": "outcome", "do": "refusal"},), "bailed", None, "refused: "),
    "a turn without an end": dead("task", "paused its turn 12 times", model=PAUSES),
    "expired twice": dead("capacity", "the batch expired twice", {"on": "outcome", "do": "expired", **ALWAYS}),
    "expired, and that is that": Case(
        ({"on": "outcome", "do": "expired"},), "dead", "capacity", "expired before",
        env={"GREMLINS_BATCH__ON_EXPIRED": "fail"},
    ),
    "canceled by another program": Case(
        ({"on": "outcome", "do": "canceled"},), "bailed", None, "canceled_elsewhere: msgbatch_"
    ),
    "no end of the reply": dead("task", "its stop_reason is null", {"on": "outcome", "do": "stop_reason"}),
    "a full context window": dead(
        "task", "context window", {"on": "outcome", "do": "stop_reason", "stop_reason": "model_context_window_exceeded"}
    ),
    "foreign results": undecided("do not hold our request", {"on": "results", "do": "foreign", **ALWAYS}),
    "gone after 29 days": undecided("29 days", refused("results", 404)),
    "a last no to the results": undecided(SAID, refused("results", 400, "invalid_request_error")),
    "404 while polling": undecided("cannot be seen with this key", refused("retrieve", 404)),
    "sends that are lost": undecided("sent 4 times", refused("create", 503)),
    **{
        f"{status} when sent": dead(failure, SAID, refused("create", status))
        for status, failure in ((400, "task"), (401, "config"), (402, "credit"), (403, "config"), (413, "task"))
    },
    "a model that cannot batch": dead("task", "Batches API", no_batch_models=frozenset({"claude-sonnet-5-5"})),
    "429 for a day": Case((refused("create", 429),), "dead", "capacity", "not accepted for a day", env=HOURLY),
    **{
        f"{status} while polling": Case((refused("retrieve", status),), "detached", "config", SAID)
        for status in (401, 403)
    },
    **{
        f"{status} while fetching": Case((refused("results", status),), "detached", "config", SAID)
        for status in (401, 403)
    },
    "a search that is refused": Case((LOST, refused("list", 403, skip=1)), "detached", "config", "cannot be searched"),
}  # fmt: skip


@pytest.fixture
def sandbox(repo: Repo, tmp_path: Path) -> Iterator[Callable[..., InProcessSandbox]]:
    running: list[Simulator] = []

    def make(**options: Any) -> InProcessSandbox:
        running.append(Simulator(**options).start())
        repo.write({".gremlins/prompts/summary.md": "Say in one line what this project does.\n"})
        return InProcessSandbox(repo, Home(tmp_path / "state"), running[-1])

    yield make
    for simulator in running:
        simulator.stop()


def told(
    it: InProcessSandbox, gremlin: str, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The liveness in `status`; `show` must say the same."""
    found = as_json(look(it.home, gremlin, SystemClock()))["liveness"]
    patch.setenv("GREMLINS_HOME", str(it.home.root))
    show(gremlin, json=False)
    page = " ".join(capsys.readouterr().out.split())
    assert found["shown"] in page
    assert " ".join(str(found["reason"] or "").split())[:200] in page
    return dict(found)


def failure_of(it: InProcessSandbox, gremlin: str) -> str | None:
    return getattr(it.read(gremlin).status, "failure", None)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_how_it_ends_is_told(
    sandbox: Callable[..., InProcessSandbox],
    case: Case,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    it = sandbox(**case.options)
    for fault in case.faults:
        it.simulator.fault(**fault)
    gremlin = it.make(ASK, env=case.env)
    it.run(gremlin, env=case.env)
    found = told(it, gremlin, capsys, monkeypatch)
    assert found["state"] == case.state, found
    assert case.words in found["reason"]
    assert failure_of(it, gremlin) == case.failure


@pytest.mark.parametrize("fault", ["duplicate", "extra"])
def test_lines_too_many_and_out_of_order_are_no_matter(sandbox: Callable[..., InProcessSandbox], fault: str) -> None:
    it = sandbox()
    it.simulator.fault("results", fault)
    assert isinstance(it.run(it.make(ASK)).status, Finished)


# ── what changes between two processes ────────────────────────────────────────────────────────────────────────────


def parked(it: InProcessSandbox) -> str:
    """Its batch is out, and the process is gone."""
    it.simulator.change(latency=1e9)
    gremlin = it.make(ASK)
    it.run(gremlin, waits=1)
    it.simulator.change(latency=0.0)
    assert len(it.simulator.batches) == 1
    return gremlin


def test_without_a_key_what_is_outstanding_stays_so(
    sandbox: Callable[..., InProcessSandbox], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = sandbox()
    gremlin = parked(it)
    it.run(gremlin, env={"ANTHROPIC_API_KEY": ""}, waits=1)
    found = told(it, gremlin, capsys, monkeypatch)
    assert found["state"] == "detached"
    assert "no credentials" in found["reason"]
    assert failure_of(it, gremlin) == "config"


def test_another_workspaces_key_is_named_as_the_reason(
    sandbox: Callable[..., InProcessSandbox], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = sandbox(keys={"sk-ant-ours-000": "ours", "sk-ant-theirs-0": "theirs"})
    gremlin = parked(it)
    it.run(gremlin, env={"ANTHROPIC_API_KEY": "sk-ant-theirs-0"}, waits=20)
    found = told(it, gremlin, capsys, monkeypatch)
    assert found["state"] == "bailed"
    assert "cannot be seen with this key" in found["reason"]
    assert len(it.simulator.batches) == 1


def test_a_call_of_a_newer_program_is_not_guessed_at(
    sandbox: Callable[..., InProcessSandbox], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = sandbox()
    gremlin = parked(it)
    [path] = it.home.gremlin(gremlin).calls.glob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 2}))
    it.run(gremlin, waits=1)
    found = told(it, gremlin, capsys, monkeypatch)
    assert found["state"] in ("dead", "detached")
    assert "newer gremlins" in found["reason"]
    assert len(it.simulator.batches) == 1
