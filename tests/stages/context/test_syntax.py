"""Definitions and imports in every language that has a grammar, and in one that has none."""

# ruff: noqa: E501 (programs of several lines)

from __future__ import annotations

import importlib.util

import pytest

from gremlins.stages.context.slices import choose_slices
from gremlins.stages.context.syntax import block_ends, lines_of, read_syntax
from tests.time_limit import must_end

CASES = {
    "a.py": (
        "import a.b as c\nfrom ..f import (g, h)\n\nX = 1\n\n# Says hello.\n@deco\ndef hello():\n    y = 1\n\n\nclass A:\n"
        "    async def run(self):\n        def inner(): pass\n",
        "X:4-4 hello:6-9 A:12-14 run:13-14 inner:14-14",
        "a.b ..f",
    ),
    "a.ts": (
        "import { a } from './x';\nconst q = require('../q');\n/** Says. */\nexport default class Foo<T> {\n"
        "  handler = (e: Event) => {\n    const local = 1;\n  };\n  async run(): Promise<void> {\n  }\n}\n"
        "export const fn = async () => {\n};\ninterface I { a: string }\ntype T = string;\nenum E { A }\n"
        "Foo.prototype.bar = function () {\n};\n",
        "q:2-2 Foo:3-10 handler:5-7 run:8-9 fn:11-12 I:13-13 T:14-14 E:15-15 bar:16-17",
        "./x ../q",
    ),
    "a.jsx": ("export function App() {\n  return <div>{x}</div>;\n}\n", "App:1-3", ""),
    "a.go": (
        'package x\nimport (\n  "fmt"\n  b "a/b"\n)\n// Run runs.\nfunc (f *Foo) Run(a int) int {\n  v := 1\n  return v\n}\n'
        "type Foo struct {\n  a int\n}\nconst A = 1\n",
        "Run:6-10 Foo:11-13 A:14-14",
        "fmt a/b",
    ),
    "a.rs": (
        "use crate::a::{b, c};\nmod inner;\n#[derive(Debug)]\npub struct Foo<T> {\n  a: T,\n}\nimpl<T> Foo<T> {\n"
        "  pub fn run(&self) {\n  }\n}\nmacro_rules! m {\n  () => {}\n}\n",
        "inner:2-2 Foo:3-6 Foo:7-10 run:8-9 m:11-13",
        "crate::a::b crate::a::c inner",
    ),
    "a.java": (
        "import com.y.Z;\n@Ann\npublic class Foo {\n  private int a = 1;\n  @Override\n  public <T> List<T> run(int a) {\n"
        "    int local = 1;\n    return null;\n  }\n  Foo() {\n  }\n  enum E { A }\n}\n",
        "Foo:2-13 a:4-4 run:5-9 Foo:10-11 E:12-12",
        "com.y.Z",
    ),
    "a.c": (
        '#include "x.h"\n#define MAX(a) a\nstruct foo {\n  int a;\n};\nstatic int *\nfn(int a)\n{\n  int local = 1;\n}\n',
        "MAX:2-2 foo:3-5 fn:6-10",
        "x.h",
    ),
    "a.cpp": (
        "#include <v>\nnamespace a {\ntemplate <typename T>\nclass Foo : Bar {\n  int bar() const {\n    return 1;\n  }\n};\n"
        "int Foo<int>::qux(int a)\n{\n}\n}\n",
        "a:2-12 Foo:3-8 bar:5-7 qux:9-11",
        "v",
    ),
    "a.h": ("class Foo {\n  int x() {\n    return 1;\n  }\n};\n", "Foo:1-5 x:2-4", ""),
    "a.cs": (
        "using System.Text;\nclass Foo {\n  [Test]\n  public int Run(int a) {\n    return 1;\n  }\n  int P { get; }\n}\n",
        "Foo:2-8 Run:3-6 P:7-7",
        "System.Text",
    ),
    "a.kt": (
        "import com.y.Z\nclass Foo {\n  fun run(a: Int): Int {\n    val local = 1\n    return a\n  }\n}\nobject O {\n}\n",
        "Foo:2-7 run:3-6 O:8-9",
        "com.y.Z",
    ),
    "a.rb": (
        "require_relative 'z'\nmodule M\n  class Foo\n    def run(a)\n      1\n    end\n    def self.make\n    end\n  end\nend\n",
        "M:2-10 Foo:3-9 run:4-6 make:7-8",
        "./z",
    ),
    "a.php": (
        "<?php\nuse C\\D;\nclass Foo {\n  public function run(int $a): int {\n    return 1;\n  }\n}\nfunction top() {\n}\n",
        "Foo:3-7 run:4-6 top:8-9",
        "C.D",
    ),
    "a.swift": (
        "import X\nstruct Foo {\n  func run(_ a: Int) -> Int {\n    let local = 1\n    return a\n  }\n  init() {\n  }\n}\n",
        "Foo:2-9 run:3-6 init:7-8",
        "X",
    ),
    "a.lua": ("function hello(a)\n  return 1\nend\n\nfunction other() end\n", "hello:1-2 other:5-5", ""),
}  # fmt: skip
NEEDS = {"a.cs": "c_sharp", "a.kt": "kotlin", "a.rb": "ruby", "a.php": "php", "a.swift": "swift"}


@pytest.mark.parametrize("path", CASES)
def test_definitions_have_their_bounds_and_imports_are_found(path: str) -> None:
    if path in NEEDS and importlib.util.find_spec(f"tree_sitter_{NEEDS[path]}") is None:
        pytest.skip("the extra `languages` is not installed")
    text, definitions, imports = CASES[path]
    found = read_syntax(path, text)
    assert " ".join(f"{one.name}:{one.first}-{one.last}" for one in found.definitions) == definitions
    assert " ".join(one.module for one in found.imports) == imports


def test_a_macro_on_a_line_of_its_own_hides_no_definition() -> None:
    macros = (
        "MY_NAMESPACE_BEGIN\ntemplate <typename T>\nMY_EXPORT\nclass Foo {\n  MY_FRIENDS(a, b(c))\n  MY_NODISCARD\n"
    )
    found = read_syntax("a.hpp", f"{macros}  bool run(int a) const {{\n    return a;\n  }}\n}};\nTEST(A, B)\n{{\n}}\n")
    assert [(one.name, one.first, one.last) for one in found.definitions] == [
        ("Foo", 2, 10),
        ("run", 7, 9),
        ("TEST", 11, 13),
    ]


def test_only_a_line_feed_ends_a_line() -> None:
    text = "a = 1\n\f\ndef f():\n    return '\u2028\x85\x1c'\n"
    assert len(lines_of(text)) == 4
    assert [(one.name, one.at, one.last) for one in read_syntax("a.py", text).definitions] == [("a", 1, 1), ("f", 3, 4)]
    assert "".join(lines_of(text)) == text


def test_a_definition_that_the_grammar_does_not_understand_is_found_by_its_keyword() -> None:
    found = read_syntax("a.py", "x = = (((\nclass Broken:\n    def ok(self):\n        return 1\n")
    assert {"Broken", "ok"} <= {one.name for one in found.definitions}


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("a.py", "("),
        ("a.cpp", "/* "),
        ("a.java", "/* "),
        ("a.kt", "<"),
        ("a.ts", '" x '),
        ("a.lua", "a="),
        ("a.py", "def "),
    ],
)
def test_no_program_takes_for_ever(path: str, unit: str) -> None:
    spent = iter(range(10_000_000))
    with must_end():
        read_syntax(path, unit * (60_000 // len(unit)), cpu=lambda: next(spent) / 2)


def test_ends_of_blocks_are_found_in_one_pass() -> None:
    lines = lines_of("if a {\n  b\n}\n\nif c {\n  if d {\n    e\n  }\n\n}\nf\n")
    assert block_ends(lines, [0, 4, 5]) == {0: 3, 4: 10, 5: 8}


def test_a_named_definition_is_shown_whole_however_long() -> None:
    text = "".join(f"def f{n}():\n" + "    x = 1\n" * 300 for n in range(20))
    found = read_syntax("a.py", text)
    at = next(one for one in found.definitions if one.name == "f7").at
    slices = choose_slices({at: 9.0}, [4] * len(lines_of(text)), 2_000, found.definitions, frozenset({at}))
    assert any(part.first <= at and part.last >= at + 300 for part in slices)


def test_a_named_definition_that_begins_in_the_head_of_its_file_is_shown_whole() -> None:
    text = "import os\n\n\n" + "".join(f"def f{n}():\n" + "    x = 1\n" * 60 for n in range(90))
    found = read_syntax("a.py", text)
    size = [4] * len(lines_of(text))
    slices = choose_slices({4: 9.0}, size, 2_000, found.definitions, frozenset({4}), rest=True)
    assert slices[0].first == 1
    assert slices[0].last >= 64
