"""Measures whether a named function of a long file is shown whole: `python -m bench.languages FOLDER …`.

The folders hold source code from outside, packages as their registries deliver them or checkouts. Of each language up to
40 functions are drawn from files that are too long for the budget; each is named in a task, with its file and without.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.context import visible
from gremlins.stages.context.pack import Subject, build_pack
from gremlins.stages.context.reading import LARGEST_FILE
from gremlins.stages.context.syntax import Definition, read_syntax

MOST, SEED, BUDGET = 40, 20261127, 10_000


def drawn(folders: Sequence[Path]) -> Iterator[tuple[str, Path, Definition]]:
    """Functions of 6 to 120 lines whose names their files define once, by suffix."""
    found: dict[str, list[tuple[Path, Definition]]] = defaultdict(list)
    for path in sorted(path for folder in folders for path in folder.rglob("*.*")):
        if not path.is_file() or not 3 * BUDGET < path.stat().st_size < LARGEST_FILE:
            continue
        syntax = read_syntax(path.name, path.read_text(errors="replace"))
        names = [one.name for one in syntax.definitions]
        for one in syntax.definitions if syntax.parsed else ():
            if 6 <= one.last - one.at <= 120 and len(one.name) > 5 and names.count(one.name) == 1:
                found[path.suffix].append((path, one))
    chance = random.Random(SEED)
    for suffix, all_ in sorted(found.items()):
        yield from ((suffix, path, one) for path, one in chance.sample(all_, min(MOST, len(all_))))


def shown_whole(path: Path, one: Definition, *, named: bool) -> bool:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / path.name).write_bytes(path.read_bytes())
        for command in (["init", "-q"], ["add", "-A"]):
            subprocess.run(["git", *command], cwd=root, check=True)
        task = f"`{one.name}` is wrong" + (f", in {path.name}" if named else "")
        lines = visible(build_pack(root, Subject(task), budget=BUDGET).text).get(path.name, set())
    return lines is None or set(range(one.at, one.last + 1)) <= lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.languages", description="Named functions, shown whole.")
    parser.add_argument("folders", type=Path, nargs="+")
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for suffix, path, one in drawn(parser.parse_args().folders):
        row = counts[suffix]
        row[0] += 1
        row[1] += shown_whole(path, one, named=False)
        row[2] += shown_whole(path, one, named=True)
    print("| suffix | functions | shown whole | with its file named |\n|---|--:|--:|--:|")
    for suffix, (count, plain, named) in sorted(counts.items()):
        print(f"| {suffix} | {count} | {plain} | {named} |")


if __name__ == "__main__":
    main()
