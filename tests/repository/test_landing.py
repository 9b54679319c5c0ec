from __future__ import annotations

import errno
import fcntl
import os
import re
import shlex
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gremlins.clock import FakeClock
from gremlins.errors import Conflict
from gremlins.repository import persons_tree
from gremlins.repository.git import Git, UnknownRef
from gremlins.repository.landing import LandedCommit, land, try_landing
from tests.conftest import Repo
from tests.kill_points import killed_at, steps

BRANCH = "gremlins/g-1"
TOKEN = "g-1/7f3a"


@pytest.fixture
def base(repo: Repo) -> str:
    """The base of a gremlin's branch that changes, adds and removes files."""
    start = repo.commit({"run.sh": "#!/bin/sh\n", "old/name.txt": "x\n", "dos.txt": b"a\r\nb\r\n"})
    repo.git("checkout", "--quiet", "-b", BRANCH)
    (repo.path / "old/name.txt").unlink()
    (repo.path / "run.sh").chmod(0o755)
    os.symlink("calc.py", repo.path / "link")
    repo.commit({"calc.py": "fixed\n", "new/a ü.py": "a\n"}, "one")
    repo.commit({"new/b.py": "b\n", "dos.txt": b"a\r\nc\r\n"}, "two")
    repo.git("checkout", "--quiet", "main")
    return start


def do_land(repo: Repo, base: str, **options: Any) -> LandedCommit:
    options = {"message": "Fix add\n\nBecause.", "token": TOKEN, **options}
    return land(repo.path, BRANCH, base, clock=FakeClock(), **options)


def snapshot(repo: Repo) -> tuple[object, ...]:
    """All of a person's tree, its index and refs."""
    files = {
        path.relative_to(repo.path).as_posix(): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(repo.path.rglob("*"))
        if (path.is_file() or path.is_symlink()) and ".git" not in path.relative_to(repo.path).parts
    }
    of_git = set(os.listdir(repo.path / ".git")) - {"AUTO_MERGE"}  # git 2.50 leaves it where an older one did not
    return files, repo.git("for-each-ref"), repo.git("ls-files", "--stage"), of_git


def is_clean(repo: Repo) -> bool:
    left = [name for name in os.listdir(repo.path / ".git") if "lock" in name or "gremlins" in name]
    return repo.git("status", "--porcelain") == "" and left == [] and repo.git("for-each-ref", "refs/gremlins") == ""


def refused(repo: Repo, base: str, why: str, **options: Any) -> Conflict:
    """Landing is refused, and nothing has changed."""
    before = snapshot(repo)
    with pytest.raises(Conflict, match=why) as caught:
        do_land(repo, base, **options)
    assert snapshot(repo) == before
    assert caught.value.exit_code == 4
    return caught.value


# --- it lands


def test_the_branch_becomes_one_commit_of_the_current_branch(repo: Repo, base: str) -> None:
    landed = do_land(repo, base)
    assert landed == LandedCommit(Git(repo.path).head(), "main", 7)
    assert repo.git("rev-parse", "HEAD^") == base
    assert repo.git("log", "-1", "--format=%B").splitlines() == [
        "Fix add", "", "Because.", "", "Gremlins-Id: g-1", f"Gremlins-Landing: {TOKEN}",
    ]  # fmt: skip
    assert not Git(repo.path).differs("HEAD", BRANCH)
    assert is_clean(repo)


def test_files_modes_links_and_line_ends_arrive(repo: Repo, base: str) -> None:
    do_land(repo, base)
    assert stat.S_IMODE((repo.path / "run.sh").stat().st_mode) & 0o100
    assert os.readlink(repo.path / "link") == "calc.py"
    assert (repo.path / "dos.txt").read_bytes() == b"a\r\nc\r\n"
    assert not (repo.path / "old").exists()


def test_it_merges_with_what_the_target_has_by_now(repo: Repo, base: str) -> None:
    theirs = repo.commit({"README.md": "# Changed meanwhile\n"})
    do_land(repo, base)
    assert repo.git("rev-parse", "HEAD^") == theirs
    assert repo.read("README.md") == "# Changed meanwhile\n"
    assert repo.read("calc.py") == "fixed\n"


def test_untracked_files_that_are_not_in_the_way_stay(repo: Repo, base: str) -> None:
    repo.write({"notes.txt": "mine\n", "new/mine.txt": "mine\n", "ignored/x": "mine\n"})
    do_land(repo, base)
    assert repo.git("status", "--porcelain") == "?? new/mine.txt\n?? notes.txt"
    assert repo.read("ignored/x") == "mine\n"


def test_a_file_that_was_only_touched_is_no_change(repo: Repo, base: str) -> None:
    os.utime(repo.path / "calc.py", (1, 1))
    assert do_land(repo, base)


def test_no_hook_runs_and_nothing_is_signed(repo: Repo, base: str, tmp_path: Path) -> None:
    repo.git("config", "commit.gpgSign", "true")
    for name in (
        "pre-commit",
        "commit-msg",
        "post-merge",
        "post-checkout",
        "pre-merge-commit",
        "reference-transaction",
    ):
        hook = repo.path / ".git/hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\nexit 1\n")
        hook.chmod(0o755)
    do_land(repo, base)
    assert not (tmp_path / "ran").exists()


def test_landing_again_lands_nothing_twice(repo: Repo, base: str) -> None:
    first = do_land(repo, base)
    later = repo.commit({"calc.py": "gone on\n"})
    assert do_land(repo, base) == first
    assert repo.head() == later


def test_a_message_cannot_claim_a_landing(repo: Repo, base: str) -> None:
    do_land(repo, base, message="x\n\nGremlins-Landing: other/1")
    assert repo.git("log", "-1", "--format=%B").count("Gremlins-Landing") == 1


def test_winding_forward_keeps_the_commits(repo: Repo, base: str) -> None:
    tip = repo.git("rev-parse", BRANCH)
    assert do_land(repo, base, mode="ff") == LandedCommit(Git(repo.path).commit(tip), "main", 7)
    assert repo.head() == tip
    assert is_clean(repo)
    assert do_land(repo, base, mode="ff").sha == tip


def test_into_a_branch_that_is_checked_out_nowhere(repo: Repo, base: str) -> None:
    repo.git("branch", "release", base)
    before = snapshot(repo)[0]
    landed = do_land(repo, base, into="release")
    assert (landed.target_branch, repo.git("rev-parse", "release")) == ("release", landed.sha)
    assert (snapshot(repo)[0], repo.git("status", "--porcelain")) == (before, "")


def test_into_a_branch_that_is_checked_out_in_another_worktree(repo: Repo, base: str, tmp_path: Path) -> None:
    other = Repo(tmp_path / "other tree")
    repo.git("worktree", "add", "--quiet", "-b", "release", str(other.path), base)
    landed = do_land(repo, base, into="release")
    assert other.head() == landed.sha
    assert other.read("calc.py") == "fixed\n"
    assert other.git("status", "--porcelain") == ""
    other.write({"calc.py": "dirty\n"})
    refused(repo, base, "uncommitted changes: calc.py", into="release", token="another")


def test_with_a_detached_head_a_branch_can_be_named(repo: Repo, base: str) -> None:
    repo.git("checkout", "--quiet", "--detach")
    assert "--into" in (refused(repo, base, "HEAD is detached").hint or "")
    assert do_land(repo, base, into="main").target_branch == "main"


def test_only_what_the_gremlin_did_lands_where_its_base_is_unknown(repo: Repo, base: str) -> None:
    repo.git("checkout", "--quiet", "-b", "feature")
    start = repo.commit({"feature.txt": "not the gremlin's\n"})
    repo.git("checkout", "--quiet", "-B", BRANCH)
    repo.commit({"calc.py": "fixed\n"})
    repo.git("checkout", "--quiet", "main")
    assert do_land(repo, start).files_changed == 1
    assert not (repo.path / "feature.txt").exists()


def test_it_lands_on_a_branch_that_was_amended_since(repo: Repo, base: str) -> None:
    repo.git("commit", "--quiet", "--amend", "-m", "first, reworded")
    do_land(repo, base)
    assert repo.read("calc.py") == "fixed\n"
    assert is_clean(repo)


# --- it refuses


def test_a_dirty_tree_is_refused(repo: Repo, base: str) -> None:
    repo.write({"README.md": "half done\n"})
    refused(repo, base, "uncommitted changes: README.md")
    repo.git("add", "README.md")
    refused(repo, base, "uncommitted changes: README.md")


def test_a_conflict_is_refused_and_its_files_named(repo: Repo, base: str) -> None:
    repo.commit({"calc.py": "theirs\n"})
    refused(repo, base, r"conflicts with what is there by now: calc\.py")


def test_the_steps_that_a_conflict_names_land_it(repo: Repo, base: str) -> None:
    repo.commit({"calc.py": "theirs\n"})
    hint = refused(repo, base, "conflicts").hint or ""
    command, then = re.findall(r"`([^`]*)`", hint)
    assert then.startswith("gremlins land ")
    subprocess.run(shlex.split(command), cwd=repo.path, check=False, capture_output=True)
    repo.commit({"calc.py": "both\n"})
    assert do_land(repo, base).by_hand


def test_a_merge_in_progress_is_refused(repo: Repo, base: str) -> None:
    (repo.path / ".git/MERGE_HEAD").write_text(base)
    refused(repo, base, "a merge is in progress")


@pytest.mark.parametrize("obstacle", ["new/b.py", "new", "link/inside", "ignored"])
def test_an_untracked_file_in_the_way_is_refused(repo: Repo, base: str, obstacle: str) -> None:
    if obstacle == "ignored":
        repo.write({".git/info/exclude": "b.py\n"})
        obstacle = "new/b.py"
    repo.write({obstacle: "mine\n"})
    refused(repo, base, f"untracked files are in the way: {obstacle}")


def test_nothing_to_land_is_refused(repo: Repo, base: str) -> None:
    repo.git("branch", "--force", BRANCH, base)
    refused(repo, base, "nothing to land")


@pytest.mark.parametrize("how", ["merge", "squash", "squash, and gone on"])
@pytest.mark.parametrize("mode", ["squash", "ff"])
def test_what_a_person_merged_by_hand_has_landed(repo: Repo, base: str, how: str, mode: Any) -> None:
    repo.commit({"README.md": "went on\n"})
    if how == "merge":
        repo.git("merge", "--quiet", "--no-edit", BRANCH)
    else:
        repo.git("merge", "--quiet", "--squash", BRANCH)
        repo.git("commit", "--quiet", "-m", "squashed by hand")
    by_hand = repo.head()
    if how.endswith("gone on"):
        repo.commit({"calc.py": "went on\n"})
    before = snapshot(repo)
    landed = do_land(repo, base, mode=mode)
    assert landed.by_hand or (mode, how) == ("ff", "merge")
    assert landed.sha == (repo.git("rev-parse", BRANCH) if how == "merge" else by_hand)
    assert snapshot(repo) == before


def test_what_followed_a_squash_by_hand_lands_alone(repo: Repo, base: str) -> None:
    """A pull request was squashed while its fix was at work: the fix changes the same lines once more."""
    repo.git("merge", "--quiet", "--squash", BRANCH)
    repo.git("commit", "--quiet", "-m", "squashed by hand")
    repo.commit({"README.md": "went on\n"})
    repo.git("checkout", "--quiet", BRANCH)
    repo.commit({"calc.py": "fixed again\n"}, "the fix")
    repo.git("checkout", "--quiet", "main")
    assert do_land(repo, base).files_changed == 1
    assert (repo.read("calc.py"), repo.read("README.md")) == ("fixed again\n", "went on\n")


def test_winding_forward_is_refused_where_the_target_went_on(repo: Repo, base: str) -> None:
    repo.commit({"README.md": "x\n"})
    assert "--squash" in (refused(repo, base, "cannot be fast-forwarded", mode="ff").hint or "")


def stop_in_rebase(repo: Repo) -> None:
    repo.git("rebase", "--quiet", "--interactive", "HEAD~1", env={"GIT_SEQUENCE_EDITOR": "sed -i s/^pick/edit/"})


@pytest.mark.parametrize("place", ["here", "in another worktree"])
@pytest.mark.parametrize("operation", ["rebase", "rebase of a stack", "bisect"])
def test_a_branch_that_is_rebased_or_bisected_is_refused(
    repo: Repo, base: str, tmp_path: Path, place: str, operation: str
) -> None:
    repo.git("branch", "release")
    at = repo
    if place == "in another worktree":
        at = Repo(tmp_path / "other")
        repo.git("worktree", "add", "--quiet", "--detach", str(at.path))
    at.git("checkout", "--quiet", "release")
    if operation == "bisect":
        at.git("bisect", "start", "HEAD", "HEAD~1")
        at.git("checkout", "--quiet", "--detach")
    elif operation == "rebase":
        stop_in_rebase(at)
    else:
        at.git("checkout", "--quiet", "-b", "on-top")
        at.commit({"README.md": "on top\n"})
        at.git("config", "rebase.updateRefs", "true")
        editor = {"GIT_SEQUENCE_EDITOR": "sed -i '0,/^pick/s//edit/'"}
        at.git("rebase", "--quiet", "--interactive", "HEAD~2", env=editor)
    before = repo.git("rev-parse", "release")
    with pytest.raises(Conflict, match=f"a {operation.split()[0]} of release is in progress"):
        do_land(repo, base, into="release")
    assert repo.git("rev-parse", "release") == before
    at.git(*(("bisect", "reset") if operation == "bisect" else ("rebase", "--abort")))
    assert do_land(repo, base, into="release").target_branch == "release"


HIDDEN = ["--skip-worktree", "--assume-unchanged"]


@pytest.mark.parametrize("flag", HIDDEN)
@pytest.mark.parametrize("text", ["a person's own\n", "", "fixed\n"])
def test_a_changed_file_that_git_does_not_look_at_is_refused(repo: Repo, base: str, flag: str, text: str) -> None:
    """Also one whose text is a beginning of the new one, or just the new one: it is a person's all the same."""
    repo.git("update-index", flag, "calc.py")
    repo.write({"calc.py": text})
    assert "--no-skip-worktree" in (refused(repo, base, r"told not to look at have changes: calc\.py").hint or "")
    assert is_clean(repo)
    other_lands(repo, base)
    assert repo.read("calc.py") == text


@pytest.mark.parametrize("flag", HIDDEN)
def test_an_unchanged_file_that_git_does_not_look_at_is_landed_on(repo: Repo, base: str, flag: str) -> None:
    repo.git("update-index", flag, "calc.py", "dos.txt")
    do_land(repo, base)
    assert (repo.read("calc.py"), is_clean(repo)) == ("fixed\n", True)


def test_files_outside_a_sparse_checkout_stay_outside(repo: Repo, base: str) -> None:
    repo.git("sparse-checkout", "set", "--no-cone", "/*", "!/new/", "!/dos.txt")
    do_land(repo, base)
    assert not (repo.path / "new").exists()
    assert not (repo.path / "dos.txt").exists()
    assert (repo.read("calc.py"), is_clean(repo)) == ("fixed\n", True)


def other_lands(repo: Repo, base: str) -> None:
    """Another gremlin's branch, which adds `other.txt`, lands."""
    repo.git("branch", "gremlins/g-2", base)
    tree = Git(repo.path)
    with tree.scratch_index(tree.commit(base)) as env:
        blob = tree.text("hash-object", "-w", "--stdin", input=b"x\n")
        tree.raw("update-index", "--add", "--cacheinfo", f"100644,{blob},other.txt", env=env)
        tree.update_ref("refs/heads/gremlins/g-2", tree.commit_tree(tree.write_tree(env), [base], "m"))
    land(repo.path, "gremlins/g-2", base, message="m", token="g-2/1")
    assert repo.read("other.txt") == "x\n"


def test_the_gremlins_own_branch_is_no_target(repo: Repo, base: str) -> None:
    refused(repo, base, "own branch", into=BRANCH)


def test_an_unknown_target_offers_the_nearest(repo: Repo, base: str) -> None:
    with pytest.raises(UnknownRef) as caught:
        do_land(repo, base, into="mian")
    assert caught.value.hint == "did you mean `main`?"


def test_a_refusal_takes_no_lock_that_a_person_at_work_would_meet(repo: Repo, base: str) -> None:
    repo.write({"README.md": "half written\n"})
    before = (repo.path / ".git").stat().st_mtime_ns
    with pytest.raises(Conflict, match="uncommitted changes"):
        do_land(repo, base)
    assert (repo.path / ".git").stat().st_mtime_ns == before


def test_another_gits_lock_is_waited_for_and_then_respected(repo: Repo, base: str) -> None:
    (repo.path / ".git/index.lock").touch()
    refused(repo, base, "another git is at work")


def test_another_landing_is_not_disturbed(repo: Repo, base: str) -> None:
    lock = repo.path / ".git/index.lock"
    lock.write_text("gremlins landing\n")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused(repo, base, "another landing is at work")


def test_a_filter_that_fails_is_found_before_and_its_words_are_shown(repo: Repo, base: str) -> None:
    repo.git("config", "filter.broken.smudge", "echo the key is missing >&2; false")
    repo.git("config", "filter.broken.clean", "false")
    repo.git("config", "filter.broken.required", "true")
    repo.write({".git/info/attributes": "b.py filter=broken\n"})
    error = refused(repo, base, r"new/b\.py: smudge filter broken failed: the key is missing")
    assert "filter" in (error.hint or "")


def test_after_a_failure_of_git_nothing_has_changed(repo: Repo, base: str, tmp_path: Path) -> None:
    once = tmp_path / "once"
    once.write_text(f"#!/bin/sh\n[ ! -e '{tmp_path}/tried' ] || exit 1\ntouch '{tmp_path}/tried'\ncat\n")
    once.chmod(0o755)
    repo.git("config", "filter.broken.smudge", f"'{once}'")
    repo.git("config", "filter.broken.required", "true")
    repo.write({".git/info/attributes": "b.py filter=broken\n"})
    refused(repo, base, "git would not move main")


def test_an_older_git_merges_too(repo: Repo, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Git(repo.path).text("--exec-path")
    shim = tmp_path / "old" / "git"
    shim.parent.mkdir()
    usage = "usage: git merge-tree <base-tree> <branch1> <branch2>"
    shim.write_text(
        f'#!/bin/sh\ncase "$*" in *merge-tree*) echo "{usage}" >&2; exit 129;; esac\nexec "{real}/git" "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    repo.commit({"README.md": "# Changed meanwhile\n"})
    do_land(repo, base)
    assert (repo.read("calc.py"), repo.read("README.md")) == ("fixed\n", "# Changed meanwhile\n")
    assert is_clean(repo)
    repo.git("reset", "--quiet", "--hard", base)
    repo.commit({"calc.py": "theirs\n"})
    refused(repo, base, r"conflicts with what is there by now: calc\.py", token="another")


def test_a_file_system_without_hard_links_is_landed_on(tmp_path: Path) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(target))

    lock = tmp_path / "index.lock"
    fd = persons_tree._make(lock, no_links)
    assert fd is not None
    assert lock.read_bytes() == b"gremlins landing\n"
    assert persons_tree._make(lock, no_links) is None
    assert persons_tree._inherit(lock) is None
    os.close(fd)
    again = persons_tree._inherit(lock)
    assert again is not None
    os.close(again)


# --- it is tried


def test_trying_changes_nothing_and_tells_what_landing_would(repo: Repo, base: str) -> None:
    def everything() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in repo.path.rglob("*") if path.is_file()}

    before = everything()
    tried = try_landing(repo.path, BRANCH, base, token=TOKEN)
    assert everything() == before
    assert (tried.target_branch, tried.files_changed) == ("main", 7)
    assert repo.git("branch", "release", base) == ""
    assert try_landing(repo.path, BRANCH, base, token=TOKEN, into="release").files_changed == 7
    repo.write({"new/b.py": "mine\n"})
    with pytest.raises(Conflict, match="untracked files are in the way"):
        try_landing(repo.path, BRANCH, base, token=TOKEN)
    repo.commit({"calc.py": "theirs\n"})
    before = everything()
    with pytest.raises(Conflict, match="it conflicts"):
        try_landing(repo.path, BRANCH, base, token=TOKEN)
    assert everything() == before


# --- it is killed


def landing(repo: Repo, base: str, **options: Any) -> Callable[[], Any]:
    """A landing to be killed, whose process git's filters find in LANDER."""

    def action() -> None:
        os.environ["LANDER"] = str(os.getpid())
        land(repo.path, BRANCH, base, **{"message": "Fix add", "token": TOKEN, **options})

    return action


@pytest.mark.soak
@pytest.mark.parametrize("mode", ["squash", "ff"])
def test_killed_at_any_step_it_lands_once_when_tried_again(repo: Repo, base: str, mode: Any) -> None:
    repo.write({"notes.txt": "mine\n"})
    for point in steps(11 if mode == "squash" else 17, 300):
        killed = killed_at(point, landing(repo, base, mode=mode))
        landed = do_land(repo, base, mode=mode)
        assert repo.head() == landed.sha, f"point {point}"
        assert not Git(repo.path).differs("HEAD", BRANCH)
        assert repo.git("rev-list", "--count", f"{base}..HEAD") == ("1" if mode == "squash" else "2")
        assert repo.git("status", "--porcelain") == "?? notes.txt", f"point {point}"
        assert repo.git("for-each-ref", "refs/gremlins/landing") == ""
        assert not (repo.path / ".git/index.lock").exists()
        if not killed:
            assert point > 8
            return
        repo.git("reset", "--quiet", "--hard", base)
    pytest.fail("it takes ever more steps")


@pytest.fixture
def half_moved(repo: Repo, base: str, tmp_path: Path) -> str:
    """A tree in which git itself was killed, together with its parent, while it wrote the files. Returns the base."""
    bomb = tmp_path / "bomb"
    second = f"[ -e '{tmp_path}/tried' ] || {{ touch '{tmp_path}/tried'; exec cat; }}\n"  # tried aside first
    bomb.write_text(f"#!/bin/sh\n{second}kill -9 $LANDER\nkill -9 0\n")  # the landing process, then git's group
    bomb.chmod(0o755)
    repo.git("config", "filter.bomb.smudge", f"'{bomb}'")
    repo.write({".git/info/attributes": "b.py filter=bomb\n"})
    assert killed_at(0, landing(repo, base))
    repo.write({".git/info/attributes": ""})
    assert (repo.path / ".git/index.lock").exists()
    assert repo.git("status", "--porcelain") != ""
    return base


def test_a_half_moved_tree_is_set_right_and_lands(repo: Repo, half_moved: str) -> None:
    landed = do_land(repo, half_moved)
    assert repo.head() == landed.sha
    assert not Git(repo.path).differs("HEAD", BRANCH)
    assert is_clean(repo)


def test_a_half_written_file_of_ours_is_set_right(repo: Repo, half_moved: str) -> None:
    repo.write({"calc.py": "fix"})
    do_land(repo, half_moved)
    assert repo.read("calc.py") == "fixed\n"
    assert is_clean(repo)


def test_a_killed_landings_git_is_let_finish(repo: Repo, base: str, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    second = f"[ -e '{tmp_path}/tried' ] || {{ touch '{tmp_path}/tried'; exec cat; }}\n"  # tried aside first
    slow.write_text(f"#!/bin/sh\n{second}kill -9 $LANDER\nsleep 0.5\ncat\n")
    slow.chmod(0o755)
    repo.git("config", "filter.slow.smudge", f"'{slow}'")
    repo.write({".git/info/attributes": "b.py filter=slow\n"})
    assert killed_at(0, landing(repo, base))
    land(repo.path, BRANCH, base, message="Fix add", token=TOKEN)
    assert not Git(repo.path).differs("HEAD", BRANCH)
    assert is_clean(repo)


def test_another_gremlins_landing_sets_it_right_too(repo: Repo, half_moved: str) -> None:
    other_lands(repo, half_moved)
    assert repo.git("diff", "--name-only", half_moved, "HEAD") == "other.txt"
    assert is_clean(repo)


def test_what_a_person_changed_since_is_left_alone(repo: Repo, half_moved: str) -> None:
    repo.write({"calc.py": "my own work\n"})
    with pytest.raises(Conflict, match=r"was interrupted, and files have changed since: calc\.py"):
        do_land(repo, half_moved)
    assert repo.read("calc.py") == "my own work\n"
    assert not (repo.path / ".git/index.lock").exists()
    assert repo.git("status", "--porcelain") == " M calc.py"
    refused(repo, half_moved, r"uncommitted changes: calc\.py")
    repo.git("stash", "--quiet", "--include-untracked")
    do_land(repo, half_moved)
    assert repo.read("calc.py") == "fixed\n"
    assert is_clean(repo)


def test_a_person_who_removed_the_lock_and_went_on_is_not_disturbed(repo: Repo, half_moved: str) -> None:
    (repo.path / ".git/index.lock").unlink()
    repo.git("reset", "--quiet", "--hard")
    repo.git("clean", "--quiet", "-fd")
    theirs = repo.commit({"README.md": "went on\n"})
    do_land(repo, half_moved)
    assert repo.git("rev-parse", "HEAD^") == theirs
    assert is_clean(repo)
