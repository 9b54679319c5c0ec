"""The environment of a live agent: an allowlist of variables, and those of its own provider."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gremlins.processes.children import without_callers_own

_COMMON = re.compile(
    r"""PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TERM|TMPDIR|XDG_\w+
      | (HTTP|HTTPS|ALL|NO)_PROXY
      | SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|NODE_\w+
      | GIT_(AUTHOR|COMMITTER)_(NAME|EMAIL)
    """,
    re.VERBOSE | re.IGNORECASE,
)


def agent_env(env: Mapping[str, str], provider: Sequence[str], extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of an agent. `provider`: patterns of the variables its provider needs; `extra` is ours."""
    wanted = [re.compile(pattern) for pattern in provider]
    chosen = {
        name: value
        for name, value in without_callers_own(env).items()
        if not name.upper().startswith("GREMLINS_")
        and (_COMMON.fullmatch(name) or any(pattern.fullmatch(name) for pattern in wanted))
    }
    return {**chosen, **extra}
