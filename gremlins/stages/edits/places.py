"""Finds the file that an edit's path means, and refuses paths that lead out of the worktree or into git."""

from __future__ import annotations

import contextlib
import html
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import unquote

from gremlins.repository.git import Git
from gremlins.stages.edits.answer import Delete, Edit

SUBMODULE, LINK = "160000", "120000"


class Refusal(Exception):
    """A path names a place that no edit may touch."""


class Places:
    """The paths of a worktree, as a list of edits names them one after the other.

    deleted: the paths that the list deletes. Another form of one of them is a new name, no misspelling.
    """

    def __init__(self, root: Path, deleted: Collection[str] = ()) -> None:
        self.root = root
        self.deleted = frozenset(deleted)
        self.real_root = root.resolve()
        lines = (line.partition("\t") for line in Git(root).names("ls-files", "--stage", "-z"))
        self.modes = {path: meta[:6] for meta, _, path in lines}
        """The tracked files, each with its mode in the index."""
        self._folders = {folder for path in self.modes for folder in parents(path)}
        self._by_form: dict[str, set[str]] = defaultdict(set)
        for path in (*self.modes, *self._folders):
            self._by_form[_form(path)].add(path)
        self._deleted_links: set[Path] = set()

    def place(self, edit: Edit) -> str:
        """The path an edit means, relative to the worktree, with no symbolic link left in it. Raises Refusal."""
        bare = edit.path.strip().strip("`'\"*").strip() or edit.path
        _refuse_by_name(bare)
        named = edit.path if edit.path in self.modes else self._meant(bare)
        path = self.root / named
        try:
            # A link itself can be deleted; everything else is meant for what the link points to.
            real = self._behind_deleted_link(named)
            if real is None:
                real = path.parent.resolve() / path.name if isinstance(edit, Delete) else path.resolve()
                if isinstance(edit, Delete) and path.is_symlink():
                    self._deleted_links.add(real)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                real.parent.stat()  # from Python 3.13 on, `resolve` leaves a loop of links as it is
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
            raise Refusal(f"{named!r} is not a path that can be followed: {error}") from None
        if not real.is_relative_to(self.real_root) or real == self.real_root:
            raise Refusal(f"{named!r} leads out of the worktree, to {real}")
        place = real.relative_to(self.real_root).as_posix()
        _refuse_by_name(place)
        return place

    def _behind_deleted_link(self, named: str) -> Path | None:
        """The place of a path through a link that an earlier edit deletes: there the link is no more."""
        parts = Path(named).parts
        for count in range(1, len(parts) + 1 if self._deleted_links else 0):
            link = self.root.joinpath(*parts[:count])
            spot = link.parent.resolve() / link.name
            if spot in self._deleted_links:
                return spot.joinpath(*parts[count:])
        return None

    def submodule_of(self, path: str) -> str | None:
        return next((part for part in (path, *parents(path)) if self.modes.get(part) == SUBMODULE), None)

    # --- what a path means

    def _meant(self, named: str) -> str:
        """The path as the repository has it, of one that is written in another form."""
        plain = named.replace("\\", "/")
        from_patch = plain[:2] in ("a/", "b/") and plain[0] not in self._folders
        for path in (named, plain, *([plain[2:]] if from_patch else []), *_decoded(named)):
            if found := self._in_its_form(path):
                return found
        # No file of the repository: a new one is meant, in the folders that there are.
        return self._in_known_folder(plain[2:] if from_patch and plain.split("/")[1] in self._folders else plain)

    def _in_its_form(self, path: str) -> str | None:
        """The path here that is this one, or the only one that differs from it in no more than its form."""
        if path in self.modes or path in self._folders:
            return path
        alike = self._by_form.get(_form(path), set()) - self.deleted
        if len(alike) == 1:
            return next(iter(alike))
        return path if os.path.lexists(self.root / path) else None

    def _in_known_folder(self, path: str) -> str:
        for folder in parents(path):
            if (found := self._in_its_form(folder)) is not None:
                return found + path[len(folder) :]
        return path


def differ_in_case(one: str, other: str) -> bool:
    """True if two paths end in names that differ in nothing but the case of letters."""
    names = [_as_written(path.rsplit("/", 1)[-1]) for path in (one, other)]
    return names[0] != names[1] and names[0].casefold() == names[1].casefold()


def _form(path: str) -> str:
    return _as_written(os.path.normpath(path)).casefold()


def _as_written(path: str) -> str:
    """A path without what is easily lost on the way: forms of letters and blanks, invisible signs."""
    if path.isascii():
        return path
    seen = "".join(letter for letter in path if unicodedata.category(letter) != "Cf")
    return unicodedata.normalize("NFKC", seen)


def _decoded(path: str) -> Iterator[str]:
    """A path less what a tag, a link, git's output or a compiler writes into or behind it."""
    yield html.unescape(path)
    yield unquote(path)
    yield _OCTAL.sub(lambda found: os.fsdecode(bytes(int(byte, 8) for byte in found[0][1:].split("\\"))), path)
    yield _LINE.sub("", path)


_OCTAL = re.compile(r"(?:\\[0-3][0-7]{2})+")
_LINE = re.compile(r"(?::\d{1,7}){1,2}$|#L\d{1,7}.{0,20}$")


def parents(path: str) -> list[str]:
    """The folders around a path, the innermost first."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def _refuse_by_name(path: str) -> None:
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in path):
        raise Refusal(f"{path!r} holds a control character")
    if len(os.fsencode(path)) > 4000 or any(len(os.fsencode(part)) > 255 for part in path.split("/")):
        raise Refusal(f"{path[:60]!r}… is too long for a path")
    # Backslashes and drives mean something elsewhere; what is refused here must not depend on where it runs.
    parts = re.split(r"[/\\]", path)
    if parts[0] in ("", "~") or re.match(r"[A-Za-z]:", path):
        raise Refusal(f"{path!r} is not relative to the worktree")
    if ".." in parts:
        raise Refusal(f"{path!r} leads out of its folder")
    if any(_is_git_folder(part) for part in parts):
        raise Refusal(f"{path!r} leads into git's own folder")


def _is_git_folder(part: str) -> bool:
    """`.git` as any file system might read it: without regard to case, invisible letters, and what Windows drops."""
    seen = "".join(letter for letter in unicodedata.normalize("NFKC", part) if unicodedata.category(letter) != "Cf")
    plain = seen.split(":")[0].rstrip(" .").casefold()
    return plain == ".git" or re.fullmatch(r"git~\d+", plain) is not None
