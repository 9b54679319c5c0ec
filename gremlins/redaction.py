"""Removes secrets from text that is shown or written down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

from gremlins.masking import mask

_SECRET_NAME = re.compile(r".*(KEY|TOKEN|SECRET|PASSWORD|HEADERS)", re.IGNORECASE)
_HEADERS_NAME = re.compile(r".*HEADERS", re.IGNORECASE)
_USERINFO = re.compile(r"://([^/\s:@]*)(?::([^/\s@]+))?@")
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


def of_header(value: str) -> set[str]:
    """The secrets in a header's value: all of it, and the credential behind a word like Bearer."""
    return {value.strip(), *value.split()[-1:]}


class Redactor:
    """Replaces the secrets of an environment by `***`: values of secret-looking variables, values of custom headers,
    and what stands before the `@` of a URL: the password, or the user where there is none.

    Only for text that we say, or that comes from outside: a model's reply is kept as it is, because it may hold the
    same letters for another reason.
    """

    def __init__(self, env: Mapping[str, str], *secrets: str, shortest: int = SHORTEST_SECRET) -> None:
        found = {value for name, value in env.items() if _SECRET_NAME.fullmatch(name)}
        for name, value in env.items():
            found |= {unquote(password or user) for user, password in _USERINFO.findall(value)}
            found |= {password or user for user, password in _USERINFO.findall(value)}
            if _HEADERS_NAME.fullmatch(name):
                found |= {part for line in value.splitlines() for part in of_header(line.partition(":")[2])}
        long_enough = {secret for secret in (*found, *secrets) if len(secret) >= shortest}
        self._secrets = sorted(long_enough, key=len, reverse=True)

    def text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def message(self, text: str) -> str:
        """`text`, for logs and error messages: all that looks like a credential is hidden too."""
        text = self.text(text)
        for pattern, replacement in _LOOKS_SECRET:
            text = pattern.sub(replacement, text)
        return mask(text)


def has_password(address: str) -> bool:
    """True if a database address, a URL or a list of `key=value`, names a password."""
    return bool(re.search(r"://[^/\s:@]*:\S+@|(^|[\s?&])password\s*=", address))


def without_password(address: str) -> str:
    """The same address to show."""
    hidden = re.sub(r"(://[^/\s:@]*):\S+@", r"\1:***@", address)
    return re.sub(r"((?:^|[\s?&])password\s*=\s*)('[^']*'|[^\s&]*)", r"\1***", hidden)
