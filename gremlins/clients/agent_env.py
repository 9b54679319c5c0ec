"""What a live agent's process may know: an allowlist of variables, plus its own provider's; never another's secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_COMMON = re.compile(
    r"""PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TERM|TMPDIR|XDG_\w+
      | (HTTP|HTTPS|ALL|NO)_PROXY
      | SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|NODE_\w+
      | GIT_(AUTHOR|COMMITTER)_(NAME|EMAIL)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SECRET_NAME = re.compile(r"(.*_)?(KEY|TOKEN|SECRET|PASSWORD|HEADERS)", re.IGNORECASE)
_SHORTEST_SECRET = 12
"""Characters. Anything shorter would blank out ordinary words."""


def agent_env(env: Mapping[str, str], provider: Sequence[str], extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of an agent. `provider`: patterns of the variables its provider needs; `extra` is ours."""
    wanted = [re.compile(pattern) for pattern in provider]
    chosen = {
        name: value
        for name, value in env.items()
        if not name.upper().startswith("GREMLINS_")
        and (_COMMON.fullmatch(name) or any(pattern.fullmatch(name) for pattern in wanted))
    }
    return {**chosen, **extra}


class Redactor:
    """Takes the secrets of an environment out of what is written down or shown."""

    def __init__(self, env: Mapping[str, str]) -> None:
        found = {v for name, v in env.items() if _SECRET_NAME.fullmatch(name) and len(v) >= _SHORTEST_SECRET}
        self._secrets = sorted(found, key=len, reverse=True)

    def text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def value(self, value: Any) -> Any:
        """A JSON value with the secrets taken out of its texts."""
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
