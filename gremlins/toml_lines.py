"""Finds the line of each key in a TOML document; `tomllib` keeps no positions."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

KeyPath = tuple[str, ...]


def key_lines(text: str) -> dict[KeyPath, int]:
    """The first line, from 1, of every table and key. `text` must be valid TOML."""
    found: dict[KeyPath, int] = {}
    for path, line in _Scanner(text.replace("\r\n", "\n")).paths():
        for depth in range(1, len(path) + 1):
            found.setdefault(path[:depth], line)
    return found


class _Scanner:
    """Walks over a valid document, so it only has to find the end of each token."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def paths(self) -> Iterator[tuple[KeyPath, int]]:
        table: KeyPath = ()
        while self._skip_blank():
            line = self._line()
            if self.text[self.at] == "[":
                self.at += len(self._run("["))
                table = self._key()
                self._skip_blank()
                self.at += len(self._run("]"))
                yield table, line
            else:
                yield from self._pair(table)

    def _pair(self, table: KeyPath) -> Iterator[tuple[KeyPath, int]]:
        line = self._line()
        path = table + self._key()
        yield path, line
        self.at = self.text.index("=", self.at) + 1
        yield from self._value(path)

    def _value(self, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
        self._skip_blank()
        match self.text[self.at]:
            case '"' | "'":
                self._string()
            case "[":
                yield from self._inside("]", path, pairs=False)
            case "{":
                yield from self._inside("}", path, pairs=True)
            case _:
                while self.at < len(self.text) and self.text[self.at] not in ",]}#\n":
                    self.at += 1

    def _inside(self, end: str, path: KeyPath, *, pairs: bool) -> Iterator[tuple[KeyPath, int]]:
        self.at += 1
        while self._skip_blank(also=",") and self.text[self.at] != end:
            yield from self._pair(path) if pairs else self._value(path)
        self.at += 1

    def _key(self) -> KeyPath:
        """Read a dotted key, up to the `=` or `]` after it."""
        parts: list[str] = []
        while True:
            self._skip_blank()
            start = self.at
            if self.text[start] in "\"'":
                self._string()
                parts.append(tomllib.loads(f"k = {self.text[start : self.at]}")["k"])
            else:
                while self.text[self.at] not in ".=] \t":
                    self.at += 1
                parts.append(self.text[start : self.at])
            self._skip_blank()
            if self.text[self.at] != ".":
                return tuple(parts)
            self.at += 1

    def _string(self) -> None:
        quote = self.text[self.at]
        if not self.text.startswith(quote * 3, self.at):
            self.at += 1
            self._to_quote(quote)
            self.at += 1
            return
        self.at += 3
        self._to_quote(quote * 3)
        self.at += len(self._run(quote))  # up to two quotes may precede the closing three

    def _to_quote(self, end: str) -> None:
        while not self.text.startswith(end, self.at):
            escaped = end[0] == '"' and self.text[self.at] == "\\"
            self.at += 2 if escaped else 1

    def _run(self, char: str) -> str:
        end = self.at
        while end < len(self.text) and self.text[end] == char:
            end += 1
        return self.text[self.at : end]

    def _skip_blank(self, also: str = "") -> bool:
        """Skip blanks, comments and characters of `also`. False at the end of the text."""
        while self.at < len(self.text):
            if self.text[self.at] == "#":
                newline = self.text.find("\n", self.at)
                self.at = len(self.text) if newline < 0 else newline
            elif self.text[self.at] in " \t\n" + also:
                self.at += 1
            else:
                return True
        return False

    def _line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1
