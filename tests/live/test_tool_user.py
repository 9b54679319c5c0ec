"""The scripted tool user looks, reads, edits and reports, under any names of the tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gremlins.simulator import EditRule, Model, ModelReply
from tests.live.tool_user import ToolUser, without_numbers
from tests.simulator.conftest import params

FIX = EditRule("a - b", "a + b")
BUGGY = "def add(a, b):\n    return a - b\n"


def tool(name: str, *keys: str, **extra: str) -> dict[str, Any]:
    properties = {key: {"type": "string"} for key in keys} | {key: {"type": kind} for key, kind in extra.items()}
    return {"name": name, "input_schema": {"type": "object", "properties": properties, "required": list(properties)}}


KITS: dict[str, list[dict[str, Any]]] = {
    "claude": [
        tool("Bash", "command", "description"),
        tool("Read", "file_path"),
        tool("Edit", "file_path", "old_string", "new_string", replace_all="boolean"),
        tool("Write", "file_path", "content"),
    ],
    "editor": [
        {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
        {"type": "bash_20250124", "name": "bash"},
    ],
    "copilot": [tool("view", "path"), tool("edit", "path", "old_str", "new_str"), tool("bash", "command")],
    "kilo": [tool("glob", "pattern"), tool("read", "filePath"), tool("edit", "filePath", "oldString", "newString")],
}


class Agent:
    """A client that does what the model's tool calls say, in a folder, and keeps what was called."""

    def __init__(self, folder: Path, tools: list[dict[str, Any]], *, refuse: str = "") -> None:
        self.folder, self.tools, self.refuse = folder, tools, refuse
        self.called: list[str] = []

    def run(self, prompt: str, model: Model | None = None) -> str:
        messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
        system = f"Primary working directory: {self.folder}\n"
        for _ in range(15):
            asked = params(prompt, tools=self.tools, system=system) | {"messages": messages}
            reply = (model or ToolUser([FIX])).reply(asked)
            assert isinstance(reply, ModelReply)
            if reply.stop_reason != "tool_use":
                return reply.text
            calls = [block for block in reply.content() if block["type"] == "tool_use"]
            results = [self._result(call) for call in calls]
            messages += [{"role": "assistant", "content": reply.content()}, {"role": "user", "content": results}]
        raise AssertionError("it never ends")

    def _result(self, call: dict[str, Any]) -> dict[str, Any]:
        self.called.append(call["name"])
        refused = call["name"] == self.refuse
        content = "not allowed here" if refused else self._do(call["input"])
        return {"type": "tool_result", "tool_use_id": call["id"], "content": content, "is_error": refused}

    def _do(self, given: dict[str, Any]) -> str:
        path = next((Path(given[key]) for key in ("file_path", "filePath", "path") if key in given), None)
        values = list(given.values())
        if path is None:
            assert given.get("command") == "git ls-files" or given.get("pattern") == "**/*.py"
            return "\n".join(str(item.relative_to(self.folder)) for item in sorted(self.folder.rglob("*.py")))
        assert path.is_absolute()
        text = path.read_text()
        edits = {key: given[key] for key in given if key.startswith(("old", "new"))}
        if not edits:
            return "".join(f"{number:6}\t{line}\n" for number, line in enumerate(text.splitlines(), 1))
        old, new = (edits[key] for key in sorted(edits, reverse=True))
        assert text.count(old) == 1, values
        path.write_text(text.replace(old, new))
        return "done"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "calc.py").write_text(BUGGY)
    (tmp_path / "other.py").write_text("X = 1\n")
    (tmp_path / "tests" / "test_calc.py").write_text(
        "from calc import add\n\ndef test_it():\n    assert add(1, 2) == 3\n"
    )
    return tmp_path


def test_files_the_task_names_are_read_first(folder: Path) -> None:
    agent = Agent(folder, KITS["claude"])
    said = agent.run("Implement the plan: fix add in calc.py")
    assert agent.called == ["Read", "Edit"]
    assert "a + b" in (folder / "calc.py").read_text()
    assert said.startswith("Changed")


@pytest.mark.parametrize("kit", KITS)
def test_without_names_it_looks_for_itself_with_any_kit(folder: Path, kit: str) -> None:
    said = Agent(folder, KITS[kit]).run("Implement: the tests fail, fix the bug")
    assert (folder / "calc.py").read_text() == BUGGY.replace("-", "+")
    assert said.startswith("Changed")


def test_a_refused_edit_is_a_bail(folder: Path) -> None:
    said = Agent(folder, KITS["claude"], refuse="Edit").run("Implement: fix add in calc.py")
    assert said.splitlines()[-1] == "BAIL: edit_refused: not allowed here"
    assert (folder / "calc.py").read_text() == BUGGY


def test_a_refused_look_around_is_a_bail(folder: Path) -> None:
    said = Agent(folder, KITS["claude"], refuse="Bash").run("Implement: fix the bug")
    assert said.splitlines()[-1].startswith("BAIL: missing_context: ")


def test_rules_work_with_tools_too(folder: Path) -> None:
    Agent(folder, KITS["claude"]).run("Implement: set X in other.py", ToolUser([EditRule("X = 1", "X = 2", "other")]))
    assert (folder / "other.py").read_text() == "X = 2\n"


@pytest.mark.parametrize(
    "shown",
    ["     1→a\n     2→\n     3→  b\n", "1\ta\n2\t\n3\t  b", "1: a\n2: \n3:   b\n", "00001| a\n00002| \n00003|   b\n"],
)
def test_line_numbers_are_taken_off(shown: str) -> None:
    assert without_numbers(shown) == "a\n\n  b\n"


def test_text_without_line_numbers_stays_as_it_is() -> None:
    assert without_numbers("1: one\nmore\nand more\n") == "1: one\nmore\nand more\n"
