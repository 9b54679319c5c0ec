"""Text from outside: without the characters that a terminal, a file or a database takes for an order."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_ORDERS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb]"
)
"""C0 without tab and newline, DEL, C1, bidi controls, line and paragraph separators, lone surrogates."""


def cleaned(text: str) -> str:
    """`text` with each control character, bidi control and lone surrogate as U+FFFD; CRLF is a newline."""
    if text.isprintable():
        return text
    return _ORDERS.sub("\ufffd", text.replace("\r\n", "\n"))


ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
"""A terminal's order, whole: a colour, a title."""
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""C0 without tab and line ends, DEL, C1, lone surrogates: git, a database or a file refuses them, or a reader obeys."""


def normalised(text: str) -> str:
    """`text` as it is taken in, from a person, a model or a repository: without orders to a terminal, and each other
    character that is no text as U+FFFD.
    """
    return text if text.isprintable() else _NO_TEXT.sub("\ufffd", ESCAPE_SEQUENCE.sub("", text))


def normalised_value(value: Any) -> Any:
    """The same of every text in a value of JSON: an escape such as `\\ud800` becomes a character only there."""
    return in_every_text(value, normalised)


def in_every_text(value: Any, change: Callable[[str], str]) -> Any:
    """A value of JSON with a change made in each of its texts, keys too."""
    match value:
        case str():
            return change(value)
        case list():
            return [in_every_text(item, change) for item in value]
        case dict():
            return {change(key): in_every_text(item, change) for key, item in value.items()}
        case _:
            return value


def escaped(json_text: str) -> str:
    """A JSON document with the same characters as `\\uXXXX`: it means the same."""
    return _ORDERS.sub(lambda found: f"\\u{ord(found[0]):04x}", json_text)
