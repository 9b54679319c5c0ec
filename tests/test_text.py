"""Text is made storable where it comes in: no NUL, no control character, no half of a character."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gremlins.fleet.beads.bead import Issue
from gremlins.launcher import LaunchRequest
from gremlins.stages.edits.answer import parse_reply
from gremlins.stages.handoff import parse_decision
from gremlins.stages.wants import Need, Want, read_need
from gremlins.text import normalised

ODD = "a\0b\x1b[31mc\x7f\x85\ud800\n\td\r\n‏é"
STORED = "a\ufffdbc\ufffd\ufffd\ufffd\n\td\r\n‏é"


def test_what_is_no_text_is_replaced_and_the_rest_stays() -> None:
    assert normalised(ODD) == STORED
    assert normalised("plain\ttext\n") == "plain\ttext\n"
    assert normalised("\x1b]0;title\x07\x1b[1;31mred\x1b[0m \x1b alone") == "red \ufffd alone"


@given(st.text(alphabet=st.characters(), max_size=40))
def test_any_text_can_be_stored_and_stays_as_it_is_then(text: str) -> None:
    done = normalised(text)
    assert normalised(done) == done
    assert "\0" not in done
    done.encode()


def test_every_entry_uses_it() -> None:
    asked = LaunchRequest("batch", Path("/"), task=ODD, title=ODD, plan=ODD)
    assert (asked.task, asked.title, asked.plan) == (STORED, STORED, STORED)
    now = "2026-11-21T10:00:00Z"
    issue = Issue.model_validate(
        {"id": "a-1", "title": ODD, "description": ODD, "notes": ODD, "created_at": now, "updated_at": now}
    )
    assert (issue.title, issue.description, issue.notes) == (STORED, STORED, STORED)
    assert parse_reply('{"edits": [], "summary": "a\\u0000\\ud800b"}').summary == "a\ufffd\ufffdb"
    need = read_need('{"need": [{"path": "a\\ud800"}, {"search": "\\u001b[2J"}], "why": "\\ud800b"}')
    assert need == Need((Want("a\ufffd"),), why="\ufffdb")
    decision = parse_decision('{"decision": "next", "reason": "\\u0000", "child_plan": "x\\ud800", "rolling_plan": ""}')
    assert (decision.reason, decision.child_plan) == ("\ufffd", "x\ufffd")


@pytest.mark.parametrize("field", ["title", "description", "acceptance_criteria"])
def test_a_field_of_another_type_is_still_refused(field: str) -> None:
    now = "2026-11-21T10:00:00Z"
    with pytest.raises(ValueError, match=field):
        Issue.model_validate({"id": "a", "title": "t", "created_at": now, "updated_at": now, field: 3})
