"""One suite that every provider passes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from gremlins.clients.base import CallUnsuccessful, Client, Prompt
from gremlins.clients.registry import BUILT_IN, client_class
from gremlins.config import Settings
from gremlins.errors import NotReady
from gremlins.outcome import Failed
from gremlins.processes.interrupt import Terminated
from gremlins.records.calls import CallFailed, Collected, Intent
from tests.clients.provider_setups import HAS_OPENAI, NO_OPENAI, SETUPS, ProviderSetup
from tests.clients.session_setup import SECRET, SessionSetup
from tests.conftest import Repo

PROVIDERS = [
    pytest.param(name, marks=[] if name != "openai" or HAS_OPENAI else pytest.mark.skip(reason=NO_OPENAI))
    for name in sorted(SETUPS)
]


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest, tmp_path: Path, repo: Repo) -> Iterator[ProviderSetup]:
    around = SessionSetup(tmp_path / "g", repo.path)
    with SETUPS[request.param](tmp_path, around) as made:
        made.reply("Done.")
        yield made


def live(client: Client, prompt: Prompt | str = "Do it.", **more: int) -> str:
    return client.run(prompt, label="implement", **more).text


def test_every_built_in_provider_is_in_this_suite() -> None:
    assert set(SETUPS) == set(BUILT_IN)


def test_a_reply_is_a_record_with_its_cost(provider: ProviderSetup) -> None:
    answer = provider.client().run("Do it.", label="implement")
    (record,) = provider.around.records
    assert (answer.text, answer.mode, answer.record) == ("Done.", "live", record)
    assert isinstance(record.status, Collected)
    assert record.client == provider.client().name == provider.spec
    assert record.ended_at is not None
    assert provider.around.ledger.total().total_usd >= 0


def test_what_is_on_record_is_never_asked_again_nor_its_prompt_made(provider: ProviderSetup) -> None:
    live(provider.client())
    provider.reply("Something else.")

    def never() -> Prompt:
        raise AssertionError("the prompt was made")

    after = provider.around.respawned()
    assert provider.client(after).run(never, label="implement").text == "Done."
    assert len(provider.prompts()) == 1


def test_another_label_and_another_attempt_are_other_calls(provider: ProviderSetup) -> None:
    live(provider.client())
    provider.client().run("Do it.", label="loop[1]/implement")
    provider.around.more = {"attempt": lambda _stage: 2}
    live(provider.client())
    assert [(r.key.stage, r.key.attempt) for r in provider.around.records] == [
        ("implement", 1),
        ("loop[1]/implement", 1),
        ("implement", 2),
    ]


def test_a_correction_is_a_call_of_its_own_and_reaches_the_model(provider: ProviderSetup) -> None:
    live(provider.client())
    live(provider.client(), Prompt("Do it.", followups=(("Done.", "Not quite, more."),)), revision=1)
    assert [(r.revision, r.key.try_) for r in provider.around.records] == [(0, 1), (1, 2)]
    assert "Not quite, more." in provider.prompts()[-1]


def test_two_megabytes_arrive_whole(provider: ProviderSetup) -> None:
    live(provider.client(), "word " * 400_000 + "the end")
    assert "the end" in provider.prompts()[0]
    assert len(provider.prompts()[0]) >= 2_000_000


def test_a_model_that_does_not_exist_is_a_matter_of_configuration(provider: ProviderSetup) -> None:
    provider.no_such_model()
    with pytest.raises(CallUnsuccessful) as caught:
        live(provider.client())
    assert isinstance(caught.value.outcome, Failed)
    assert caught.value.outcome.failure == "config"
    assert len(provider.around.records) == 1


def test_a_failure_stays_one_for_this_spawn_and_is_asked_again_by_the_next(provider: ProviderSetup) -> None:
    provider.no_such_model()
    for _ in range(2):
        with pytest.raises(CallUnsuccessful):
            live(provider.client())
    assert len(provider.around.records) == 1
    provider.reply("Now it is there.")
    if hasattr(provider, "sim"):
        provider.sim.faults.clear()
    assert live(provider.client(provider.around.respawned())) == "Now it is there."


def test_a_try_of_a_killed_process_is_closed_and_the_call_goes_on(provider: ProviderSetup) -> None:
    live(provider.client())
    (record,) = provider.around.records
    provider.around.ledger.put(replace(record, status=Intent(), ended_at=None))
    provider.reply("After all.")
    assert live(provider.client(provider.around.respawned())) == "After all."
    first, second = provider.around.records
    assert isinstance(first.status, CallFailed)
    assert first.status.failure == "host"
    assert first.cost == record.cost
    assert second.request == record.request


def test_without_leave_nothing_is_asked(provider: ProviderSetup) -> None:
    def no_money() -> None:
        raise CallUnsuccessful(Failed("credit", "over the cap"))

    provider.around.guard = no_money
    with pytest.raises(CallUnsuccessful):
        live(provider.client())
    assert provider.prompts() == []
    assert provider.around.records == []


def test_a_process_that_is_to_end_asks_nothing(provider: ProviderSetup) -> None:
    def ended() -> None:
        raise Terminated("SIGTERM")

    provider.around.stopping = ended
    with pytest.raises(Terminated):
        live(provider.client())
    assert provider.around.records == []


@pytest.mark.parametrize("key", [SECRET, "sk-1234", "claude"])
def test_a_reply_that_holds_the_letters_of_a_key_stays_whole(provider: ProviderSetup, key: str) -> None:
    provider.around.env["SOME_API_KEY"] = key
    provider.reply(f"KEY = '{key}'")
    assert live(provider.client()) == f"KEY = '{key}'"
    assert not any(key in line for line in provider.around.lines)


def test_batch_runs_falls_back_or_is_refused_as_the_class_says(provider: ProviderSetup) -> None:
    client = provider.client()
    match client.batch_support:
        case "yes":
            assert client.run("Plan.", label="plan", mode="batch").mode == "batch"
        case "fallback":
            answer = client.run("Plan.", label="plan", mode="batch")
            assert answer.mode == "live"
            assert "no batch mode" in answer.record.notes[0]
            assert any("no batch mode" in line for line in provider.around.lines)
        case "no":
            with pytest.raises(NotImplementedError, match=client.provider):
                client.run("Plan.", label="plan", mode="batch")
            assert provider.around.records == []


def test_what_is_missing_is_said_in_one_line_before_anything_starts(provider: ProviderSetup, tmp_path: Path) -> None:
    client = provider.client()
    client.check_ready(client.model, "live", provider.around.env, Settings())
    empty = {"PATH": str(tmp_path / "nothing"), "HOME": str(tmp_path)}
    model = "/no/such/file" if client.provider == "scripted" else client.model
    with pytest.raises(NotReady) as caught:
        client_class(provider.spec).check_ready(model, "live", empty, Settings())
    assert "\n" not in caught.value.message
