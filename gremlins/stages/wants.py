"""A model's request for more of the repository, as a reply holds it in place of a result.

`{"need": [{"path": …} | {"search": …}], "why": …}`, or a last line `NEED: path, path`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gremlins.text import normalised_value

MOST_WANTS = 40


@dataclass(frozen=True)
class Want:
    """One thing asked for: a file or folder, a definition in it, or the places that hold a text."""

    path: str = ""
    symbol: str = ""
    search: str = ""

    def __str__(self) -> str:
        if self.search:
            return f"places with `{self.search}`"
        return f"`{self.symbol}` in `{self.path}`" if self.symbol else f"`{self.path}`"


@dataclass(frozen=True)
class Need:
    """A request for more of the repository."""

    wants: tuple[Want, ...]
    why: str = ""

    def __str__(self) -> str:
        why = " ".join(self.why.split())[:300]
        return ", ".join(map(str, self.wants)) + (f" ({why})" if why else "")


def read_need(text: str) -> Need | None:
    """The request in a reply, or None if it is a result. A reply with edits or a decision is one."""
    if '"need"' in text:
        for found in _objects_at_the_end(text):
            wants = _wants(found.get("need"))
            if wants and not found.get("edits") and not found.get("child_plan"):
                return Need(wants, str(found.get("why") or ""))
    if '"edits"' in text:
        empty = (found for found in _objects_at_the_end(text) if found.get("edits") == [])
        text = next((str(found.get("summary") or "") for found in empty), "")
    return _line_of_needs(text)


def _objects_at_the_end(text: str) -> Iterator[Mapping[str, Any]]:
    """The JSON object that a text ends with, fenced or not."""
    decoder = json.JSONDecoder(strict=False)
    end = 0
    for tries, opening in enumerate(_OBJECT.finditer(text)):
        if opening.start() < end or tries > 200:
            continue
        try:
            value, end = decoder.raw_decode(text, opening.start())
            value = normalised_value(value)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and not text[end:].strip(" \t\r\n`"):
            yield value


_OBJECT = re.compile(r'\{\s{0,80}"')


def _wants(value: object) -> tuple[Want, ...]:
    if not isinstance(value, list):
        return ()
    found = []
    for item in value[:MOST_WANTS]:
        if isinstance(item, str) and item.strip():
            found.append(_want(item))
        elif isinstance(item, dict):
            texts = {key: str(item.get(key) or "").strip() for key in ("path", "symbol", "search")}
            if texts["search"] and not texts["path"]:
                found.append(Want(search=texts["search"][:300]))
            elif texts["path"]:
                found.append(Want(path=texts["path"][:1000], symbol=texts["symbol"][:300]))
            elif texts["symbol"]:
                found.append(Want(search=texts["symbol"][:300]))
    return tuple(dict.fromkeys(found))


_MARKUP = "*_` \t"
_LINE = re.compile(r"NEED[*_`]*\s*:[*_`]*\s*(?P<rest>.+)")
_NOTHING = re.compile(r"\W*(none|nothing|n/?a)\W*", re.IGNORECASE)


def _line_of_needs(text: str) -> Need | None:
    """A last line `NEED: a.py, src/b.py, search: text`."""
    last = next((line for line in reversed(text.split("\n")) if line.strip(_MARKUP + "\r")), "")
    found = _LINE.fullmatch(last.strip(_MARKUP + "\r"))
    if found is None or _NOTHING.fullmatch(found["rest"]):
        return None
    wants = tuple(dict.fromkeys(_want(item) for item in items_of(found["rest"])[:MOST_WANTS]))
    return Need(wants) if wants else None


def items_of(text: str) -> list[str]:
    """The items of a list in one line: parted by commas or semicolons, less their quotes."""
    items = (item.strip(" \t\r\"'`*[]()") for item in re.split(r"[,;]", text))
    return [item.removesuffix(".") if item.count(".") > 1 else item for item in items if item]


def _want(text: str) -> Want:
    """`src/a.py`, `src/a.py#name`, `src/a.py::name`, `search: words`."""
    if found := re.fullmatch(r"search\s*[:=]?\s+(.+)|search:(.+)", text, re.IGNORECASE):
        return Want(search=(found[1] or found[2]).strip(" \"'`")[:300])
    path, _, symbol = re.sub(r"::|#", "\0", text, count=1).partition("\0")
    return Want(path=path.strip()[:1000], symbol=symbol.strip()[:300])
