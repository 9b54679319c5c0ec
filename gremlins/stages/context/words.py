"""A task as words: identifiers and plain words, split into parts and stemmed."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TaskWords:
    """The words to look for: `terms` are lower-case words and parts of names, `names` are identifiers as written."""

    terms: Mapping[str, float]
    names: Mapping[str, float]


_WORD = re.compile(r"\w+")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
"""Scripts that put no blanks between words, or (Korean) endings behind them."""


def foreign_words(text: str) -> list[str]:
    """The words of a text that are not ASCII, as terms: pairs of signs where no blanks part the words, else the word
    without its last letters, which change with its case and number.
    """
    found: list[str] = []
    for word in _WORD.findall(text):
        if word.isascii():
            continue
        runs = _UNSPACED.findall(word)
        for run in runs:
            found.extend(run[at : at + 2] for at in range(max(1, len(run) - 1)))
        if not runs:
            lower = word.lower()
            found.append(lower[: max(4, len(lower) - 2)])
    return found


IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_VOWEL = re.compile(r"[aeiouy]")
_CODE_SPAN = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
_TWO_WORDS = re.compile(r"\b([A-Za-z]+)(?=[ -]([A-Za-z]+)\b)")
_CALLED = re.compile(r"\b([A-Za-z_]\w*)\(")
DOTTED = re.compile(r"\b[A-Za-z_]\w*(?:(?:\.|::)[A-Za-z_]\w*)+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STOPWORDS = _words(
    """
    a about above after again all also always am an and any are as at be because been before being below between
    both but by can cannot could did do does doing don down during each either else etc even every few for from
    further get gets give given gives go had has have having he her here hers him his how however i if in
    instead into is it its itself just let like made make makes may me might more most much must my need needs
    never no nor not now of off ok on once one only or other our out over own per please quite rather really
    same see seems shall she should show shows so some something still such sure take than that the their them
    then there these they thing things this those though through thus to too two under until up upon us use used
    uses using very via want was way we well were what when where whether which while who why will with within
    without would yes yet you your
    """
)
COMMON = _words(
    """
    self cls none true false def class return import from print test tests assert assertionerror error errors
    exception traceback file line lines py pytest code bug fix fail fails failed failing failure raise
    raises raised call calls called value values args kwargs name type str int list dict tuple set bool object
    len function method module result results expected actual got wrong correct correctly current currently
    behaviour behavior issue work works change add new implement expect version run running output input data
    example following when const let var null undefined public private static void string number passed site
    packages usr lib home src
    """
)
"""Words that every report has. They count, but little."""


def parts_of(identifier: str) -> list[str]:
    """The words in a name, stemmed: `parseHTTPDate` and `parse_http_dates` are both parse, http, dat."""
    return [stem(part.lower()) for part in _PART.findall(identifier) if not part.isdigit()]


def stem(word: str) -> str:
    """A word without the endings that English puts on it. Crude; both sides are treated alike."""
    for ending, rest in (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", "")):
        root = word.removesuffix(ending)
        if root != word and len(root) >= 3 and not word.endswith("ss") and _VOWEL.search(root):
            word = root + rest
            break
    if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "aeiousl":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def read_query(texts: Iterable[tuple[str, float]]) -> TaskWords:
    """The words of texts, each with its weight."""
    terms: dict[str, float] = defaultdict(float)
    names: dict[str, float] = defaultdict(float)
    for text, weight in texts:
        quoted = {word for span in _CODE_SPAN.findall(text) for word in IDENTIFIER.findall(span)}
        quoted |= set(_CALLED.findall(text))
        quoted |= {word for dotted in DOTTED.findall(text) for word in IDENTIFIER.findall(dotted)}
        for word, count in Counter(() if text.isascii() else foreign_words(text)).items():
            terms[word] += weight * (1 + math.log(count))
        for word, count in Counter(IDENTIFIER.findall(text)).items():
            often = 1 + math.log(count)
            _add(word, weight * often, word in quoted or _is_code(word), terms, names)
        for one, other in set(_TWO_WORDS.findall(text)):  # "file size" may well be filesize.py
            if len(one) > 2 and len(other) > 2 and not {one.lower(), other.lower()} & _STOPWORDS:
                terms[stem(f"{one}{other}".lower())] += 0.8 * weight
    return TaskWords(dict(terms), dict(names))


def _add(word: str, weight: float, code: bool, terms: dict[str, float], names: dict[str, float]) -> None:
    lower = word.lower()
    if len(word) < 2 or lower in _STOPWORDS:
        return
    weight *= 0.15 if lower in COMMON else 1.0
    parts = parts_of(word)
    if code:
        names[word] += weight
    if len(parts) > 1:
        terms[lower] += 2 * weight
    for part in parts:
        share = weight if len(parts) == 1 else 0.5 * weight
        if len(part) > 1 and part not in _STOPWORDS:
            terms[part] += share * (0.3 if part in COMMON and len(parts) > 1 else 1.0)


def _is_code(word: str) -> bool:
    """`snake_case`, `camelCase`, `HTTPError`, `sha256`: no plain word."""
    return (
        "_" in word.strip("_") or word.startswith("__") or bool(re.search(r"[a-z][A-Z]|[A-Z]{2}[a-z]|[A-Za-z]\d", word))
    )
