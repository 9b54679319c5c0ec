"""Tells a plan that asks for something from one that says, in whichever form, that nothing remains."""

from __future__ import annotations

import re

from gremlins.stages.edits.answer import parse_verdict

_MARKER = re.compile(r"(?:[-*+•]|\d+[.)]?|\[ ?\])\s*")
_TICKED = re.compile(r"\[[xX]\]")
_REMAIN = r"(?:\s+(?:(?:are|is)\s+)?(?:remain(?:s|ing)?|left|open|to\s+(?:be\s+)?do(?:ne)?|needed|necessary|required))*"
_NOTHING = re.compile(
    rf"(?:there\s+(?:is|are)\s+)?(?:none|n/?a|empty|tbd|todo|done|complete[d]?|finished"
    rf"|(?:nothing|none)(?:\s+(?:more|else|further))?{_REMAIN}"
    rf"|no\s+(?:(?:more|further|other|remaining|open)\s+)*(?:tasks?|work|items?|steps?|rounds?|changes?){_REMAIN}"
    r"|(?:everything|all(?:\s+\w+)?)\s+(?:(?:is|are|has\s+been|have\s+been)\s+)?(?:done|complete[d]?|finished))\W*",
    re.IGNORECASE,
)


def has_tasks(plan: str) -> bool:
    """True if a plan asks for anything. Headings, ticked boxes, bare markers and words for nothing do not."""
    return any(_asks(line.strip()) for line in plan.splitlines())


def _asks(line: str) -> bool:
    if line.startswith("#"):
        return False
    while (marker := _MARKER.match(line)) is not None:
        line = line[marker.end() :]
    words = line.strip("*_`~ ")
    if _TICKED.match(words) or words.endswith(":") or parse_verdict(words) is not None:
        return False
    return re.search(r"\w", words) is not None and not _NOTHING.fullmatch(words)
