"""The demo model answers from what it is sent: it finds bugs it was never told of, and admits what it cannot see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gremlins.simulator import DemoModel, FixRulesModel, Model, Reply
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


def shown(files: dict[str, str]) -> str:
    return "".join(f'<file path="{path}">\n{text}</file>\n' for path, text in files.items())


def answer(prompt: str, model: Model | None = None, **more: Any) -> str:
    reply = (model or DemoModel()).reply(params(prompt, **more))
    assert isinstance(reply, Reply)
    return reply.text


def edits(prompt: str, model: Model | None = None) -> tuple[list[Any], str]:
    value = json.loads(answer(prompt, model, output_config={"format": EDITS}))
    return value["edits"], value["summary"]


def mended(source: str, test: str = "", said: str = "Fix what is wrong.") -> str:
    """The source after the model's edits."""
    files = {"src/m.py": source} | ({"tests/test_m.py": test} if test else {})
    for edit in edits(f"Implement the plan. {said}\n{shown(files)}")[0]:
        assert (edit["path"], source.count(edit["old"])) == ("src/m.py", 1)
        source = source.replace(edit["old"], edit["new"])
    return source


@pytest.mark.parametrize(
    ("source", "right"),
    [
        ("def add(a, b):\n    return a - b\n", "return a + b"),
        ("def product(xs):\n    out = 0\n    for x in xs:\n        out *= x\n    return out\n", "out = 1"),
        ("def subtract(a, b):\n    return b - a\n", "return a - b"),
        ('def upto(n):\n    """1..n, n included."""\n    return list(range(1, n))\n', "range(1, n + 1)"),
        ("def factorial(n):\n    out = 1\n    for i in range(1, n):\n        out *= i\n    return out\n", "n + 1"),
        ("def mean(xs):\n    return sum(xs) / (len(xs) - 1)\n", "return sum(xs) / len(xs)"),
        ("def average(xs):\n    return sum(xs) * len(xs)\n", "sum(xs) / len(xs)"),
        ('def adult(age):\n    """18 or older."""\n    return age > 18\n', "age >= 18"),
        ("def largest(xs):\n    best = 0\n    for x in xs:\n        if x < best:\n            best = x\n", "x > best"),
        ("def is_even(n):\n    return n % 2 != 0\n", "n % 2 == 0"),
        ('def within(x, low, high):\n    return x >= low or x <= high\n', "and"),
        ("def last(xs):\n    return xs[len(xs)]\n", "xs[len(xs) - 1]"),
        ("def backwards(s):\n    # reverses it\n    return s[::1]\n", "s[::-1]"),
        ("def area(w, h):\n    w * h\n", "return w * h"),
        ("def is_three(n):\n    return n is 3\n", "n == 3"),
    ],
)  # fmt: skip
def test_it_mends_what_contradicts_its_own_name_or_documentation(source: str, right: str) -> None:
    assert right in mended(source)


@pytest.mark.parametrize(
    ("source", "test", "right"),
    [
        (
            "def clamp(x, low, high):\n    if x < low:\n        return high\n    return x if x < high else high\n",
            "from m import clamp\n\ndef test_it():\n    assert clamp(-5, 0, 9) == 0\n    assert clamp(50, 0, 9) == 9\n",
            "return low",
        ),
        (
            "import re\n\ndef slug(s):\n    return re.sub('[^a-z]+', '-', s.upper())\n",
            "import pytest\nfrom m import slug\n\n@pytest.mark.parametrize('a,b', [('A B', 'a-b'), ('X', 'x')])\n"
            "def test_it(a, b):\n    assert slug(a) == b\n",
            "s.lower()",
        ),
        (
            "class Stack:\n    def __init__(self):\n        self.items = []\n    def push(self, x):\n"
            "        self.items.append(x)\n    def pop(self):\n        return self.items.pop(0)\n",
            "import unittest\nfrom m import Stack\n\nclass StackTest(unittest.TestCase):\n    def test_it(self):\n"
            "        s = Stack()\n        for n in range(3):\n            s.push(n)\n"
            "        self.assertEqual(s.pop(), 2)\n",
            "pop(-1)",
        ),
        (
            "def median(xs):\n    xs = sorted(xs)\n    mid = len(xs) // 2\n    if len(xs) % 2 == 0:\n"
            "        return (xs[mid] + xs[mid + 1]) / 2\n    return xs[mid]\n",
            "from m import median\n\ndef test_it():\n    assert median([1, 2, 3, 4]) == 2.5\n"
            "    assert median([3, 1, 2]) == 2\n",
            "mid - 1",
        ),
        (
            "def div(a, b):\n    if b != 0:\n        raise ValueError('zero')\n    return a / b\n",
            "import pytest\nfrom m import div\n\ndef test_it():\n"
            "    with pytest.raises(ValueError):\n        div(1, 0)\n"
            "    assert div(1, 3) == pytest.approx(0.3333333333)\n",
            "b == 0",
        ),
        (
            "def count(n):\n    i = 0\n    while i < n:\n        i -= 1\n    return i\n",
            "from m import count\n\ndef test_it():\n    assert count(3) == 3\n",
            "i += 1",
        ),
    ],
)
def test_it_mends_what_makes_the_tests_in_the_prompt_fail(source: str, test: str, right: str) -> None:
    assert right in mended(source, test)


@pytest.mark.parametrize(
    "said",
    [
        "triple(2) should be 6",
        "`triple(2)` gives 4 instead of `6`.",
        "E       assert 4 == 6\nE        +  where 4 = triple(2)",
    ],
)
def test_it_mends_what_the_task_or_the_failure_says(said: str) -> None:
    assert "x * 3" in mended("def triple(x):\n    return x * 2\n", said=said)


def test_a_doctest_is_a_test_as_well() -> None:
    source = 'def triple(x):\n    """\n    >>> triple(2)\n    6\n    """\n    return x * 2\n'
    assert "x * 3" in mended(source)


def test_several_bugs_are_mended_together() -> None:
    source = "def add(a, b):\n    return a - b\n\n\ndef twice(a):\n    return a * 3\n"
    test = "from m import *\n\ndef test_a():\n    assert add(1, 2) == 3\n\ndef test_b():\n    assert twice(4) == 8\n"
    after = mended(source, test)
    assert "a + b" in after
    assert "a * 2" in after


def test_code_that_its_tests_approve_of_is_left_alone() -> None:
    source = "def total(price, discount):\n    return price - discount\n"
    test = "from m import total\n\ndef test_it():\n    assert total(5, 2) == 3\n"
    assert mended(source, test) == source


def test_where_the_task_is_done_already_there_is_nothing_to_do() -> None:
    prompt = "Implement: add(1, 2) should be 3\n" + shown({"m.py": "def add(a, b):\n    return a + b\n"})
    assert edits(prompt) == (
        [],
        "No change.\n\nNOTHING TO DO: what the task says the code should give, it gives already",
    )


def test_without_files_it_says_what_is_missing() -> None:
    found, summary = edits("Implement: fix add")
    assert found == []
    assert summary.splitlines()[-1].startswith("BAIL: missing_context: there are no repository files")


def test_source_that_is_no_python_stops_nothing() -> None:
    files = {"a.py": "def broken(:\n", "b.py": "def add(a, b):\n    return a - b\n", "c.md": "# hello\n"}
    (edit,), _ = edits("Implement: fix add\n" + shown(files))
    assert edit["path"] == "b.py"


def test_an_edit_is_unique_in_its_file() -> None:
    source = "def keep(a, b):\n    return a - b\n\n\ndef add(a, b):\n    return a - b\n"
    (edit,), _ = edits("Implement: fix add\n" + shown({"m.py": source}))
    assert source.count(edit["old"]) == 1
    assert "def add" in edit["old"]


def test_letters_beyond_ascii_shift_no_edit() -> None:
    assert 'é = "ü"; return a + b' in mended('def add(a, b):\n    é = "ü"; return a - b\n')


def test_nothing_that_stands_in_the_prompt_is_run(tmp_path: Any) -> None:
    trap = tmp_path / "ran"
    source = f"import os\nos.mkdir({str(trap)!r})\n\n\ndef add(a, b):\n    open({str(trap)!r}, 'w')\n    return a - b\n"
    test = (
        f"from m import add\n\ndef test_add():\n    __import__('os').mkdir({str(trap)!r})\n    assert add(1, 2) == 3\n"
    )
    assert "a + b" in mended(source, test)
    assert not trap.exists()


@pytest.mark.parametrize(
    "body",
    [
        "'x' * 10**9",
        "10 ** 10 ** 9",
        "list(range(10**12))",
        "''.join(['x'] * 99999).replace('x', 'y' * 99999)",
        "add(a, b)",
        "[add(a, i) for i in range(99999)]",
        "().__class__",
        "'{0.__class__}'.format(a)",
        "f'{a:999999999}'",
    ],
)
def test_source_that_would_never_end_or_grows_without_end_is_given_up(body: str) -> None:
    test = "from m import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n"
    assert edits("Implement: fix add\n" + shown({"m.py": f"def add(a, b):\n    return {body}\n", "test_m.py": test}))


# -- texts


BROKEN = {"calc.py": "def add(a, b):\n    return a - b\n", "test_calc.py": "def test_add(): ...\n"}


def test_a_plan_names_the_file_and_the_function_at_fault() -> None:
    plan = answer("Write the plan.\n\n<task>\nadd gives wrong sums\n</task>\n" + shown(BROKEN))
    assert plan.startswith("# Plan: add gives wrong sums")
    assert "`calc.py`, function `add`" in plan
    assert "+    return a + b" in plan
    assert "BAIL" not in plan


def test_a_plan_says_that_no_model_wrote_it() -> None:
    assert "does not think" in answer("Write the plan for x.")


def test_a_review_of_a_bug_asks_for_changes_and_one_of_a_fix_approves() -> None:
    diff = "<diff>\n--- a/calc.py\n+++ b/calc.py\n@@ -2 +2 @@\n-    x\n+    y\n</diff>\n"
    good = BROKEN | {"calc.py": "def add(a, b):\n    return a + b\n"}
    asked = "Review the change in `<diff>`.\n" + diff
    assert "VERDICT: changes requested" in answer(asked + shown(BROKEN))
    assert "VERDICT: approve" in answer(asked + shown(good))


def test_a_review_looks_at_what_was_changed_only() -> None:
    diff = "<diff>\n--- a/other.py\n+++ b/other.py\n@@ -1 +1 @@\n-1\n+2\n</diff>\n"
    assert "VERDICT: approve" in answer("Review the change.\n" + diff + shown(BROKEN | {"other.py": "X = 2\n"}))


def test_a_file_whose_tag_has_a_suffix_is_read_too() -> None:
    source = 'NOTE = "</file>"\ndef add(a, b):\n    return a - b\n'
    prompt = f'Implement: fix add\n<file-3f9a21c0 path="m.py">\n{source}</file-3f9a21c0>\n'
    (edit,), _ = edits(prompt)
    assert edit["path"] == "m.py"


def test_a_file_that_is_shown_in_part_is_read_as_far_as_it_goes() -> None:
    note = "[lines 3–80 are not shown: def sub(a, b)]"
    assert "return a + b" in mended(f"{note}\ndef add(a, b):\n    return a - b\n{note}\n")


def test_files_may_come_in_text_blocks_and_in_fences() -> None:
    fenced = "### m.py\n```python\ndef add(a, b):\n    return a - b\n```\n"
    blocks = [{"type": "text", "text": text} for text in ("Implement: fix add", fenced)]
    asked = params() | {"messages": [{"role": "user", "content": blocks}], "output_config": {"format": EDITS}}
    reply = DemoModel().reply(asked)
    assert isinstance(reply, Reply)
    assert json.loads(reply.text)["edits"][0]["new"] == "    return a + b"


def test_any_other_schema_is_answered_in_its_form() -> None:
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}, "n": {"type": "integer"}, "k": {"enum": ["a"]}},
    }
    text = answer("x", output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(text) == {"title": "…", "n": 0, "k": "a"}


# -- rules


def test_a_rule_is_applied_where_its_text_stands_in_the_prompt() -> None:
    model = FixRulesModel([{"old": "nowhere", "new": "x"}, {"path": "calc", "old": "a - b", "new": "a + b"}])
    (edit,), _ = edits("Implement it.\n" + shown(BROKEN), model)
    assert edit == {"path": "calc.py", "old": "a - b", "new": "a + b"}


def test_a_rule_whose_file_is_not_in_the_prompt_fails_honestly() -> None:
    model = FixRulesModel([("src/", "a - b", "a + b")])
    found, summary = edits("Implement it.\n" + shown(BROKEN), model)
    assert found == []
    assert summary.splitlines()[-1].startswith("BAIL: missing_context: 2 files in the prompt (calc.py, test_calc.py)")


def test_a_rule_that_was_followed_already_leaves_nothing_to_do() -> None:
    model = FixRulesModel([("a * b", "a - b")])
    assert edits("Implement it.\n" + shown(BROKEN), model)[1].splitlines()[-1].startswith("NOTHING TO DO: ")
