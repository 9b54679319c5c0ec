"""The fleet for people: nothing cut off a terminal, everything within it on one, and first what needs a person."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from gremlins.cli.fleet_table import GROUPS, detail, grouped, lines, view
from gremlins.cli.out import ago, columns, dollars, printable
from tests.cli.fleet_rows import REASONS, crowd, every_state, fleet, row
from tests.fleet.records import NOON


def text(width: int, height: int | None = None, of: object = None) -> list[str]:
    return [line.plain for line in view(of or every_state(), NOON, width, height)]  # type: ignore[arg-type]


def position(shown: list[str], state: str) -> int:
    return next(number for number, line in enumerate(shown) if f"a-{state}-one" in line)


def test_what_needs_a_person_comes_first_then_what_is_ready_then_what_works() -> None:
    found = {name: [row.life.state for row in rows] for name, rows in grouped(every_state().rows).items()}
    assert found == {
        "needs you": ["stalled", "detached", "dead", "bailed"],
        "ready to land": ["finished"],
        "working": ["running", "stopping"],
        "waiting": ["parked"],
        "stopped": ["stopped"],
        "landed": ["landed"],
    }
    assert [name for name in GROUPS if name in found] == list(found)


def test_rows_keep_their_places_whatever_their_states_become() -> None:
    before = grouped([row("b", "dead"), row("x", "bailed"), row("a", "dead")])
    after = grouped([row("b", "bailed"), row("x", "dead"), row("a", "stalled")])
    for found in (before, after):
        assert [r.record.id for r in found["needs you"]] == ["b", "x", "a"]


# ── off a terminal ────────────────────────────────────────────────────────────────────────────────────────────────


def test_off_a_terminal_nothing_is_cut() -> None:
    long = row("x" * 64, "bailed", title="a title " * 30)
    shown = "\n".join(lines(fleet(long), NOON))
    assert "x" * 64 in shown
    assert ("a title " * 30).strip() in shown
    assert REASONS["bailed"] in shown


def test_off_a_terminal_there_is_one_line_for_each_gremlin_whatever_its_texts_say() -> None:
    odd = row("odd", "bailed", title="two\nlines\x1b[31m and \x07 a bell\r")
    shown = lines(fleet(odd, row("plain", "running")), NOON)
    assert shown == [line for line in shown if line.isprintable()]
    assert sum("odd" in line for line in shown) == 2, "its row, and the heading with the command"


def test_what_is_ready_says_what_it_holds_and_how_to_land_it() -> None:
    shown = "\n".join(lines(fleet(row("fix-add-1f2e", "finished")), NOON))
    assert "ready to land · gremlins diff fix-add-1f2e · gremlins land fix-add-1f2e" in shown
    assert "2 files, +10 −3" in shown
    assert "needs you" not in shown, "an empty group is not shown"


def test_a_question_stands_below_with_the_command_that_answers_it() -> None:
    shown = lines(fleet(row("fix-add-1f2e", "bailed")), NOON)
    assert "needs you · gremlins answer fix-add-1f2e TEXT" in shown
    assert any("exclude each other" in line for line in shown)


def test_a_repository_is_named_where_there_is_more_than_one() -> None:
    one, other = row("a", "running", project="/p/calc"), row("b", "running", project="/p/orchard")
    assert "calc" not in "\n".join(lines(fleet(one), NOON))
    both = "\n".join(lines(fleet(one, other), NOON))
    assert "calc" in both
    assert "orchard" in both


def test_one_that_a_cap_has_ended_is_capped() -> None:
    made = row("a", "dead")
    capped = made._replace(life=made.life._replace(capped=True))
    assert "capped" in "\n".join(lines(fleet(capped), NOON))


def test_an_empty_fleet_says_what_to_do() -> None:
    assert "gremlins launch" in lines(fleet(), NOON)[0]
    assert len(view(fleet(), NOON, 80)) == 1


def test_the_state_is_shown_with_its_exit_code() -> None:
    assert "dead:exit 2" in "\n".join(lines(every_state(), NOON))


def test_a_parked_one_says_when_it_is_asked_about() -> None:
    assert detail(row("p", "parked"), NOON) == "asks again in 1m30s"


def test_whoever_works_on_a_bead_says_so() -> None:
    made = fleet(row("g", "running", bead_id="repo-k3x9"))
    assert "repo-k3x9: Fix add" in "\n".join(lines(made, NOON))
    assert "repo-k3x9: Fix add" in "\n".join(text(160, None, made))


# ── on a terminal ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("width", [20, 40, 79, 80, 100, 110, 160, 300])
@pytest.mark.parametrize("height", [None, 5, 24, 60])
def test_no_line_is_wider_and_no_view_longer_than_the_screen(width: int, height: int | None) -> None:
    for made in (every_state(), crowd(), fleet(row("日本" * 20, "bailed", title="直す" * 60))):
        shown = text(width, height, made)
        assert max(map(cell_len, shown)) <= width
        assert height is None or len(shown) <= height


def test_two_hundred_gremlins_at_80_by_24_show_first_who_needs_a_person() -> None:
    shown = text(80, 24, crowd())
    assert "200 gremlins: 15 need you, 5 working, 180 waiting" in shown[0]
    assert shown[1].startswith("needs you")
    assert all("a-rather-long-id" in line for line in shown[2:17])
    assert shown[17] == "working"
    assert shown[-1] == "… and 180 more: 180 waiting"


@pytest.mark.parametrize("width", [80, 160])
def test_a_reason_stands_below_who_needs_a_person(width: int) -> None:
    shown = text(width)
    below = shown[position(shown, "bailed") + 1]
    assert "the task asks for two things" in below
    assert below.startswith("    ↳ ")


@pytest.mark.parametrize("width", [80, 160])
def test_ids_are_whole_and_cost_time_and_next_question_hold_at_any_width(width: int) -> None:
    shown = text(width, None, fleet(row("the-mean-of-a-harvest-784e", "parked"), row("b", "bailed")))
    line = next(line for line in shown if "the-mean-of-a-harvest-784e" in line)
    assert "$0.01" in line
    assert "1m00s" in line
    assert "1m30s" in line


LONG = " ".join(f"word{number}" for number in range(120))


def test_a_long_question_is_wrapped_and_whole_where_there_is_one_gremlin() -> None:
    made = row("fix-add-1f2e", "bailed")
    asks = made._replace(life=made.life._replace(reason=LONG))
    alone = text(80, None, fleet(asks))
    assert LONG in " ".join(" ".join(alone).replace("↳", "").split())
    among = text(80, None, fleet(asks, row("b", "running")))
    assert "word40" in " ".join(among)
    assert "      … `gremlins show fix-add-1f2e` has all of it" in among


@pytest.mark.parametrize("width", [80, 120])
def test_commands_of_a_heading_are_whole(width: int) -> None:
    shown = text(width, None, fleet(row("the-mean-of-a-harvest-784e", "finished")))
    said = " ".join(" ".join(shown).split())
    assert "gremlins diff the-mean-of-a-harvest-784e · gremlins land the-mean-of-a-harvest-784e" in said
    assert "…" not in said


def test_records_that_cannot_be_read_are_said_in_the_view() -> None:
    assert any("2 records cannot be read" in line for line in text(80, 24, fleet(row("a", "running"), unreadable=2)))


def test_colour_has_a_meaning() -> None:
    styles = {
        line.plain.split()[1]: {str(span.style) for span in line.spans}
        for line in view(every_state(), NOON, 160)
        if line.plain.startswith("  a-")
    }
    assert "bold red" in styles["bailed"]
    assert "green" in styles["running"]
    assert "cyan" in styles["parked"]


# ── words and figures ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0s"), (0, "0s"), (59, "59s"), (61, "1m01s"), (3599, "59m"), (3600, "1h00m"), (90000, "1d01h")],
)
def test_how_long_ago(seconds: float, shown: str) -> None:
    assert ago(seconds) == shown


def test_dollars_show_that_some_calls_have_no_price() -> None:
    assert (dollars(0.0105), dollars(12.3), dollars(0.0, 2)) == ("$0.0105", "$12.30", "$0.0000+?")


def test_columns_are_aligned_and_the_last_is_ragged() -> None:
    assert columns([("a", "bb"), ("ccc", "d")], ("X", "Y")) == ["X    Y", "a    bb", "ccc  d"]


def test_a_text_of_others_is_one_printable_line() -> None:
    assert printable("a\x1b[2J\n\tb  c") == "a\ufffd[2J b c"
