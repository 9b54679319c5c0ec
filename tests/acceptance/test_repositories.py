"""A table of repositories × verbs: on each kind of repository, each verb leaves a person's bytes as they were.

A row makes a repository as a person has it, and names the verbs that are refused there. A column is one verb, on a
gremlin whose commands have committed `made.txt`. To add a kind, add a row.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gremlins.cli.main import run
from gremlins.errors import GremlinsError
from gremlins.paths import Home
from gremlins.simulator import Simulator
from tests.conftest import Repo, make_repo
from tests.in_process import InProcessSandbox
from tests.layouts import dot_bare

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


def bare_with_worktrees(place: Path) -> Repo:
    """`.bare` beside its worktrees: there is no main working tree."""
    return dot_bare(place, FILES)[0]


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


def dirty(place: Path) -> Repo:
    repo = plain(place)
    repo.write({"README.md": "half done\n"})
    return repo


def detached_head(place: Path) -> Repo:
    repo = plain(place)
    repo.git("checkout", "--quiet", "--detach")
    return repo


def file_in_the_way(place: Path) -> Repo:
    repo = plain(place)
    repo.write({"made.txt": "a person's\n"})
    return repo


def merge_in_progress(place: Path) -> Repo:
    repo = plain(place)
    repo.git("checkout", "--quiet", "-b", "other")
    repo.commit({"README.md": "theirs\n"})
    repo.git("checkout", "--quiet", "main")
    repo.commit({"README.md": "ours\n"})
    subprocess.run(["git", "merge", "--quiet", "other"], cwd=repo.path, capture_output=True, timeout=60, check=False)
    return repo


@dataclass(frozen=True)
class Kind:
    """A row. `refused`: what landing there says, which then ends with 4."""

    make: Callable[[Path], Repo]
    refused: str = ""


KINDS = {
    made.__name__.replace("_", " "): Kind(made)
    for made in (
        plain,
        separate_git_dir,
        shared_core_worktree,
        submodule,
        linked_worktree,
        bare_with_worktrees,
        crlf,
        sparse,
        sha256,
        odd_names,
        failing_filter,
    )
}
KINDS |= {
    "dirty": Kind(dirty, "uncommitted changes: README.md"),
    "detached HEAD": Kind(detached_head, "HEAD is detached"),
    "file in the way": Kind(file_in_the_way, "untracked files are in the way: made.txt"),
    "merge in progress": Kind(merge_in_progress, "a merge is in progress"),
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
LANDS = ("land", "land_dry_run")
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
    asked = (
        "rev-parse --symbolic-full-name HEAD",
        "ls-files --stage -v",
        "config --list --local",
        "stash list",
        "diff --cached --stat",
    )
    return (*(repo.git(*words.split()) for words in asked), *hooks)


@pytest.fixture
def box_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Repo], InProcessSandbox]]:
    home = Home(tmp_path / "state")
    monkeypatch.setenv("GREMLINS_HOME", str(home.root))
    with Simulator() as simulator:
        yield lambda repo: InProcessSandbox(repo, home, simulator)


REFUSED = [(kind, verb) for kind, row in KINDS.items() if row.refused for verb in LANDS]
TAKEN = [(kind, verb) for kind, row in KINDS.items() if not row.refused for verb in VERBS]
SOME = slice(None, None, 1 if os.environ.get("GREMLINS_SOAK") else 3)
"""Three verbs of each kind, each verb with every third kind; all in the soak."""


@pytest.mark.soak
@pytest.mark.parametrize(("kind", "verb"), REFUSED + TAKEN[SOME])
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
    expected = (4, row.refused) if row.refused and verb in LANDS else (0, "")
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


# ── what cannot be looked at, and what a person has there ─────────────────────────────────────────────────────────


@pytest.fixture
def bench(
    tmp_path: Path,
    box_of: Callable[[Repo], InProcessSandbox],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Bench:
    """A gremlin that has finished in a plain repository."""
    made = Bench(box_of(plain(tmp_path)), capsys)
    monkeypatch.chdir(tmp_path)  # the repository may go away
    made.finish()
    return made


def move(repo: Repo, away: Path) -> None:
    repo.path.rename(away)


def unmount(repo: Repo, away: Path) -> None:
    repo.path.rename(away)
    repo.path.mkdir()


def clone_anew(repo: Repo, away: Path) -> None:
    repo.path.rename(away)
    Repo(away).git("clone", "--quiet", "--no-local", "--single-branch", "--branch=main", str(away), str(repo.path))


def replace_by_another(repo: Repo, away: Path) -> None:
    repo.path.rename(away)
    make_repo(repo.path).commit({"other.txt": "another\n"})


@pytest.mark.parametrize("gone", [move, unmount, clone_anew, replace_by_another])
def test_what_cannot_be_looked_at_is_not_removed(
    bench: Bench, tmp_path: Path, gone: Callable[[Repo, Path], None]
) -> None:
    gone(bench.repo, tmp_path / "away")
    code, said = bench.gremlins("rm", "g")
    assert (code, "hint: " in said) == (4, True), said
    code, said = bench.gremlins("clean")
    assert (code, "not removed: " in said, "nothing to clean" in said) == (0, True, True), said
    assert (bench.worktree.path / "made.txt").is_file()
    shutil.rmtree(bench.repo.path, ignore_errors=True)
    (tmp_path / "away").rename(bench.repo.path)
    assert bench.gremlins("land", "g")[0] == 0
    assert bench.repo.read("made.txt") == "by a gremlin\n"


def test_what_cannot_be_looked_at_is_removed_by_force(bench: Bench, tmp_path: Path) -> None:
    clone_anew(bench.repo, tmp_path / "away")
    before = tree(bench.repo), bench.repo.git("for-each-ref")
    assert bench.gremlins("rm", "g", "--force")[0] == 0
    assert (tree(bench.repo), bench.repo.git("for-each-ref")) == before
    assert not bench.worktree.path.exists()
    assert Repo(tmp_path / "away").git("rev-parse", "--verify", "gremlins/g")


def test_commits_of_a_branch_that_is_gone_are_not_forgotten(bench: Bench) -> None:
    tip = bench.repo.git("rev-parse", "gremlins/g")
    bench.repo.git("update-ref", "-d", "refs/heads/gremlins/g")
    code, said = bench.gremlins("rm", "g")
    assert (code, "not landed" in said) == (4, True), said
    bench.repo.git("update-ref", "refs/heads/gremlins/g", tip)
    assert bench.gremlins("land", "g")[0] == 0


@pytest.mark.parametrize("how", ["new", "changed"])
def test_a_persons_file_in_a_worktree_outlives_the_gremlin(bench: Bench, how: str) -> None:
    name = "found.txt" if how == "new" else "README.md"
    bench.worktree.write({name: "a person's\n"})
    bench.repo.git("merge", "--quiet", "gremlins/g")
    code, said = bench.gremlins("rm", "g")
    assert (code, name in said) == (4, True), said
    code, said = bench.gremlins("clean")
    assert (code, name in said) == (0, True), said
    assert bench.worktree.read(name) == "a person's\n"

    code, said = bench.gremlins("land", "g")
    assert (code, "kept: " in said, "refs/gremlins/g/interrupted-1" in said) == (0, True, True), said
    assert not bench.worktree.path.exists()
    code, said = bench.gremlins("clean")
    assert (code, "refs/gremlins/g/interrupted-1" in said) == (0, True), said
    assert bench.repo.git("show", f"refs/gremlins/g/interrupted-1:{name}") == "a person's"
    assert bench.repo.git("for-each-ref", "--format=%(refname)", "refs/gremlins") == "refs/gremlins/g/interrupted-1"


@pytest.mark.parametrize("how", ["merge", "squash", "squash of a moved branch"])
def test_a_branch_that_was_merged_by_hand_is_cleaned(bench: Bench, how: str) -> None:
    if how.endswith("moved branch"):
        bench.repo.commit({"README.md": "went on\n"})
    bench.repo.git("merge", "--quiet", *([] if how == "merge" else ["--squash"]), "gremlins/g")
    if how != "merge":
        assert bench.gremlins("rm", "g")[0] == 4  # only in the index so far
        bench.repo.git("commit", "--quiet", "-m", "by hand")
        bench.repo.commit({"made.txt": "and went on\n"})
    before = tree(bench.repo), bench.repo.head()
    assert bench.gremlins("clean") == (0, "g: removed\n")
    assert (tree(bench.repo), bench.repo.head()) == before
    assert bench.repo.git("branch", "--list", "gremlins/*") == ""
    assert len(bench.repo.git("worktree", "list").splitlines()) == 1


def test_a_landing_that_happened_ends_0_and_says_what_stays(bench: Bench) -> None:
    bench.repo.git("worktree", "lock", "--reason", "mine", str(bench.worktree.path))
    code, said = bench.gremlins("land", "g")
    assert (code, "landed on main" in said, "is locked: mine" in said) == (0, True, True), said
    assert (bench.life(), bench.worktree.path.is_dir()) == ("Landed", True)
    for words in (("rm", "g"), ("rm", "g", "--force")):
        code, said = bench.gremlins(*words)
        assert (code, "worktree unlock" in said) == (4, True), said
    bench.repo.git("worktree", "unlock", str(bench.worktree.path))
    assert bench.gremlins("rm", "g")[0] == 0


def test_a_landing_whose_record_cannot_be_written_happened_and_is_recorded_later(bench: Bench) -> None:
    state = bench.box.home.gremlin("g").state
    saved = state.with_name("saved")
    script = bench.box.home.root / "filter"
    script.write_text(f"#!/bin/sh\n[ -d '{state}' ] || {{ mv '{state}' '{saved}'; mkdir '{state}'; }}\ncat\n")
    script.chmod(0o755)
    bench.repo.git("config", "filter.late.smudge", f"'{script}'")
    bench.repo.write({".git/info/attributes": "made.txt filter=late\n"})
    code, said = bench.gremlins("land", "g")
    assert (code, "landed on main" in said, "warning: its record" in said) == (0, True, True), said
    assert bench.repo.read("made.txt") == "by a gremlin\n"
    landed = bench.repo.head()

    state.rmdir()
    saved.rename(state)
    assert bench.gremlins("land", "g")[0] == 0
    assert (bench.life(), bench.repo.head()) == ("Landed", landed)


def test_a_dry_run_says_why_it_would_not_land(bench: Bench) -> None:
    assert bench.gremlins("land", "g", "--dry-run") == (0, "g: would land on main, 1 file changed\n")
    bench.repo.write({"README.md": "half done\n"})
    code, said = bench.gremlins("land", "g", "--dry-run")
    assert (code, "uncommitted changes: README.md" in said) == (4, True), said
    assert bench.life() == "Finished"


def test_a_folder_of_others_is_not_taken_by_a_launch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = bench.box.home.worktree("h") / "theirs.txt"
    theirs.parent.mkdir()
    theirs.write_text("theirs\n")
    monkeypatch.chdir(bench.repo.path)
    code, said = bench.gremlins("launch", "work", "--id", "h")
    assert (code, "is there already" in said) == (4, True), said
    assert theirs.read_text() == "theirs\n"
    assert not bench.box.home.gremlin("h").root.exists()
