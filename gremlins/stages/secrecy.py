"""Decides what of a file may be shown to a model: all of it, with its secrets masked, or nothing.

A secret in a readable file is masked where it stands. Only a file that is nothing but a secret is hidden.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gremlins.masking import MASK, find_secrets, mask

_ASSIGNMENTS = re.compile(r"\.env.* | .*\.env | \.envrc | \.npmrc | \.pypirc | .*\.tfvars", re.VERBOSE | re.IGNORECASE)
"""Files of names and values: the values are masked."""
_ARMOR = re.compile(r".*\.(pem|key|asc|gpg|age|crt|cer)(\.backup|\.bak|\.old)?", re.IGNORECASE)
"""Files that say themselves, in a line `-----BEGIN …`, that they hold a key or a certificate."""
_HIDDEN = re.compile(
    r"""id_(rsa|dsa|ecdsa|ed25519)(_sk)?([-._].*)?
      | .*\.(p12|pfx|jks|keystore|kdbx|ovpn|ppk|tfstate)(\.backup|\.bak|\.old)?
      | [._]netrc | \.yarnrc\.yml | \.htpasswd | \.git-credentials | \.dockercfg | \.pgpass
      | \.my\.cnf | \.boto | \.s3cfg | kubeconfig | client_secret.*\.json | service[-_]?account.*\.json
    """,
    re.VERBOSE | re.IGNORECASE,
)
_DATA = re.compile(r"\.?[^.]*|.*\.(json|ya?ml|toml|ini|conf|cfg|properties|xml|txt|csv|enc|bak|old)", re.IGNORECASE)
"""`credentials.json` holds secrets, `credentials.vue` is a program: what is no data is judged by its content."""
_NAMED_SECRET = re.compile(r"(credentials?|secrets?)([-._].*)?", re.IGNORECASE)
_PUBLIC_HALF = re.compile(r".*\.pub", re.IGNORECASE)
_SAMPLE = re.compile(r".*[._-](example|sample|template|tmpl|dist|defaults?|schema)(\.[a-z]+)?", re.IGNORECASE)
_FIXTURES = re.compile(
    r"(^|/)([\w-]*[-_])?(tests?|specs?|__tests__|fixtures?|__fixtures__|testdata|test[-_]data|mocks?|examples?|samples?)/"
)


@dataclass(frozen=True)
class Screened:
    """The part of a file that may be shown; None: nothing. `why` is empty if that is the file as it is."""

    text: str | None
    why: str = ""


def secret_name(path: str) -> bool:
    """True if a file's name says that it holds secrets. Samples, tests and their data are judged by their content."""
    name = path.rsplit("/", 1)[-1]
    if _PUBLIC_HALF.fullmatch(name) or _SAMPLE.fullmatch(name):
        return False
    if _ASSIGNMENTS.fullmatch(name):
        return True
    if _FIXTURES.search(path):
        return False
    if f"/{path}".endswith(("/.docker/config.json", "/.aws/config", "/.kube/config")) or _ARMOR.fullmatch(name):
        return True
    return bool(_HIDDEN.fullmatch(name) or (_NAMED_SECRET.fullmatch(name) and _DATA.fullmatch(name)))


def screen(path: str, text: str) -> Screened:
    """The part that may be shown of a file with this content. Its lines keep their numbers."""
    name = path.rsplit("/", 1)[-1]
    if secret_name(path):
        if _ASSIGNMENTS.fullmatch(name):
            return Screened(mask_values(text), "a secret by its name; its values are masked")
        if not (_ARMOR.fullmatch(name) and "-----BEGIN " in text):
            return Screened(None, "a secret by its name")
    masked = mask(text)
    if masked == text:
        return Screened(text)
    kinds = " and ".join(sorted({secret.kind for secret in find_secrets(text)}))
    return Screened(masked, f"holds {kinds}, which is masked")


_ASSIGNED = re.compile(r"(?P<name>[ \t]*(?:#[ \t]*)?(?:export[ \t]+)?[\w./:@-]{1,200}[ \t]*[=:][ \t]*)(?P<value>.*)")
_HARMLESS = re.compile(r"|true|false|null|\d{1,5}|\$\{?\w+\}?", re.IGNORECASE)
_QUOTES = ('"', "'", "`")


def mask_values(text: str) -> str:
    """Lines of names and values with every value masked, and every line that is neither such a line nor a comment."""
    shown, quote = [], ""
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        bare = line.rstrip("\r\n")
        end = line[len(bare) :]
        if quote:
            quote = "" if quote in bare else quote
            shown.append(MASK + end)
        elif found := _ASSIGNED.fullmatch(bare):
            value = found["value"].strip()
            if value[:1] in _QUOTES and value.count(value[0]) == 1:
                quote = value[0]
            harmless = _HARMLESS.fullmatch(value.strip("\"'"))
            shown.append(bare + end if harmless else found["name"] + MASK + end)
        else:
            plain = not bare.strip() or bare.lstrip().startswith("#") or re.fullmatch(r"\s*\[[\w .-]{1,60}\]\s*", bare)
            shown.append(mask(bare) + end if plain else MASK + end)
    return "".join(shown)


_FILE = re.compile(r"^(?=diff --git )", re.MULTILINE)
_UNMARKED_KEY = re.compile(r"^[-+ ][ \t]*([A-Za-z0-9+/]{60,80})\r?$", re.MULTILINE)


def screen_diff(diff: str) -> str:
    """A patch without the lines of files that are secret by their names, and with other secrets masked."""
    return "".join(map(_screen_patch, _FILE.split(diff)))


def _screen_patch(patch: str) -> str:
    head, hunk, _ = patch.partition("\n@@ ")
    names = re.findall(r"^(?:---|\+\+\+|rename from|rename to) (?:[ab]/)?([^\t\n]+)", head, re.MULTILINE)
    if hunk and any(secret_name(name.strip('"')) for name in names):
        return f"{head}\n[its lines are not shown: a secret by its name]\n"
    # A hunk may begin in the middle of a key, without the line that says so.
    return mask(_UNMARKED_KEY.sub(lambda found: found[0].replace(found[1], MASK), patch))
