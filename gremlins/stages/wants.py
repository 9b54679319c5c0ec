"""A model's request for more of the repository."""

from __future__ import annotations

from dataclasses import dataclass


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
