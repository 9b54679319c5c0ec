"""Whose account a call goes to: address and credential, from the environment or where the SDK finds them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gremlins.clients.route import DIRECT, Route, check_base_url, find_base_url, find_route
from gremlins.errors import NotReady
from gremlins.redaction import Redactor, of_header

HEADERS = "ANTHROPIC_CUSTOM_HEADERS"
NO_KEY = "no credentials for Anthropic's API: neither ANTHROPIC_API_KEY nor ANTHROPIC_AUTH_TOKEN is set"
NO_KEY_HINT = "export ANTHROPIC_API_KEY=…, or try it without one: `gremlins demo`"


@dataclass(frozen=True)
class Account:
    """An address, the way to it, and the secret that opens it. The secret is never shown."""

    base_url: str
    secret: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    route: Route = DIRECT

    @property
    def fingerprint(self) -> str:
        """Tells accounts apart without telling the key: 16 hex digits."""
        return hashlib.sha256(f"{self.base_url}\n{self.secret}".encode()).hexdigest()[:16]

    @property
    def redactor(self) -> Redactor:
        """Hides the secret, and the values of headers that a gateway wanted, where a server echoes them."""
        return Redactor({}, self.secret, *(part for value in self.headers.values() for part in of_header(value)))


def find_account(env: Mapping[str, str] | None = None) -> Account:
    """The account of this environment, as the SDK would choose it.

    Raises NotReady when there is none, or where the environment makes every request to it fail.
    """
    env = os.environ if env is None else env
    base_url, custom = find_base_url(env), dict(_custom_headers(env))
    secret = env.get("ANTHROPIC_API_KEY") or env.get("ANTHROPIC_AUTH_TOKEN")
    if secret:
        if not secret.isascii() or not secret.isprintable() or secret != secret.strip():
            raise NotReady("the Anthropic key holds characters no key has (a line break, or a space at its end?)")
        headers = {"authorization": f"Bearer {secret}", **custom}
        return Account(base_url, secret, headers, find_route(base_url, env))
    if _sdk_may_find_some(env):
        return _from_sdk(env, base_url, custom)
    raise NotReady(NO_KEY, hint=NO_KEY_HINT)


def _custom_headers(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """`ANTHROPIC_CUSTOM_HEADERS` as the SDK reads it: one `Name: value` a line, for gateways that want their own.

    Raises NotReady, naming the line and never its value.
    """
    for number, line in enumerate(re.split(r"\r?\n", env.get(HEADERS, "")), start=1):
        name, colon, value = (part.strip(" \t") for part in line.partition(":"))
        if not line.strip():
            continue
        hint = "one `Name: value` a line"
        if not colon or not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
            raise NotReady(
                f"{HEADERS} is not valid: line {number} does not begin with a header's name and `:`", hint=hint
            )
        if not value.isascii() or not value.isprintable():
            raise NotReady(
                f"{HEADERS} is not valid: the value in line {number} holds characters no header has", hint=hint
            )
        yield name.lower(), value


def _sdk_may_find_some(env: Mapping[str, str]) -> bool:
    """Cheap signs of a profile or a workload identity, so that the SDK is not imported for nothing."""
    if any(env.get(name) for name in ("ANTHROPIC_PROFILE", "ANTHROPIC_FEDERATION_RULE_ID", "ANTHROPIC_CONFIG_DIR")):
        return True
    config = Path(env.get("HOME", "~")).expanduser() / ".config" / "anthropic"
    return config.is_dir() and any(config.iterdir())


def _from_sdk(env: Mapping[str, str], base_url: str, custom: Mapping[str, str]) -> Account:
    from anthropic import AnthropicError  # seconds: only for those who keep their credentials in a profile
    from anthropic.lib.credentials import default_credentials

    try:
        found = default_credentials(base_url=base_url)
        token = found.provider().token if found else ""
    except (AnthropicError, OSError, ValueError) as error:
        raise NotReady(f"Anthropic's credentials cannot be read: {error}", hint=NO_KEY_HINT) from error
    if found is None or not token:
        raise NotReady(NO_KEY, hint=NO_KEY_HINT)
    address = base_url if env.get("ANTHROPIC_BASE_URL") else check_base_url(found.base_url or base_url)
    headers = {
        "authorization": f"Bearer {token}",
        "anthropic-beta": "oauth-2025-04-20",
        **{name.lower(): value for name, value in found.extra_headers.items()},
        **custom,
    }
    return Account(address, token, headers, find_route(address, env))
