"""Finds private keys, API keys and tokens in any text, and masks them.

The rules for keys are data of gitleaks (`rules/secrets.toml`). Each is tried only on lines that hold one of its words.
"""

from __future__ import annotations

import math
import re
import tomllib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

MASK = "[masked secret]"
"""Stands for a secret. An edit that holds one more of it than the file does would destroy the secret."""

PRIVATE_KEY = "a private key"
API_KEY = "an API key"


@dataclass(frozen=True)
class Secret:
    """The place of a secret in a text, and its kind."""

    start: int
    end: int
    kind: str


def mask(text: str) -> str:
    """The text with every secret replaced by MASK. The lines stay as many as they are."""
    parts, at = [], 0
    for secret in find_secrets(text):
        parts += [text[at : secret.start], MASK]
        at = secret.end
    return "".join([*parts, text[at:]]) if parts else text


def find_secrets(text: str) -> list[Secret]:
    """The secrets in a text, in order, none over another. Placeholders do not count."""
    found = sorted([*_private_keys(text), *_api_keys(text)], key=lambda secret: (secret.start, -secret.end))
    kept: list[Secret] = []
    for secret in found:
        if not kept or secret.start >= kept[-1].end:
            kept.append(secret)
        elif secret.end > kept[-1].end:
            kept[-1] = Secret(kept[-1].start, secret.end, kept[-1].kind)
    return kept


# --- private keys

_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,60}PRIVATE KEY(?: BLOCK)?-----")
_LINE_END = re.compile(r"\\[rn]|\n")
_AROUND = " \t\r\"'+,#*|>;\\-()"
"""Signs around a line of a key in source, in comments and in patches."""
_HEADER = re.compile(r"[A-Za-z][A-Za-z-]{2,30}: ?[^\n]{0,200}")
_BODY = re.compile(r"[A-Za-z0-9+/=_-]+")


def _private_keys(text: str) -> Iterator[Secret]:
    """The lines of every private key's body, one by one: its markers and what frames them stay."""
    for begin in _BEGIN.finditer(text):
        body = list(_body_lines(text, begin.end()))
        # The marker alone is in every library that reads keys; a key has a body.
        if any(end - start >= 40 for start, end in body) or sum(end - start >= 16 for start, end in body) > 1:
            yield from (Secret(start, end, PRIVATE_KEY) for start, end in body)


def _body_lines(text: str, at: int) -> Iterator[tuple[int, int]]:
    while at < len(text):
        ending = _LINE_END.search(text, at, at + 2000)
        end = ending.start() if ending else min(len(text), at + 2000)
        line = text[at:end]
        if "-----" in line:
            return
        bare = line.strip(_AROUND)
        if _BODY.fullmatch(bare) and (len(bare) >= 16 or "=" in bare or line.strip() == bare):
            start = at + line.index(bare)
            yield start, start + len(bare)
        elif bare and not _HEADER.fullmatch(bare):
            return
        at = ending.end() if ending else len(text)


# --- API keys


class _Rule:
    """One kind of key. Its patterns are compiled when a text first holds one of its words."""

    def __init__(self, item: Mapping[str, Any]) -> None:
        self.item = item
        self.words: tuple[str, ...] = tuple(item["keywords"])
        self.entropy = float(item.get("entropy", 0))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return _compiled(self.item["regex"])

    @cached_property
    def word(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.words)), re.IGNORECASE)

    @cached_property
    def allowed(self) -> tuple[re.Pattern[str], ...]:
        return tuple(_compiled(regex) for one in self.item.get("allowlists", ()) for regex in one["regexes"])

    def secret_in(self, match: re.Match[str]) -> int:
        """The group that is the secret: the one that the rule names, else the first that matched, else all."""
        named = int(self.item.get("secretGroup", 0))
        return named or next((group for group in range(1, match.re.groups + 1) if match[group]), 0)


_OWN_RULES: tuple[Mapping[str, Any], ...] = (
    {"regex": r"(?<!\w)(sk-(?:ant-[\w-]{20,}|(?:proj-|svcacct-|or-v1-)[\w-]{32,}))", "keywords": ["sk-"]},
    {"regex": r"(?<!\w)(sk-(?=[A-Za-z_-]{0,60}\d)[\w-]{32,})", "keywords": ["sk-"], "entropy": 3.5},
    {"regex": r"(?<!\w)(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{50,}|glpat-[\w-]{20,})", "keywords": ["gh", "glpat"]},
    {"regex": r"(?<!\w)((?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35})(?!\w)", "keywords": ["akia", "asia", "aiza"]},
    {"regex": r"(?<!\w)(xox[abeprs]-[A-Za-z0-9-]{20,}|[sr]k_live_[A-Za-z0-9]{20,})", "keywords": ["xox", "k_live_"]},
    {"regex": r"""://[^/\s:@'"]{0,100}:([^/\s@'"${}<>*]{6,200})@[\w.\[-]""", "keywords": ["://"], "entropy": 3.0},
    {"regex": r"""(?i)aws_?secret_?access_?key['"]?\s{0,5}[=:]\s{0,5}['"]?([a-z0-9/+]{40})""", "keywords": ["secret"]},
)
"""Forms that the data lacks, or knows more strictly than is safe to send. Its exceptions do not hold for them."""

_PLACEHOLDER = re.compile(r"example|x{4}|placeholder|your|dummy|0{8}|changeme", re.IGNORECASE)
LONGEST_LINE = 4_000
"""Characters. Of a longer line only what is near a rule's word is searched."""
LONGEST_KEY = 1_500


def _api_keys(text: str) -> Iterator[Secret]:
    rules, allowed = _rules()
    low = text.lower()
    for rule in rules:
        if not any(word in low for word in rule.words):
            continue
        for start, end in _lines_with(text, rule.word):
            for match in rule.pattern.finditer(text, start, end):
                group = rule.secret_in(match)
                if not _is_allowed(match[group], rule, () if rule.item in _OWN_RULES else allowed):
                    yield Secret(*match.span(group), API_KEY)


def _lines_with(text: str, word: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """The lines in which a word stands; of a long line the parts around the word."""
    at = 0
    while found := word.search(text, at):
        first = text.rfind("\n", 0, found.start()) + 1
        last = text.find("\n", found.end())
        last = len(text) if last < 0 else last
        end = min(last, found.end() + LONGEST_LINE)
        yield max(first, found.start() - LONGEST_LINE), end
        at = end if end == last else end - LONGEST_KEY  # a key at the window's end is whole in the next one


def _is_allowed(secret: str, rule: _Rule, allowed: Iterable[re.Pattern[str]]) -> bool:
    return bool(
        (rule.entropy and _entropy(secret) < rule.entropy)
        or _PLACEHOLDER.search(secret)
        or any(pattern.search(secret) for pattern in (*rule.allowed, *allowed))
    )


def _entropy(text: str) -> float:
    """Shannon's, in bits for a character."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


@cache
def _rules() -> tuple[tuple[_Rule, ...], tuple[re.Pattern[str], ...]]:
    """The rules, and what no rule may take for a secret."""
    data = tomllib.loads((files("gremlins") / "rules" / "secrets.toml").read_text(encoding="utf-8"))
    allow = data["allowlist"]
    allowed = [*map(_compiled, allow["regexes"]), *(_compiled(re.escape(word)) for word in allow["stopwords"])]
    return tuple(map(_Rule, (*_OWN_RULES, *data["rules"]))), tuple(allowed)


def _compiled(regex: str) -> re.Pattern[str]:
    """A pattern of Go's dialect. Case that it ignores from some place on is ignored throughout."""
    flags = re.IGNORECASE if "(?i)" in regex else 0
    plain = regex.replace("(?i)", "").replace(r"\z", r"\Z").replace("[[:alnum:]]", "[A-Za-z0-9]")
    # Only the words before a key would be matched by the beginning that many rules share; and what ends a key in a
    # source file is not all that ends it in a sentence.
    plain = plain.removeprefix(r"[\w.-]{0,50}?").replace(_ENDS_KEY, r"(?![\w-])")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(plain, flags)


_ENDS_KEY = r"""(?:[\x60'"\s;]|\\[nr]|$)"""
