"""The context pack: what of a repository a model must see to answer in one shot, within a token budget.

Deterministic: the same files, task and budget give the same bytes. Only what git tracks, and never a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gremlins.repository.git import Git
from gremlins.stages.context.corpus import MOST_ALIKE
from gremlins.stages.context.kinds import is_code, is_prose, is_source, is_template, is_test
from gremlins.stages.context.ranking import (
    Ranked,
    Ranking,
    bodies_of,
    changed_lines,
    changed_places,
    find_failing_tests,
    find_mentions,
    line_weights,
    named_files,
    rank,
)
from gremlins.stages.context.reading import Files
from gremlins.stages.context.showing import (
    LeftOut,
    Pack,
    PackEntry,
    Shown,
    beginning,
    copied,
    estimate_tokens,
    outline,
    parts,
    share_out,
    whole,
)
from gremlins.stages.context.tree import render_tree
from gremlins.stages.context.words import IDENTIFIER, read_query
from gremlins.stages.secrecy import screen_diff, secret_name
from gremlins.stages.tags import tagged


@dataclass(frozen=True)
class Subject:
    """The purpose of a pack. `failure` is command output; `diff_base` asks for the difference since that commit.

    needs: paths that an earlier stage asked for.
    """

    task: str
    plan: str = ""
    failure: str = ""
    diff_base: str | None = None
    needs: tuple[str, ...] = ()


TREE_SHARE, DIFF_SHARE, PROSE_SHARE = 0.2, 0.55, 0.1
LEAST_TREE = 0.04
"""Of the budget: the list of the repository's files, where named files need all else."""


def build_pack(root: Path, subject: Subject, *, budget: int) -> Pack:
    """Choose, cut and put together. Never more than `budget` tokens by `estimate_tokens`; nothing for a budget of 0."""
    return _Builder(root, subject, budget).build()


class _Builder:
    def __init__(self, root: Path, subject: Subject, budget: int) -> None:
        self.root = root
        self.subject = subject
        self.budget = budget
        self.left = budget
        self.files = Files(root)
        self.corpus = self.files.corpus
        self.patches = self._patches()

    def build(self) -> Pack:
        ranking = self._ranking()
        self.left -= 40  # what joins the parts
        diff = self._diff()
        named = self._named(ranking)  # all that is guessed makes room for it
        done = {section.entry.path for section in named if section.entry}
        tree = self._tree([*done, *(file.path for file in ranking.files[:40])])
        notes_room = min(self.left, int(NOTES_SHARE * self.budget))
        self.left -= notes_room  # what is said at the end
        guides = self._guides(ranking, done)
        done |= {section.entry.path for section in guides if section.entry}
        guessed = self._guessed(ranking, done)
        self.left += notes_room
        notes = self._notes([*named, *guessed])
        sections = [*tree, *guides, *diff, *named, *guessed, *notes]
        text, tokens = _joined(sections)
        while tokens > self.budget and sections:  # estimates of parts may differ from that of their sum by a few
            sections.pop()
            text, tokens = _joined(sections)
        entries = tuple(section.entry for section in sections if section.entry)
        left_out = tuple(LeftOut(*item) for item in sorted(self.files.left_out.items()))
        return Pack(text, entries, tokens, self.budget, left_out)

    # --- choosing

    def _ranking(self) -> Ranking:
        subject = self.subject
        failure = subject.failure[-100_000:]
        failing = find_failing_tests(self.corpus, f"{failure}\n{subject.task}\n{subject.plan}")
        query = read_query(
            [
                (self._own_words(subject.task), 1.0),
                (subject.plan, 0.6),
                (failure[-12_000:], 0.3),
                (bodies_of(self.corpus, failing), 0.4),
                ("\n".join(changed_lines(patch) for patch in self.patches.values()), 0.2),
            ]
        )
        mentions = [
            *(mention for path, patch in self.patches.items() for mention in changed_places(self.corpus, path, patch)),
            *find_mentions(self.corpus, subject.task, strength=1.5),
            *find_mentions(self.corpus, subject.plan, strength=1.5),
            *find_mentions(self.corpus, failure, strength=1.0),
        ]
        return rank(self.corpus, query, mentions, failing)

    def _own_words(self, task: str) -> str:
        """The task less addresses, comments, and the lines of the project's own template for issues."""
        task = _ADDRESS.sub(" ", _without_comments(task))
        sources = self.corpus.sources
        form = {line.strip() for path in sources if is_template(path) for line in sources[path].lines}
        return "\n".join(line for line in task.split("\n") if not (line.strip() and line.strip() in form))

    def _named(self, ranking: Ranking) -> list[Shown]:
        """The files that the task, the plan or an earlier stage names: whole if they fit, else a fair share of each.

        Code comes before data and translations, and what is surely meant before what may be.
        """
        named = {path: True for need in self.subject.needs for path in self.corpus.at_path(need)}
        for text in (self.subject.task, self.subject.plan):
            named = named_files(self.corpus, text) | named
        paths = [path for path in named if self.files.may_be_shown(path)][:MOST_NAMED]
        ranked = {file.path: file for file in ranking.files}
        sections = {path: whole(self.corpus.sources[path], ranked.get(path, _NAMED).why or "named") for path in paths}
        room = self.left - int(LEAST_TREE * self.budget)
        limits = _limits({path: section.tokens for path, section in sections.items()}, named, room)
        fitting = [path for path in paths if sections[path].tokens <= limits[path]]
        for path in paths:
            if path not in fitting:
                file = self._with_named_definitions(ranked.get(path) or Ranked(path))
                lines = self.corpus.sources[path].lines
                given = copied(lines, [self.corpus.sources[other].lines for other in fitting])
                sections[path] = self._sliced(file, limits[path], ranking, given=given, meant=True)
            self.left -= sections[path].tokens
        return list(sections.values())

    def _with_named_definitions(self, file: Ranked) -> Ranked:
        """A file that is named, with the lines of the definitions that the task names beside it."""
        words = set(IDENTIFIER.findall(f"{self.subject.task}\n{self.subject.plan}"))
        for one in self.corpus.sources[file.path].syntax.definitions:
            if one.name in words and one.last > one.at and len(one.name) > 2:
                file.lines.setdefault(one.at, 1.0)
        return file

    def _guessed(self, ranking: Ranking, done: set[str]) -> list[Shown]:
        """The best of the other files, as far as there is room."""
        sections: list[Shown] = []
        ranked = [file for file in ranking.files if file.path not in done]
        floor = FLOOR * ranked[0].score if ranked else 0.0
        chosen = [file for file in ranked if file.score >= floor]
        missed, prose = 0, int(PROSE_SHARE * self.budget)
        for position, file in enumerate([*chosen, *self._rest(chosen, done)]):
            if missed >= MOST_LISTED:
                break
            if not self.files.may_be_shown(file.path):
                continue
            section = self._file(file, position, ranking)
            if is_prose(file.path):
                if section.tokens > prose:
                    section = Shown("", 0, PackEntry(file.path, 0, "listed", file.why))
                prose -= section.tokens
            missed += section.tokens == 0
            sections.append(section)
            self.left -= section.tokens
        return sections

    def _rest(self, chosen: Sequence[Ranked], done: set[str]) -> list[Ranked]:
        """Every source file if all of them take little of the budget, or if there is nothing to choose them by."""
        sources = [source for source in self.corpus.sources.values() if source.factor == 1.0]
        small = sum(len(source.text) for source in sources) <= 3 * 0.4 * self.budget
        if chosen and not small:
            return []
        have = {file.path for file in chosen} | done
        rest = [source for source in sources if source.path not in have]
        if not small:  # the shallow and small ones say most about a project
            rest = sorted(rest, key=lambda source: (source.path.count("/"), len(source.text), source.path))[:200]
        why = "all of a small project" if small else "nothing matches the task"
        return [Ranked(source.path, reasons={why: 1.0}) for source in rest]

    def _file(self, file: Ranked, position: int, ranking: Ranking) -> Shown:
        source = self.corpus.sources[file.path]
        whole_share, slice_share = _shares(file.path, position)
        whole_limit = whole_share * self.budget
        if len(source.text) < 8 * whole_limit:
            section = whole(source, file.why)
            if section.tokens <= min(whole_limit, self.left):
                return section
        return self._sliced(file, int(min(self.left, slice_share * self.budget)), ranking)

    def _sliced(
        self,
        file: Ranked,
        limit: int,
        ranking: Ranking,
        *,
        given: frozenset[int] = frozenset(),
        meant: bool = False,
    ) -> Shown:
        source = self.corpus.sources[file.path]
        weights = line_weights(source.lines, ranking.values) if limit >= 300 else {}
        for line, weight in file.lines.items():
            weights[line] = weights.get(line, 0.0) + 10 * weight
        why = file.why or "named"
        found = parts(source, limit, weights, file.lines, why, given=given, meant=meant)
        return found or Shown("", 0, PackEntry(file.path, 0, "listed", why))

    # --- what is not a matter of score

    def _guides(self, ranking: Ranking, done: set[str]) -> list[Shown]:
        """The project's own instructions, in full where they are short, and how it introduces itself."""
        near = {parent for file in ranking.files[:5] for parent in _folders(file.path)}
        wanted = [(f"{folder}{name}", 0.06) for folder in ["", *sorted(near)] for name in ("AGENTS.md", "CLAUDE.md")]
        by_lower = {path.lower(): path for path in self.corpus.sources}
        for stems, share in (
            (("contributing", ".github/contributing", "docs/contributing"), 0.03),
            (("readme",), 0.02),
        ):
            found = [by_lower[f"{stem}{end}"] for stem in stems for end in _ENDS if f"{stem}{end}" in by_lower]
            wanted.extend((path, share) for path in found[:1])
        sections, seen = [], set()
        for path, share in wanted:
            text = self.corpus.sources[path].text if path in self.corpus.sources else ""
            if not text.strip() or text in seen or path in done or not self.files.may_be_shown(path):
                continue
            seen.add(text)
            limit = int(min(share * self.budget, self.left))
            section = beginning(self.corpus.sources[path], limit, "the project's own words")
            if section:
                sections.append(section)
                self.left -= section.tokens
        return sections

    def _patches(self) -> dict[str, str]:
        """The difference since the base, file by file; an empty patch for a file that must not be shown."""
        base = self.subject.diff_base
        if base is None:
            return {}
        git = Git(self.root)
        patches = {}
        changed = sorted(git.changed_paths(base, "HEAD"), key=lambda path: (not is_source(path), path))
        for number, path in enumerate(changed):
            hidden = secret_name(path) or number >= MOST_PATCHES
            patches[path] = "" if hidden else screen_diff(git.diff(base, "HEAD", paths=[path]))
        return patches

    def _diff(self) -> list[Shown]:
        """As much of every changed file's patch as fits."""
        if self.subject.diff_base is None:
            return []
        missing = [path for path, patch in self.patches.items() if not patch]
        note = f"[changed too, but not shown here: {', '.join(sorted(missing)[:50])}]\n" if missing else ""
        paths = sorted(path for path, patch in self.patches.items() if patch)
        room = int(min(DIFF_SHARE * self.budget, self.left)) - 60 - estimate_tokens(note)
        shares = share_out([estimate_tokens(self.patches[path]) for path in paths], room)
        text = "".join(_cut_patch(self.patches[path], limit) for path, limit in zip(paths, shares, strict=True))
        section = tagged("diff", text + note)
        tokens = estimate_tokens(section) + 1
        if tokens > self.left:
            return []
        self.left -= tokens
        return [Shown(section, tokens)]

    def _tree(self, important: Sequence[str]) -> list[Shown]:
        limit = int(min(max(TREE_SHARE * self.budget, 200), self.left)) - 40
        text = render_tree(self.files.tracked, important, limit, estimate_tokens) if limit > 0 else ""
        if not text:
            return []
        section = tagged("repository_tree", text)
        tokens = estimate_tokens(section) + 1
        self.left -= tokens
        return [Shown(section, tokens)]

    def _notes(self, shown: Sequence[Shown]) -> list[Shown]:
        """Named files that are not shown as they are, and the symbols of the best files that had no room."""
        text = f"{self.subject.task}\n{self.subject.plan}"
        words = set(re.findall(r"[^\s`'\"()\[\]<>,;:]+", text))
        names = {word.rpartition("/")[2] for word in words}
        lines = [
            f"{path}: {why}\n"
            for path, why in sorted({**self.files.unreadable, **self.files.left_out}.items())
            if path in words or (path.rpartition("/")[2] in names and "." in path)
        ][:40]
        lines += [_alike(name, self.corpus.by_name[name]) for name in self._unclear(words)]
        entries = [section.entry for section in shown if section.entry]
        for entry in [entry for entry in entries if entry.form == "listed"][:12]:
            inside = outline(self.corpus.sources[entry.path], int(NOTES_SHARE * self.budget / 10))
            lines.append(f"{entry.path}: no room" + (f"; in it: {inside}" if inside else "") + "\n")
        while lines:
            section = tagged("not_shown", "".join(lines))
            tokens = estimate_tokens(section) + 1
            if tokens <= self.left:
                self.left -= tokens
                return [Shown(section, tokens)]
            lines.pop()
        return []

    def _unclear(self, words: Iterable[str]) -> list[str]:
        """The names of files among words that too many files have to show them all."""
        names = {word.rpartition("/")[2] for word in words if not self.corpus.at_path(word)}
        return [name for name in sorted(names) if "." in name and len(self.corpus.by_name.get(name, ())) > MOST_ALIKE]


_ADDRESS = re.compile(r"\bhttps?://[^\s)>\]\"']{1,2000}")
_NAMED = Ranked("", reasons={"named": 1.0})
MOST_NAMED = 60
NOTES_SHARE = 0.03


def _limits(costs: Mapping[str, int], sure: Mapping[str, bool], room: int) -> dict[str, int]:
    """The room of each named file: first of code that is surely meant, then of data, then of what may be meant."""
    is_data = {path: is_prose(path) or not is_code(path) for path in costs}
    least = {path: min(cost, LEAST) for path, cost in costs.items()}
    limits: dict[str, int] = {}
    tiers = [[path for path in costs if (not sure[path]) * 2 + is_data[path] == tier] for tier in range(4)]
    for number, tier in enumerate(tiers):
        kept = min(sum(least[path] for later in tiers[number + 1 :] for path in later), room // 4)
        limits |= dict(zip(tier, share_out([costs[path] for path in tier], room - kept), strict=True))
        room -= sum(limits[path] for path in tier)
    return limits


def _alike(name: str, paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 12} more" if len(paths) > 12 else ""
    return f"{name}: {len(paths)} files are called so: {', '.join(paths[:12])}{more}\n"


LEAST = 1000
"""Tokens that every named file may have, also where others need more."""


def _without_comments(text: str) -> str:
    kept, at = [], 0
    while (start := text.find("<!--", at)) >= 0 and (end := text.find("-->", start)) >= 0:
        kept.append(text[at:start])
        at = end + 3
    return "".join([*kept, text[at:]])


def _joined(sections: Sequence[Shown]) -> tuple[str, int]:
    text = "\n".join(section.text for section in sections if section.text)
    return text, estimate_tokens(text) if text else 0


def _cut_patch(patch: str, limit: int) -> str:
    """The beginning of a patch, whole lines, and how many are missing."""
    if estimate_tokens(patch) <= limit:
        return patch
    lines = patch.removesuffix("\n").split("\n")
    room, kept = limit - 30, 0
    for line in lines:
        room -= estimate_tokens(line) + 1
        if room < 0 and kept >= 4:
            break
        kept += 1
    return "\n".join([*lines[:kept], f"[{len(lines) - kept:,} more lines of this patch are not shown]", ""])


def _shares(path: str, position: int) -> tuple[float, float]:
    """Share of the budget that a file may take whole, and the share if it is cut."""
    if is_test(path):  # evidence, seldom the place of the change: the part that matters, not all beside it
        return 0.08, 0.06
    if position < 3:
        return 0.45, 0.25
    return (0.25, 0.12) if position < 8 else (0.15, 0.08)


FLOOR = 0.1
"""A file with a smaller share of the best one's score is not worth its price."""

MOST_PATCHES = 300
"""Changed files whose difference is looked at; a budget holds fewer."""

MOST_LISTED = 25
"""After so many files that found no room the rest is not looked at."""

_ENDS = (".md", ".rst", ".txt", "")


def _folders(path: str) -> list[str]:
    parts_ = path.split("/")[:-1]
    return ["/".join(parts_[:count]) + "/" for count in range(1, len(parts_) + 1)]
