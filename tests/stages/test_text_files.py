"""Bytes to text and back: the same bytes, in every encoding."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gremlins.stages.text_files import read_text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", ""),
        ("é\r\n".encode(), "é\r\n"),
        (codecs.BOM_UTF8 + "é".encode(), "é"),
        (codecs.BOM_UTF16_LE + "é\n".encode("utf-16-le"), "é\n"),
        (codecs.BOM_UTF16_BE + "é\n".encode("utf-16-be"), "é\n"),
        (codecs.BOM_UTF32_LE + "é\n".encode("utf-32-le"), "é\n"),
        ("plain text\n".encode("utf-16-le"), "plain text\n"),
        (b"caf\xe9\n", "café\n"),
        (b"\x93smart\x94\n", "“smart”\n"),
        (b"\x81\xe9\n", "\x81é\n"),
        ("# -*- coding: koi8-r -*-\n# Привет\n".encode("koi8-r"), "# -*- coding: koi8-r -*-\n# Привет\n"),
        (
            '<?xml version="1.0" encoding="shift_jis"?>世界'.encode("shift_jis"),
            '<?xml version="1.0" encoding="shift_jis"?>世界',
        ),
        (b"# coding: no-such-thing\n\xe9\n", "# coding: no-such-thing\né\n"),
        (b"# coding: rot13\n\xe9\n", "# coding: rot13\né\n"),
    ],
)
def test_bytes_are_read_as_they_are_meant(raw: bytes, text: str) -> None:
    found = read_text(raw)
    assert found is not None
    assert found.text == text
    assert found.encode(found.text) == raw


@pytest.mark.parametrize("raw", [b"\x89PNG\r\n\x1a\n\0\0", b"\xff\xfea", bytes(range(256)), b"\x01\x02\x03" * 10])
def test_what_is_no_text_is_none(raw: bytes) -> None:
    assert read_text(raw) is None


@given(st.binary(max_size=200))
def test_whatever_is_read_is_written_back_the_same(raw: bytes) -> None:
    found = read_text(raw)
    assert found is None or found.encode(found.text) == raw
