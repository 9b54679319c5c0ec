from __future__ import annotations

import pytest

from gremlins.repository.protected import protected


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (".gremlins/config.toml", "pipelines"),
        (".github/workflows/ci.yml", "CI"),
        (".GITHUB/Workflows/ci.yml", "CI"),
        ("Jenkinsfile", "CI"),
        (".gitmodules", "git"),
        ("vendor/.gitattributes", "git"),
        (".githooks/pre-commit", "hook"),
        (".husky/pre-push", "hook"),
        ("sub/.envrc", "shell"),
        (".vscode/tasks.json", "editor"),
        ("CLAUDE.md", "agent"),
        ("sub/AGENTS.md", "agent"),
        ("package.json", "manifest"),
        ("packages/a/package.json", "manifest"),
        ("setup.py", "manifest"),
        (".cargo/config.toml", "manifest"),
    ],
)
def test_a_path_that_acts_outside_the_code_is_named(path: str, kind: str) -> None:
    (sentence,) = protected([path])
    assert sentence.startswith(f"{path}: ")
    assert kind in sentence


def test_code_and_documents_are_not() -> None:
    assert protected(["src/app.py", "README.md", "docs/hooks.md", "src/package.json.ts", "gremlins/config.toml"]) == []
