"""The rules model answers from what the prompt shows, and says so where no rule applies."""

from __future__ import annotations

import json
from typing import Any

from gremlins.simulator import EditRule, ModelReply, RulesModel
from tests.simulator.conftest import params

EDITS: dict[str, Any] = {
    "type": "json_schema",
    "schema": {
        "type": "object",
        "properties": {"edits": {"type": "array", "items": {}}, "summary": {"type": "string"}},
        "required": ["edits", "summary"],
        "additionalProperties": False,
    },
}
FILES = {"calc.py": "def add(a, b):\n    return a - b\n", "test_calc.py": "assert add(1, 2) == 3\n"}
FIX = RulesModel([EditRule("nowhere", "x"), EditRule("a - b", "a + b", "calc")])


def shown(files: dict[str, str]) -> str:
    return "".join(f'<file path="{path}">\n{text}</file>\n' for path, text in files.items())


def answer(model: RulesModel, prompt: str, **more: Any) -> str:
    reply = model.reply(params(prompt, **more))
    assert isinstance(reply, ModelReply)
    return reply.text


def edits(model: RulesModel, prompt: str) -> tuple[list[Any], str]:
    value = json.loads(answer(model, prompt, output_config={"format": EDITS}))
    return value["edits"], value["summary"].splitlines()[-1]


def test_a_rule_is_applied_in_the_file_that_holds_its_text() -> None:
    found, _ = edits(FIX, "Implement it.\n" + shown(FILES))
    assert found == [{"path": "calc.py", "old": "a - b", "new": "a + b"}]


def test_a_rule_whose_file_is_not_in_the_prompt_bails() -> None:
    found, last = edits(RulesModel([EditRule("a - b", "a + b", "src/")]), "Implement it.\n" + shown(FILES))
    assert (found, last.startswith("BAIL: missing_context: ")) == ([], True)


def test_a_change_that_is_there_leaves_nothing_to_do() -> None:
    _, last = edits(RulesModel([EditRule("a * b", "a - b")]), "Implement it.\n" + shown(FILES))
    assert last == "NOTHING TO DO: the change is there already"


def test_without_rules_there_is_nothing_to_do() -> None:
    assert edits(RulesModel(), "Implement it.\n" + shown(FILES))[1].startswith("NOTHING TO DO: ")


def test_a_plan_names_the_file_and_says_that_no_model_wrote_it() -> None:
    plan = answer(FIX, "Write a plan.\n" + shown(FILES))
    assert "`calc.py`" in plan
    assert "does not think" in plan


def test_a_review_asks_for_the_change_of_a_rule_and_else_approves() -> None:
    diff = "<diff>\n--- a/{0}\n+++ b/{0}\n@@ -1 +1 @@\n-1\n+2\n</diff>\n"
    assert "VERDICT: changes requested" in answer(FIX, "Review.\n" + diff.format("calc.py") + shown(FILES))
    assert "VERDICT: approve" in answer(FIX, "Review.\n" + diff.format("other.py") + shown(FILES))


def test_a_file_whose_tag_has_a_suffix_is_read_too() -> None:
    prompt = f'Implement.\n<file-3f9a21c0 path="m.py">\nNOTE = "</file>"\n{FILES["calc.py"]}</file-3f9a21c0>\n'
    (edit,), _ = edits(RulesModel([EditRule("a - b", "a + b")]), prompt)
    assert edit["path"] == "m.py"


def test_files_may_come_in_text_blocks_and_in_fences() -> None:
    fenced = "### calc.py\n```python\ndef add(a, b):\n    return a - b\n```\n"
    blocks = [{"type": "text", "text": text} for text in ("Implement: fix add", fenced)]
    asked = params() | {"messages": [{"role": "user", "content": blocks}], "output_config": {"format": EDITS}}
    reply = FIX.reply(asked)
    assert json.loads(reply.text)["edits"][0]["path"] == "calc.py"


def test_another_schema_is_answered_with_its_simplest_value() -> None:
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}, "n": {"type": "integer"}, "k": {"enum": ["a"]}},
    }
    text = answer(FIX, "x", output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(text) == {"title": "…", "n": 0, "k": "a"}
