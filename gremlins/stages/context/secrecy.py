"""Decides which files never leave this machine, by name or by content."""

from __future__ import annotations

import re

_CODE = re.compile(
    r"\.(py|pyi|js|mjs|cjs|jsx|ts|tsx|go|rs|rb|java|kt|kts|scala|c|h|cc|cpp|hpp|cs|swift|php|ex|exs|erl|clj|hs|ml|lua|pl|sh"
    r"|md|rst|html|css|scss|sql|proto)$",
    re.IGNORECASE,
)

_NAMES = re.compile(
    r"""\.env.* | .*\.env | \.envrc
      | .*\.(pem|key|p12|pfx|jks|keystore|kdbx|ovpn|ppk|tfstate|tfvars|asc|gpg|age)(\.backup|\.bak|\.old)?
      | id_(rsa|dsa|ecdsa|ed25519)(_sk)?([-._].*)?
      | [._]netrc | \.npmrc | \.yarnrc\.yml | \.pypirc | \.htpasswd | \.git-credentials | \.dockercfg | \.pgpass
      | \.my\.cnf | \.boto | \.s3cfg | kubeconfig | client_secret.*\.json | service[-_]?account.*\.json
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NAMES_UNLESS_CODE = re.compile(r"(credentials?|secrets?)([-._].*)?", re.IGNORECASE)
"""`credentials.json` is a secret, `credentials.py` a module: code is judged by what it holds."""

_PUBLIC_HALF = re.compile(r".*\.pub", re.IGNORECASE)

_PRIVATE_KEY = re.compile(
    # The marker alone is in every library that reads keys; a key has a body.
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:\\[rn]|[\s\"'+,#*|])*"
    r"(?:(?:Proc-Type|DEK-Info|Version|Comment)[^\n]*\s*)*(?:[A-Za-z0-9+/=]{40}|[A-Za-z0-9+/=]{16,}\s)"
)
_API_KEY = re.compile(
    r"""(?<![A-Za-z0-9_])(?:
        sk-ant-[A-Za-z0-9_-]{20,}
      | sk-(?:proj-|svcacct-|or-v1-)?[A-Za-z0-9_-]{32,}
      | (?:AKIA|ASIA)[0-9A-Z]{16}
      | gh[pousr]_[A-Za-z0-9]{36,}
      | github_pat_[A-Za-z0-9_]{50,}
      | glpat-[A-Za-z0-9_-]{20,}
      | xox[abeprs]-[A-Za-z0-9-]{20,}
      | AIza[A-Za-z0-9_-]{35}
      | [sr]k_live_[A-Za-z0-9]{20,}
      | npm_[A-Za-z0-9]{36}
      | pypi-AgE[A-Za-z0-9_-]{50,}
      | hf_[A-Za-z0-9]{30,}
      | SG\.[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{40,}
      | dop_v1_[a-f0-9]{64}
    )(?![A-Za-z0-9_])
    """,
    re.VERBOSE,
)


def secret_name(path: str) -> bool:
    """True if a file is a secret by its name alone."""
    name = path.rsplit("/", 1)[-1]
    if _PUBLIC_HALF.fullmatch(name):
        return False
    if f"/{path}".endswith(("/.docker/config.json", "/.aws/config", "/.kube/config")):
        return True
    return bool(_NAMES.fullmatch(name) or (_NAMES_UNLESS_CODE.fullmatch(name) and not _CODE.search(name)))


def secret_in(text: str) -> str | None:
    """Kind of secret in a text: `a private key`, `an API key`. Placeholders do not count."""
    if "PRIVATE KEY" in text and _PRIVATE_KEY.search(text):
        return "a private key"
    if any(_is_key(found.group()) for found in _API_KEY.finditer(text)):
        return "an API key"
    return None


def _is_key(key: str) -> bool:
    """Not `sk-ant-xxxxxxxx`, not `AKIAIOSFODNN7EXAMPLE`, not `sk-this-is-a-long-css-class-name`."""
    if any(word in key.upper() for word in ("EXAMPLE", "XXXX", "PLACEHOLDER", "YOUR")):
        return False
    if key.startswith("sk-") and not key.startswith(("sk-ant-", "sk-proj-", "sk-svcacct-", "sk-or-v1-")):
        return len(set(key)) >= 12 and any(letter.isdigit() for letter in key)
    return True
