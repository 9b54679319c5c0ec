"""Finds what stands for code in an edit and is none: our own notes, sent back, and a model's "rest unchanged".

A note of ours in a prompt is in brackets and says `not shown`, or it is `masking.MASK`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from gremlins.masking import MASK

_NOTE = re.compile(r"\[[^\[\]\n]{0,400}\bnot shown\b")
_FRAME = re.compile(
    r"""^\s*(?://+|\#+|/\*+|\*+(?!\S)|--(?!>)|;+|%+|<!--|\{/\*|\(\*|'''|\"\"\"|\[|\(|<)?\s*(?P<said>.*?)\s*
        (?:\*/\}?|-->|\*\)|'''|\"\"\"|\]|\)|>)?\s*$""",
    re.VERBOSE,
)
"""A line that is a comment or stands in brackets, without what makes it one."""
_KEPT = (
    r"(?:unchanged|unmodified|omitted|elided|truncated"
    r"|(?:remains?|stays?|is|are|keep)\b[^.]{0,20}\b(?:same|as is|as before|unchanged))"
)
_PARTS = (
    r"(?:code|file|contents?|methods?|functions?|class(?:es)?|implementation|imports?|logic|lines?|definitions?"
    r"|tests?|props|properties|fields|rules|styles|config(?:uration)?|body|section|document|script|module|component)"
)
_SAME = r"(?:existing|remaining|previous|original|unchanged|other|same)"
_SAYS_SO = re.compile(
    rf"""(?:keep\ |leave\ )?(?:the\ )?(?:rest|remainder)\b[^.]{{0,40}}\b(?:{_KEPT}|{_PARTS}|here|below|above)\b.*
      | (?:keep\ |leave\ )?(?:the\ )?{_SAME}\b[^.]{{0,40}}\b{_PARTS}\b[^.=(]{{0,40}}
      | [^.=(]{{0,40}}\b{_PARTS}\b[^.=(]{{0,20}}\b{_KEPT}\b.*
      | {_KEPT}(?:\ (?:for|here|from|below|above|code|part|section|lines)\b.*)?
      | (?:same|as)\ (?:as\ )?before\b.*
    """,
    re.VERBOSE | re.IGNORECASE,
)
_REST_ELSEWHERE = re.compile(
    r"""其余|其他|剩余|剩下|现有|原有|既存|残り|나머지|기존|\bостальн|\bсуществующ|\bрешта\b|\brest(?:o|e|a|licher?)?\b
      | \b(?:bestehend|vorhanden|existant|existent|esistent|restant|pozostał)""",
    re.VERBOSE | re.IGNORECASE,
)
_SAME_ELSEWHERE = re.compile(
    r"""不变|省略|保持|変更なし|そのまま|생략|변경\ ?없음|그대로|\bбез\ (?:изменени|змін)|\bне\ меня
      | \bunverändert|\binchangé|\bsin\ cambios|\bsem\ (?:alteraç|mudanç)|\binvariat|\bbez\ zmian""",
    re.VERBOSE | re.IGNORECASE,
)
"""Words for the rest and for what is unchanged: models write their remarks in the language of the task."""
_DOTS = re.compile(r"^(?:\.{3,}|…)\s*|\s*(?:\.{3,}|…)$")
_FENCED = re.compile(r"^ {0,3}(```+|~~~+).*?(?:^ {0,3}\1|\Z)", re.MULTILINE | re.DOTALL)
_PROSE = (".md", ".markdown", ".mdx", ".rst", ".txt", ".adoc")


def placeholder_in(path: str, text: str, before: str) -> str | None:
    """A line of a new text that stands for code that is not there; None if there is none, or the file had it before."""
    had = Counter(_placeholders(path, before))
    for line, count in Counter(_placeholders(path, text)).items():
        if count > had[line]:
            return line
    return None


def _placeholders(path: str, text: str) -> Iterator[str]:
    for found in _NOTE.finditer(text):
        yield found[0]
    yield from [MASK] * text.count(MASK)
    if path.lower().endswith(_PROSE):  # prose may show an example of one
        text = _FENCED.sub("", text)
    for line in text.split("\n"):
        # Each says so by dots or by a word; most lines have neither.
        if len(line) < 200 and (_MAY.search(line) or _SAME_ELSEWHERE.search(line)) and _is_placeholder(line):
            yield line.strip()


_MAY = re.compile(r"\.\.\.|…|unchanged|rest of|remain|omitted|same as|existing", re.IGNORECASE)


def _is_placeholder(line: str) -> bool:
    found = _FRAME.match(line)
    said = found["said"].strip() if found else ""
    bare = _DOTS.sub("", _DOTS.sub("", said)).strip(" ()[]:-")
    # Dots say that something was left out. Without them a comment must say so in words.
    dots, framed = _DOTS.search(said) is not None, said != line.strip()
    if (dots or (framed and _PLAIN.search(said))) and _SAYS_SO.fullmatch(bare):
        return True
    rest, same = _REST_ELSEWHERE.search(bare), _SAME_ELSEWHERE.search(bare)
    enough = (rest or same) if said.startswith(("...", "…")) else (rest and same)
    return framed and len(bare) < 60 and enough is not None


_PLAIN = re.compile(r"\b(?:rest|unchanged|omitted|elided|truncated|as before)\b", re.IGNORECASE)
