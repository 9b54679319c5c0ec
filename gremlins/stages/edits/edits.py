"""The structured answer of a batch stage that changes code: its schema, reading it, and checking it whole.

Nothing here writes. A list of edits becomes the files it results in, or is refused whole: what names a place that is
not the worktree's is never applied and never asked again; what does not match can be sent back once.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, assert_never

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from gremlins.errors import GremlinsError
from gremlins.outcome import Bail
from gremlins.repository.git import Git
from gremlins.repository.worktree import FileChange

# --- the form of the answer


class _Edit(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, StringConstraints(min_length=1)]


class Replace(_Edit):
    """`old`, which is in the file exactly once, becomes `new`."""

    old: str
    new: str


class Write(_Edit):
    """The whole file, new or not."""

    content: str


class Delete(_Edit):
    delete: Literal[True]


Edit = Replace | Write | Delete


class EditReply(BaseModel):
    """The answer of a code-changing batch stage."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    edits: tuple[Edit, ...]
    summary: str = ""


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_PATH = {"type": "string", "description": "Relative to the repository's top folder, as in the prompt."}

FORMAT: Mapping[str, Any] = {
    "type": "json_schema",
    "schema": _object(
        edits={
            "type": "array",
            "description": "Applied in order, all or none. Empty when nothing shall change.",
            "items": {
                # Structured outputs know `anyOf`, not `oneOf`, and no optional keys worth relying on.
                "anyOf": [
                    _object(
                        path=_PATH,
                        old={
                            "type": "string",
                            "description": "Text copied exactly from the file, long enough to be there only once.",
                        },
                        new={"type": "string", "description": "What stands in its place."},
                    ),
                    _object(path=_PATH, content={"type": "string", "description": "The whole content of the file."}),
                    _object(path=_PATH, delete={"const": True, "description": "The file goes away."}),
                ]
            },
        },
        summary={
            "type": "string",
            "description": "What was changed and why. A BAIL: or NOTHING TO DO: line, if any, is its last line.",
        },
    ),
}
"""For `output_config.format`."""


class UnreadableReply(GremlinsError):
    """The answer holds no list of edits that can be read, or more than one. It can be asked for once more."""


_EDITS = TypeAdapter(list[Edit])


def parse_reply(text: str) -> EditReply:
    """The list of edits in an answer: the text itself, or the one JSON object in it that has `edits`.

    Words that only say BAIL or NOTHING TO DO are an empty list. Raises UnreadableReply.
    """
    found = list(_replies_in(text))
    if not found and parse_verdict(text) is not None:
        return EditReply(edits=(), summary=text)
    if len(found) != 1:
        raise UnreadableReply(
            "the answer holds no JSON object with `edits`" if not found else "the answer holds several lists of edits"
        )
    try:
        return EditReply.model_validate(_without_nulls(found[0]))
    except ValidationError as error:
        raise UnreadableReply(f"the list of edits cannot be read: {_first_fault(error)}") from None


def _replies_in(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a text that look like an answer, fenced or between prose."""
    decoder = json.JSONDecoder(strict=False)  # raw line ends inside strings are forgiven
    last, end = text.rfind('"edits"'), 0
    for opening in _OBJECT.finditer(text, 0, last + 1):
        at = opening.start()
        if at < end:
            continue
        try:
            value, after = decoder.raw_decode(text, at)
        except RecursionError:  # nested a thousand deep: nothing that was asked for
            return
        except ValueError:
            continue
        if "edits" in value:
            yield value
            end = after
        elif '"edits"' not in text[at:after]:
            end = after  # else the answer may be inside


_OBJECT = re.compile(r'\{\s{0,80}"')


def _without_nulls(reply: dict[str, Any]) -> dict[str, Any]:
    """Some models write every key of a union and leave the ones that do not apply null."""
    edits = reply.get("edits")
    if isinstance(edits, list):
        kept = [
            {key: value for key, value in edit.items() if value is not None and (key, value) != ("delete", False)}
            if isinstance(edit, dict)
            else edit
            for edit in edits
        ]
        reply = {**reply, "edits": kept}
    return {key: value for key, value in reply.items() if value is not None}


def _first_fault(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    index = next((part for part in first["loc"] if isinstance(part, int)), None)
    where = "" if index is None else f"edit {index + 1} is none of path+old+new, path+content, path+delete ("
    return f"{where}{'.'.join(str(part) for part in first['loc'])}: {first['msg']}{')' if where else ''}"


# --- the line that ends an answer


@dataclass(frozen=True)
class NothingToDo:
    """The agent says that the work is done already, or is not needed."""

    reason: str


Verdict = Bail | NothingToDo

_MARKUP = "*_` \t"
_BAIL = re.compile(r"BAIL[*_`]*\s*:[*_`]*\s*(?P<rest>.*)", re.DOTALL)
_NOTHING = re.compile(r"NOTHING TO DO[*_`]*\s*:[*_`]*\s*(?P<rest>.*)", re.DOTALL)
_KIND = re.compile(r"[A-Za-z0-9_-]+(?: [A-Za-z0-9_-]+){0,3}")


def parse_verdict(text: str) -> Verdict | None:
    """The verdict in the last line of an answer: `BAIL: class: detail`, `NOTHING TO DO: reason`, or None.

    Emphasis, backticks and a code fence around it are accepted; with words after it, it is only mentioned.
    """
    lines = [line.strip(_MARKUP) for line in text.splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    if found := _NOTHING.fullmatch(last):
        return NothingToDo(found["rest"].strip(_MARKUP))
    if found := _BAIL.fullmatch(last):
        return _bail(found["rest"].strip(_MARKUP))
    return None


def _bail(rest: str) -> Bail:
    """A BAIL ends the stage, whatever the form of the rest."""
    head, colon, detail = rest.partition(":")
    head = head.strip(_MARKUP)
    if _KIND.fullmatch(head) and (colon or " " not in head):
        return Bail(head.lower().replace(" ", "_"), detail.strip(_MARKUP))
    return Bail("unspecified", rest)


# --- checking the edits against the worktree


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


class _Misfit(Exception):
    def __init__(self, reason: str, nearest: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.nearest = nearest


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
        except _Misfit as misfit:
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
        """Raises _Misfit, and then leaves everything as it was."""
        content = self._content(path)
        match edit:
            case Replace():
                self.now[path] = self._replaced(edit, path, content)
            case Write():
                self._must_be_free(path)
                self.now[path] = _encoded(edit.content) if content is None else _rewritten(content, edit.content)
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
            return _encoded(edit.new)
        if not edit.old:
            if content:
                raise _Misfit("`old` is empty, but the file is not; to rewrite a file give its `content`")
            return _encoded(edit.new)
        _encoded(edit.new)  # must be text itself; the file need not be UTF-8 throughout
        text = content.decode(errors="surrogateescape")
        return replace_once(text, edit.old, edit.new).encode(errors="surrogateescape")

    def _content(self, path: str) -> bytes | None:
        if path not in self.now:
            self.before[path] = self.now[path] = self._read(path)
        return self.now[path]

    def _read(self, path: str) -> bytes | None:
        module = next((parent for parent in (path, *_parents(path)) if parent in self.submodules), None)
        if module:
            raise _Misfit(f"`{module}` is a submodule: its files are another repository's")
        place = self.root / path
        try:
            kind = place.lstat().st_mode
            if stat.S_ISLNK(kind):
                return os.fsencode(os.readlink(place))
            if not stat.S_ISREG(kind):
                raise _Misfit("it is a folder" if stat.S_ISDIR(kind) else "it is no regular file")
            return place.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _must_be_free(self, path: str) -> None:
        """No part of the way to the file is itself a file, unless an edit before this one removed it."""
        for parent in _parents(path):
            there = self.now[parent] is not None if parent in self.now else (self.root / parent).is_file()
            if there:
                raise _Misfit(f"`{parent}` is a file, not a folder")

    def _missing(self, path: str) -> _Misfit:
        if path in self.before and self.before[path] is not None:
            return _Misfit("an edit before this one deleted the file")
        names = Git(self.root).ls_files()
        same = [name for name in names if name.rsplit("/", 1)[-1] == path.rsplit("/", 1)[-1]]
        near = (same or get_close_matches(path, names, n=3, cutoff=0.6))[:3]
        return _Misfit("there is no such file", "".join(f"{name}\n" for name in near))


def _submodules(root: Path) -> frozenset[str]:
    if not (root / ".gitmodules").exists():
        return frozenset()
    lines = (line.partition("\t") for line in Git(root).names("ls-files", "--stage", "-z"))
    return frozenset(path for meta, _, path in lines if meta.startswith("160000"))


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _Misfit("the text holds half a surrogate pair, which is no character") from None


# --- text


def replace_once(text: str, old: str, new: str) -> str:
    """`text` with the only place of `old` replaced, line ends as the file has them. Raises _Misfit.

    Looked for exactly; failing that without regard to line ends; failing that, as whole lines, without regard to
    white space that ends a line.
    """
    spans = list(_exact(text, old)) or list(_any_line_end(text, old)) or list(_any_trailing_space(text, old))
    if len(spans) > 1:
        where = ", ".join(str(text.count("\n", 0, start) + 1) for start, _ in spans[:5])
        raise _Misfit(
            f"`old` is in the file {len(spans)} times (lines {where}); it must be there once: copy more of it"
        )
    if not spans:
        raise _Misfit("`old` is not in the file", nearest_lines(text, old))
    start, end = spans[0]
    return text[:start] + _with_line_ends(new, like=text[start:end] if "\n" in text[start:end] else text) + text[end:]


def _exact(text: str, old: str) -> Iterator[tuple[int, int]]:
    at = text.find(old)
    while at != -1:
        yield at, at + len(old)
        at = text.find(old, at + 1)


def _any_line_end(text: str, old: str) -> Iterator[tuple[int, int]]:
    if "\n" not in old:
        return
    pattern = r"\r?\n".join(re.escape(line) for line in old.replace("\r\n", "\n").split("\n"))
    for found in re.finditer(f"(?=({pattern}))", text):
        yield found.span(1)


def _any_trailing_space(text: str, old: str) -> Iterator[tuple[int, int]]:
    wanted = [line.rstrip() for line in old.split("\n")]
    last_line_is_whole = wanted[-1] == ""
    if last_line_is_whole:
        wanted.pop()
    if not any(wanted):
        return
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    bare = [line.rstrip() for line in lines]
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    for first in range(len(bare) - len(wanted) + 1):
        if bare[first] == wanted[0] and bare[first : first + len(wanted)] == wanted:
            after = first + len(wanted)
            end = starts[after] if last_line_is_whole else starts[after - 1] + len(lines[after - 1].rstrip("\r\n"))
            yield starts[first], end


def _with_line_ends(new: str, *, like: str) -> str:
    """`new` with the line ends that prevail in `like`; a text without any leaves it as it is."""
    windows = like.count("\r\n")
    plain = new.replace("\r\n", "\n")
    if windows * 2 > like.count("\n"):
        return plain.replace("\n", "\r\n")
    return plain if "\n" in like else new


def _rewritten(before: bytes, content: str) -> bytes:
    """A whole new content in the line ends, and with the byte order mark, that the file had."""
    text = before.decode(errors="replace")
    mark = "\ufeff" if text.startswith("\ufeff") and not content.startswith("\ufeff") else ""
    windows = text.count("\r\n")
    if windows and windows == text.count("\n"):
        content = content.replace("\r\n", "\n").replace("\n", "\r\n")
    return _encoded(mark + content)


def nearest_lines(text: str, old: str, *, around: int = 3) -> str:
    """The part of a file that looks most like `old`, with a few lines around it. Empty where nothing does."""
    wanted = [line.strip() for line in old.splitlines() if line.strip()]
    lines = text.splitlines()[:20_000]
    if not wanted or not lines:
        return ""
    at = _best_window([line.strip() for line in lines], wanted)
    if at is None:
        return ""
    first, last = max(0, at - around), min(len(lines), at + len(old.splitlines()) + around)
    return "".join(f"{line}\n" for line in lines[first:last])


def _best_window(lines: Sequence[str], wanted: Sequence[str]) -> int | None:
    """The line where most of `wanted` is nearby, one equal line weighing as much as it is long."""
    places: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        places.setdefault(line, []).append(number)
    votes: dict[int, int] = {}
    for offset, line in enumerate(wanted):
        for number in places.get(line, ())[:200]:
            start = max(0, number - offset)
            votes[start] = votes.get(start, 0) + len(line)
    if votes:
        return max(votes, key=lambda start: (votes[start], -start))
    longest = max(wanted, key=len)
    near = get_close_matches(longest, list(places), n=1, cutoff=0.6)
    return max(0, places[near[0]][0] - wanted.index(longest)) if near else None


# --- sending back what did not fit


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


def render_unreadable(error: UnreadableReply) -> str:
    """The next message to the model when its answer could not be read as a list of edits."""
    return (
        f"Your answer could not be used: {error.message}.\n\n"
        'Answer with one JSON object and nothing else: {"edits": [...], "summary": "..."}.'
    )


def _fence(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    return "`" * (longest + 1)
