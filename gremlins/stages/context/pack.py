"""The context pack: what of a repository a model must see to answer in one shot, within a token budget.

Deterministic: the same files, task and budget give the same bytes. Only what git tracks, and never a secret.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gremlins.repository.git import Git
from gremlins.stages.context.corpus import Corpus, SourceFile, count_identifiers, is_source, is_test, kind_factor
from gremlins.stages.context.ranking import (
    Ranked,
    Ranking,
    bodies_of,
    changed_lines,
    changed_places,
    find_failing_tests,
    find_mentions,
    line_weights,
    rank,
)
from gremlins.stages.context.slices import choose_slices, gap_note
from gremlins.stages.context.words import read_query
from gremlins.stages.secrecy import screen, screen_diff, secret_name
from gremlins.stages.tags import tagged
from gremlins.stages.text_files import read_text

LARGEST_FILE = 1_000_000
"""Bytes. A larger file counts as data under any name."""
MOST_COUNTED = 200_000
"""Bytes of a file that are searched for words; of data and prose a tenth."""
LONGEST_LINE = 4_000
"""Characters. What has longer ones was made by a machine."""

Form = Literal["whole", "slice", "listed"]


@dataclass(frozen=True)
class PackEntry:
    """A file and how much of it the model sees. `listed`: it would have been worth showing, there was no room."""

    path: str
    tokens: int
    form: Form
    why: str


@dataclass(frozen=True)
class LeftOut:
    """A tracked file that is never shown."""

    path: str
    why: str


@dataclass(frozen=True)
class Pack:
    """The pack. `text` goes into the prompt; the rest lists its contents for a person. `tokens` is estimated."""

    text: str
    entries: tuple[PackEntry, ...]
    tokens: int
    budget: int
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Subject:
    """The purpose of a pack. `failure` is command output; `diff_base` asks for the difference since that commit."""

    task: str
    plan: str = ""
    failure: str = ""
    diff_base: str | None = None


_TOKEN = re.compile(r"[A-Za-z]{1,7}|\d{1,2}|\n\s*|[^\sA-Za-z\d]")


def estimate_tokens(text: str) -> int:
    """Estimated tokens of a text, rather too many than too few: about one for each short word, sign or line end."""
    return max(len(_TOKEN.findall(text)), (len(text.encode(errors="replace")) + 2) // 3)


def build_pack(root: Path, subject: Subject, *, budget: int) -> Pack:
    """Choose, cut and put together. Never more than `budget` tokens by `estimate_tokens`; nothing for a budget of 0."""
    return _Builder(root, subject, budget).build()


@dataclass
class _Section:
    """A part of the text under construction."""

    text: str
    tokens: int
    entry: PackEntry | None = None


class _Builder:
    def __init__(self, root: Path, subject: Subject, budget: int) -> None:
        self.root = root
        self.subject = subject
        self.budget = budget
        self.left = budget
        self.left_out: dict[str, str] = {}
        self.screened: set[str] = set()
        self.hidden: set[str] = set()
        self.inside: dict[Path, bool] = {}
        self.real_root = root.resolve()
        self.tracked = sorted(Git(root).ls_files())
        self.corpus = self._read()
        self.patches = self._patches()

    def build(self) -> Pack:
        ranking = self._ranking()
        self.left -= 40  # what joins the parts
        guides = self._guides(ranking)
        diff = self._diff()
        tree = self._tree([file.path for file in ranking.files[:40]])
        files = self._files(ranking, {section.entry.path for section in guides if section.entry})
        sections = [*tree, *guides, *diff, *files]
        text = "\n".join(section.text for section in sections if section.text)
        tokens = estimate_tokens(text)
        while tokens > self.budget and sections:  # estimates of parts may differ from that of their sum by a few
            sections.pop()
            text = "\n".join(section.text for section in sections if section.text)
            tokens = estimate_tokens(text)
        entries = tuple(section.entry for section in sections if section.entry)
        return Pack(
            text,
            entries,
            tokens if text else 0,
            self.budget,
            tuple(LeftOut(*item) for item in sorted(self.left_out.items())),
        )

    # --- reading

    def _read(self) -> Corpus:
        sources = {}
        for path in self.tracked:
            raw = self._bytes(path)
            found = None if raw is None else read_text(raw)
            text = found.text if found else None
            if secret_name(path):
                text = self._screened(path, text or "")
            if raw is None or text is None:
                continue
            if _is_machine_made(text):
                self.left_out[path] = "lines too long to be written by hand"
                continue
            counts = count_identifiers(raw[: MOST_COUNTED if kind_factor(path) > 0.5 else MOST_COUNTED // 10])
            sources[path] = SourceFile(path, text, counts, counts.total())
        return Corpus(sources)

    def _bytes(self, path: str) -> bytes | None:
        """A regular file's content. Links are not followed: what is ours to show is tracked itself."""
        place = self.root / path
        try:
            found = place.lstat()
            if not stat.S_ISREG(found.st_mode):
                return None
            if found.st_size > LARGEST_FILE:
                self.left_out[path] = f"{found.st_size:,} bytes"
                return None
            return place.read_bytes() if self._is_inside(place.parent) else None
        except OSError:
            return None

    def _is_inside(self, folder: Path) -> bool:
        """True if a folder is not a link out of the worktree."""
        if folder not in self.inside:
            self.inside[folder] = folder.resolve().is_relative_to(self.real_root)
        return self.inside[folder]

    def _may_be_shown(self, path: str) -> bool:
        """Files are searched for secrets only when they are about to be shown: it takes long."""
        if path not in self.screened:
            source = self.corpus.sources[path]
            source.text = self._screened(path, source.text) or ""
        return path not in self.hidden

    def _screened(self, path: str, text: str) -> str | None:
        """What may be shown of a file, secrets masked."""
        self.screened.add(path)
        found = screen(path, text)
        if found.why:
            self.left_out[path] = found.why
        if found.text is None:
            self.hidden.add(path)
        return found.text

    # --- choosing

    def _ranking(self) -> Ranking:
        subject = self.subject
        failure = subject.failure[-100_000:]
        failing = find_failing_tests(self.corpus, f"{failure}\n{subject.task}\n{subject.plan}")
        query = read_query(
            [
                (subject.task, 1.0),
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

    def _files(self, ranking: Ranking, done: set[str]) -> list[_Section]:
        sections: list[_Section] = []
        ranked = [file for file in ranking.files if file.path not in done]
        floor = FLOOR * ranked[0].score if ranked else 0.0
        chosen = [file for file in ranked if file.score >= floor]
        missed = 0
        for position, file in enumerate([*chosen, *self._rest_of_a_small_one(chosen, done)]):
            if missed >= MOST_LISTED:
                break
            if not self._may_be_shown(file.path):
                continue
            section = self._file(file, position, ranking.values)
            missed += section.tokens == 0
            sections.append(section)
            self.left -= section.tokens
        return sections

    def _rest_of_a_small_one(self, chosen: Sequence[Ranked], done: set[str]) -> list[Ranked]:
        """Show every source file if all of them take little of the budget."""
        sources = [path for path in self.corpus.sources if is_source(path)]
        if sum(len(self.corpus.sources[path].text) for path in sources) > 3 * 0.4 * self.budget:
            return []
        have = {file.path for file in chosen} | done
        return [Ranked(path, reasons={"all of a small project": 1.0}) for path in sources if path not in have]

    def _file(self, file: Ranked, position: int, values: Mapping[str, float]) -> _Section:
        text = self.corpus.sources[file.path].text
        whole_share, slice_share = _shares(file.path, position)
        whole_limit = whole_share * self.budget
        if len(text) < 8 * whole_limit:
            shown = tagged("file", text, path=file.path)
            tokens = estimate_tokens(shown) + 1
            if tokens <= min(whole_limit, self.left):
                return _Section(shown, tokens, PackEntry(file.path, tokens, "whole", file.why))
        limit = int(min(self.left, slice_share * self.budget))
        return self._sliced(file, limit, values) or _Section("", 0, PackEntry(file.path, 0, "listed", file.why))

    def _sliced(self, file: Ranked, limit: int, values: Mapping[str, float]) -> _Section | None:
        source = self.corpus.sources[file.path]
        lines = source.lines
        if limit < 300 or not lines:
            return None
        definitions = source.syntax.definitions
        weights = line_weights(lines, values)
        for line, weight in file.lines.items():
            weights[line] = weights.get(line, 0.0) + 10 * weight
        size = [estimate_tokens(line) for line in lines]
        slices = choose_slices(len(lines), weights, size, limit - 80, definitions, frozenset(file.lines))
        if not slices:
            return None
        body, after = [], 0
        for part in slices:
            if part.first > after + 1:
                body.append(gap_note(definitions, after + 1, part.first - 1) + "\n")
            body.extend(lines[part.first - 1 : part.last])
            after = part.last
        if after < len(lines):
            body.append(gap_note(definitions, after + 1, len(lines)) + "\n")
        spans = ", ".join(f"{part.first}-{part.last}" for part in slices)
        shown = tagged("file", "".join(body), path=file.path, lines=f"{spans} of {len(lines)}")
        tokens = estimate_tokens(shown) + 1
        if tokens > limit:
            return None
        return _Section(shown, tokens, PackEntry(file.path, tokens, "slice", file.why))

    # --- what is not a matter of score

    def _guides(self, ranking: Ranking) -> list[_Section]:
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
            if not text.strip() or text in seen or not self._may_be_shown(path):
                continue
            seen.add(text)
            section = self._excerpt(path, int(min(share * self.budget, self.left)))
            if section:
                sections.append(section)
                self.left -= section.tokens
        return sections

    def _excerpt(self, path: str, limit: int) -> _Section | None:
        """The beginning of a file, whole lines."""
        lines = self.corpus.sources[path].lines
        room, count = limit - 60, 0
        for line in lines:
            room -= estimate_tokens(line)
            if room < 0:
                break
            count += 1
        if count == 0:
            return None
        whole = count == len(lines)
        note = "" if whole else gap_note([], count + 1, len(lines)) + "\n"
        shown = tagged("file", "".join(lines[:count]) + note, path=path)
        tokens = estimate_tokens(shown) + 1
        entry = PackEntry(path, tokens, "whole" if whole else "slice", "the project's own words")
        return _Section(shown, tokens, entry) if tokens <= limit else None

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

    def _diff(self) -> list[_Section]:
        """The difference, source first where there is no room for all of it."""
        if self.subject.diff_base is None:
            return []
        room = int(min(0.5 * self.budget, self.left)) - 60
        shown, missing = [], []
        for path in sorted(self.patches, key=lambda path: (not is_source(path), path)):
            cost = estimate_tokens(self.patches[path])
            if self.patches[path] and cost <= room:
                shown.append(path)
                room -= cost
            else:
                missing.append(path)
        text = "".join(self.patches[path] for path in sorted(shown))
        if missing:
            text += f"[changed too, but not shown here: {', '.join(sorted(missing)[:50])}]\n"
        section = tagged("diff", text)
        tokens = estimate_tokens(section) + 1
        if tokens > self.left:
            return []
        self.left -= tokens
        return [_Section(section, tokens)]

    def _tree(self, important: Sequence[str]) -> list[_Section]:
        limit = int(min(max(0.06 * self.budget, 200), self.left)) - 40
        text = render_tree(self.tracked, important, limit)
        if not text:
            return []
        section = tagged("repository_tree", text)
        tokens = estimate_tokens(section) + 1
        self.left -= tokens
        return [_Section(section, tokens)]


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
    parts = path.split("/")[:-1]
    return ["/".join(parts[:count]) + "/" for count in range(1, len(parts) + 1)]


def _is_machine_made(text: str) -> bool:
    return len(text) > LONGEST_LINE and max(map(len, text.split("\n"))) > LONGEST_LINE


# --- the tree


@dataclass
class _Folder:
    folders: dict[str, _Folder] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    count: int = 0
    open: bool = False


def render_tree(paths: Sequence[str], important: Sequence[str], limit: int) -> str:
    """The files of a repository, indented, at most `limit` tokens: folders of important files are opened first, then
    the shallow and small ones; a folder that stays closed says how many files it holds.
    """
    top = _Folder(open=True)
    for path in paths:
        _insert(top, path.split("/"))
    costs: list[tuple[tuple[int, int, str], _Folder, int]] = []
    _candidates(top, "", 0, {path: number for number, path in reversed(list(enumerate(important)))}, costs)
    left = limit - _cost(top)
    if left < 0:
        return ""
    opened = {""}
    for (_, _, name), folder, cost in sorted(costs, key=lambda item: item[0]):
        if cost <= left and name.rpartition("/")[0] in opened:
            folder.open = True
            opened.add(name)
            left -= cost
    lines: list[str] = []
    _render(top, 0, lines)
    return "".join(lines)


def _insert(folder: _Folder, parts: Sequence[str]) -> None:
    folder.count += 1
    for name in parts[:-1]:
        folder = folder.folders.setdefault(name, _Folder())
        folder.count += 1
    folder.files.append(parts[-1])


def _cost(folder: _Folder) -> int:
    """Tokens of showing a folder's content."""
    return sum(estimate_tokens(name) + 3 for name in folder.files) + sum(
        estimate_tokens(name) + 8 for name in folder.folders
    )


def _candidates(
    folder: _Folder,
    prefix: str,
    depth: int,
    important: Mapping[str, int],
    into: list[tuple[tuple[int, int, str], _Folder, int]],
) -> int:
    """Every folder below with its place in the order of opening: the best rank in it first, then depth."""
    best = min((important[prefix + name] for name in folder.files if prefix + name in important), default=10_000)
    for name, inner in folder.folders.items():
        rank_ = _candidates(inner, f"{prefix}{name}/", depth + 1, important, into)
        into.append(((rank_, depth, prefix + name), inner, _cost(inner)))
        best = min(best, rank_)
    return best


def _render(folder: _Folder, depth: int, lines: list[str]) -> None:
    pad = " " * depth
    for name in sorted(folder.folders):
        inner = folder.folders[name]
        if inner.open:
            lines.append(f"{pad}{name}/\n")
            _render(inner, depth + 1, lines)
        else:
            lines.append(f"{pad}{name}/ ({inner.count} files)\n")
    lines.extend(f"{pad}{name}\n" for name in sorted(folder.files))


# --- for people


def render_manifest(pack: Pack, *, stage: str) -> str:
    """The pack's table of contents, as an artifact: a person can see what was sent, and what was not."""
    shown = [entry for entry in pack.entries if entry.form != "listed"]
    listed = [entry for entry in pack.entries if entry.form == "listed"]
    lines = [
        f"# What {stage} was shown",
        "",
        f"About {pack.tokens:,} tokens of at most {pack.budget:,} (estimated high), {len(shown)} files.",
        "",
        "| file | tokens | shown | why |",
        "|---|---:|---|---|",
        *(f"| `{entry.path}` | {entry.tokens:,} | {entry.form} | {_cell(entry.why)} |" for entry in shown),
    ]
    lines += _listed("There was no room for", [f"`{entry.path}`: {entry.why}" for entry in listed])
    lines += _listed("Never shown", [f"`{item.path}`: {item.why}" for item in pack.left_out])
    return "\n".join(lines) + "\n"


def _listed(title: str, items: Iterable[str]) -> list[str]:
    found = [f"- {item}" for item in items]
    return ["", f"## {title}", "", *found] if found else []


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
