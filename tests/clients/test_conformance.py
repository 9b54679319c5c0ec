"""What every provider keeps to, whatever it drives: one suite over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gremlins.clients.base import CallUnsuccessful, Client, Prompt
from gremlins.clients.registry import BUILT_IN, client_class
from gremlins.config import Settings
from gremlins.errors import NotReady
from gremlins.outcome import Failed
from gremlins.processes.interrupt import Terminated
from gremlins.records.calls import CallFailed, Collected, Intent
from tests.clients.provider_setups import HAS_OPENAI, PROVIDERS, ProviderSetup
from tests.clients.session_setup import SECRET, SessionSetup
from tests.conftest import Repo

PROVIDERS = [
    pytest.param(
        name, marks=[] if name != "openai" or HAS_OPENAI else pytest.mark.skip(reason="the extra is not installed")
    )
    for name in sorted(PROVIDERS)
]


@pytest.fixture(params=PROVIDERS)
def rig(request: pytest.FixtureRequest, tmp_path: Path, repo: Repo) -> Iterator[ProviderSetup]:
    around = SessionSetup(tmp_path / "g", repo.path)
    with PROVIDERS[request.param](tmp_path, around) as made:
        made.reply("Done.")
        yield made


def live(client: Client, prompt: Prompt | str = "Do it.", **more: int) -> str:
    return client.run(prompt, label="implement", **more).text


def test_every_built_in_provider_is_in_this_suite() -> None:
    assert set(PROVIDERS) == set(BUILT_IN)


def test_a_reply_is_a_record_with_its_cost(rig: ProviderSetup) -> None:
    answer = rig.client().run("Do it.", label="implement")
    (record,) = rig.around.records
    assert (answer.text, answer.mode, answer.record) == ("Done.", "live", record)
    assert isinstance(record.status, Collected)
    assert record.client == rig.client().name == rig.spec
    assert record.ended_at is not None
    assert rig.around.ledger.total().total_usd >= 0


def test_what_is_on_record_is_never_asked_again_nor_its_prompt_made(rig: ProviderSetup) -> None:
    live(rig.client())
    rig.reply("Something else.")

    def never() -> Prompt:
        raise AssertionError("the prompt was made")

    after = rig.around.respawned()
    assert rig.client(after).run(never, label="implement").text == "Done."
    assert len(rig.prompts()) == 1


def test_another_label_and_another_attempt_are_other_calls(rig: ProviderSetup) -> None:
    live(rig.client())
    rig.client().run("Do it.", label="loop[1]/implement")
    rig.around.more = {"attempt": lambda _stage: 2}
    live(rig.client())
    assert [(r.key.stage, r.key.attempt) for r in rig.around.records] == [
        ("implement", 1),
        ("loop[1]/implement", 1),
        ("implement", 2),
    ]


def test_a_correction_is_a_call_of_its_own_and_reaches_the_model(rig: ProviderSetup) -> None:
    live(rig.client())
    live(rig.client(), Prompt("Do it.", followups=(("Done.", "Not quite, more."),)), revision=1)
    assert [(r.revision, r.key.try_) for r in rig.around.records] == [(0, 1), (1, 2)]
    assert "Not quite, more." in rig.prompts()[-1]


def test_two_megabytes_arrive_whole(rig: ProviderSetup) -> None:
    live(rig.client(), "word " * 400_000 + "the end")
    assert "the end" in rig.prompts()[0]
    assert len(rig.prompts()[0]) >= 2_000_000


def test_a_model_that_does_not_exist_is_a_matter_of_configuration(rig: ProviderSetup) -> None:
    rig.no_such_model()
    with pytest.raises(CallUnsuccessful) as caught:
        live(rig.client())
    assert isinstance(caught.value.outcome, Failed)
    assert caught.value.outcome.failure == "config"
    assert len(rig.around.records) == 1


def test_a_failure_stays_one_for_this_spawn_and_is_asked_again_by_the_next(rig: ProviderSetup) -> None:
    rig.no_such_model()
    for _ in range(2):
        with pytest.raises(CallUnsuccessful):
            live(rig.client())
    assert len(rig.around.records) == 1
    rig.reply("Now it is there.")
    if hasattr(rig, "sim"):
        rig.sim.faults.clear()
    assert live(rig.client(rig.around.respawned())) == "Now it is there."


def test_a_try_of_a_killed_process_is_closed_and_the_call_goes_on(rig: ProviderSetup) -> None:
    live(rig.client())
    (record,) = rig.around.records
    rig.around.ledger.put(record.model_copy(update={"status": Intent(), "ended_at": None}))
    rig.reply("After all.")
    assert live(rig.client(rig.around.respawned())) == "After all."
    first, second = rig.around.records
    assert isinstance(first.status, CallFailed)
    assert first.status.failure == "host"
    assert first.cost == record.cost
    assert second.request == record.request


def test_without_leave_nothing_is_asked(rig: ProviderSetup) -> None:
    def no_money() -> None:
        raise CallUnsuccessful(Failed("credit", "over the cap"))

    rig.around.guard = no_money
    with pytest.raises(CallUnsuccessful):
        live(rig.client())
    assert rig.prompts() == []
    assert rig.around.records == []


def test_a_process_that_is_to_end_asks_nothing(rig: ProviderSetup) -> None:
    def ended() -> None:
        raise Terminated("SIGTERM")

    rig.around.stopping = ended
    with pytest.raises(Terminated):
        live(rig.client())
    assert rig.around.records == []


def test_no_secret_is_written_down(rig: ProviderSetup) -> None:
    rig.around.env["ANTHROPIC_API_KEY"] = SECRET
    rig.reply(f"Your key is {SECRET}.")
    assert live(rig.client()) == "Your key is ***."
    assert SECRET not in rig.around.everything_written()


def test_batch_runs_falls_back_or_is_refused_as_the_class_says(rig: ProviderSetup) -> None:
    client = rig.client()
    match client.batch_support:
        case "yes":
            assert client.run("Plan.", label="plan", mode="batch").mode == "batch"
        case "fallback":
            answer = client.run("Plan.", label="plan", mode="batch")
            assert answer.mode == "live"
            assert "no batch mode" in answer.record.notes[0]
            assert any("no batch mode" in line for line in rig.around.lines)
        case "no":
            with pytest.raises(NotImplementedError, match=client.provider):
                client.run("Plan.", label="plan", mode="batch")
            assert rig.around.records == []


def test_what_is_missing_is_said_in_one_line_before_anything_starts(rig: ProviderSetup, tmp_path: Path) -> None:
    client = rig.client()
    client.check_ready(client.model, "live", rig.around.env, Settings())
    empty = {"PATH": str(tmp_path / "nothing"), "HOME": str(tmp_path)}
    model = "/no/such/file" if client.provider == "scripted" else client.model
    with pytest.raises(NotReady) as caught:
        client_class(rig.spec).check_ready(model, "live", empty, Settings())
    assert "\n" not in caught.value.message
