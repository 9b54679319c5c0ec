"""Paid once and booked right against servers that are not Anthropic's: a table of what gateways and proxies have been
seen to do, over real HTTP. A row names the batches that were made, the sends of unknown cost, and how it ends."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from gremlins.clients.base import Answer, CallUnsuccessful, Detach
from gremlins.outcome import Bail
from gremlins.records.calls import Collected, Ledger
from tests.clients.batch_gremlin import BatchGremlin
from tests.clients.conftest import MakeGremlin

ERROR_DOCUMENT = json.dumps({"type": "error", "error": {"type": "not_found_error", "message": "no such page"}})


def fault(on: str, do: str, **more: Any) -> dict[str, Any]:
    return {"on": on, "do": do, **more}


def always(on: str, do: str, **more: Any) -> dict[str, Any]:
    return fault(on, do, times=0, **more)


@dataclass(frozen=True)
class Row:
    """One odd server. `words` are in the end's sentence, or in the log of a call that got its reply."""

    name: str
    faults: tuple[dict[str, Any], ...]
    end: str = "reply"
    batches: int = 1
    unknown: int = 0
    words: str = ""
    options: dict[str, Any] = field(default_factory=dict)


EMPTY_LIST = always("list", "empty")
TAKEN_AND_500 = always("create", "error", status=500, when="after")
POST_ROWS = (
    Row("takes each POST, answers 500, lists nothing", (TAKEN_AND_500, EMPTY_LIST), "unknown_cost", 4, 4, "Console"),
    Row("takes each POST and answers 529", (always("create", "error", status=529, when="after"), EMPTY_LIST),
        "unknown_cost", 4, 4, "sent 4 times"),
    Row("takes no POST and answers 503", (always("create", "error", status=503),), "unknown_cost", 0, 4, "--from plan"),
    Row("drops each connection after the POST, lists nothing", (always("create", "drop", when="after"), EMPTY_LIST),
        "unknown_cost", 4, 4, "custom_id g_"),
    Row("drops one POST that it did not take", (fault("create", "drop"),), "reply", 1, 1),
    Row("takes the POST, answers 500, and lists it", (fault("create", "error", status=500, when="after"),)),
    Row("takes the POST, answers {}, lists nothing", (always("create", "body", when="after"), EMPTY_LIST),
        "unknown_cost", 1, 1, "sent once (the server answered with something that is not a batch)"),
    Row("takes the POST, answers a page, lists nothing", (always("create", "garbage", when="after"), EMPTY_LIST),
        "unknown_cost", 1, 1, "an HTML page"),
    Row("does not take the POST and answers with an error document", (always("create", "body", body=ERROR_DOCUMENT),),
        "unknown_cost", 0, 1, "sent once"),
    Row("answers the POST with a batch without a status", (fault("create", "body", when="after", body='{"id": "b"}'),)),
    Row("takes the POST, answers {}, and lists it", (fault("create", "body", when="after"),)),
    Row("hands out ids in base64", (), options={"batch_ids": "base64"}),
    Row("hands out ids in base64, and loses a reply", (fault("create", "drop", when="after"),),
        options={"batch_ids": "base64"}),
)  # fmt: skip

LOST = fault("create", "drop", when="after")
LOOK_ROWS = (
    Row("its list has no `data` once", (LOST, fault("list", "body", skip=1))),
    Row("its list has no `data` before the POST", (fault("list", "body", times=3),)),
    Row("its list never has `data` again", (LOST, always("list", "body", skip=1)), "unknown_cost", 1, 1,
        "cannot be looked through"),
    Row("its list answers 404 in passing", (LOST, fault("list", "error", status=404, skip=1, times=3))),
    Row("its results answer 404 while it is looked for", (LOST, fault("results", "error", status=404, times=3))),
    Row("its results answer 410 while it is looked for", (LOST, fault("results", "error", status=410, times=3))),
    Row("its results answer {} while it is looked for", (LOST, fault("results", "body", times=3))),
    Row("its results answer an error document", (LOST, fault("results", "body", times=3, body=ERROR_DOCUMENT))),
    Row("its results answer 404 for ever while it is looked for", (LOST, always("results", "error", status=404)),
        "unknown_cost", 1, 1, "may be this call"),
    Row("its Date is 300 s behind", (LOST,), options={"date_offset": -300.0}),
    Row("its Date is 300 s ahead", (LOST,), options={"date_offset": 300.0}),
    Row("its Date is a day behind, and its list shows a batch late",
        (fault("create", "late", seconds=40.0), LOST), options={"date_offset": -86_400.0}),
    Row("its counts have keys of a later day", (LOST,), options={"more_counts": {"paused": 7, "note": "x"}}),
)  # fmt: skip

FETCH_ROWS = (
    Row("its results answer 404 right after the end", (fault("results", "error", status=404),)),
    Row("its results answer 410 three times", (fault("results", "error", status=410, times=3),)),
    Row("its results answer {}", (fault("results", "body", times=2),)),
    Row("its results answer null", (fault("results", "body", times=2, body="null"),)),
    Row("its results answer with an error document", (fault("results", "body", times=2, body=ERROR_DOCUMENT),)),
    Row("its results answer with an empty body", (fault("results", "body", times=2, body=""),)),
    Row("its results answer with the line of another batch", (fault("results", "foreign", times=2),)),
    Row("its results answer 404 for ever", (always("results", "error", status=404),), "unknown_cost", 1, 1, "404"),
    Row("its results answer {} for ever", (always("results", "body"),), "unknown_cost", 1, 1, "do not hold"),
    Row("its results answer 502 for ever", (always("results", "error", status=502),), "unknown_cost", 1, 1, "502"),
    Row("its results are cut short for ever", (always("results", "truncate"),), "unknown_cost", 1, 1, "broke"),
    Row("retrieve answers 404 twice", (fault("retrieve", "error", status=404, times=2),)),
    Row("retrieve answers 404, then 410, then 400", (
        fault("retrieve", "error", status=404), fault("retrieve", "error", status=410),
        fault("retrieve", "error", status=400))),
    Row("retrieve answers 404 for ever", (always("retrieve", "error", status=404),), "unknown_cost", 1, 1,
        "cannot be seen with this key"),
    Row("retrieve answers {} for an hour", (fault("retrieve", "body", times=12),)),
    Row("its batches do not end", (), "unknown_cost", 1, 1, "expired at",
        options={"latency": float("inf"), "never_expires": True}),
    Row("its batches do not end, and it answers 500", (always("retrieve", "error", status=500, skip=20),),
        "unknown_cost", 1, 1, "expired at", options={"latency": float("inf"), "never_expires": True}),
)  # fmt: skip


def ending(gremlin: BatchGremlin) -> tuple[str, str]:
    """How the call ends, and its words: the sentence of the end, or the log."""
    try:
        answer = gremlin.ask()
    except CallUnsuccessful as error:
        bail = error.outcome
        return (bail.kind, bail.detail) if isinstance(bail, Bail) else (bail.failure, bail.reason)
    except Detach as detach:
        return "detached", str(detach)
    assert isinstance(answer, Answer)
    return "reply", "\n".join(gremlin.lines)


@pytest.mark.parametrize("row", [*POST_ROWS, *LOOK_ROWS, *FETCH_ROWS], ids=lambda row: row.name)
def test_a_server_that(make_gremlin: MakeGremlin, row: Row) -> None:
    gremlin = make_gremlin(**row.options)
    for each in row.faults:
        gremlin.simulator.fault(**each)
    end, words = ending(gremlin)
    total = Ledger(gremlin.paths).total()
    assert (end, len(gremlin.simulator.batches), total.unknown_calls) == (row.end, row.batches, row.unknown), words
    assert row.words in words
    assert total.total_usd == (gremlin.billed if row.end == "reply" else 0.0)
    assert gremlin.record.settled


@pytest.mark.parametrize("row", [row for row in POST_ROWS if row.end == "unknown_cost"], ids=lambda row: row.name)
def test_rescued_again_and_again_it_makes_no_other_batch(make_gremlin: MakeGremlin, row: Row) -> None:
    gremlin = make_gremlin(**row.options)
    for each in row.faults:
        gremlin.simulator.fault(**each)
    for _ in range(2):
        gremlin = gremlin.again()
        assert ending(gremlin)[0] == "unknown_cost"
    assert len(gremlin.simulator.batches) == row.batches
    assert Ledger(gremlin.paths).total().unknown_calls == row.unknown


def test_when_the_server_is_well_again_a_rescue_finds_what_was_paid_for(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin()
    gremlin.simulator.fault(**always("results", "error", status=404))
    assert ending(gremlin)[0] == "unknown_cost"
    gremlin.simulator.faults.clear()
    gremlin = gremlin.again()
    assert ending(gremlin)[0] == "reply"
    assert len(gremlin.ours) == 1
    assert gremlin.cost == gremlin.billed > 0
    assert Ledger(gremlin.paths).total().unknown_calls == 0


def test_when_the_list_shows_all_again_a_rescue_books_every_batch(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin()
    for each in (TAKEN_AND_500, EMPTY_LIST):
        gremlin.simulator.fault(**each)
    assert ending(gremlin)[0] == "unknown_cost"
    gremlin.simulator.faults.clear()
    gremlin = gremlin.again()
    assert ending(gremlin)[0] == "reply"
    assert len(gremlin.ours) == 4
    assert gremlin.cost == gremlin.billed > 0
    assert Ledger(gremlin.paths).total().unknown_calls == 0


def test_a_stop_says_what_may_have_been_billed(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin()
    gremlin.simulator.fault(**always("create", "drop"))
    waits: list[str] = []

    def stop_after_the_first(_: Any) -> None:
        waits.append("")
        if gremlin.record.unknown_sends:
            raise KeyboardInterrupt

    gremlin.meanwhile = stop_after_the_first
    with pytest.raises(KeyboardInterrupt):
        gremlin.ask()
    gremlin.stop()
    assert gremlin.record.status.message == "stopped after 2 sends that may have been billed"
    assert Ledger(gremlin.paths).total().unknown_calls == 2


def test_a_call_that_was_resent_and_answered_keeps_its_unknown_send_on_the_books(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin()
    gremlin.simulator.fault(**fault("create", "drop"))
    assert ending(gremlin)[0] == "reply"
    assert isinstance(gremlin.record.status, Collected)
    assert gremlin.record.unknown_sends == 1
