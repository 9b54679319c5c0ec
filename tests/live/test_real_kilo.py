"""The real Kilo CLI against the simulator: its own server, started and ended with each call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gremlins.clients.base import CallUnsuccessful
from gremlins.clients.providers.kilo import KiloClient
from gremlins.outcome import Failed
from gremlins.records.calls import Intent
from tests.clients.session_setup import QUICK
from tests.conftest import Repo
from tests.live.conftest import Live, Start, binary, taken_up_without_its_session, use

pytestmark = pytest.mark.live
MODEL = "claude-sonnet-5-5"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One for all: its first start in a home takes half a minute."""
    return str(tmp_path_factory.mktemp("kilo"))


@pytest.fixture
def kilo(start: Start, home: str) -> Any:
    def kilo(*replies: Any, **more: Any) -> Live:
        live = start(*replies, **more)
        limit = {"context": 200_000, "output": 32_000}
        model = {"name": MODEL, "tool_call": True, "limit": limit, "cost": {"input": 3, "output": 15}}
        provider = {"options": {"baseURL": f"{live.sim.url}/v1", "apiKey": live.sim.key}, "models": {MODEL: model}}
        live.around.env |= {
            "HOME": home,
            "GREMLINS_KILO_BIN": binary("kilo"),
            "KILO_API_URL": live.sim.url,
            "KILO_API_KEY": live.sim.key,
            "KILO_CONFIG_CONTENT": json.dumps({"provider": {"anthropic": provider}, "autoupdate": False}),
            "KILO_TELEMETRY_LEVEL": "off",
        }
        return live

    return kilo


def ask(live: Live, model: str = MODEL, **more: Any) -> str:
    client = KiloClient(f"anthropic/{model}", live.around.session())
    return client.run("Do it.", label="implement", **{"edits_worktree": True, **more}).text


def failure(live: Live, model: str = MODEL) -> Failed:
    with pytest.raises(CallUnsuccessful) as caught:
        ask(live, model)
    assert isinstance(caught.value.outcome, Failed)
    return caught.value.outcome


def test_a_file_is_changed_in_a_repository_and_kilos_cost_taken(kilo: Any, repo: Repo) -> None:
    live = kilo(use("write", filePath=str(repo.path / "new.txt"), content="hi\n"), "Written.")
    assert ask(live) == "Written."
    assert repo.read("new.txt") == "hi\n"
    (record,) = live.around.records
    assert record.usage is not None
    assert record.cost is not None
    wanted = record.usage.input_tokens * 3e-6 + record.usage.output_tokens * 15e-6
    assert record.cost.usd == pytest.approx(wanted)


def test_a_call_that_only_reads_is_offered_no_tool_that_writes(kilo: Any) -> None:
    live = kilo()
    ask(live, edits_worktree=False)
    assert live.tools <= {"read", "glob", "grep", "list"}


@pytest.mark.parametrize("path", ["/tmp/gremlins-live-outside", "{repo}/../outside", "{repo}/.git/hooks/pre-commit"])
def test_a_path_outside_the_worktree_is_denied(kilo: Any, repo: Repo, path: str) -> None:
    target = path.format(repo=repo.path)
    outcome = failure(kilo(use("write", filePath=target, content="x")))
    assert "write" in outcome.reason
    assert not Path(target).exists()


def test_a_model_that_does_not_exist_is_a_matter_of_configuration(kilo: Any) -> None:
    assert failure(kilo(), "no-such-model").failure == "config"


@pytest.mark.parametrize(("status", "cls"), [(400, "task"), (401, "config")])
def test_an_error_of_the_api_has_its_class(kilo: Any, status: int, cls: str) -> None:
    live = kilo()
    live.sim.fault("messages", "error", status=status, times=0)
    assert failure(live).failure == cls


def test_a_stalled_stream_is_ended(kilo: Any) -> None:
    live = kilo(otherwise="word " * 50)
    live.around.live = QUICK.model_copy(update={"idle_timeout": 15.0, "resume_backoff": ()})
    live.sim.fault("messages", "stall", times=0)
    assert "silent" in failure(live).reason


def test_a_session_is_taken_up_again(kilo: Any) -> None:
    live = kilo()
    ask(live)
    (record,) = live.around.records
    live.around.ledger.put(replace(record, status=Intent(), ended_at=None))
    live.around = live.around.respawned()
    ask(live)
    assert "You were interrupted" in str(live.model.asked[-1]["messages"])
    assert "Do it." in str(live.model.asked[-1]["messages"])


def test_a_session_that_was_never_saved_begins_anew(kilo: Any) -> None:
    taken_up_without_its_session(kilo(), "ses_00000000000000000000000000", ask)
