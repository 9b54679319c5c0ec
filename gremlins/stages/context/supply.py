"""Answers a model that asked for more of the repository: the files, definitions and places it named."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from gremlins.stages.context.reading import Files
from gremlins.stages.context.showing import (
    LeftOut,
    Pack,
    PackEntry,
    Shown,
    copied,
    estimate_tokens,
    parts,
    share_out,
    whole,
)
from gremlins.stages.tags import tagged
from gremlins.stages.wants import Need, Want

MOST_FOUND, MOST_FILES = 60, 12
"""Places that a search lists; files it shows parts of."""


@dataclass
class _Asked:
    """A file to show: whole, or around some lines if it is only asked for because of them."""

    whole: bool = False
    lines: dict[int, float] = field(default_factory=dict)
    why: str = "asked for"


def supply(root: Path, need: Need, shown: str, *, budget: int) -> Pack:
    """The next message to the model. `shown` is what its conversation holds so far."""
    files = Files(root)
    asked: dict[str, _Asked] = {}
    notes: list[str] = []
    for want in need.wants:
        if want.search:
            notes.append(_search(files, want.search, asked))
        else:
            notes += _file(files, want, asked, shown)
    room = budget - sum(map(estimate_tokens, notes)) - 200
    sections = _sections(files, asked, room)
    said = "".join(f"- {note}\n" for note in notes)
    text = "\n".join(
        [
            "This is what you asked for, as far as it is there and has room.\n",
            *([said] if said else []),
            *(section.text for section in sections if section.text),
            "Answer now with the result, in the form that was asked for. You cannot ask for more.\n",
        ]
    )
    left_out = tuple(LeftOut(path, why) for path, why in sorted(files.left_out.items()) if path in asked)
    entries = tuple(section.entry for section in sections if section.entry)
    return Pack(text, entries, estimate_tokens(text), budget, left_out)


def _file(files: Files, want: Want, asked: dict[str, _Asked], shown: str) -> list[str]:
    """Notes what is to be shown for one path, and returns what the model must be told of it."""
    path = want.path.strip().removeprefix("./").rstrip("/")
    inside = [name for name in files.tracked if name.startswith(f"{path}/")]
    if inside:
        more = f" and {len(inside) - 200} more" if len(inside) > 200 else ""
        return [f"`{path}/` is a folder with {', '.join(name[len(path) + 1 :] for name in inside[:200])}{more}"]
    found = [path] if path in files.corpus.sources else files.corpus.at_path(path)
    if not found:
        return [_absent(files, path)]
    notes = []
    for name in found:
        if not files.may_be_shown(name):
            notes.append(f"`{name}` cannot be shown: {files.why_not(name)}")
        elif tagged("file", "", path=name).partition("\n")[0] in shown:
            notes.append(f"`{name}` is shown whole above")
        else:
            notes += _symbol(files, name, want.symbol, asked.setdefault(name, _Asked()))
    return notes


def _symbol(files: Files, path: str, symbol: str, into: _Asked) -> list[str]:
    if not symbol:
        into.whole = True
        return []
    name = symbol.replace("::", ".").rpartition(".")[2].strip("()")
    there = files.corpus.sources[path].definitions.get(name, ())
    into.lines.update((one.at, 2.0) for one in there)
    into.whole = into.whole or not there
    return [] if there else [f"`{path}` has no definition called `{name}`; the file is shown instead"]


def _absent(files: Files, path: str) -> str:
    if why := files.why_not(path):
        return f"`{path}` cannot be shown: {why}"
    name = path.rpartition("/")[2]
    same = [other for other in files.tracked if other.rpartition("/")[2] == name]
    near = same or get_close_matches(path, files.tracked[:20_000], n=3, cutoff=0.7)
    return f"there is no file `{path}`" + (f"; the nearest: {', '.join(near[:5])}" if near else "")


def _search(files: Files, text: str, asked: dict[str, _Asked]) -> str:
    """Finds the places that hold a text, in any case of its letters where it is nowhere as written."""
    found = _places(files, text, fold=False) or _places(files, text, fold=True)
    if not found:
        return f"`{text}` is nowhere in the repository"
    best = sorted(found, key=lambda path: (-files.corpus.sources[path].factor, -len(found[path]), path))
    for path in best[:MOST_FILES]:
        lines = asked.setdefault(path, _Asked(why=f"has `{text}`")).lines
        for line in found[path][:20]:
            lines.setdefault(line, 1.0)
    listed = [f"{path}:{line}" for path in best for line in found[path]]
    more = f" and {len(listed) - MOST_FOUND} more places" if len(listed) > MOST_FOUND else ""
    return f"`{text}` is at {', '.join(listed[:MOST_FOUND])}{more}"


def _places(files: Files, text: str, *, fold: bool) -> dict[str, list[int]]:
    wanted = text.casefold() if fold else text
    found = {}
    for path, source in files.corpus.sources.items():
        body = source.text.casefold() if fold else source.text
        if wanted in body and files.may_be_shown(path):
            lines = source.text.split("\n")
            found[path] = [n for n, line in enumerate(lines, 1) if wanted in (line.casefold() if fold else line)]
    return {path: lines for path, lines in found.items() if lines}


def _sections(files: Files, asked: dict[str, _Asked], room: int) -> list[Shown]:
    """Every file that was asked for: whole if it fits, else a fair share; what a search found gets its surroundings."""
    sources = files.corpus.sources
    full = {path: whole(sources[path], one.why) for path, one in asked.items()}
    costs = [full[path].tokens if one.whole else min(full[path].tokens, room // 8) for path, one in asked.items()]
    limits = share_out(costs, room)
    fitting = [sources[path].lines for path, limit in zip(asked, limits, strict=True) if full[path].tokens <= limit]
    sections = []
    for (path, one), limit in zip(asked.items(), limits, strict=True):
        if full[path].tokens <= limit:
            sections.append(full[path])
            continue
        named = [line for line, weight in one.lines.items() if weight > 1]
        given = copied(sources[path].lines, fitting)
        cut = parts(sources[path], limit, one.lines, named, one.why, given=given, meant=one.whole)
        sections.append(cut or Shown("", 0, PackEntry(path, 0, "listed", one.why)))
    return sections
