"""The fleet for people: nothing cut off a terminal, everything within it on one, and first what needs a person."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from gremlins.cli.fleet_table import NEEDS_A_PERSON, by_urgency, detail, lines, shortened, view
from gremlins.cli.out import ago, columns, dollars, printable
from tests.cli.fleet_rows import REASONS, crowd, every_state, fleet, row
from tests.fleet.records import NOON


def text(width: int, height: int | None = None, of: object = None) -> list[str]:
    return [line.plain for line in view(of or every_state(), NOON, width, height)]  # type: ignore[arg-type]


def position(shown: list[str], state: str) -> int:
    return next(number for number, line in enumerate(shown) if f"a-{state}-one" in line)


def test_what_needs_a_person_comes_first_then_what_runs_then_what_is_parked() -> None:
    order = [found.life.state for found in by_urgency(every_state().rows)]
    assert order == [*NEEDS_A_PERSON, "stopping", "running", "parked", "finished", "landed"]


def test_newest_stay_first_among_their_like() -> None:
    found = by_urgency([row("b", "parked"), row("x", "bailed"), row("a", "parked")])
    assert [r.record.id for r in found] == ["x", "b", "a"]


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
    assert len(shown) == 3
    assert all(line.isprintable() for line in shown)


def test_an_empty_fleet_says_what_to_do() -> None:
    assert "gremlins launch" in lines(fleet(), NOON)[0]
    assert len(view(fleet(), NOON, 80)) == 1


def test_the_state_is_shown_with_its_exit_code() -> None:
    assert "dead:exit 2" in "\n".join(lines(every_state(), NOON))


def test_a_parked_one_says_when_it_is_asked_about() -> None:
    assert detail(row("p", "parked"), NOON) == "asks again in 1m30s"


def test_whoever_works_on_a_bead_says_so() -> None:
    made = fleet(row("g", "running", bead_id="repo-k3x9"))
    assert "repo-k3x9: Fix add" in lines(made, NOON)[1]
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
    assert "200 gremlins: 15 need you, 5 running, 180 parked" in shown[0]
    states = [line.split()[1] for line in shown[2:-1]]
    assert states[:15] == ["bailed"] * 9 + ["dead:exit"] * 6
    assert states[15:20] == ["running"] * 5
    assert shown[-1] == "… and 179 more: 179 parked"


@pytest.mark.parametrize("width", [80, 160])
def test_a_reason_stands_below_who_needs_a_person(width: int) -> None:
    shown = text(width)
    below = shown[position(shown, "bailed") + 1]
    assert below.strip().startswith("↳ needs_decision: the task asks for two things")


@pytest.mark.parametrize("width", [80, 160])
def test_cost_time_and_next_question_hold_at_any_width(width: int) -> None:
    shown = text(width)
    line = shown[position(shown, "parked")]
    assert "$0.01" in line
    assert "1m00s" in line
    assert "1m30s" in line


def test_records_that_cannot_be_read_are_said_in_the_view() -> None:
    assert any("2 records cannot be read" in line for line in text(80, 24, fleet(row("a", "running"), unreadable=2)))


def test_colour_has_a_meaning() -> None:
    styles = {
        line.plain.split()[1]: {str(span.style) for span in line.spans}
        for line in view(every_state(), NOON, 160)
        if line.plain.startswith("a-")
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


def test_ids_that_do_not_fit_are_still_told_apart() -> None:
    assert shortened("the-mean-of-a-harvest-56aa", 20) == "the-mean-of-a-…-56aa"
    assert shortened("short-1f2e", 20) == "short-1f2e"
    assert len({shortened(f"fix-the-parser-of-dates-{n:04x}", 14) for n in range(500)}) == 500
