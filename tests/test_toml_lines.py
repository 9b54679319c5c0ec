from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gremlins.toml_lines import key_lines

DOCUMENT = '''\
# a comment = with [signs]
top = "a # no comment"
"quoted.key" = 1

[batch] # header
poll_initial = 20
text = """
not_a_key = 1
[nor.a.table]
"quotes" inside\\""" and a backslash \\\\"""
literal = \'\'\'
also_not = 2\'\'\'
many = [
  1, # ]
  "x]", [2,
  3],
]
inline = { a = 1, "b" = { c = "}" } }
spaced . key = true

[[ list ]]
x = 1
[[list]]
y = 2021-01-01T00:00:00Z
'''


def test_every_key_is_found_on_its_line() -> None:
    lines = key_lines(DOCUMENT)
    numbered = DOCUMENT.splitlines()
    for path, line in lines.items():
        assert path[-1] in numbered[line - 1], path
    assert lines["batch", "inline", "b", "c"] == 18
    assert lines["batch", "spaced", "key"] == 19
    assert lines["list", "y"] == 24
    assert ("batch", "not_a_key") not in lines
    assert ("batch", "also_not") not in lines


def test_windows_line_ends_count_once() -> None:
    assert key_lines("a = 1\r\n\r\nb = 2\r\n") == {("a",): 1, ("b",): 3}


pieces = st.sampled_from(
    [
        "a = 1",
        "b.c = 'x'",
        '"d e" = "\\""',
        "[t]",
        "[t.u]",
        "[[l]]",
        "f = [1,\n 2, # ]\n]",
        "g = {h = [], i = {}}",
        'j = """\n"x" = 1\n"""""',
        "k = '''\n[m]'''''",
        "# n = 1",
        "",
        "o = 1979-05-27 07:32:00",
        "p = [[], [{q = 1}]]",
        "r = ''",
        's = ""',
    ]
)


@given(lines=st.lists(pieces, max_size=12))
def test_it_finds_exactly_the_keys_that_the_parser_finds(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # the same key twice, most often
        return
    assert set(key_lines(text)) == set(_paths(document))


def _paths(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield (*path, key)
            yield from _paths(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from _paths(inner, path)
