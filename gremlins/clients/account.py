"""Whose account a call goes to: address and credential, from the environment or where the SDK finds them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gremlins.errors import NotReady
from gremlins.redaction import Redactor

DEFAULT_BASE_URL = "https://api.anthropic.com"
NO_KEY = "no credentials for Anthropic's API: neither ANTHROPIC_API_KEY nor ANTHROPIC_AUTH_TOKEN is set"
NO_KEY_HINT = "export ANTHROPIC_API_KEY=…, or try it without one: `gremlins demo`"


@dataclass(frozen=True)
class Account:
    """An address and the secret that opens it. The secret is never shown."""

    base_url: str
    secret: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def fingerprint(self) -> str:
        """Tells accounts apart without telling the key: 16 hex digits."""
        return hashlib.sha256(f"{self.base_url}\n{self.secret}".encode()).hexdigest()[:16]

    @property
    def redactor(self) -> Redactor:
        """Hides the secret where a server echoes it."""
        return Redactor({}, self.secret)


def find_account(env: Mapping[str, str] | None = None) -> Account:
    """The account of this environment, as the SDK would choose it. Raises NotReady when there is none."""
    env = os.environ if env is None else env
    base_url = (env.get("ANTHROPIC_BASE_URL") or DEFAULT_BASE_URL).rstrip("/")
    if not base_url.startswith(("http://", "https://")):
        raise NotReady(f"ANTHROPIC_BASE_URL is not an address: {base_url}", hint="it begins with https://")
    secret = env.get("ANTHROPIC_API_KEY") or env.get("ANTHROPIC_AUTH_TOKEN")
    if secret:
        if not secret.isascii() or not secret.isprintable() or secret != secret.strip():
            raise NotReady("the Anthropic key holds characters no key has (a line break, or a space at its end?)")
        return Account(base_url, secret, {"authorization": f"Bearer {secret}", **_custom_headers(env)})
    if _sdk_may_find_some(env):
        return _from_sdk(env, base_url)
    raise NotReady(NO_KEY, hint=NO_KEY_HINT)


def _custom_headers(env: Mapping[str, str]) -> dict[str, str]:
    """`ANTHROPIC_CUSTOM_HEADERS` as the SDK reads it: one `Name: value` a line, for gateways that want their own."""
    pairs = (line.partition(":") for line in env.get("ANTHROPIC_CUSTOM_HEADERS", "").splitlines())
    return {name.strip().lower(): value.strip() for name, colon, value in pairs if colon and name.strip()}


def _sdk_may_find_some(env: Mapping[str, str]) -> bool:
    """Cheap signs of a profile or a workload identity, so that the SDK is not imported for nothing."""
    if any(env.get(name) for name in ("ANTHROPIC_PROFILE", "ANTHROPIC_FEDERATION_RULE_ID", "ANTHROPIC_CONFIG_DIR")):
        return True
    config = Path(env.get("HOME", "~")).expanduser() / ".config" / "anthropic"
    return config.is_dir() and any(config.iterdir())


def _from_sdk(env: Mapping[str, str], base_url: str) -> Account:
    from anthropic import AnthropicError  # seconds: only for those who keep their credentials in a profile
    from anthropic.lib.credentials import default_credentials

    try:
        found = default_credentials(base_url=base_url)
        token = found.provider().token if found else ""
    except (AnthropicError, OSError, ValueError) as error:
        raise NotReady(f"Anthropic's credentials cannot be read: {error}", hint=NO_KEY_HINT) from error
    if found is None or not token:
        raise NotReady(NO_KEY, hint=NO_KEY_HINT)
    address = env.get("ANTHROPIC_BASE_URL") or found.base_url or base_url
    headers = {
        "authorization": f"Bearer {token}",
        "anthropic-beta": "oauth-2025-04-20",
        **{name.lower(): value for name, value in found.extra_headers.items()},
        **_custom_headers(env),
    }
    return Account(address.rstrip("/"), token, headers)
