"""How the demo model works with tools: look, read, edit once, say what was done. One reply is one step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from gremlins.simulator.api import Json
from gremlins.simulator.finding import Files, Finder, Nothing, is_test
from gremlins.simulator.messages import Reply
from gremlins.simulator.reading import Prompt
from gremlins.simulator.source import Edit
from gremlins.simulator.tools import PATH_KEYS, Seen, Toolbox, Use, look_back

MAX_TURNS = 12
READ_AT_ONCE = 8


def gather(prompt: Prompt) -> tuple[Files, Reply | None]:
    """The files seen so far, and the step that would show more of them, if there is one."""
    box = Toolbox.of(prompt)
    seen = look_back(prompt, box)
    if seen.turns >= MAX_TURNS or seen.files:
        return seen.files, None
    return seen.files, _look(prompt, box, seen)


def work(prompt: Prompt, find: Finder, done: str) -> Reply:
    """The next step of changing code. `done` is said where there is nothing to change."""
    box = Toolbox.of(prompt)
    seen = look_back(prompt, box)
    failed = bool(seen.edits) and seen.edits[-1].failed
    found = find(prompt, seen.files)
    if seen.edits and (failed or seen.turns >= MAX_TURNS or not (isinstance(found, Edit) and found.proven)):
        return _report(seen)
    if isinstance(found, Edit):
        return _change(box, seen, found)
    if seen.turns >= MAX_TURNS:
        return Reply(f"I have looked long enough.\n\n{found.line}")
    return _look(prompt, box, seen) or Reply(_nothing(found, done))


def _change(box: Toolbox, seen: Seen, edit: Edit) -> Reply:
    if edit.path not in seen.read and (step := box.read(edit.path)):
        return _step(f"I read `{edit.path}` before I change it.", [step])
    step = box.edit(edit.path, edit.old, edit.new)
    if step is None:
        return Reply("None of the tools edits files.\n\nBAIL: missing_tools: no tool on offer edits a file")
    return _step(f"`{edit.path}`: {edit.why}.", [step])


def _report(seen: Seen) -> Reply:
    last = seen.edits[-1]
    path = _path(last)
    if last.failed:
        why = " ".join((last.result or "no reason given").split())[:200]
        return Reply(f"The edit of {path} was refused.\n\nBAIL: edit_refused: {why}")
    changed = ", ".join(dict.fromkeys(f"`{_path(edit)}`" for edit in seen.edits))
    return Reply(f"Changed {changed}. The tests are left to whoever verifies it.")


def _path(use: Use) -> str:
    return next((str(use.input[key]) for key in PATH_KEYS if key in use.input), "the file")


def _look(prompt: Prompt, box: Toolbox, seen: Seen) -> Reply | None:
    """Read what the prompt names, then list the repository, then read what looks closest."""
    named = [path for path in prompt.named_paths() if box.relative(path) not in seen.read]
    if not seen.read and (step := _reads(box, named[:READ_AT_ONCE])):
        return step
    if seen.listed is None:
        listing = box.list_files()
        return _step("I look at what there is.", [listing]) if listing else None
    unread = [path for path in seen.listed if path not in seen.read]
    return _reads(box, _by_relevance(unread, prompt.text)[:READ_AT_ONCE])


def _by_relevance(paths: Iterable[str], text: str) -> list[str]:
    words = text.lower()

    def rank(path: str) -> tuple[bool, bool, int]:
        stem = path.rsplit("/", 1)[-1].removesuffix(".py").removeprefix("test_").lower()
        return (stem not in words, is_test(path), path.count("/"))

    return sorted(paths, key=rank)


def _reads(box: Toolbox, paths: list[str]) -> Reply | None:
    steps = [step for path in paths if (step := box.read(path))]
    return _step("I read what this is about.", steps) if steps else None


def _step(said: str, steps: list[tuple[str, Json]]) -> Reply:
    blocks: list[Json] = [{"type": "text", "text": said, "citations": None}]
    for place, (name, given) in enumerate(steps):
        mark = hashlib.sha256(f"{place}{said}{json.dumps(given)}".encode()).hexdigest()[:22]
        blocks.append({"type": "tool_use", "id": f"toolu_01{mark}", "name": name, "input": given})
    return Reply(blocks=tuple(blocks), stop_reason="tool_use")


def _nothing(found: Nothing, done: str) -> str:
    return done or f"I found nothing to change.\n\n{found.line}"
