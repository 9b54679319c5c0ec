"""Protected paths: files that act outside the code, by running commands or by changing how git and agents behave."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

_KINDS = {
    "gremlins' settings, pipelines or prompts": ".gremlins/",
    "a CI workflow": ".github/workflows/ .github/actions/ .circleci/ .buildkite/ .ci/ .gitlab-ci.yml .travis.yml"
    " .drone.yml azure-pipelines.yml bitbucket-pipelines.yml jenkinsfile",
    "how git treats files": ".gitmodules .gitattributes .lfsconfig",
    "a hook": ".githooks/ .hooks/ .husky/ .pre-commit-config.yaml lefthook.yml",
    "an environment that a shell loads": ".envrc .mise.toml .tool-versions",
    "settings of an editor": ".vscode/ .idea/ .devcontainer/ .dir-locals.el .exrc .nvim.lua",
    "instructions or settings of an agent": ".claude/ .cursor/ .codex/ .copilot/ .kilocode/ agents.md claude.md"
    " gemini.md claude.local.md copilot-instructions.md .cursorrules .mcp.json",
    "a manifest whose scripts a package manager runs": "package.json setup.py setup.cfg pyproject.toml conftest.py"
    " sitecustomize.py build.rs .cargo/ composer.json gemfile rakefile *.gemspec .npmrc .yarnrc .yarnrc.yml"
    " .pnpmfile.cjs pom.xml build.gradle build.gradle.kts settings.gradle settings.gradle.kts",
}
"""Folders end in `/`; the others are names of files. In any folder, in any case of letters."""


def protected(paths: Iterable[str]) -> list[str]:
    """A sentence for each protected path among these, relative to the repository's root."""
    return [f"{path}: {kind}" for path in paths for kind, names in _KINDS.items() if _is_one_of(path, names.split())]


def _is_one_of(path: str, names: Iterable[str]) -> bool:
    lower = "/" + path.lower()
    name = PurePosixPath(lower).name
    return any(f"/{entry}" in lower if entry.endswith("/") else fnmatchcase(name, entry) for entry in names)
