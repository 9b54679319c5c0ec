"""A repository's files as far as choosing among them cares: identifiers, paths, imports, kinds."""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from gremlins.stages.context.kinds import is_code, is_test
from gremlins.stages.context.syntax import Definition, Syntax, lines_of, read_syntax
from gremlins.stages.context.words import foreign_words


@dataclass
class SourceFile:
    """One file as far as ranking cares."""

    path: str
    text: str
    counts: Mapping[str, int]
    """Identifiers as written, and how often."""
    size: int
    """Identifiers in all."""
    factor: float = 1.0
    """Weight of its words: 1 for source, less for kinds of file that are seldom changed."""
    cut: int = 0
    """Lines that are too long to be shown to their ends."""

    @cached_property
    def syntax(self) -> Syntax:
        return read_syntax(self.path, self.text)

    @cached_property
    def lines(self) -> Sequence[str]:
        return lines_of(self.text)

    @cached_property
    def definitions(self) -> Mapping[str, Sequence[Definition]]:
        """The file's definitions by name."""
        found: dict[str, list[Definition]] = defaultdict(list)
        for definition in self.syntax.definitions:
            found[definition.name].append(definition)
        return found


@dataclass
class Corpus:
    """All files of a repository that may be shown."""

    sources: Mapping[str, SourceFile]
    by_name: Mapping[str, Sequence[str]] = field(init=False)
    by_stem: Mapping[str, Sequence[str]] = field(init=False)
    bare: frozenset[str] = field(init=False)
    """Names of files without a suffix: Makefile, .gitignore."""
    _imports: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names: dict[str, list[str]] = defaultdict(list)
        stems: dict[str, list[str]] = defaultdict(list)
        for path in self.sources:
            names[path.rsplit("/", 1)[-1]].append(path)
            if is_code(path):
                stems[module_parts(path)[-1]].append(path)
        self.by_name, self.by_stem = names, stems
        self.bare = frozenset(name for name in names if "." not in name[1:])

    def at_path(self, named: str) -> list[str]:
        """The files that a path in a text means: the longest end of it that is the end of a path here."""
        if len(named) > LONGEST_PATH:
            return []
        parts = [part for part in named.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        for start in range(len(parts)):
            wanted = "/".join(parts[start:])
            found = [path for path in self.by_name.get(parts[-1], ()) if f"/{path}".endswith(f"/{wanted}")]
            if found:
                alone = start == len(parts) - 1
                return found if len(found) == 1 or (not alone and len(found) <= 3) else []
        return []

    def called(self, name: str) -> list[str]:
        """The files of this name, if they are few enough to show them all."""
        found = self.by_name.get(name, ())
        return list(found) if len(found) <= MOST_ALIKE else []

    def at_end(self, end: str) -> list[str]:
        """The files whose paths end so, if they are few."""
        found = [path for path in self.by_name.get(end.rpartition("/")[2], ()) if f"/{path}".endswith(f"/{end}")]
        return found if len(found) <= 3 else []

    def at_module(self, dotted: Sequence[str]) -> list[str]:
        """The files that a module's name means, `a.b.c` being `a/b/c.py`, `a/b/c/__init__.py`, `src/a/b/c.ts` …"""
        if not dotted:
            return []
        wanted = "/".join(dotted)
        found = [
            path
            for path in self.by_stem.get(dotted[-1], ())
            if f"/{'/'.join(module_parts(path))}".endswith(f"/{wanted}")
        ]
        return found if len(found) <= 3 else []


def module_parts(path: str) -> list[str]:
    """`a/b/__init__.py` → a, b. `a/b.test.ts` → a, b.test"""
    *folders, name = path.split("/")
    stem_, _, _ = name.rpartition(".")
    stem_ = stem_ or name
    return folders if stem_ in ("__init__", "index", "mod", "main", "lib") and folders else [*folders, stem_]


MOST_ALIKE = 3
"""Files of one name that are all shown where a text names no more than that."""
LONGEST_PATH = 400
"""Characters. What looks like a path in a text and is longer is none."""

_TO_SPACES = bytes(code if (code < 128 and chr(code).isalnum()) or chr(code) in "_$" else 32 for code in range(256))


def count_identifiers(text: str) -> dict[str, int]:
    """The identifiers of a text, and its words in other scripts. By table and split: a regular expression takes thrice
    as long.
    """
    counts = Counter(text.encode(errors="replace").translate(_TO_SPACES).decode("ascii").split())
    if not text.isascii():
        counts.update(foreign_words(text))
    return dict(zip(map(sys.intern, counts), counts.values(), strict=True))  # most names are in many files


# --- who imports whom


def imports_of(corpus: Corpus, path: str) -> dict[str, list[str]]:
    """The repository's files that a file imports, each with the names it takes from it."""
    if path not in corpus._imports:
        corpus._imports[path] = _imports_of(corpus, path)
    return corpus._imports[path]


def _imports_of(corpus: Corpus, path: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    folder = path.split("/")[:-1]
    for one in corpus.sources[path].syntax.imports:
        if one.quoted:
            for target in _quoted_target(corpus, folder, one.module):
                found[target].extend(())
            continue
        dots = len(one.module) - len(one.module.lstrip("."))
        base = path.split("/")[:-dots] if dots else []
        parts = [
            *base,
            *(part for part in re.split(r"\.|::", one.module) if part not in ("", "crate", "super", "self")),
        ]
        for name in one.names:
            for target in corpus.at_module([*parts, name]) or corpus.at_module(parts):
                found[target].append(name)
        for target in () if one.names else corpus.at_module(parts) or corpus.at_module(parts[:-1]):
            found[target].extend(())
    found.pop(path, None)
    return dict(found)


def _quoted_target(corpus: Corpus, folder: Sequence[str], quoted: str) -> list[str]:
    parts = [*folder] if quoted.startswith(".") else []
    for part in quoted.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts = [*parts, part]
    if not parts:
        return []
    bare = [*parts[:-1], re.sub(r"\.(js|mjs|cjs|jsx|ts|tsx|h|hpp|py|rb|php)$", "", parts[-1])]
    return corpus.at_module(bare) or corpus.at_path("/".join(parts))


def partners(corpus: Corpus, path: str) -> list[str]:
    """The test of a source file, the source of a test, by their names."""
    name = module_parts(path)[-1]
    bare = re.sub(r"^(test_|tests_)|([._-](test|tests|spec)|_test|Tests?)$", "", name)
    wanted = (
        [bare, f"_{bare}"]
        if is_test(path)
        else [f"test_{bare.lstrip('_')}", f"{bare}_test", f"{bare}.test", f"{bare}.spec", f"{bare}Test"]
    )
    found = [other for stem_ in wanted for other in corpus.by_stem.get(stem_, ()) if is_test(other) != is_test(path)]
    if len(found) <= 1:
        return found
    folders = set(path.split("/")[:-1])
    closest = max(len(folders & set(other.split("/"))) for other in found)
    near = [other for other in found if len(folders & set(other.split("/"))) == closest]
    return near if len(near) <= 2 else []
