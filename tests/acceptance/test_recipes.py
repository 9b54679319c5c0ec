"""The recipes of docs/worktree.md, each with a small project of its kind, where its tool is installed.

A project's own test fails in the person's tree. The gremlin mends the worktree, so that `verify` passes only there.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.acceptance.sandbox import Sandbox

PAGE = Path(__file__).parents[2] / "docs" / "worktree.md"
RECIPES = dict(re.findall(r"^```toml\n# (\S+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
WORTH = "41"
"""The number in a project that its test wants to be 42."""
PYTHON = {
    "calc.py": f"X = {WORTH}\n",
    "test_calc.py": "import unittest\n\nimport calc\n\n\nclass T(unittest.TestCase):\n"
    "    def test_it(self):\n        self.assertEqual(calc.X, 42)\n",
    ".gitignore": ".venv/\n__pycache__/\n",
}
NODE = {
    "package.json": '{"name": "calc", "version": "1.0.0", "scripts": {"test": "node test.js"}}',
    "calc.js": f"exports.x = {WORTH};\n",
    "test.js": 'require("node:assert").equal(require("./calc.js").x, 42);\n',
    ".gitignore": "node_modules/\n",
}
NPM_LOCK = (
    '{"name": "calc", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": {"name": "calc", "version": "1.0.0"}}}'
)
UV_LOCK = (
    'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n\n'
    '[[package]]\nname = "calc"\nversion = "1.0.0"\nsource = { virtual = "." }\n'
)
MAVEN = (
    '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>org.example</groupId>'
    "<artifactId>calc</artifactId><version>${nothing%s}</version><packaging>pom</packaging>"
    "<properties><nothing42>1</nothing42></properties></project>"
)
PROJECTS: dict[str, tuple[str, str, dict[str, str]]] = {
    "python-venv": ("python3", "calc.py", {**PYTHON, "requirements.txt": ""}),
    "python-uv": (
        "uv",
        "calc.py",
        {
            **PYTHON,
            "pyproject.toml": '[project]\nname = "calc"\nversion = "1.0.0"\nrequires-python = ">=3.11"\n',
            "uv.lock": UV_LOCK,
        },
    ),
    "node-npm": ("npm", "calc.js", {**NODE, "package-lock.json": NPM_LOCK}),
    "node-pnpm": ("pnpm", "calc.js", {**NODE, "pnpm-lock.yaml": "lockfileVersion: '9.0'\n\nimporters:\n\n  .: {}\n"}),
    "go": (
        "go",
        "calc.go",
        {
            "go.mod": "module calc\n\ngo 1.19\n",
            "calc.go": f"package calc\n\nconst X = {WORTH}\n",
            "calc_test.go": 'package calc\n\nimport "testing"\n\nfunc TestIt(t *testing.T) {\n'
            "\tif X != 42 {\n\t\tt.Fatal(X)\n\t}\n}\n",
        },
    ),
    "rust": (
        "cargo",
        "src/lib.rs",
        {
            "Cargo.toml": '[package]\nname = "calc"\nversion = "1.0.0"\nedition = "2021"\n',
            "Cargo.lock": 'version = 3\n\n[[package]]\nname = "calc"\nversion = "1.0.0"\n',
            "src/lib.rs": f"pub const X: u32 = {WORTH};\n\n#[test]\nfn it() {{\n    assert_eq!(X, 42);\n}}\n",
            ".gitignore": "target/\n",
        },
    ),
    "java-maven": ("mvn", "pom.xml", {"pom.xml": MAVEN % WORTH}),
}


OFFLINE = {
    "UV_OFFLINE": "1",
    "CARGO_NET_OFFLINE": "true",
    "GOPROXY": "off",
    "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup")),  # the toolchain; HOME is the test's own
}


def test_every_recipe_is_tried() -> None:
    assert RECIPES.keys() == PROJECTS.keys()


@pytest.mark.parametrize("name", PROJECTS)
def test_a_recipe_makes_the_worktree_ready_and_tests_it(sandbox: Sandbox, name: str) -> None:
    tool, file, files = PROJECTS[name]
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    sandbox.env |= OFFLINE
    sandbox.repo.git("rm", "-rq", ".")
    sandbox.repo.commit({".gremlins/config.toml": RECIPES[name], **files}, "A project")
    mend = f"sed 's/{WORTH}/42/' {file} > mended && mv mended {file}"
    sandbox.pipeline("checks", f'mode: batch\nstages: [{{type: exec, cmds: ["{mend}"]}}, verify]\n')
    sandbox.ok("launch", "checks", "--id", "g")
    state = sandbox.until("g", "finished", "dead", "bailed")
    assert state["liveness"]["state"] == "finished", sandbox.logs()
    assert re.search(r"^\+.*42", sandbox.ok("diff", "g"), re.MULTILINE)
