"""Beads as a person reads them."""

from __future__ import annotations

from gremlins.cli.bead.text import table
from gremlins.fleet.beads.attempts import Work
from gremlins.fleet.beads.store.interface import Listed
from gremlins.fleet.dispatch.admit import Standing

NEXT = "blocked by p-9, failed; nothing before a person retries or closes p-9"
WHERE = {
    "p-1": Standing("ready", "nothing is in the way", "a gremlin is started for it"),
    "p-2": Standing("blocked", "blocked by p-9, failed", "nothing before a person retries or closes p-9"),
    "p-3": Standing("backing_off", "it failed", "it is tried again", 160.0),
}
TITLES = {"p-1": "Short", "p-2": "A title that goes on for as long as titles often do", "p-3": "\x1b[31mred"}


def rows(*names: str) -> list[Listed]:
    works = [Work("/p", name, "open", 1, 1, 2, "2026-11-21T10:00:00Z") for name in names]
    return [Listed(work, TITLES[work.id], "task") for work in works]


def test_off_a_terminal_nothing_is_wrapped_or_cut() -> None:
    lines = table(rows("p-1", "p-2"), WHERE, 0.0)
    assert len(lines) == 3
    assert lines[2].endswith(NEXT)


def test_a_narrow_terminal_shows_what_comes_next_whole_on_a_line_of_its_own() -> None:
    lines = table(rows("p-1", "p-2"), WHERE, 0.0, 60)
    assert max(map(len, lines)) <= 60
    said = " ".join(line.strip() for line in lines)
    assert NEXT in said
    assert "a gremlin is started for it" in said


def test_a_terminal_that_is_wide_enough_shows_one_line_a_bead() -> None:
    assert table(rows("p-1", "p-2"), WHERE, 0.0, 200) == table(rows("p-1", "p-2"), WHERE, 0.0)


def test_places_have_the_names_people_know_and_say_how_long_they_last() -> None:
    [_, line] = table(rows("p-3"), WHERE, 100.0)
    assert "backing off" in line
    assert line.endswith("it failed; it is tried again (in 60 s)")
    assert "\x1b" not in line
