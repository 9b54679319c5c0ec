"""Looking for a batch that a lost reply may have left behind, in an account that others use too."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from gremlins.clients.base import Detach, Wait
from gremlins.clients.transport import HttpReply, Transport, http_transport
from gremlins.clock import parse_time
from gremlins.paths import Home
from gremlins.records.calls import CallFailed, Collected, Ended
from gremlins.records.claims import claimed_batches
from tests.clients.batch.test_engine import assert_paid_once, undecided
from tests.clients.batch_gremlin import MODEL, SETTINGS, BatchGremlin, ProcessFaults, until_killed
from tests.clients.conftest import MakeGremlin

LOST: dict[str, Any] = {"on": "create", "do": "drop", "when": "after"}
NOT_TAKEN: dict[str, Any] = {"on": "create", "do": "drop", "when": "before"}


def others_batch(gremlin: BatchGremlin, *names: str, key: str = "") -> str:
    """A batch that another tool makes in the same account. Returns its id."""
    request = {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": "something else"}]}
    asked = urllib.request.Request(
        f"{gremlin.simulator.url}/v1/messages/batches",
        data=json.dumps({"requests": [{"custom_id": name, "params": request} for name in names]}).encode(),
        headers={"x-api-key": key or gremlin.simulator.key, "anthropic-version": "2026-10-21"},
    )
    with urllib.request.urlopen(asked, timeout=5) as answer:
        return str(json.loads(answer.read())["id"])


def once(act: Callable[[], Any], *, at: int = 1) -> Callable[[Wait], None]:
    """Do something during the wait of that number."""
    count = 0

    def meanwhile(_: Wait) -> None:
        nonlocal count
        count += 1
        if count == at:
            act()

    return meanwhile


# ── proof ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_that_was_made_is_found_and_nothing_is_sent_again(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault(**LOST)
    gremlin.text()
    assert_paid_once(gremlin)
    assert gremlin.simulator.requests["create"] == 1
    assert any("nothing is sent again" in line for line in gremlin.lines)


def test_while_it_is_looked_for_it_is_shown_without_a_batch_id(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault(**LOST)
    gremlin.text()
    first = gremlin.waits[0]
    assert first.calls[0].batch_id is None
    assert not first.pollable
    assert "may be it" in first.why


def test_what_is_in_progress_is_waited_for_and_never_canceled(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault(**NOT_TAKEN)
    gremlin.meanwhile = once(lambda: others_batch(gremlin, "another"))
    gremlin.text()
    assert_paid_once(gremlin)
    assert "cancel" not in gremlin.simulator.requests


def test_a_batch_that_was_not_made_is_sent_again_under_the_same_custom_id(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault(**NOT_TAKEN)
    gremlin.text()
    assert_paid_once(gremlin)
    assert [send.outcome for send in gremlin.record.sends] == ["absent", "accepted"]


def test_nothing_is_sent_again_before_the_grace_is_over(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault(**NOT_TAKEN)
    began = gremlin.clock.now()
    sent: list[float] = []
    gremlin.meanwhile = lambda _wait: sent.append(gremlin.simulator.requests["create"])
    gremlin.text()
    again = sent.index(2)
    assert sum(gremlin.waited[:again]) >= SETTINGS.reconcile_grace
    assert gremlin.clock.now() > began


@pytest.mark.parametrize("hidden", [1.0, 30.0, 55.0])
def test_a_list_that_shows_a_new_batch_late_is_given_time(gremlin: BatchGremlin, hidden: float) -> None:
    gremlin.simulator.fault("create", "late", seconds=hidden)
    gremlin.simulator.fault(**LOST)
    gremlin.text()
    assert_paid_once(gremlin)


@pytest.mark.parametrize("fault", [{"do": "drop"}, {"do": "error", "status": 503}, {"do": "garbage"}, {"do": "empty"}])
def test_a_list_that_fails_while_it_is_needed_is_asked_again(gremlin: BatchGremlin, fault: dict[str, Any]) -> None:
    gremlin.simulator.fault(**LOST)
    gremlin.simulator.fault("list", skip=1, times=2, **fault)
    gremlin.text()
    assert_paid_once(gremlin)


def test_a_list_that_is_cut_on_a_later_page_proves_nothing(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin(latency=1.0)
    gremlin.simulator.fault(**LOST)
    gremlin.simulator.fault(on="list", do="error", status=500, match="after_id", times=3)
    gremlin.meanwhile = once(lambda: [others_batch(gremlin, f"other-{n}") for n in range(120)])
    gremlin.text()
    assert_paid_once(gremlin)


def test_pages_are_turned_until_what_was_there_before(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin(latency=30.0)
    for n in range(3):
        others_batch(gremlin, f"before-{n}")
    dead = gremlin.again(faults=ProcessFaults("after create"))
    with until_killed():
        dead.ask()
    for n in range(150):
        others_batch(gremlin, f"after-{n}")
    gremlin.clock.advance(100.0)
    gremlin.again().text()
    assert_paid_once(gremlin)
    assert gremlin.simulator.requests["results"] <= 160


def test_another_tools_batches_of_many_requests_are_not_even_opened(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault(**NOT_TAKEN)
    gremlin.meanwhile = once(lambda: others_batch(gremlin, "one", "two"))
    gremlin.text()
    assert_paid_once(gremlin)
    assert gremlin.simulator.requests["results"] == 1


def test_what_was_proven_foreign_is_not_opened_twice(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin(latency=5.0)
    gremlin.simulator.fault(**NOT_TAKEN)
    gremlin.meanwhile = once(lambda: others_batch(gremlin, "another"))
    gremlin.text()
    assert_paid_once(gremlin)
    assert gremlin.simulator.requests["results"] == 2
    assert len(gremlin.record.rejected) == 1


def test_a_batch_made_long_after_the_post_is_not_a_candidate(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault(**NOT_TAKEN)
    gremlin.simulator.change(latency=float("inf"))

    def later() -> None:
        gremlin.clock.advance(300.0)
        others_batch(gremlin, "much-later")
        gremlin.simulator.change(latency=10.0)

    gremlin.meanwhile = once(later)
    gremlin.text()
    assert_paid_once(gremlin)


def test_a_batch_claimed_by_another_gremlin_is_not_a_candidate(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin(latency=float("inf"))
    taken: list[str] = []
    gremlin.claimed = lambda _since: frozenset(taken)
    gremlin.simulator.fault(**NOT_TAKEN)

    def other() -> None:
        taken.append(others_batch(gremlin, "another-gremlins"))
        gremlin.simulator.change(latency=10.0)

    gremlin.meanwhile = once(other)
    gremlin.text()
    assert_paid_once(gremlin)


def test_the_gremlins_own_other_batch_is_not_a_candidate(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin(latency=float("inf"))
    submitted = gremlin.again(faults=ProcessFaults("after writing submitted"))
    with until_killed():
        submitted.ask(label="docs/plan")
    gremlin.simulator.change(latency=10.0)
    gremlin.simulator.fault(**NOT_TAKEN)
    gremlin.text(label="code/plan")
    assert len(gremlin.ours) == 2
    assert not any("may be it" in wait.why for wait in gremlin.waits)


def test_claims_are_read_from_every_other_gremlins_records(gremlin: BatchGremlin) -> None:
    gremlin.text()
    home = Home(gremlin.root.parent / "home")
    (home.gremlins).mkdir(parents=True)
    gremlin.paths.root.rename(home.gremlins / "g")
    since = gremlin.clock.now()
    assert claimed_batches(home, besides="another", since=since) == {b.id for b in gremlin.simulator.batches}
    assert claimed_batches(home, besides="g", since=since) == frozenset()


def test_several_gremlins_that_look_at_the_same_moment_each_find_their_own(make_gremlin: MakeGremlin) -> None:
    first = make_gremlin(latency=30.0)
    gremlins = [first, *(first.again(gremlin_id=f"g{n}") for n in range(3))]
    first.simulator.fault(**LOST, times=len(gremlins))
    for gremlin in gremlins:
        dead = gremlin.again(faults=ProcessFaults("after writing intent"))
        with until_killed():
            dead.ask()
        dead = gremlin.again(faults=ProcessFaults("before list"))
        with until_killed():
            dead.ask()
    first.clock.advance(60.0)
    threads = [threading.Thread(target=gremlin.again().ask) for gremlin in gremlins]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(first.simulator.batches) == len(gremlins)
    assert len({gremlin.ours[0] for gremlin in gremlins}) == len(gremlins)
    assert [gremlin.cost for gremlin in gremlins] == [gremlin.billed for gremlin in gremlins]


# ── results that prove nothing ──────────────────────────────────────────────────────────────────────────────────────


def test_torn_results_of_a_candidate_prove_nothing(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin(latency=5.0)
    gremlin.simulator.fault(**LOST)
    gremlin.simulator.fault("results", "missing", times=3)
    gremlin.text()
    assert_paid_once(gremlin)


def test_a_candidate_that_stays_unreadable_is_for_a_person_to_decide(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin(latency=5.0)
    gremlin.simulator.fault(**LOST)
    gremlin.simulator.fault("results", "missing", times=0)
    assert "may be this call" in undecided(gremlin)
    assert len(gremlin.ours) == 1


def test_a_key_refused_while_looking_is_no_proof_of_absence(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin(latency=5.0)
    gremlin.simulator.fault(**LOST)
    gremlin.simulator.fault("results", "error", status=401)
    with pytest.raises(Detach):
        gremlin.ask()
    gremlin.again().text()
    assert_paid_once(gremlin)


# ── clocks ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ahead", [-86_400.0, 86_400.0])
def test_a_machine_whose_clock_is_wrong_finds_its_batch(make_gremlin: MakeGremlin, ahead: float) -> None:
    gremlin = make_gremlin(clock_offset=ahead)
    gremlin.simulator.fault(**LOST)
    gremlin.text()
    assert_paid_once(gremlin)


@pytest.mark.parametrize("jump", [-86_400.0, 3600.0])
def test_a_clock_that_jumps_while_looking_neither_stretches_nor_cuts_the_grace(
    make_gremlin: MakeGremlin, jump: float
) -> None:
    gremlin = make_gremlin(latency=30.0)
    gremlin.simulator.fault("create", "late", seconds=50.0)
    gremlin.simulator.fault(**LOST)

    def jumps() -> None:
        gremlin.clock.jump(jump)
        gremlin.simulator.advance(-jump)

    gremlin.meanwhile = once(jumps)
    gremlin.text()
    assert_paid_once(gremlin)
    assert sum(gremlin.waited) < 1000


def test_a_server_that_tells_no_time_is_searched_by_what_there_was_before(make_gremlin: MakeGremlin) -> None:
    def timeless(method: str, url: str, headers: Any, timeout: float) -> HttpReply:
        reply = http_transport(method, url, headers, timeout)
        return HttpReply(reply.status, reply.body, {k: v for k, v in reply.headers.items() if k != "date"})

    transport: Transport = timeless
    gremlin = make_gremlin({"transport": transport}, clock_offset=7 * 86_400.0)
    gremlin.simulator.fault(**LOST)
    gremlin.text()
    assert_paid_once(gremlin)


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
@pytest.mark.parametrize("dated", [(), (1,), (2,), (3,), (2, 4)])
def test_a_date_that_some_answers_leave_out_does_not_shorten_the_grace(
    make_gremlin: MakeGremlin, ahead: float, dated: tuple[int, ...]
) -> None:
    """The server's clock is not ours: ten minutes between both are not ten minutes of looking."""
    looks = 0

    def forgetful(method: str, url: str, headers: Any, timeout: float) -> HttpReply:
        nonlocal looks
        reply = http_transport(method, url, headers, timeout)
        looks += "limit=" in url
        keeps = looks in dated
        return HttpReply(reply.status, reply.body, {k: v for k, v in reply.headers.items() if keeps or k != "date"})

    transport: Transport = forgetful
    gremlin = make_gremlin({"transport": transport}, date_offset=ahead)
    gremlin.simulator.fault(**NOT_TAKEN)
    sent: list[float] = []
    gremlin.meanwhile = lambda _wait: sent.append(gremlin.simulator.requests["create"])
    gremlin.text()
    assert_paid_once(gremlin)
    assert SETTINGS.reconcile_grace <= sum(gremlin.waited[: sent.index(2)]) < 300


def test_a_process_killed_in_the_post_looks_up_to_the_time_of_its_rescue(gremlin: BatchGremlin) -> None:
    dead = gremlin.again(faults=ProcessFaults("after create"))
    with until_killed():
        dead.ask()
    (send,) = dead.record.sends
    assert send.outcome is None
    gremlin.clock.advance(3 * 3600.0)
    gremlin.again().text()
    assert_paid_once(gremlin)
    (send,) = gremlin.record.sends
    assert send.failed is not None
    assert send.failed >= parse_time("2026-11-21T13:00:00Z")


# ── two all the same ────────────────────────────────────────────────────────────────────────────────────────────────


def late_twin(make_gremlin: MakeGremlin, **options: Any) -> BatchGremlin:
    """A first POST whose batch the list shows only after the grace, so that a second one is made."""
    gremlin = make_gremlin({"batch": SETTINGS.model_copy(update={"poll_max": 60.0})}, **{"latency": 300.0, **options})
    gremlin.simulator.fault("create", "late", seconds=150.0)
    gremlin.simulator.fault(**LOST)
    return gremlin


def test_of_two_the_first_is_used_and_the_other_canceled(make_gremlin: MakeGremlin) -> None:
    gremlin = late_twin(make_gremlin)
    gremlin.text()
    first, second = gremlin.ours
    assert gremlin.record.batch
    assert gremlin.record.batch.batch_id == first
    assert [waste.batch_id for waste in gremlin.record.waste] == [second]
    assert gremlin.simulator.store.find(second).cancel_initiated_at is not None
    assert gremlin.cost == gremlin.billed


def test_of_two_the_second_that_could_not_be_canceled_is_booked_as_waste(make_gremlin: MakeGremlin) -> None:
    gremlin = late_twin(make_gremlin, cancel_too_late=True)
    gremlin.text()
    total = gremlin.engine().session.ledger.total()
    assert total.wasted_usd > 0
    assert total.total_usd == gremlin.billed
    assert len(gremlin.simulator.billed) == 2


def test_the_second_is_waited_for_so_that_its_cost_is_known(make_gremlin: MakeGremlin) -> None:
    gremlin = late_twin(make_gremlin, cancel_too_late=True, cancel_latency=500.0)
    gremlin.text()
    assert gremlin.cost == gremlin.billed
    assert any("waiting for the end" in wait.why for wait in gremlin.waits)


def test_killed_at_any_step_of_two_both_are_booked(make_gremlin: MakeGremlin) -> None:
    whole = late_twin(make_gremlin, cancel_too_late=True)
    whole.text()
    steps = len(whole.faults.reached)
    for step in range(steps - 20, steps):
        gremlin = late_twin(make_gremlin, cancel_too_late=True)
        gremlin.faults.at = step
        with until_killed():
            gremlin.ask()
        gremlin.again().text()
        assert gremlin.cost == gremlin.billed
        assert len(gremlin.ours) == 2


def test_a_stop_cancels_both(make_gremlin: MakeGremlin) -> None:
    gremlin = late_twin(make_gremlin, cancel_latency=20.0)
    dead = gremlin.again(faults=ProcessFaults("before writing ended"))
    with until_killed():
        dead.ask()
    gremlin.stop()
    assert all(batch.ended_at for batch in gremlin.simulator.batches)
    assert gremlin.record.settled
    assert gremlin.cost == gremlin.billed


def test_two_that_both_ended_before_anybody_looked_are_both_booked(make_gremlin: MakeGremlin) -> None:
    gremlin = late_twin(make_gremlin)
    gremlin.meanwhile = once(lambda: gremlin.clock.advance(2000.0), at=8)
    gremlin.text()
    assert gremlin.cost == gremlin.billed
    assert len(gremlin.record.waste) == 1


def test_a_second_batch_whose_cost_nobody_can_learn_is_unknown_and_not_free(make_gremlin: MakeGremlin) -> None:
    gremlin = late_twin(make_gremlin, cancel_too_late=True)
    dead = gremlin.again(faults=ProcessFaults("before writing collected"))
    with until_killed():
        dead.ask()
    assert isinstance(dead.record.status, Ended)
    gremlin = late_twin(make_gremlin, cancel_too_late=True, cancel_latency=500.0)

    def forget_the_second(wait: Wait) -> None:
        if "waiting for the end" in wait.why:
            next(b for b in gremlin.simulator.batches if b.id == gremlin.ours[1]).deleted = True

    gremlin.meanwhile = forget_the_second
    gremlin.text()
    assert isinstance(gremlin.record.status, Collected)
    assert gremlin.engine().session.ledger.total().unknown_calls == 1


# ── another key ─────────────────────────────────────────────────────────────────────────────────────────────────────

KEYS = {"sk-ant-first-key-000": "ours", "sk-ant-rotated-key-1": "ours", "sk-ant-stranger-0002": "theirs"}


def lost_with_first_key(make_gremlin: MakeGremlin, *, before: int = 1, taken: bool = True) -> BatchGremlin:
    gremlin = make_gremlin({"key": "sk-ant-first-key-000"}, keys=KEYS, latency=30.0)
    for n in range(before):
        others_batch(gremlin, f"before-{n}", key="sk-ant-first-key-000")
    dead = gremlin.again(faults=ProcessFaults("after create" if taken else "before create"))
    with until_killed():
        dead.ask()
    return gremlin


def test_a_rotated_key_finds_what_the_old_one_sent(make_gremlin: MakeGremlin) -> None:
    gremlin = lost_with_first_key(make_gremlin)
    gremlin.again(key="sk-ant-rotated-key-1").text()
    assert_paid_once(gremlin)


def test_a_rotated_key_may_send_again_once_the_workspace_is_proven(make_gremlin: MakeGremlin) -> None:
    gremlin = lost_with_first_key(make_gremlin, taken=False)
    gremlin.again(key="sk-ant-rotated-key-1").text()
    assert_paid_once(gremlin)


def test_another_workspaces_key_is_refused_and_sends_nothing(make_gremlin: MakeGremlin) -> None:
    gremlin = lost_with_first_key(make_gremlin)
    with pytest.raises(Detach, match="another key"):
        gremlin.again(key="sk-ant-stranger-0002").ask()
    assert len(gremlin.ours) == 1
    gremlin.again().text()
    assert_paid_once(gremlin)


def test_a_rotated_key_is_trusted_when_it_sees_the_batch_itself(make_gremlin: MakeGremlin) -> None:
    gremlin = lost_with_first_key(make_gremlin, before=0)
    with pytest.raises(Detach, match="nothing proves"):
        gremlin.again(key="sk-ant-rotated-key-1").ask()
    gremlin.clock.advance(60.0)
    gremlin.again(key="sk-ant-rotated-key-1").text()
    assert_paid_once(gremlin)


# ── stopping ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stop_while_looking_cancels_once_it_is_found(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin(latency=300.0)
    dead = gremlin.again(faults=ProcessFaults("after create"))
    with until_killed():
        dead.ask()
    gremlin.stop()
    status = gremlin.record.status
    assert isinstance(status, CallFailed | Collected)
    assert len(gremlin.ours) == 1
    assert gremlin.cost == gremlin.billed


def test_a_stop_of_what_was_never_made_ends_after_the_grace(gremlin: BatchGremlin) -> None:
    dead = gremlin.again(faults=ProcessFaults("before create"))
    with until_killed():
        dead.ask()
    gremlin.stop()
    assert isinstance(gremlin.record.status, CallFailed)
    assert gremlin.ours == []
