"""The one way out to the terminal: foreign text moves no cursor, changes no colour and hides no word."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest
from rich.live import Live
from rich.table import Table

from gremlins.cli import main, out
from gremlins.cli.screen import Screen

HOSTILE = "a\x1b[2Jb\x9b31mc\u202ed\u2066e\x07f\x00g\rh\x7fi\u2028j\ud800k"


def harmless(text: str) -> bool:
    return not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl") for c in text if c not in "\n\t")


def test_lines_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    out.say(HOSTILE)
    out.say(out.Styled(HOSTILE, "31"), " and ", HOSTILE)
    out.note(HOSTILE)
    shown = capsys.readouterr()
    assert harmless(shown.out)
    assert harmless(shown.err)
    assert [c for c in shown.err if c.isalpha()] == list("aJbmcdefghijk")


def test_an_error_and_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["show", HOSTILE.replace("\0", "").replace("\ud800", "")]) != 0
    assert harmless(capsys.readouterr().err)


def test_json_means_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    for value in (HOSTILE, [HOSTILE, {"k": HOSTILE}], {"k": [HOSTILE]}):
        out.dump(value)
        shown = capsys.readouterr().out
        assert harmless(shown)
        assert json.loads(shown) == value


def test_tables_and_live_views() -> None:
    written = io.StringIO()
    screen = Screen(file=written, highlight=False, markup=False, color_system=None)
    table = Table("name")
    table.add_row(HOSTILE)
    screen.print(table)
    screen.print(HOSTILE)
    with Live(table, console=screen, auto_refresh=False):
        pass
    assert harmless(written.getvalue())


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("short", ["short"]),
        ("see /a/path/that/is/not/cut", ["see", "/a/path/that/is/not/cut"]),
        ("  a sentence that goes on", ["  a sentence", "  that goes on"]),
        ("ab  cd  one two three four", ["ab  cd  one two", "        three", "        four"]),
    ],
)
def test_a_line_goes_on_below_its_last_column(line: str, parts: list[str]) -> None:
    assert out.wrapped(line, 16) == parts
