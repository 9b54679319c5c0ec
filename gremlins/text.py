"""Text from outside: without the characters that a terminal, a file or a database takes for an order."""

from __future__ import annotations

import re

_ORDERS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb]"
)
"""C0 without tab and newline, DEL, C1, bidi controls, line and paragraph separators, lone surrogates."""


def cleaned(text: str) -> str:
    """`text` with each control character, bidi control and lone surrogate as U+FFFD; CRLF is a newline."""
    if text.isprintable():
        return text
    return _ORDERS.sub("\ufffd", text.replace("\r\n", "\n"))


def escaped(json_text: str) -> str:
    """A JSON document with the same characters as `\\uXXXX`: it means the same."""
    return _ORDERS.sub(lambda found: f"\\u{ord(found[0]):04x}", json_text)
