"""The words of a person to a gremlin, as artifacts: answers to its questions, and remarks on its change.

The record holds them; the files are made from it, by the verb and again by each process, so that none can be missing.
"""

from __future__ import annotations

from collections.abc import Sequence

from gremlins.files import make_private_dir, write_atomic
from gremlins.paths import GremlinPaths
from gremlins.records.gremlin import Answered, Gremlin, Remark

ANSWERS, REMARKS = "answers.md", "remarks.md"


def write_words(paths: GremlinPaths, record: Gremlin, round_name: str) -> None:
    """Write `answers.md`, and `remarks.md` in the folder of each round of revision."""
    if record.answers:
        write_atomic(paths.artifacts / ANSWERS, _answers(record.answers))
    for number, revision in enumerate(record.revisions, 1):
        folder = paths.artifacts / f"{round_name}-{number}"
        make_private_dir(folder)
        write_atomic(folder / REMARKS, _remarks(revision.remarks))


def _answers(answers: Sequence[Answered]) -> str:
    parts = [f"## {a.stage} asked\n\n{a.question}\n\n### The person answered\n\n{a.answer.strip()}\n" for a in answers]
    return "\n".join(parts)


def _remarks(remarks: Sequence[Remark]) -> str:
    return "\n".join(_remark(number, remark) for number, remark in enumerate(remarks, 1))


def _remark(number: int, remark: Remark) -> str:
    line = f":{remark.line}" if remark.line is not None else ""
    where = f" `{remark.path}{line}`" if remark.path is not None else ""
    return f"### F{number}{where}\n\n{remark.text.strip()}\n"
