"""Removes secrets from text that is shown or written down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gremlins.masking import mask

_SECRET_NAME = re.compile(r".*(KEY|TOKEN|SECRET|PASSWORD|HEADERS)", re.IGNORECASE)
_USERINFO = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
_LOOKS_SECRET = (
    (re.compile(r"://[^/\s:@'\"]*:[^/\s@'\"]+@|(?<=http)(s?)://[^/\s@'\"]+@"), r"\1://***@"),
    (
        re.compile(
            r"""\b((?:proxy-)?authorization|(?:x-)?api-?key)\b(['"]?\s*[:=]\s*b?['"]?)((?:bearer|basic|token)\s+)?"""
            r"""[^\s'",;)}]+""",
            re.IGNORECASE,
        ),
        r"\1\2\3***",
    ),
    (re.compile(r"\b(bearer|basic)\s+(?=\S*[\d._~+/=-])[\w.~+/=-]{8,}", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"\b(?:sk-[\w-]{12,}|gh[opsur]_\w{20,}|github_pat_\w{20,})"), "***"),
)
"""URLs with a user or password, authorization headers, and keys by their prefix."""
SHORTEST_SECRET = 6
"""Characters. A shorter value would blank out ordinary words."""
SHORTEST_IN_REPLY = 12
"""The same for a model's reply, which is full of ordinary words."""


class Redactor:
    """Replaces the secrets of an environment by `***`: values of secret-looking variables, and passwords in URLs."""

    def __init__(self, env: Mapping[str, str], *secrets: str, shortest: int = SHORTEST_SECRET) -> None:
        found = {value for name, value in env.items() if _SECRET_NAME.fullmatch(name)}
        found |= {password for value in env.values() for password in _USERINFO.findall(value)}
        long_enough = {secret for secret in (*found, *secrets) if len(secret) >= shortest}
        self._secrets = sorted(long_enough, key=len, reverse=True)

    def text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def message(self, text: str) -> str:
        """`text`, for logs and error messages: whatever looks like a credential is hidden too."""
        text = self.text(text)
        for pattern, replacement in _LOOKS_SECRET:
            text = pattern.sub(replacement, text)
        return mask(text)

    def value(self, value: Any) -> Any:
        """A JSON value with its texts redacted."""
        match value:
            case str():
                return self.text(value)
            case list() | tuple():
                return [self.value(item) for item in value]
            case dict():
                return {key: self.value(item) for key, item in value.items()}
            case _:
                return value

    def data(self, data: bytes) -> bytes:
        for secret in self._secrets:
            data = data.replace(secret.encode(), b"***")
        return data
