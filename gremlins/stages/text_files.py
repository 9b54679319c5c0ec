"""Reads a file's bytes as text and makes them bytes again: encoding and byte order mark stay as they are."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

_MARKS = (  # the longer mark first: UTF-32 begins as UTF-16 does
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARED = re.compile(rb"(?:coding|charset|fileencoding|encoding)\s{0,5}[=:]\s{0,5}[\"']?([A-Za-z0-9][\w.-]{1,30})")
"""As Python (PEP 263), XML, HTML, CSS and editors write it into a file's first lines."""


@dataclass(frozen=True)
class TextFile:
    """A file as text, without its byte order mark."""

    text: str
    encoding: str = "utf-8"
    mark: bytes = b""

    def encode(self, text: str) -> bytes:
        """The bytes of a new text of this file. Raises UnicodeEncodeError."""
        return self.mark + text.encode(self.encoding)


def read_text(raw: bytes) -> TextFile | None:
    """The bytes of a file as text, so that encoding it again gives the same bytes. None: they are not text."""
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return _decoded(raw, encoding, mark)
    if b"\0" in raw:
        return next((found for wide in _wide(raw) if (found := _decoded(raw, wide))), None)
    if _controls(raw) * 50 > min(len(raw), 8000):
        return None
    declared = [name.decode() for line in raw[:1000].split(b"\n", 3)[:3] for name in _DECLARED.findall(line)]
    for encoding in ("utf-8", *declared, "cp1252", "latin-1"):
        if found := _decoded(raw, encoding):
            return found
    return None


def _decoded(raw: bytes, encoding: str, mark: bytes = b"") -> TextFile | None:
    try:
        found = TextFile(raw[len(mark) :].decode(encoding), encoding, mark)
        return found if encoding == "utf-8" or found.encode(found.text) == raw else None
    except (LookupError, ValueError):  # no such encoding, or other bytes than it allows
        return None


_CONTROLS = bytes(sorted(set(range(32)) - set(b"\t\n\r\f\x1b")))


def _controls(raw: bytes) -> int:
    """Control characters among the first bytes. Text has next to none."""
    sample = raw[:8000]
    return len(sample) - len(sample.translate(None, _CONTROLS))


def _wide(raw: bytes) -> list[str]:
    """UTF-16 without a mark: of mostly Latin text every other byte is zero."""
    sample = raw[:4000]
    half = len(sample) // 2
    low, high = sample[1::2].count(0), sample[::2].count(0)
    if len(raw) % 2 == 0 and half and max(low, high) > 0.7 * half and min(low, high) < 0.05 * half:
        return ["utf-16-le" if low > high else "utf-16-be"]
    return []
