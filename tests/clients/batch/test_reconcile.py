"""Looking for a batch that a lost reply may have left behind, in an account that others use too."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from gremlins.clients.base import CallUnsuccessful, Detach, Wait
from gremlins.clients.transport import HttpReply, Transport, urllib_transport
from gremlins.clock import parse_time
from gremlins.outcome import Failed
from gremlins.paths import Home
from gremlins.records.calls import CallFailed, Collected, Ended
from gremlins.records.claims import claimed_batches
from tests.clients.batch.test_engine import assert_paid_once
from tests.clients.conftest import MakeRoom
from tests.clients.engine_room import MODEL, SETTINGS, Fate, Room, dying

LOST: dict[str, Any] = {"on": "create", "do": "drop", "when": "after"}
NOT_TAKEN: dict[str, Any] = {"on": "create", "do": "drop", "when": "before"}


def others_batch(room: Room, *names: str, key: str = "") -> str:
    """A batch that another tool makes in the same account. Returns its id."""
    request = {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": "something else"}]}
    asked = urllib.request.Request(
        f"{room.simulator.url}/v1/messages/batches",
        data=json.dumps({"requests": [{"custom_id": name, "params": request} for name in names]}).encode(),
        headers={"x-api-key": key or room.simulator.key, "anthropic-version": "2026-10-21"},
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


def test_a_batch_that_was_made_is_found_and_nothing_is_sent_again(room: Room) -> None:
    room.simulator.fault(**LOST)
    room.text()
    assert_paid_once(room)
    assert room.simulator.requests["create"] == 1
    assert any("nothing is sent again" in line for line in room.lines)


def test_while_it_is_looked_for_it_is_shown_without_a_batch_id(room: Room) -> None:
    room.simulator.fault(**LOST)
    room.text()
    first = room.waits[0]
    assert first.calls[0].batch_id is None
    assert not first.pollable
    assert "may be it" in first.why


def test_what_is_in_progress_is_waited_for_and_never_canceled(room: Room) -> None:
    room.simulator.fault(**NOT_TAKEN)
    room.meanwhile = once(lambda: others_batch(room, "somebody-else"))
    room.text()
    assert_paid_once(room)
    assert "cancel" not in room.simulator.requests


def test_a_batch_that_was_not_made_is_sent_again_under_the_same_custom_id(room: Room) -> None:
    room.simulator.fault(**NOT_TAKEN)
    room.text()
    assert_paid_once(room)
    assert [send.outcome for send in room.record.sends] == ["absent", "accepted"]


def test_nothing_is_sent_again_before_the_grace_is_over(room: Room) -> None:
    room.simulator.fault(**NOT_TAKEN)
    began = room.clock.now()
    sent: list[float] = []
    room.meanwhile = lambda _wait: sent.append(room.simulator.requests["create"])
    room.text()
    again = sent.index(2)
    assert sum(room.waited[:again]) >= SETTINGS.reconcile_grace
    assert room.clock.now() > began


@pytest.mark.parametrize("hidden", [1.0, 30.0, 55.0])
def test_a_list_that_shows_a_new_batch_late_is_given_time(room: Room, hidden: float) -> None:
    room.simulator.fault("create", "late", seconds=hidden)
    room.simulator.fault(**LOST)
    room.text()
    assert_paid_once(room)


@pytest.mark.parametrize("fault", [{"do": "drop"}, {"do": "error", "status": 503}, {"do": "garbage"}, {"do": "empty"}])
def test_a_list_that_fails_while_it_is_needed_is_asked_again(room: Room, fault: dict[str, Any]) -> None:
    room.simulator.fault(**LOST)
    room.simulator.fault("list", skip=1, times=2, **fault)
    room.text()
    assert_paid_once(room)


def test_a_list_that_is_cut_on_a_later_page_proves_nothing(make_room: MakeRoom) -> None:
    room = make_room(latency=1.0)
    room.simulator.fault(**LOST)
    room.simulator.fault(on="list", do="error", status=500, match="after_id", times=3)
    room.meanwhile = once(lambda: [others_batch(room, f"other-{n}") for n in range(120)])
    room.text()
    assert_paid_once(room)


def test_pages_are_turned_until_what_was_there_before(make_room: MakeRoom) -> None:
    room = make_room(latency=30.0)
    for n in range(3):
        others_batch(room, f"before-{n}")
    dead = room.again(fate=Fate(kill_at="after create"))
    with dying(dead):
        dead.ask()
    for n in range(150):
        others_batch(room, f"after-{n}")
    room.clock.advance(100.0)
    room.again().text()
    assert_paid_once(room)
    assert room.simulator.requests["results"] <= 160


def test_another_tools_batches_of_many_requests_are_not_even_opened(room: Room) -> None:
    room.simulator.fault(**NOT_TAKEN)
    room.meanwhile = once(lambda: others_batch(room, "one", "two"))
    room.text()
    assert_paid_once(room)
    assert room.simulator.requests["results"] == 1


def test_what_was_proven_foreign_is_not_opened_twice(make_room: MakeRoom) -> None:
    room = make_room(latency=5.0)
    room.simulator.fault(**NOT_TAKEN)
    room.meanwhile = once(lambda: others_batch(room, "somebody-else"))
    room.text()
    assert_paid_once(room)
    assert room.simulator.requests["results"] == 2
    assert len(room.record.rejected) == 1


def test_a_batch_made_long_after_the_post_is_not_a_candidate(room: Room) -> None:
    room.simulator.fault(**NOT_TAKEN)
    room.simulator.change(latency=float("inf"))

    def later() -> None:
        room.clock.advance(300.0)
        others_batch(room, "much-later")
        room.simulator.change(latency=10.0)

    room.meanwhile = once(later)
    room.text()
    assert_paid_once(room)


def test_a_batch_claimed_by_another_gremlin_is_not_a_candidate(make_room: MakeRoom) -> None:
    room = make_room(latency=float("inf"))
    taken: list[str] = []
    room.claimed = lambda _since: frozenset(taken)
    room.simulator.fault(**NOT_TAKEN)

    def other() -> None:
        taken.append(others_batch(room, "another-gremlins"))
        room.simulator.change(latency=10.0)

    room.meanwhile = once(other)
    room.text()
    assert_paid_once(room)


def test_the_gremlins_own_other_batch_is_not_a_candidate(make_room: MakeRoom) -> None:
    room = make_room(latency=float("inf"))
    submitted = room.again(fate=Fate(kill_at="after writing submitted"))
    with dying(submitted):
        submitted.ask(label="docs/plan")
    room.simulator.change(latency=10.0)
    room.simulator.fault(**NOT_TAKEN)
    room.text(label="code/plan")
    assert len(room.ours) == 2
    assert not any("may be it" in wait.why for wait in room.waits)


def test_claims_are_read_from_every_other_gremlins_records(room: Room) -> None:
    room.text()
    home = Home(room.root.parent / "home")
    (home.gremlins).mkdir(parents=True)
    room.paths.root.rename(home.gremlins / "g")
    since = room.clock.now()
    assert claimed_batches(home, besides="another", since=since) == {b.id for b in room.simulator.batches}
    assert claimed_batches(home, besides="g", since=since) == frozenset()


def test_several_gremlins_that_look_at_the_same_moment_each_find_their_own(make_room: MakeRoom) -> None:
    first = make_room(latency=30.0)
    rooms = [first, *(first.again(gremlin_id=f"g{n}") for n in range(3))]
    first.simulator.fault(**LOST, times=len(rooms))
    for room in rooms:
        dead = room.again(fate=Fate(kill_at="after writing intent"))
        with dying(dead):
            dead.ask()
        dead = room.again(fate=Fate(kill_at="before list"))
        with dying(dead):
            dead.ask()
    first.clock.advance(60.0)
    threads = [threading.Thread(target=room.again().ask) for room in rooms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(first.simulator.batches) == len(rooms)
    assert len({room.ours[0] for room in rooms}) == len(rooms)
    assert [room.cost for room in rooms] == [room.billed for room in rooms]


# ── results that prove nothing ──────────────────────────────────────────────────────────────────────────────────────


def test_torn_results_of_a_candidate_prove_nothing(make_room: MakeRoom) -> None:
    room = make_room(latency=5.0)
    room.simulator.fault(**LOST)
    room.simulator.fault("results", "missing", times=3)
    room.text()
    assert_paid_once(room)


def test_a_candidate_that_stays_unreadable_is_for_a_person_to_decide(make_room: MakeRoom) -> None:
    room = make_room(latency=5.0)
    room.simulator.fault(**LOST)
    room.simulator.fault("results", "missing", times=0)
    with pytest.raises(CallUnsuccessful) as caught:
        room.ask()
    assert isinstance(caught.value.outcome, Failed)
    assert "may be this call" in caught.value.outcome.reason
    assert len(room.ours) == 1


def test_a_key_refused_while_looking_is_no_proof_of_absence(make_room: MakeRoom) -> None:
    room = make_room(latency=5.0)
    room.simulator.fault(**LOST)
    room.simulator.fault("results", "error", status=401)
    with pytest.raises(Detach):
        room.ask()
    room.again().text()
    assert_paid_once(room)


# ── clocks ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ahead", [-86_400.0, 86_400.0])
def test_a_machine_whose_clock_is_wrong_finds_its_batch(make_room: MakeRoom, ahead: float) -> None:
    room = make_room(clock_offset=ahead)
    room.simulator.fault(**LOST)
    room.text()
    assert_paid_once(room)


@pytest.mark.parametrize("jump", [-86_400.0, 3600.0])
def test_a_clock_that_jumps_while_looking_neither_stretches_nor_cuts_the_grace(
    make_room: MakeRoom, jump: float
) -> None:
    room = make_room(latency=30.0)
    room.simulator.fault("create", "late", seconds=50.0)
    room.simulator.fault(**LOST)

    def jumps() -> None:
        room.clock.jump(jump)
        room.simulator.advance(-jump)

    room.meanwhile = once(jumps)
    room.text()
    assert_paid_once(room)
    assert sum(room.waited) < 1000


def test_a_server_that_tells_no_time_is_searched_by_what_there_was_before(make_room: MakeRoom) -> None:
    def timeless(method: str, url: str, headers: Any, timeout: float) -> HttpReply:
        reply = urllib_transport(method, url, headers, timeout)
        return HttpReply(reply.status, reply.body, {k: v for k, v in reply.headers.items() if k != "date"})

    transport: Transport = timeless
    room = make_room({"transport": transport}, clock_offset=7 * 86_400.0)
    room.simulator.fault(**LOST)
    room.text()
    assert_paid_once(room)


def test_a_process_killed_in_the_post_looks_up_to_the_time_of_its_rescue(room: Room) -> None:
    dead = room.again(fate=Fate(kill_at="after create"))
    with dying(dead):
        dead.ask()
    (send,) = dead.record.sends
    assert send.outcome is None
    room.clock.advance(3 * 3600.0)
    room.again().text()
    assert_paid_once(room)
    (send,) = room.record.sends
    assert send.failed is not None
    assert send.failed >= parse_time("2026-11-21T13:00:00Z")


# ── two all the same ────────────────────────────────────────────────────────────────────────────────────────────────


def late_twin(make_room: MakeRoom, **options: Any) -> Room:
    """A first POST whose batch the list shows only after the grace, so that a second one is made."""
    room = make_room({"batch": SETTINGS.model_copy(update={"poll_max": 60.0})}, **{"latency": 300.0, **options})
    room.simulator.fault("create", "late", seconds=150.0)
    room.simulator.fault(**LOST)
    return room


def test_of_two_the_first_is_used_and_the_other_canceled(make_room: MakeRoom) -> None:
    room = late_twin(make_room)
    room.text()
    first, second = room.ours
    assert room.record.batch
    assert room.record.batch.batch_id == first
    assert [waste.batch_id for waste in room.record.waste] == [second]
    assert room.simulator.store.find(second).cancel_initiated_at is not None
    assert room.cost == room.billed


def test_of_two_the_second_that_could_not_be_canceled_is_booked_as_waste(make_room: MakeRoom) -> None:
    room = late_twin(make_room, cancel_too_late=True)
    room.text()
    total = room.engine().session.ledger.total()
    assert total.wasted_usd > 0
    assert total.total_usd == room.billed
    assert len(room.simulator.billed) == 2


def test_the_second_is_waited_for_so_that_its_cost_is_known(make_room: MakeRoom) -> None:
    room = late_twin(make_room, cancel_too_late=True, cancel_latency=500.0)
    room.text()
    assert room.cost == room.billed
    assert any("waiting for the end" in wait.why for wait in room.waits)


def test_killed_at_any_step_of_two_both_are_booked(make_room: MakeRoom) -> None:
    whole = late_twin(make_room, cancel_too_late=True)
    whole.text()
    steps = len(whole.fate.told)
    for step in range(steps - 20, steps):
        room = late_twin(make_room, cancel_too_late=True)
        room.fate.kill_at = step
        with dying(room):
            room.ask()
        room.again().text()
        assert room.cost == room.billed
        assert len(room.ours) == 2


def test_a_stop_cancels_both(make_room: MakeRoom) -> None:
    room = late_twin(make_room, cancel_latency=20.0)
    dead = room.again(fate=Fate(kill_at="before writing ended"))
    with dying(dead):
        dead.ask()
    room.stop()
    assert all(batch.ended_at for batch in room.simulator.batches)
    assert room.record.settled
    assert room.cost == room.billed


def test_two_that_both_ended_before_anybody_looked_are_both_booked(make_room: MakeRoom) -> None:
    room = late_twin(make_room)
    room.meanwhile = once(lambda: room.clock.advance(2000.0), at=8)
    room.text()
    assert room.cost == room.billed
    assert len(room.record.waste) == 1


def test_a_second_batch_whose_cost_nobody_can_learn_is_unpriced_and_not_free(make_room: MakeRoom) -> None:
    room = late_twin(make_room, cancel_too_late=True)
    dead = room.again(fate=Fate(kill_at="before writing collected"))
    with dying(dead):
        dead.ask()
    assert isinstance(dead.record.status, Ended)
    room = late_twin(make_room, cancel_too_late=True, cancel_latency=500.0)
    room.meanwhile = lambda wait: (
        room.simulator.store.meddle(room.ours[1], "forget") if "waiting for the end" in wait.why else None
    )
    room.text()
    assert isinstance(room.record.status, Collected)
    assert room.engine().session.ledger.total().unpriced_calls == 1


# ── another key ─────────────────────────────────────────────────────────────────────────────────────────────────────

KEYS = {"sk-ant-first-key-000": "ours", "sk-ant-rotated-key-1": "ours", "sk-ant-stranger-0002": "theirs"}


def lost_with_first_key(make_room: MakeRoom, *, before: int = 1, taken: bool = True) -> Room:
    room = make_room({"key": "sk-ant-first-key-000"}, keys=KEYS, latency=30.0)
    for n in range(before):
        others_batch(room, f"before-{n}", key="sk-ant-first-key-000")
    dead = room.again(fate=Fate(kill_at="after create" if taken else "before create"))
    with dying(dead):
        dead.ask()
    return room


def test_a_rotated_key_finds_what_the_old_one_sent(make_room: MakeRoom) -> None:
    room = lost_with_first_key(make_room)
    room.again(key="sk-ant-rotated-key-1").text()
    assert_paid_once(room)


def test_a_rotated_key_may_send_again_once_the_workspace_is_proven(make_room: MakeRoom) -> None:
    room = lost_with_first_key(make_room, taken=False)
    room.again(key="sk-ant-rotated-key-1").text()
    assert_paid_once(room)


def test_another_workspaces_key_is_refused_and_sends_nothing(make_room: MakeRoom) -> None:
    room = lost_with_first_key(make_room)
    with pytest.raises(Detach, match="another key"):
        room.again(key="sk-ant-stranger-0002").ask()
    assert len(room.ours) == 1
    room.again().text()
    assert_paid_once(room)


def test_a_rotated_key_is_trusted_when_it_sees_the_batch_itself(make_room: MakeRoom) -> None:
    room = lost_with_first_key(make_room, before=0)
    with pytest.raises(Detach, match="nothing proves"):
        room.again(key="sk-ant-rotated-key-1").ask()
    room.clock.advance(60.0)
    room.again(key="sk-ant-rotated-key-1").text()
    assert_paid_once(room)


# ── stopping ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stop_while_looking_cancels_once_it_is_found(make_room: MakeRoom) -> None:
    room = make_room(latency=300.0)
    dead = room.again(fate=Fate(kill_at="after create"))
    with dying(dead):
        dead.ask()
    room.stop()
    status = room.record.status
    assert isinstance(status, CallFailed | Collected)
    assert len(room.ours) == 1
    assert room.cost == room.billed


def test_a_stop_of_what_was_never_made_ends_after_the_grace(room: Room) -> None:
    dead = room.again(fate=Fate(kill_at="before create"))
    with dying(dead):
        dead.ask()
    room.stop()
    assert isinstance(room.record.status, CallFailed)
    assert room.ours == []
