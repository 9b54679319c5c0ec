"""Checks a list of edits against the worktree and against what the model was shown. Writes nothing.

The list becomes the files it results in, or is refused whole: an edit that leads out of the worktree is never asked
again; one that does not match can be sent back once. Nothing of a file is lost that the model was not shown.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import assert_never

from gremlins.files import read_file
from gremlins.masking import MASK
from gremlins.repository.git import Git, Sha
from gremlins.repository.sparse import left_out, read_one
from gremlins.repository.worktree import FileChange
from gremlins.stages.edits.answer import Delete, Edit, Replace, Write
from gremlins.stages.edits.matching import Misfit, nearest_lines, replace_once, rewritten
from gremlins.stages.edits.placeholders import placeholder_in
from gremlins.stages.edits.places import LINK, Places, Refusal, differ_in_case, parents
from gremlins.stages.secrecy import screen
from gremlins.stages.tags import tagged
from gremlins.stages.text_files import TextFile, read_text


@dataclass(frozen=True)
class Mismatch:
    """An edit that does not fit the file. `index` counts from 0; `nearest` is what the file has instead; `file` is the
    whole file in its tags, where the model must see it.
    """

    path: str
    index: int
    reason: str
    nearest: str = ""
    file: str = ""


@dataclass(frozen=True)
class EditsReady:
    """Every edit fits. `changes` are the files that end up different, sorted by path; none: nothing would change.
    `notes` say what was taken for what.
    """

    changes: tuple[FileChange, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mismatched:
    """Some edits do not fit, so none is applied."""

    mismatches: tuple[Mismatch, ...]


@dataclass(frozen=True)
class Refused:
    """An edit names a place it may not: the whole list is refused, and not asked again. `reason` says which."""

    reason: str


Checked = EditsReady | Mismatched | Refused


def check_edits(root: Path, edits: Sequence[Edit], shown: str) -> Checked:
    """The files that a list of edits would make of the worktree at `root`. Reads files, writes none.

    shown: all that the model was told.
    """
    where = Places(root, [edit.path for edit in edits if isinstance(edit, Delete)])
    try:
        places = [where.place(edit) for edit in edits]
    except Refusal as refusal:
        return Refused(str(refusal))
    deleted = {place for edit, place in zip(edits, places, strict=True) if isinstance(edit, Delete)}
    tree = _Files(where, shown, deleted)
    mismatches = []
    for index, (edit, path) in enumerate(zip(edits, places, strict=True)):
        try:
            tree.apply(edit, path)
        except Misfit as misfit:
            mismatches.append(Mismatch(edit.path, index, misfit.reason, misfit.nearest, tree.asked_for(edit, path)))
    mismatches.extend(tree.collisions(places))
    mismatches.extend(tree.lossy_moves(places))
    return Mismatched(tuple(mismatches)) if mismatches else EditsReady(tree.changes(), tuple(tree.notes))


class _Files:
    """The worktree's files as the edits so far leave them."""

    def __init__(self, where: Places, shown: str, deleted: set[str]) -> None:
        self.root = where.root
        self.where = where
        self.shown = _plain(shown)
        self.deleted = deleted
        self.before: dict[str, bytes | None] = {}
        self.now: dict[str, bytes | None] = {}
        self.links: set[str] = set()
        self.notes: list[str] = []

    def apply(self, edit: Edit, path: str) -> None:
        """Raises Misfit, and then leaves everything as it was."""
        content = self._content(path)
        match edit:
            case Replace():
                self.now[path] = self._replaced(edit, path, content)
            case Write():
                if content is not None and differ_in_case(edit.path, path):
                    reason = f"`{path}` is there, whose name differs only in case: write that one, or delete it as well"
                    raise Misfit(reason)
                self._must_be_free(path)
                self.now[path] = self._written(path, edit.content)
            case Delete():
                if content is None:
                    raise self._missing(path)
                self.now[path] = None
            case _:
                assert_never(edit)

    def changes(self) -> tuple[FileChange, ...]:
        return tuple(
            FileChange(path, self.now[path]) for path in sorted(self.now) if self.now[path] != self.before[path]
        )

    def collisions(self, places: Sequence[str]) -> Iterator[Mismatch]:
        """Paths that the whole list would make both a file and a folder."""
        files = {path for path, content in self.now.items() if content is not None}
        for path in sorted(files):
            folder = next((parent for parent in parents(path) if parent in files), None)
            if folder:
                index = max(number for number, place in enumerate(places) if place in (path, folder))
                yield Mismatch(path, index, f"`{folder}` would have to be a file and a folder at once")

    def lossy_moves(self, places: Sequence[str]) -> Iterator[Mismatch]:
        """New files that take the place of deleted ones of which the model has not seen all."""
        gone = [path for path, content in self.now.items() if content is None and self._is_hidden(path)]
        for path, content in self.now.items():
            is_new = content is not None and self.before[path] is None
            if old := next((old for old in gone if is_new and self._is_moved(old, path, content or b"")), None):
                reason = f"it would take the place of `{old}`, of which you were not shown all"
                yield Mismatch(path, places.index(path), reason, file=self._whole(old))

    def asked_for(self, edit: Edit, path: str) -> str:
        """The whole file in its tags, for an edit that would have written it unseen."""
        unseen = isinstance(edit, Write) and self.before.get(path) is not None and self._is_hidden(path)
        return self._whole(path) if unseen else ""

    # --- kinds of edits

    def _replaced(self, edit: Replace, path: str, content: bytes | None) -> bytes:
        if content is None:
            if edit.old:
                raise self._missing(path)
            self._must_be_free(path)
            return self._written(path, edit.new)
        if not edit.old:
            if content:
                raise Misfit("`old` is empty, but the file is not; to rewrite a file give its `content`")
            return self._written(path, edit.new)
        file = self._text(path, content)
        if file.mark:  # what marks the file is no part of its text
            edit = Replace(path=edit.path, old=edit.old.removeprefix("\ufeff"), new=edit.new.removeprefix("\ufeff"))
        if MASK in edit.old and MASK not in file.text:
            raise Misfit(f"`old` holds `{MASK}`, which stands for a secret that you were not shown: leave it out")
        try:
            found = replace_once(file.text, edit.old, edit.new)
        except Misfit as misfit:
            misfit.nearest = self._quotable(path, file.text, edit.old)
            raise
        if placeholder_in(path, edit.new, edit.old) is not None:
            self._refuse_placeholder(path, found.text, file.text)
        if found.note:
            self.notes.append(f"{path}: {found.note}")
        return _encoded(file, found.text)

    def _written(self, path: str, text: str) -> bytes:
        """The whole content of a file. One that there is must have been shown whole, and keeps its form."""
        before = self.before[path]
        if before is None:
            self._refuse_placeholder(path, text, "")
            return _encoded(TextFile(""), text)
        if self._is_hidden(path):
            raise Misfit("the file is there, and you were not shown all of it: change it by `old` and `new`")
        file = self._text(path, before)
        self._refuse_placeholder(path, text, file.text)
        return _encoded(file, rewritten(file.text, text.removeprefix("\ufeff")))

    def _refuse_placeholder(self, path: str, text: str, before: str) -> None:
        if (line := placeholder_in(path, text, before)) is not None:
            raise Misfit(f"`{line}` stands for something that it would replace: give the text itself")

    def _text(self, path: str, content: bytes) -> TextFile:
        file = read_text(content)
        if file is None:
            raise Misfit("it is not a text file")
        return file

    # --- what was shown, and what may be

    def _is_hidden(self, path: str) -> bool:
        """True if the model has not seen the whole of the file as it was before the edits."""
        before = self.before[path]
        file = read_text(before) if before else TextFile("")
        if file is None or path in self.links:
            return path not in self.links
        text = _plain(file.text)
        opening = tagged("file", "", path=path).partition(">")[0].removeprefix("<file")
        body = text if text.endswith("\n") else f"{text}\n"
        for found in re.finditer(rf"<(file(?:-[0-9a-f]{{8}})?){re.escape(opening)}[^>\n]*>\n", self.shown):
            if self.shown.startswith(f"{body}</{found[1]}>", found.end()):
                return False
        return bool(text.strip())

    def _whole(self, path: str) -> str:
        before = self.before[path]
        file = read_text(before) if before else None
        if file is None or path not in self.where.modes or len(file.text) > LARGEST_SHOWN:
            return ""
        found = screen(path, file.text).text
        return tagged("file", found, path=path) if found is not None else ""

    def _quotable(self, path: str, text: str, old: str) -> str:
        """The lines most like `old`, as far as they may be shown."""
        seen = screen(path, text).text if path in self.where.modes else None
        return nearest_lines(seen, old) if seen is not None else ""

    def _is_moved(self, old: str, new: str, content: bytes) -> bool:
        if old.rsplit("/", 1)[-1] == new.rsplit("/", 1)[-1]:
            return True
        had = {line.strip() for line in (self.before[old] or b"").split(b"\n")}
        lines = [line.strip() for line in content.split(b"\n") if len(line.strip()) > 3]
        return len(lines) >= 5 and sum(line in had for line in lines) > len(lines) // 2

    # --- reading

    def _content(self, path: str) -> bytes | None:
        if path not in self.now:
            self.before[path] = self.now[path] = self._read(path)
        return self.now[path]

    def _read(self, path: str) -> bytes | None:
        if module := self.where.submodule_of(path):
            raise Misfit(f"`{module}` is a submodule: its files are another repository's")
        place = self.root / path
        try:
            kind = place.lstat().st_mode
            if stat.S_ISLNK(kind):
                self.links.add(path)
                return os.fsencode(os.readlink(place))
            if stat.S_ISDIR(kind):
                if self._is_emptied(path):
                    return None
                raise Misfit("it is a folder")
            if not stat.S_ISREG(kind):
                raise Misfit("it is no regular file")
            if self.where.modes.get(path) == LINK:
                raise Misfit("it is a symbolic link, which this file system holds as a file")
            if path not in self.where.modes and self._is_ignored(path):
                raise Misfit("git ignores this file, so it is not the repository's")
            return read_file(place)
        except (FileNotFoundError, NotADirectoryError):
            sha = self.outside_cone.get(path)
            return None if sha is None else read_one(Git(self.root), path, sha)

    @cached_property
    def outside_cone(self) -> dict[str, Sha]:
        return left_out(Git(self.root))

    def _is_emptied(self, folder: str) -> bool:
        """True if the list deletes every file in a folder, so that a file can take its name."""
        there = [Path(top, name) for top, _, names in os.walk(self.root / folder) for name in names]
        return bool(there) and all(file.relative_to(self.root).as_posix() in self.deleted for file in there)

    def _is_ignored(self, path: str) -> bool:
        # A name may begin with `:`, which would be magic of a pathspec.
        return Git(self.root).answer("check-ignore", "--quiet", "--", f"./{path}") is not None

    def _must_be_free(self, path: str) -> None:
        """No part of the way to the file is itself a file, unless the list removes it."""
        for parent in parents(path):
            there = self.now[parent] is not None if parent in self.now else (self.root / parent).is_file()
            if there and parent not in self.deleted:
                raise Misfit(f"`{parent}` is a file, not a folder")

    def _missing(self, path: str) -> Misfit:
        if path in self.before and self.before[path] is not None:
            return Misfit("an edit before this one deleted the file")
        names = list(self.where.modes)
        same = [name for name in names if name.rsplit("/", 1)[-1] == path.rsplit("/", 1)[-1]]
        near = (same or get_close_matches(path, names[:5_000], n=3, cutoff=0.6))[:3]
        return Misfit("there is no such file", "".join(f"{name}\n" for name in near))


def _plain(text: str) -> str:
    """A text in one form of line ends, for comparing."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


LARGEST_SHOWN = 40_000
"""Characters of a file that is shown whole with a mismatch."""


def _encoded(file: TextFile, text: str) -> bytes:
    """The bytes of a text in the encoding that its file has. Raises Misfit."""
    if "\0" in text:
        raise Misfit("the text holds a NUL, which no text file does")
    try:
        return file.encode(text)
    except UnicodeEncodeError as error:
        if file.encoding == "utf-8":
            raise Misfit("the text holds half a surrogate pair, which is no character") from None
        sign = text[error.start]
        raise Misfit(f"the file's encoding is {file.encoding}, which has no `{sign}`: write it another way") from None


def render_mismatches(mismatches: Sequence[Mismatch]) -> str:
    """The next message to the model: none of its edits was applied, which ones did not fit, and what is there."""
    parts = [
        "None of your edits was applied, because not all of them fit the files as they are now. These do not:",
    ]
    for mismatch in mismatches:
        part = f"- edit {mismatch.index + 1}, `{mismatch.path}`: {mismatch.reason}"
        if mismatch.nearest:
            fence = _fence(mismatch.nearest)
            part += f"\n  The nearest that there is:\n{fence}\n{mismatch.nearest.rstrip()}\n{fence}"
        if mismatch.file:
            part += f"\n  Here is all of it:\n{mismatch.file.rstrip()}"
        parts.append(part)
    parts.append(
        "Answer with the whole list again, in the same form: the edits that fit unchanged, these corrected. "
        "Copy `old` exactly from the file, with enough lines to be there only once; `content` is for new files and for "
        "files that you were shown whole."
    )
    return "\n\n".join(parts)


def render_left_out(mismatches: Sequence[Mismatch], edits: Sequence[Edit]) -> str:
    """For a person: the edits that were not applied, and why."""
    parts = ["# Edits that did not fit"]
    for mismatch in mismatches:
        text = edits[mismatch.index].model_dump_json(indent=1)
        parts.append(f"## {mismatch.path}\n\n{mismatch.reason}\n\n{_fence(text)}json\n{text}\n{_fence(text)}")
    return "\n\n".join(parts)


def _fence(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    return "`" * (longest + 1)
