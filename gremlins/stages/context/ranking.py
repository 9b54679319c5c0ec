"""Ranks a repository's files for a task: by paths and lines it names, names it uses, words it shares."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gremlins.stages.context.corpus import (
    Corpus,
    SourceFile,
    imports_of,
    module_parts,
    partners,
)
from gremlins.stages.context.words import COMMON, DOTTED, IDENTIFIER, TaskWords, foreign_words, parts_of, stem


@dataclass(frozen=True)
class Mention:
    """A file that a text names. `line` counts from 1; None where only the file is named."""

    path: str
    line: int | None
    strength: float
    why: str


_PATH = re.compile(
    r"(?<![\w.@+~/\\-])(?P<path>[\w.@+~-]*(?:[/\\][\w.@+~-]+)+|[\w@+-][\w.@+-]*\.[A-Za-z]\w{0,5})"
    r"(?:\"?, line (?P<line1>\d+)|:(?P<line2>\d+)|\((?P<line3>\d+)[,)]|#L(?P<line4>\d+))?"
)
_FRAMES_OF_OTHERS = re.compile(
    r"\bat [\w$.<>/]{1,300}\((?P<java>[\w$]{1,100}\.(?:java|kt|scala|groovy)):(?P<line1>\d{1,7})\)"
    r"| in (?P<sharp>[^\n:]{0,3}[^\n:]{1,300}\.(?:cs|fs|vb)):line (?P<line2>\d{1,7})"
    r"|(?<![^\s\"'])(?P<php>[^\s()]{1,300}\.(?:php|phtml|pm|pl|t))(?:\((?P<line3>\d{1,7})\)"
    r"|:(?P<line4>\d{1,7})| (?:on )?line (?P<line5>\d{1,7}))"
)
"""Frames of Java and its like, which name the package and the file apart; of C#, of PHP and Perl."""
_FRAME = re.compile(r"^[ \t]*(?:File \"|at |-->|\S+:\d+: (?:in|[A-Z]\w*(?:Error|Exception|Warning)))", re.MULTILINE)
_TEST_ID = re.compile(r"(?<![\w./-])(?P<path>[\w./-]+\.\w+)::(?P<name>[\w:.]+)")

# --- mentions


def find_mentions(corpus: Corpus, text: str, *, strength: float) -> list[Mention]:
    """The files a text names, by path, by line, as `module.name`; frames of a traceback count more, the last most."""
    found: list[Mention] = []
    frames = [match.start() for match in _FRAME.finditer(text)]
    for match in _PATH.finditer(text):
        paths = corpus.at_path(match["path"].rstrip("."))
        line = next((int(value) for key, value in match.groupdict().items() if key != "path" and value), None)
        for path in paths:
            late = 1 + 0.5 * match.start() / max(1, len(text)) if frames and line else 1.0
            where = "named in the failure" if line and frames else "named"
            found.append(Mention(path, line, strength * late / len(paths), where))
    found.extend(_frames_of_others(corpus, text, strength))
    for dotted in dict.fromkeys(DOTTED.findall(text)):
        found.extend(_module_mentions(corpus, re.split(r"\.|::", dotted), strength))
    return found


def _frames_of_others(corpus: Corpus, text: str, strength: float) -> Iterator[Mention]:
    """Stack frames whose file is not written as a path with a colon and a line."""
    for match in _FRAMES_OF_OTHERS.finditer(text):
        line = int(next(value for key, value in match.groupdict().items() if key.startswith("line") and value))
        if match["java"]:
            package = match[0].removeprefix("at ").partition("(")[0].split(".")
            folders = [part for part in package[:-2] if part]
            paths = corpus.at_end("/".join([*folders, match["java"]])) or corpus.at_path(match["java"])
        else:
            paths = corpus.at_path((match["sharp"] or match["php"]).strip())
        late = 1 + 0.5 * match.start() / max(1, len(text))
        yield from (Mention(path, line, strength * late / len(paths), "named in the failure") for path in paths)


def named_files(corpus: Corpus, text: str) -> dict[str, bool]:
    """The files that a text names by their paths or names, in order; not those of a stack trace or a log.

    False for those of which the text does not say which it means: several end in the path that it names.
    """
    found: dict[int, list[str]] = {}
    with_line: dict[int, list[str]] = {}
    for match in _PATH.finditer(text):
        named = match["path"].rstrip(".")
        line = any(value for key, value in match.groupdict().items() if key != "path")
        (with_line if line else found)[match.start()] = corpus.at_path(named) or corpus.called(named)
    if len(with_line) < FEWEST_OF_A_LOG and not _FRAME.search(text):
        found |= with_line
    for match in _BARE.finditer(text):
        name = match[0].rstrip(".")
        if name in corpus.bare and (name[0] == "." or not name.islower()):
            same = sorted(corpus.by_name[name], key=lambda path: (path.count("/"), path))
            found[match.start()] = same[:1]
    named_ones: dict[str, bool] = {}
    for start in sorted(found):
        sure = len(found[start]) == 1
        named_ones |= {path: sure or named_ones.get(path, False) for path in found[start]}
    return named_ones


FEWEST_OF_A_LOG = 3
"""So many places, each a path with a line, are a log and no list of files to change."""
_BARE = re.compile(r"(?<![\w./\\-])\.?[\w-]{2,60}(?:\.(?!\w)|(?![\w./\\]))")
"""Words that may be the name of a file without a suffix: Makefile, .gitignore."""


def _module_mentions(corpus: Corpus, parts: Sequence[str], strength: float) -> list[Mention]:
    for end in range(min(len(parts), 12), 0, -1):
        if end == 1 and parts[0].lower() in COMMON:
            break
        paths = corpus.at_module(parts[:end])
        if paths:
            # `json.dumps` may well be the standard library's: one part alone proves little.
            share = (0.8 if end > 1 else 0.25) / len(paths)
            return [Mention(path, None, strength * share, f"module {'.'.join(parts[:end])}") for path in paths]
    return []


_HUNK = re.compile(r"^@@ -\S+ \+(\d+)", re.MULTILINE)


def changed_places(corpus: Corpus, path: str, patch: str) -> list[Mention]:
    """A changed file, at every place where it changed."""
    if path not in corpus.sources:
        return []
    lines = [int(line) + 3 for line in _HUNK.findall(patch)]  # three lines of context come first
    return [Mention(path, line, 1.3, "changed") for line in lines] or [Mention(path, None, 1.3, "changed")]


def changed_lines(patch: str) -> str:
    """The lines a patch adds and removes."""
    return "\n".join(line[1:] for line in patch.split("\n") if re.match(r"[+-](?![+-]{2} )", line))


@dataclass(frozen=True)
class FailingTest:
    """A test that a text says fails."""

    path: str
    name: str


def find_failing_tests(corpus: Corpus, text: str) -> list[FailingTest]:
    """Tests named like `tests/test_x.py::TestY::test_z[param]`."""
    found: dict[FailingTest, None] = {}
    for match in _TEST_ID.finditer(text):
        for path in corpus.at_path(match["path"]):
            name = match["name"].split("::")[-1].split("[")[0].strip(".:")
            found[FailingTest(path, name)] = None
    return list(found)


def bodies_of(corpus: Corpus, failing: Sequence[FailingTest]) -> str:
    """The source of the failing tests: the names that they use are the task's own."""
    bodies = ["".join(corpus.sources[test.path].lines[slice(*_span(corpus, test))]) for test in failing[:20]]
    return "\n".join(dict.fromkeys(bodies))


def _span(corpus: Corpus, test: FailingTest) -> tuple[int, int]:
    """The lines of a test, from 0, end excluded."""
    found = corpus.sources[test.path].definitions.get(test.name)
    return (found[0].at - 1, found[0].last) if found else (0, 0)


# --- scores


@dataclass
class Ranked:
    """A file, how much it matters, why, and which of its lines do (line from 1 → weight)."""

    path: str
    score: float = 0.0
    reasons: dict[str, float] = field(default_factory=dict)
    lines: dict[int, float] = field(default_factory=dict)

    def add(self, score: float, why: str) -> None:
        self.score += score
        self.reasons[why] = self.reasons.get(why, 0.0) + score

    @property
    def why(self) -> str:
        """The strongest reasons, best first."""
        best = sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))[:3]
        return ", ".join(why for why, score in best if score > 0.15 * best[0][1])


_K1, _B = 1.2, 0.4


@dataclass(frozen=True)
class Ranking:
    """The files that matter, best first, equal ones by path; and what each term of the query is worth in a line."""

    files: Sequence[Ranked]
    values: Mapping[str, float]


def rank(corpus: Corpus, query: TaskWords, mentions: Sequence[Mention], failing: Sequence[FailingTest]) -> Ranking:
    """Judge every file of a corpus by a task."""
    ranked = {path: Ranked(path) for path in corpus.sources}
    values = _score_words(corpus, query, ranked)
    _score_definitions(corpus, query, ranked)
    top = max((file.score for file in ranked.values()), default=0.0) or 10.0
    _score_mentions(corpus, mentions, ranked, top)
    _score_failing(corpus, failing, ranked, top)
    _score_neighbours(corpus, ranked)
    files = sorted((file for file in ranked.values() if file.score > 0), key=lambda file: (-file.score, file.path))
    return Ranking(files, values)


def line_weights(lines: Sequence[str], values: Mapping[str, float]) -> dict[int, float]:
    """Score of each line (from 1) of a file for the task's words."""
    matcher = _Matcher(values)
    worth: dict[str, float] = {}
    weights = {}
    for number, line in enumerate(lines, start=1):
        words = sorted({*IDENTIFIER.findall(line), *(() if line.isascii() else foreign_words(line))})
        for word in words:
            if word not in worth:
                worth[word] = sum(values[term] for term in matcher.terms_in(word))
        weight = sum(worth[word] for word in words)
        if weight:
            weights[number] = weight
    return weights


class _Matcher:
    """Terms of the task that an identifier holds. Most hold none, so that case must be quick."""

    def __init__(self, wanted: Mapping[str, float]) -> None:
        self.wanted = wanted
        # A stem begins its words, but for the y of `queries`.
        roots = sorted({term[:-1] if term.endswith("y") and len(term) > 2 else term for term in wanted})
        self.any = re.compile("|".join(map(re.escape, roots)) or r"(?!)")
        self.known: dict[str, tuple[str, ...]] = {}

    def terms_in(self, identifier: str) -> tuple[str, ...]:
        found = self.known.get(identifier)
        if found is None:
            lower = identifier if not identifier.isascii() else identifier.lower()
            terms = {*parts_of(identifier), lower, stem(lower)} if self.any.search(lower) else set()
            found = self.known[identifier] = tuple(sorted(terms & self.wanted.keys()))
        return found


def _score_words(corpus: Corpus, query: TaskWords, ranked: Mapping[str, Ranked]) -> dict[str, float]:
    """BM25 over words and parts of names, in the text and, apart, in the path. Returns what each term is worth."""
    matcher = _Matcher(query.terms)
    known = set[str]().union(*(source.counts for source in corpus.sources.values()))
    matching = {identifier: terms for identifier in sorted(known) if (terms := matcher.terms_in(identifier))}
    texts = {path: _frequencies(source, matching) for path, source in corpus.sources.items()}
    paths = {path: _path_terms(path, matcher) for path in corpus.sources}
    in_texts = Counter(term for found in texts.values() for term in found)
    in_paths = Counter(term for found in paths.values() for term in found)
    count = len(texts)
    values = {term: query.terms[term] * _rarity(count, holding) for term, holding in in_texts.items()}
    average = sum(source.size for source in corpus.sources.values()) / max(1, count) or 1.0
    for path, found in texts.items():
        norm = _K1 * (1 - _B + _B * corpus.sources[path].size / average)
        scores = {term: values[term] * often * (_K1 + 1) / (often + norm) for term, often in found.items()}
        for term, share in paths[path].items():
            scores[term] = scores.get(term, 0.0) + share * query.terms[term] * _rarity(count, in_paths[term])
        if scores:
            best = sorted(scores, key=lambda term: (-scores[term], term))[:4]
            total = sum(scores[term] for term in sorted(scores))
            ranked[path].add(corpus.sources[path].factor * total, f"words: {' '.join(best)}")
    return values


def _frequencies(source: SourceFile, matching: Mapping[str, Sequence[str]]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for identifier in source.counts.keys() & matching.keys():
        for term in matching[identifier]:
            found[term] += source.counts[identifier]
    return dict(sorted(found.items()))


def _path_terms(path: str, matcher: _Matcher) -> dict[str, float]:
    """The terms in a path; its file's own name says more than its folders' names."""
    *folders, name = path.split("/")
    found = {term: 0.4 for folder in folders for word in IDENTIFIER.findall(folder) for term in matcher.terms_in(word)}
    return found | {
        term: 1.0 for word in IDENTIFIER.findall(name.rpartition(".")[0]) for term in matcher.terms_in(word)
    }


def _rarity(files: int, holding: int) -> float:
    return math.log(1 + (files - holding + 0.5) / (holding + 0.5))


def _score_definitions(corpus: Corpus, query: TaskWords, ranked: Mapping[str, Ranked]) -> None:
    """A definition of a name in the task counts more than its uses."""
    users: dict[str, list[str]] = {name: [] for name in sorted(query.names) if len(name) > 2}
    for path, source in corpus.sources.items():
        for name in users.keys() & source.counts.keys():
            users[name].append(path)
    many = max(40, len(corpus.sources) // 4)  # what everybody uses tells nothing
    for name, paths in users.items():
        if not 0 < len(paths) <= many:
            continue
        weight = 3 * query.names[name] * _rarity(len(corpus.sources), len(paths))
        found = {path: there for path in paths if (there := corpus.sources[path].definitions.get(name))}
        for path, there in found.items():
            ranked[path].add(weight * corpus.sources[path].factor / math.sqrt(len(found)), f"defines {name}")
            for definition in there[:20]:
                ranked[path].lines[definition.at] = max(ranked[path].lines.get(definition.at, 0.0), weight)


def _score_mentions(corpus: Corpus, mentions: Sequence[Mention], ranked: Mapping[str, Ranked], top: float) -> None:
    strongest: dict[str, Mention] = {}
    for mention in mentions:
        file = ranked[mention.path]
        if mention.line:
            file.lines[mention.line] = max(file.lines.get(mention.line, 0.0), top * mention.strength)
        if mention.strength > getattr(strongest.get(mention.path), "strength", 0.0):
            strongest[mention.path] = mention
    for path, mention in strongest.items():
        ranked[path].add(top * mention.strength, mention.why)
        for partner in partners(corpus, path):
            ranked[partner].add(0.3 * top * mention.strength, f"pair of {path}")


def _score_failing(corpus: Corpus, failing: Sequence[FailingTest], ranked: Mapping[str, Ranked], top: float) -> None:
    """Imports of a failing test; those its body uses count most."""
    share = 1 / math.sqrt(len(failing)) if failing else 0.0
    for test in failing:
        start, end = _span(corpus, test)
        if end:
            ranked[test.path].lines[start + 1] = 2 * top
        used = set(IDENTIFIER.findall("".join(corpus.sources[test.path].lines[start:end])))
        ranked[test.path].add(0.5 * top * share, "failing test")
        for path, names in imports_of(corpus, test.path).items():
            hit = used & {*names, module_parts(path)[-1]}
            ranked[path].add((0.8 if hit else 0.3) * top * share, "imported by a failing test")
    for distance, paths in enumerate(_reached(corpus, [test.path for test in failing])):
        for path in paths:
            ranked[path].add(0.4 * top * 0.8**distance * min(1.0, 20 / len(paths)), "within reach of a failing test")


def _reached(corpus: Corpus, tests: Sequence[str]) -> Iterator[list[str]]:
    """The source that tests import, then what that imports, and so on, each file once. In a large project a level soon
    holds everything, and says nothing.
    """
    seen = set(tests)
    level = list(seen)
    for _ in range(5):
        found = {
            target for path in level for target in imports_of(corpus, path) if corpus.sources[target].factor == 1.0
        } - seen
        if not found or len(seen) > 400:
            return
        level = sorted(found)
        seen |= found
        yield level


def _score_neighbours(corpus: Corpus, ranked: Mapping[str, Ranked]) -> None:
    """Imports of the best files get a share of their score: a fault is often one step away."""
    best = sorted((file for file in ranked.values() if file.score > 0), key=lambda file: (-file.score, file.path))[:6]
    for file in [(file.path, file.score) for file in best]:
        for path in imports_of(corpus, file[0]):
            ranked[path].add(0.1 * file[1] * corpus.sources[path].factor, f"imported by {file[0]}")
