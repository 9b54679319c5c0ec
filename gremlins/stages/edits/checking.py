"""Checks a list of edits against the worktree. Writes nothing.

The list becomes the files it results in, or is refused whole: an edit that leads out of the worktree is never asked
again; one that does not match can be sent back once.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import assert_never

from gremlins.repository.git import Git
from gremlins.repository.worktree import FileChange
from gremlins.stages.edits.answer import Delete, Edit, Replace, Write
from gremlins.stages.edits.matching import Misfit, encoded, replace_once, rewritten


@dataclass(frozen=True)
class Mismatch:
    """An edit that does not fit the file. `index` counts from 0; `nearest` is what the file has instead."""

    path: str
    index: int
    reason: str
    nearest: str = ""


@dataclass(frozen=True)
class EditsReady:
    """Every edit fits. `changes` are the files that end up different, sorted by path; none: nothing would change."""

    changes: tuple[FileChange, ...]


@dataclass(frozen=True)
class Mismatched:
    """Some edits do not fit, so none is applied."""

    mismatches: tuple[Mismatch, ...]


@dataclass(frozen=True)
class Refused:
    """An edit names a place it may not: the whole list is refused, and not asked again. `reason` says which."""

    reason: str


Checked = EditsReady | Mismatched | Refused


class _Refusal(Exception):
    pass


def check_edits(root: Path, edits: Sequence[Edit]) -> Checked:
    """The files that a list of edits would make of the worktree at `root`. Reads files, writes none."""
    try:
        places = [_place(root, edit) for edit in edits]
    except _Refusal as refusal:
        return Refused(str(refusal))
    tree = _Files(root)
    mismatches = []
    for index, (edit, path) in enumerate(zip(edits, places, strict=True)):
        try:
            tree.apply(edit, path)
        except Misfit as misfit:
            mismatches.append(Mismatch(edit.path, index, misfit.reason, misfit.nearest))
    mismatches.extend(tree.collisions(list(places)))
    return Mismatched(tuple(mismatches)) if mismatches else EditsReady(tree.changes())


def _place(root: Path, edit: Edit) -> str:
    """The path an edit means, relative to the worktree, with no symbolic link left in it. Raises _Refusal."""
    named = edit.path
    _refuse_by_name(named)
    real_root = root.resolve()
    path = root / named
    try:
        # A link itself can be deleted; everything else is meant for what the link points to.
        real = path.parent.resolve() / path.name if isinstance(edit, Delete) else path.resolve()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            real.parent.stat()  # from Python 3.13 on, `resolve` leaves a loop of links as it is
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
        raise _Refusal(f"{named!r} is not a path that can be followed: {error}") from None
    if not real.is_relative_to(real_root) or real == real_root:
        raise _Refusal(f"{named!r} leads out of the worktree, to {real}")
    place = real.relative_to(real_root).as_posix()
    _refuse_by_name(place)
    return place


def _refuse_by_name(path: str) -> None:
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in path):
        raise _Refusal(f"{path!r} holds a control character")
    if len(os.fsencode(path)) > 4000 or any(len(os.fsencode(part)) > 255 for part in path.split("/")):
        raise _Refusal(f"{path[:60]!r}… is too long for a path")
    # Backslashes and drives mean something elsewhere; what is refused here must not depend on where it runs.
    parts = re.split(r"[/\\]", path)
    if parts[0] in ("", "~") or re.match(r"[A-Za-z]:", path):
        raise _Refusal(f"{path!r} is not relative to the worktree")
    if ".." in parts:
        raise _Refusal(f"{path!r} leads out of its folder")
    if any(_is_git_folder(part) for part in parts):
        raise _Refusal(f"{path!r} leads into git's own folder")


def _is_git_folder(part: str) -> bool:
    """`.git` as any file system might read it: without regard to case, invisible letters, and what Windows drops."""
    seen = "".join(letter for letter in unicodedata.normalize("NFKC", part) if unicodedata.category(letter) != "Cf")
    plain = seen.split(":")[0].rstrip(" .").casefold()
    return plain == ".git" or re.fullmatch(r"git~\d+", plain) is not None


class _Files:
    """The worktree's files as the edits so far leave them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.before: dict[str, bytes | None] = {}
        self.now: dict[str, bytes | None] = {}
        self.submodules = _submodules(root)

    def apply(self, edit: Edit, path: str) -> None:
        """Raises Misfit, and then leaves everything as it was."""
        content = self._content(path)
        match edit:
            case Replace():
                self.now[path] = self._replaced(edit, path, content)
            case Write():
                self._must_be_free(path)
                self.now[path] = encoded(edit.content) if content is None else rewritten(content, edit.content)
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
            folder = next((parent for parent in _parents(path) if parent in files), None)
            if folder:
                index = max(number for number, place in enumerate(places) if place in (path, folder))
                yield Mismatch(path, index, f"`{folder}` would have to be a file and a folder at once")

    def _replaced(self, edit: Replace, path: str, content: bytes | None) -> bytes:
        if content is None:
            if edit.old:
                raise self._missing(path)
            self._must_be_free(path)
            return encoded(edit.new)
        if not edit.old:
            if content:
                raise Misfit("`old` is empty, but the file is not; to rewrite a file give its `content`")
            return encoded(edit.new)
        encoded(edit.new)  # must be text itself; the file need not be UTF-8 throughout
        text = content.decode(errors="surrogateescape")
        return replace_once(text, edit.old, edit.new).encode(errors="surrogateescape")

    def _content(self, path: str) -> bytes | None:
        if path not in self.now:
            self.before[path] = self.now[path] = self._read(path)
        return self.now[path]

    def _read(self, path: str) -> bytes | None:
        module = next((parent for parent in (path, *_parents(path)) if parent in self.submodules), None)
        if module:
            raise Misfit(f"`{module}` is a submodule: its files are another repository's")
        place = self.root / path
        try:
            kind = place.lstat().st_mode
            if stat.S_ISLNK(kind):
                return os.fsencode(os.readlink(place))
            if not stat.S_ISREG(kind):
                raise Misfit("it is a folder" if stat.S_ISDIR(kind) else "it is no regular file")
            return place.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _must_be_free(self, path: str) -> None:
        """No part of the way to the file is itself a file, unless an edit before this one removed it."""
        for parent in _parents(path):
            there = self.now[parent] is not None if parent in self.now else (self.root / parent).is_file()
            if there:
                raise Misfit(f"`{parent}` is a file, not a folder")

    def _missing(self, path: str) -> Misfit:
        if path in self.before and self.before[path] is not None:
            return Misfit("an edit before this one deleted the file")
        names = Git(self.root).ls_files()
        same = [name for name in names if name.rsplit("/", 1)[-1] == path.rsplit("/", 1)[-1]]
        near = (same or get_close_matches(path, names, n=3, cutoff=0.6))[:3]
        return Misfit("there is no such file", "".join(f"{name}\n" for name in near))


def _submodules(root: Path) -> frozenset[str]:
    if not (root / ".gitmodules").exists():
        return frozenset()
    lines = (line.partition("\t") for line in Git(root).names("ls-files", "--stage", "-z"))
    return frozenset(path for meta, _, path in lines if meta.startswith("160000"))


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


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
        parts.append(part)
    parts.append(
        "Answer with the whole list again, in the same form: the edits that fit unchanged, these corrected. "
        "Copy `old` exactly from the file, with enough lines to be there only once, or give the file's whole `content`."
    )
    return "\n\n".join(parts)


def _fence(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    return "`" * (longest + 1)
