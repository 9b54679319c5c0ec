"""A table of repositories × verbs: on each kind of repository, each verb leaves a person's bytes as they were.

A row makes a repository as a person has it, and names the verbs that are refused there. A column is one verb, on a
gremlin whose commands have committed `made.txt`. To add a kind, add a row.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gremlins.cli.main import run
from gremlins.errors import GremlinsError
from gremlins.paths import Home
from gremlins.simulator import Simulator
from tests.conftest import Repo, make_repo
from tests.in_process import InProcessSandbox

STAGES = """
evidence: commits
stages:
  - {type: exec, cmds: ["printf 'by a gremlin\\n' > made.txt", "git add made.txt", "git commit --quiet -m made"]}
"""
FILES = {"README.md": "# Calc\n", "src/calc.py": "def add(a, b):\n    return a - b\n", ".gitignore": "*.log\n"}
OWN = {"notes.txt": "mine\n", "own.log": "mine, ignored\n"}
"""A person's own files, in no commit."""


# ── the repositories ──────────────────────────────────────────────────────────────────────────────────────────────


def plain(place: Path) -> Repo:
    repo = make_repo(place / "project")
    repo.commit(FILES)
    return repo


def separate_git_dir(place: Path) -> Repo:
    path = place / "project"
    path.mkdir()
    repo = Repo(path)
    repo.git("init", "--quiet", "--initial-branch=main", f"--separate-git-dir={place / 'elsewhere.git'}")
    repo.commit(FILES)
    return repo


def shared_core_worktree(place: Path) -> Repo:
    """git in a linked worktree would work on the person's tree."""
    repo = separate_git_dir(place)
    repo.git("config", "core.repositoryFormatVersion", "1")
    repo.git("config", "extensions.worktreeConfig", "true")
    repo.git("config", "core.worktree", str(repo.path))
    return repo


def submodule(place: Path) -> Repo:
    """The person works in the checkout of a submodule."""
    library = make_repo(place / "library")
    library.commit(FILES)
    outer = make_repo(place / "outer")
    outer.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library.path), "project")
    inner = Repo(outer.path / "project")
    inner.git("config", "extensions.worktreeConfig", "true")
    return inner


def linked_worktree(place: Path) -> Repo:
    main = plain(place)
    main.git("worktree", "add", "--quiet", "-b", "feature", str(place / "linked"))
    return Repo(place / "linked")


def crlf(place: Path) -> Repo:
    repo = plain(place)
    repo.commit({"dos.txt": b"one\r\ntwo\r\n"})
    repo.git("config", "core.autocrlf", "input")
    repo.commit({".gitattributes": "* text=auto\n"})
    return repo


def sparse(place: Path) -> Repo:
    repo = plain(place)
    repo.commit({"wide/a.txt": "a\n", "wide/b.txt": "b\n"})
    repo.git("sparse-checkout", "set", "src")
    return repo


def sha256(place: Path) -> Repo:
    repo = Repo(place / "project")
    repo.path.mkdir()
    repo.git("init", "--quiet", "--initial-branch=main", "--object-format=sha256")
    repo.commit(FILES)
    return repo


def odd_names(place: Path) -> Repo:
    repo = plain(place)
    repo.commit({"a b/ü\n.txt": "odd\n", "-x": "odd\n", ":(top)": "odd\n", os.fsdecode(b"caf\xe9"): "odd\n"})
    return repo


def failing_filter(place: Path) -> Repo:
    """A required filter whose program is not there, for files that a landing does not change."""
    repo = plain(place)
    repo.commit({".gitattributes": "*.bin filter=locked\n"})
    repo.git("config", "filter.locked.required", "true")
    repo.git("config", "filter.locked.smudge", "no-such-program")
    repo.git("config", "filter.locked.clean", "no-such-program")
    return repo


@dataclass(frozen=True)
class Kind:
    """A row. `refused`: verbs that end otherwise than with 0, by their exit code and a part of what they say."""

    make: Callable[[Path], Repo]
    refused: Mapping[str, tuple[int, str]] = field(default_factory=dict)


KINDS = {
    made.__name__.replace("_", " "): Kind(made)
    for made in (
        plain,
        separate_git_dir,
        shared_core_worktree,
        submodule,
        linked_worktree,
        crlf,
        sparse,
        sha256,
        odd_names,
        failing_filter,
    )
}


# ── the verbs ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Bench:
    """A person's repository with a gremlin, `g`, that has finished."""

    box: InProcessSandbox
    capsys: pytest.CaptureFixture[str]

    @property
    def repo(self) -> Repo:
        return self.box.repo

    @property
    def worktree(self) -> Repo:
        return Repo(self.box.worktree("g"))

    def finish(self) -> None:
        self.box.make(STAGES, gremlin_id="g")
        self.box.run("g")
        assert self.life() == "Finished", self.box.log("g")

    def life(self) -> str:
        return type(self.box.read("g").status).__name__

    def gremlins(self, *words: str) -> tuple[int, str]:
        """A command line of a person: its exit code, and what it says."""
        self.capsys.readouterr()
        code = run(words)
        said = self.capsys.readouterr()
        return code, said.out + said.err


def launch(bench: Bench) -> tuple[int, str]:
    return 0, ""  # every cell begins with one


def land(bench: Bench) -> tuple[int, str]:
    return bench.gremlins("land", "g")


def land_dry_run(bench: Bench) -> tuple[int, str]:
    return bench.gremlins("land", "g", "--dry-run")


def land_into(bench: Bench) -> tuple[int, str]:
    bench.repo.git("branch", "release")
    return bench.gremlins("land", "g", "--into", "release")


def rm(bench: Bench) -> tuple[int, str]:
    bench.repo.git("update-ref", "refs/heads/merged", "gremlins/g")
    return bench.gremlins("rm", "g")


def rm_force(bench: Bench) -> tuple[int, str]:
    return bench.gremlins("rm", "g", "--force")


def clean(bench: Bench) -> tuple[int, str]:
    bench.repo.git("update-ref", "refs/heads/merged", "gremlins/g")
    return bench.gremlins("clean")


def rescue(bench: Bench) -> tuple[int, str]:
    """A process starts for a gremlin whose worktree git has forgotten, with a file of a person in it."""
    bench.box.make(STAGES, gremlin_id="h")
    worktree = Repo(bench.box.worktree("h"))
    shutil.rmtree(worktree.git("rev-parse", "--absolute-git-dir"))
    worktree.write({"found.txt": "a person's\n"})
    record = bench.box.run("h")
    assert bench.repo.git("show", "refs/gremlins/h/interrupted-1:found.txt") == "a person's"
    return (0, "") if type(record.status).__name__ == "Finished" else (1, bench.box.log("h"))


VERBS = {verb.__name__: verb for verb in (launch, land, land_dry_run, land_into, rm, rm_force, clean, rescue)}
ENDS = {"rm", "rm_force", "clean"}
CHANGES = {"land": {"made.txt": b"by a gremlin\n"}}
"""What a verb changes in the person's tree; no other does."""


def tree(repo: Repo) -> dict[str, bytes]:
    """All of a person's files."""
    return {
        str(path.relative_to(repo.path)): os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        for path in sorted(repo.path.rglob("*"))
        if not path.is_dir() and ".git" not in path.relative_to(repo.path).parts
    }


def of_git(repo: Repo) -> tuple[str, ...]:
    """A person's HEAD, index, configuration, and hooks."""
    common = repo.path / repo.git("rev-parse", "--git-common-dir")
    hooks = sorted(path.name for path in (common / "hooks").glob("*"))
    asked = ("symbolic-ref HEAD", "ls-files --stage -v", "config --list --local", "stash list", "diff --cached --stat")
    return (*(repo.git(*words.split()) for words in asked), *hooks)


@pytest.fixture
def box_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Repo], InProcessSandbox]]:
    home = Home(tmp_path / "state")
    monkeypatch.setenv("GREMLINS_HOME", str(home.root))
    with Simulator() as simulator:
        yield lambda repo: InProcessSandbox(repo, home, simulator)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_persons_bytes_are_as_they_were(
    kind: str,
    verb: str,
    tmp_path: Path,
    box_of: Callable[[Repo], InProcessSandbox],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = KINDS[kind]
    repo = row.make(tmp_path)
    repo.write({**OWN, ".gremlins/pipelines/work.yaml": STAGES})
    monkeypatch.chdir(repo.path)
    bench = Bench(box_of(repo), capsys)
    files, known, head = tree(repo), of_git(repo), repo.head()
    expected = row.refused.get(verb, (0, ""))
    try:
        bench.finish()
        assert tree(repo) == files, "before the verb"
        code, said = VERBS[verb](bench)
    except GremlinsError as error:
        code, said = error.exit_code, error.message
    assert (code, expected[1] in said) == (expected[0], True), said
    landed = CHANGES.get(verb, {}) if code == 0 else {}
    assert tree(repo) == files | landed
    if not landed:
        assert (of_git(repo), repo.head()) == (known, head)
    if code == 0 and verb in ENDS:
        assert not bench.worktree.path.exists()
        assert repo.git("for-each-ref", "refs/gremlins", "refs/heads/gremlins") == ""
        assert str(bench.worktree.path) not in repo.git("worktree", "list")
