"""The place of an edit: before, `old`, `new`, after. What differs only in form is taken; nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gremlins.stages.edits.matching import Misfit, nearest_lines, replace_once
from tests.time_limit import must_end

TAKEN = {
    "indented deeper": ("    a\n    b\n", "a\nb\n", "x\n", "    x\n"),
    "tabs for spaces": (
        "\tif x:\n\t\ty = 1\n",
        "    if x:\n        y = 1\n",
        "    if x:\n        y = 1\n        if z:\n            w()\n",
        "\tif x:\n\t\ty = 1\n\t\tif z:\n\t\t\tw()\n",
    ),
    "spaces for tabs": (
        "  if x:\n    y\n",
        "\tif x:\n\t\ty\n",
        "\tif x:\n\t\tz\n\t\t\tw\n",
        "  if x:\n    z\n      w\n",
    ),
    "two spaces for four": (
        "def f():\n  if x:\n    return  1\n",
        "def f():\n    if x:\n        return 1\n",
        "def f():\n    if x:\n        z()\n        return 1\n    return 3\n",
        "def f():\n  if x:\n    z()\n    return  1\n  return 3\n",
    ),
    "first line without its indentation": (
        "        foo  (a)\n        bar()\n",
        "foo(a)\n        bar()\n",
        "foo(b)\n        baz()\n",
        "        foo(b)\n        baz()\n",
    ),
    "spaces within a line": ("a = f(b,c)\n", "a = f(b, c)", "a = g(b, c)", "a = g(b, c)\n"),
    "a kept line keeps its spaces": (
        "s = 'a  b'\nt = 1\n",
        "s = 'a b'\nt = 1\n",
        "s = 'a b'\nt = 2\n",
        "s = 'a  b'\nt = 2\n",
    ),
    "blank lines": ("a\n\n\nb\nc\n", "a\nb\n", "a\nb\nd\n", "a\n\n\nb\nd\nc\n"),
    "a blank line too many": ("a\nb\nc\n", "a\n\nb\n", "a\n\nx\n", "a\n\nx\nc\n"),
    "trailing spaces": ("a  \nb\t\nc\n", "a\nb\n", "x\n", "x\nc\n"),
    "a non-breaking space": ("x\u00a0= 1\n", "x = 1", "x = 2", "x = 2\n"),
    "a narrow one in the edit": ("x = 1\n", "x\u202f= 1", "x = 2", "x = 2\n"),
    "curly quotes": ("say “hi” – it’s ok\nnext\n", 'say "hi" - it\'s ok\n', 'say "ho"\n', 'say "ho"\nnext\n'),
    "curly quotes in the edit": ("print('a')\n", "print(‘a’)", "print('b')", "print('b')\n"),
    "a kept line keeps its quotes": ("# it’s\nx = 1\n", "# it's\nx = 1", "# it's\nx = 2", "# it’s\nx = 2\n"),
    "dashes": ("1–2 — 3\n", "1-2 - 3", "4", "4\n"),
    "dots": ("wait…\n", "wait...", "go", "go\n"),
    "letters in parts": ("cafe\u0301 = 1\n", "café = 1", "café = 2", "café = 2\n"),
    "letters in one": ("café = 1\n", "cafe\u0301 = 1", "tea = 2", "tea = 2\n"),
    "syllables in parts": ("\u1112\u1161\u11ab\n", "한", "글", "글\n"),
    "an invisible sign": ("a\u200bb = 1\n", "ab = 1", "ab = 2", "ab = 2\n"),
    "carriage returns": ("a\rb\rc\r", "a\nb\n", "x\ny\nz\n", "x\ry\rz\rc\r"),
    "a last line without an end": ("a\nb", "b\n", "c\n", "a\nc"),
    "a last line without an end, gone": ("a\r\nb", "b\r\n", "", "a"),
    "windows line ends": ("a\r\nb  \r\nc\r\n", "a\nb\n", "x\ny\n", "x\r\ny\r\nc\r\n"),
}


@pytest.mark.parametrize(("before", "old", "new", "after"), TAKEN.values(), ids=TAKEN)
def test_a_near_miss_at_one_place_is_taken_for_it(before: str, old: str, new: str, after: str) -> None:
    found = replace_once(before, old, new)
    assert found.text == after
    assert "differs from `old`" in found.note or "\r" in before


def test_what_fits_exactly_says_nothing() -> None:
    assert replace_once("a\nb\n", "a\n", "x\n").note == ""
    assert replace_once("a\r\nb\r\n", "a\nb\n", "x\n").note == ""


LEFT = {
    "another word": ("return a - b\n", "return a / b"),
    "another case": ("Return a\n", "return a"),
    "another digit": ("x = 10\n", "x = 1 1"),
    "two places alike": ("a  b\n\na   b\n", "a b"),
    "indentation in two ways": ("if x:\n  a\n    b\n", "if x:\n  a\n  b\n"),
    "only white space": ("a\n", "  \n \n"),
    "quotes of another kind": ("'a'\n", '"a"'),
}


@pytest.mark.parametrize(("before", "old"), LEFT.values(), ids=LEFT)
def test_what_differs_in_more_than_form_is_not_taken(before: str, old: str) -> None:
    with pytest.raises(Misfit):
        replace_once(before, old, "new")


def test_the_reading_that_leaves_out_least_decides() -> None:
    """Two places differ in white space, one of them only at its line ends."""
    assert replace_once("a b  \nc\na  b\nc\n", "a b\nc\n", "x\n").text == "x\na  b\nc\n"


def test_a_mismatch_in_a_large_file_takes_no_time() -> None:
    big = "".join(f"    value_{n} = {n}  # é\n" for n in range(40_000))
    old = "".join(f"value_{n} = {n} # é\n" for n in range(100, 200))
    with must_end():
        assert "lines 101–200" in replace_once(big, old, "z\n").note
        for odd in (old + "not there", "x" * 20_000, "a b " * 5_000, "value_ = 1\n" * 3_000):
            with pytest.raises(Misfit):
                replace_once(big, odd, "z")
            nearest_lines(big, odd)


@pytest.mark.parametrize("unit", ["a", "ab\n"])
def test_a_text_that_repeats_itself_takes_no_time(unit: str) -> None:
    text = unit * (300_000 // len(unit))
    for old, why in ((unit * 20_000, "many times"), (f"{text}z", "not in the file")):
        with must_end(), pytest.raises(Misfit, match=why):
            replace_once(text, old, "z")
        nearest_lines(text, old)


@given(
    lines=st.lists(st.sampled_from(["a = 1", "if b:", "    c('d  e')", "", "}", "    # é–“”"]), min_size=3, max_size=9),
    blanks=st.sampled_from(["  ", "\t", "\u00a0"]),
    data=st.data(),
)
def test_lines_that_an_edit_keeps_stay_as_they_are(lines: list[str], blanks: str, data: st.DataObject) -> None:
    """An edit written with other white space changes its own line and no other byte."""
    numbered = [f"{line}  {number}" if line else "" for number, line in enumerate(lines)]
    at = data.draw(st.integers(0, len(lines) - 1))
    numbered[at] = f"target {at}"
    text = "\n".join(numbered) + "\n"
    old = "\n".join(line.replace("  ", blanks, 1) + blanks for line in numbered[at:]) + "\n"
    new = old.replace(f"target {at}", "changed", 1)
    try:
        found = replace_once(text, old, new).text
    except Misfit:
        return
    assert found.split("\n")[:at] == numbered[:at]
    assert [line for line in found.split("\n")[at + 1 :] if line] == [line for line in numbered[at + 1 :] if line]
