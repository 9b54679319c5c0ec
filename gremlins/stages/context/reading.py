"""Reads the files of a worktree for a model: decoded, secrets masked, lines that are too long cut."""

from __future__ import annotations

import stat
from pathlib import Path

from gremlins.files import read_file
from gremlins.repository.git import Git
from gremlins.repository.sparse import read_left_out
from gremlins.stages.context.corpus import Corpus, SourceFile, count_identifiers
from gremlins.stages.context.kinds import attributes_of, factor_of, kind_factor
from gremlins.stages.secrecy import screen, secret_name
from gremlins.stages.text_files import read_text

LARGEST_FILE = 1_000_000
"""Bytes. A larger file counts as data under any name."""
MOST_COUNTED = 200_000
"""Characters of a file that are searched for words; of data and prose a tenth."""
LONGEST_LINE = 4_000
SHOWN_OF_A_LINE = 500
"""Characters; of a line longer than the first, so much is shown."""


class Files:
    """The tracked files that may be shown, and why others are not."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.left_out: dict[str, str] = {}
        self.unreadable: dict[str, str] = {}
        """Files without a text to show: pictures, links. A person need not be told of each."""
        self._screened: set[str] = set()
        self._hidden: set[str] = set()
        self._inside: dict[Path, bool] = {}
        self._real_root = root.resolve()
        git = Git(root)
        self.tracked = sorted(git.ls_files())
        self.attributes = attributes_of(git, self.tracked)
        self._outside_cone = read_left_out(git, LARGEST_FILE)
        self.corpus = Corpus({path: source for path in self.tracked if (source := self._read(path)) is not None})

    def may_be_shown(self, path: str) -> bool:
        """Files are searched for secrets only when they are about to be shown: it takes long."""
        if path not in self._screened:
            source = self.corpus.sources[path]
            source.text = self._screen(path, source.text) or ""
        return path not in self._hidden

    def why_not(self, path: str) -> str:
        """The reason a tracked file is not shown as it is; empty if it is."""
        return self.left_out.get(path) or self.unreadable.get(path, "")

    def _read(self, path: str) -> SourceFile | None:
        raw = self._bytes(path)
        found = None if raw is None else read_text(raw)
        text = found.text if found else None
        if secret_name(path):
            text = self._screen(path, text or "")
        elif raw is not None and text is None:
            self.unreadable[path] = "not text"
        if raw is None or text is None:
            return None
        counted = text[: MOST_COUNTED if kind_factor(path) > 0.5 else MOST_COUNTED // 10]
        counts = count_identifiers(counted)
        shown, cut = cut_lines(text)
        factor = factor_of(path, text, self.attributes.get(path, {}), 1 - len(shown) / len(text) if cut else 0.0)
        return SourceFile(path, shown, counts, sum(counts.values()), factor, cut)

    def _bytes(self, path: str) -> bytes | None:
        """A regular file's content. Links are not followed: what is ours to show is tracked itself."""
        place = self.root / path
        try:
            found = place.lstat()
            if not stat.S_ISREG(found.st_mode):
                self.unreadable[path] = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no regular file"
                return None
            if found.st_size > LARGEST_FILE:
                self.left_out[path] = f"{found.st_size:,} bytes"
                return None
            return read_file(place) if self._is_inside(place.parent) else None
        except OSError:
            return self._outside_cone.get(path)

    def _is_inside(self, folder: Path) -> bool:
        """True if a folder is not a link out of the worktree."""
        if folder not in self._inside:
            self._inside[folder] = folder.resolve().is_relative_to(self._real_root)
        return self._inside[folder]

    def _screen(self, path: str, text: str) -> str | None:
        """The text of a file that may be shown, secrets masked."""
        self._screened.add(path)
        found = screen(path, text)
        if found.why:
            self.left_out[path] = found.why
        if found.text is None:
            self._hidden.add(path)
        return found.text


def cut_lines(text: str) -> tuple[str, int]:
    """The text with the ends of its longest lines left out, and how many lines that were."""
    if len(text) <= LONGEST_LINE:
        return text, 0
    lines, cut = text.split("\n"), 0
    for number, line in enumerate(lines):
        if len(line) > LONGEST_LINE:
            more = len(line) - SHOWN_OF_A_LINE
            lines[number] = f"{line[:SHOWN_OF_A_LINE]} [{more:,} more characters of this line are not shown]"
            cut += 1
    return ("\n".join(lines), cut) if cut else (text, 0)
