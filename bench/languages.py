"""Measures, by language, whether a named function of a long file is shown whole, and whether imports are followed.

`python -m bench.languages [FOLDER …]`: the folders hold source code from outside; without one, packages are fetched.
Of each language up to 40 functions are drawn from files that are too long for the budget; each is named in a task, with
its file and without.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.context import visible
from bench.packages import fetch
from gremlins.stages.context.corpus import Corpus, SourceFile, imports_of
from gremlins.stages.context.pack import Subject, build_pack
from gremlins.stages.context.reading import LARGEST_FILE
from gremlins.stages.context.syntax import Definition, read_syntax

MOST, OF_ONE_FILE, SEED, BUDGET = 40, 3, 20261127, 5_000
LANGUAGES = {
    "C": ".c", "C++": ".cpp .cc .hpp", "C or C++ headers": ".h", "C#": ".cs", "Go": ".go", "Java": ".java",
    "JavaScript": ".js .cjs .mjs .jsx", "Kotlin": ".kt", "PHP": ".php", "Python": ".py", "Ruby": ".rb", "Rust": ".rs",
    "Swift": ".swift", "TypeScript": ".ts .tsx",
}  # fmt: skip
BY_SUFFIX = {suffix: name for name, suffixes in LANGUAGES.items() for suffix in suffixes.split()}


@dataclass
class Row:
    """What was found of one language. `following`: files of which an import leads to a file of the same package."""

    functions: int = 0
    shown: int = 0
    shown_in_named: int = 0
    files: int = 0
    following: int = 0


def drawn(folders: Sequence[Path], most: int) -> Iterator[tuple[str, Path, Definition]]:
    """Functions of 6 to 120 lines whose names their files define once, by language; at most a few of one file."""
    long: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(path for folder in folders for path in folder.rglob("*.*")):
        is_source = path.suffix in BY_SUFFIX and path.is_file() and not path.name.endswith(".d.ts")
        if is_source and 3 * BUDGET < path.stat().st_size < LARGEST_FILE:
            long[BY_SUFFIX[path.suffix]].append(path)
    for language, paths in sorted(long.items()):
        chance, count = random.Random(SEED), 0
        for path in chance.sample(paths, len(paths)):
            if count == most:
                break
            found = _functions(path)
            for one in chance.sample(found, min(OF_ONE_FILE, len(found), most - count)):
                yield language, path, one
                count += 1


def _functions(path: Path) -> list[Definition]:
    syntax = read_syntax(path.name, path.read_text(errors="replace"))
    names = [one.name for one in syntax.definitions]
    return [
        one
        for one in (syntax.definitions if syntax.parsed else ())
        if 6 <= one.last - one.at <= 120 and len(one.name) > 5 and names.count(one.name) == 1
    ]


def shown_whole(path: Path, one: Definition, *, named: bool) -> bool:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / path.name).write_bytes(path.read_bytes())
        for command in (["init", "-q"], ["add", "-A"]):
            subprocess.run(["git", *command], cwd=root, check=True)
        task = f"`{one.name}` is wrong" + (f", in {path.name}" if named else "")
        lines = visible(build_pack(root, Subject(task), budget=BUDGET).text).get(path.name, set())
    return lines is None or set(range(one.at, one.last + 1)) <= lines


def followed(folder: Path, most: int) -> Iterator[tuple[str, bool]]:
    """Of a sample of a package's files of each language, whether an import leads to another file of the package."""
    found = [path for path in sorted(folder.rglob("*.*")) if path.suffix in BY_SUFFIX and path.is_file()]
    small = [path for path in found if path.stat().st_size < LARGEST_FILE]
    names = {path.relative_to(folder).as_posix(): path for path in small}
    corpus = Corpus({name: SourceFile(name, path.read_text(errors="replace"), {}, 0) for name, path in names.items()})
    for language in LANGUAGES:
        own = [name for name, path in names.items() if BY_SUFFIX[path.suffix] == language]
        if len(own) > FEW:
            yield from (
                (language, bool(imports_of(corpus, n))) for n in random.Random(SEED).sample(own, min(most, len(own)))
            )


FEW = 10
"""A package with no more files of a language has hardly one that imports another."""


def measure(folders: Sequence[Path], most: int = MOST) -> dict[str, Row]:
    rows: dict[str, Row] = defaultdict(Row)
    for language, path, one in drawn(folders, most):
        row = rows[language]
        row.functions += 1
        row.shown += shown_whole(path, one, named=False)
        row.shown_in_named += shown_whole(path, one, named=True)
    for folder in folders:
        for language, leads in followed(folder, most):
            rows[language].files += 1
            rows[language].following += leads
    return dict(sorted(rows.items()))


HEAD = ["language", "functions", "shown whole", "with its file named", "files", "of which an import is followed"]


def cells(rows: dict[str, Row]) -> list[list[str]]:
    return [
        [name, *map(str, (row.functions, row.shown, row.shown_in_named, row.files, row.following))]
        for name, row in rows.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.languages", description="Named functions, shown whole.")
    parser.add_argument("folders", type=Path, nargs="*", help="source code; without one, packages are fetched")
    parser.add_argument("--most", type=int, default=MOST, help="functions of each language (default 40)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gremlins-bench.") as name:
        rows = measure(options.folders or fetch(Path(name)), options.most)
    for row in [HEAD, ["---"] * len(HEAD), *cells(rows)]:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
