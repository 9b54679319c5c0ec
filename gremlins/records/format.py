"""JSON records on disk: their base type, and the one way to read and write them.

msgspec decodes a record in microseconds, which a list of ten thousand needs; pydantic is for input that people write.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from gremlins.errors import CorruptRecord

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its zone, RFC 3339 on disk."""


class Record(msgspec.Struct, frozen=True):
    """A record or a part of one, frozen. Keys it does not know, of a newer version, are ignored."""


R = TypeVar("R", bound=Record)


def encoded(record: Record) -> bytes:
    """Indented JSON with a final newline: people read these files too."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def decoded(decoder: msgspec.json.Decoder[R], raw: bytes, path: Path | str, kind: str, schema: int) -> R:
    """The record in `raw`. Raises CorruptRecord naming `path`, also for a schema newer than `schema`.

    A list passes a string, because making ten thousand `Path`s takes a third of a second.
    """
    try:
        record = decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        if (newer := _schema_of(raw)) > schema:
            raise CorruptRecord(Path(path), f"written by a newer gremlins (schema {newer})") from error
        raise CorruptRecord(Path(path), f"not {kind} ({error})") from error
    written: int = getattr(record, "schema", schema)
    if written > schema:
        raise CorruptRecord(Path(path), f"written by a newer gremlins (schema {written})")
    return record


class _Schema(Record, frozen=True):
    schema: int = 0


def _schema_of(raw: bytes) -> int:
    """The schema of a record that cannot be decoded otherwise; 0 if it says none."""
    try:
        return msgspec.json.decode(raw, type=_Schema).schema
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return 0
