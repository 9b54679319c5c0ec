"""The list of a repository's files: every code file, folder by folder, in as few tokens as that takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gremlins.stages.context.kinds import is_code


@dataclass
class _Folder:
    code: dict[str, list[str]] = field(default_factory=dict)
    """The code files, less their suffix, by suffix."""
    others: list[str] = field(default_factory=list)


OTHERS = 0.25
"""Of the room: files that are no code are listed if all that is listed takes no more."""


def render_tree(paths: Sequence[str], important: Sequence[str], limit: int, cost: Callable[[str], int]) -> str:
    """The files of a repository in at most `limit` tokens, a line for each folder: `src/shop/: cart money {.py}`.

    Where the rest has no room the folders of `important` files keep theirs, the others say how many files they hold;
    files that are no code go first, but for those at the top.
    """
    folders: dict[str, _Folder] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        into = folders.setdefault(folder, _Folder())
        stem, _, suffix = name.rpartition(".")
        if is_code(path) and stem:
            into.code.setdefault(suffix, []).append(stem)
        else:
            into.others.append(name)
    full = {folder: _line(folder, found, others=True) for folder, found in folders.items()}
    if sum(map(cost, full.values())) <= OTHERS * limit:
        return "".join(full[folder] for folder in sorted(full))
    code = {folder: _line(folder, found, others=not folder) for folder, found in folders.items()}
    short = {folder: _count(folder, found) for folder, found in folders.items()}
    best = {path.rpartition("/")[0]: -number for number, path in reversed(list(enumerate(important)))}
    order = sorted(folders, key=lambda folder: (folder not in best, -best.get(folder, 0), folder.count("/"), folder))
    lines, left = {}, limit
    for folder in order:
        line = next((line for line in (code[folder], short[folder]) if cost(line) <= left), "")
        lines[folder] = line
        left -= cost(line) if line else 0
    return "".join(lines[folder] for folder in sorted(lines))


def _line(folder: str, found: _Folder, *, others: bool) -> str:
    parts = [f"{' '.join(sorted(stems))} {{.{suffix}}}" for suffix, stems in sorted(found.code.items())]
    if others:
        parts += [" ".join(sorted(found.others))] if found.others else []
    elif found.others:
        parts.append(f"+{len(found.others)} other files")
    return f"{folder}/: {'; '.join(parts)}\n" if folder else f"{'; '.join(parts)}\n"


def _count(folder: str, found: _Folder) -> str:
    count = sum(map(len, found.code.values())) + len(found.others)
    return f"{folder or '.'}/: {count} files\n"
