from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from gremlins.clock import FakeClock
from gremlins.errors import Conflict, GremlinsError
from gremlins.repository import folder
from gremlins.repository import worktree as wt
from gremlins.repository.git import Git, HostGitError, Sha, UnknownRef
from gremlins.repository.worktree import FileChange, Worktree
from tests.conftest import Repo
from tests.kill_points import killed_at, steps

TRAILER = wt.trailer_of("implement/1/1/1")


@pytest.fixture
def made(repo: Repo, tmp_path: Path) -> Worktree:
    return folder.create(repo.path, tmp_path / "home dir" / "worktrees" / "g-1", "gremlins/g-1", repo.head())


def inside(made: Worktree) -> Repo:
    """The worktree, to be worked in as an agent would."""
    return Repo(made.path)


def status(made: Worktree) -> str:
    return inside(made).git("status", "--porcelain")


# --- making and removing


def test_a_worktree_is_made_on_its_own_branch_and_private(repo: Repo, made: Worktree) -> None:
    assert inside(made).git("symbolic-ref", "HEAD") == "refs/heads/gremlins/g-1"
    assert inside(made).head() == repo.head() == made.base
    assert stat.S_IMODE(made.path.parent.stat().st_mode) == 0o700
    assert repo.git("status", "--porcelain") == ""


def test_the_branch_has_no_upstream_and_no_hook_ran(repo: Repo, tmp_path: Path) -> None:
    repo.git("config", "branch.autoSetupMerge", "always")
    hook = repo.path / ".git/hooks/post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\n")
    hook.chmod(0o755)
    folder.create(repo.path, tmp_path / "w", "gremlins/g", "main")
    assert repo.git("for-each-ref", "--format=%(upstream)", "refs/heads/gremlins/g") == ""
    assert not (tmp_path / "ran").exists()


def test_an_unknown_base_is_refused_with_nothing_made(repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(UnknownRef):
        folder.create(repo.path, tmp_path / "w", "gremlins/g", "nope")
    assert not (tmp_path / "w").exists()


def test_a_branch_with_commits_of_its_own_is_not_taken_over(repo: Repo, tmp_path: Path) -> None:
    first = repo.head()
    repo.git("branch", "gremlins/g")
    repo.commit({"x": "1"})
    with pytest.raises(Conflict, match="exists already"):
        folder.create(repo.path, tmp_path / "w", "gremlins/g", "main")
    assert repo.git("rev-parse", "gremlins/g") == first


def test_making_it_again_keeps_what_is_in_it(repo: Repo, made: Worktree) -> None:
    inside(made).write({"half.py": "x\n"})
    assert folder.create(repo.path, made.path, made.branch, made.base) == made
    assert (made.path / "half.py").exists()


@pytest.mark.parametrize(
    "what", ["branch only", "empty folder", "no .git", "still locked", "folder gone", "folder and branch gone"]
)
def test_an_incomplete_worktree_is_completed(repo: Repo, made: Worktree, what: str) -> None:
    admin = Git(made.path).git_dir()
    if what == "branch only":
        folder.remove(made)
    if what == "folder and branch gone":
        folder._remove_folder(made.path)
        repo.git("update-ref", "-d", made.ref)
        (admin / "locked").write_text("initializing\n")
    if what in ("empty folder", "folder gone", "no .git"):
        (made.path / ".git").unlink()
    if what in ("empty folder", "folder gone"):
        folder._remove_folder(made.path)
    if what == "empty folder":
        made.path.mkdir()
    if what == "still locked":
        (admin / "locked").write_text("initializing\n")
        (made.path / "calc.py").unlink()
    again = folder.create(repo.path, made.path, made.branch, made.base)
    assert folder.is_whole(again)
    assert status(again) == ""
    assert inside(again).head() == repo.head()


def test_a_lost_worktree_comes_back_with_its_commits(repo: Repo, made: Worktree) -> None:
    new = inside(made).commit({"x": "1"})
    folder._remove_folder(made.path)
    folder.restore(made)
    assert inside(made).head() == new
    assert status(made) == ""


def test_a_lost_branch_cannot_be_brought_back(repo: Repo, made: Worktree) -> None:
    folder.remove(made, delete_branch=True)
    with pytest.raises(GremlinsError, match=r"branch gremlins/g-1 is gone"):
        folder.restore(made)


def test_removing_keeps_the_branch_unless_told(repo: Repo, made: Worktree) -> None:
    for _ in range(2):
        folder.remove(made)
        assert not made.path.exists()
        assert Git(repo.path).branch_exists(made.branch)
    for _ in range(2):
        folder.remove(made, delete_branch=True)
        assert not Git(repo.path).branch_exists(made.branch)
    assert len(Git(repo.path).checkouts()) == 1


def test_removing_forgets_no_other_worktree(repo: Repo, made: Worktree, tmp_path: Path) -> None:
    repo.git("worktree", "add", "--quiet", "-b", "mine", str(tmp_path / "usb/mine"))
    (tmp_path / "usb").rename(tmp_path / "not mounted")
    folder.remove(made)
    (tmp_path / "not mounted").rename(tmp_path / "usb")
    assert Repo(tmp_path / "usb/mine").git("status", "--porcelain") == ""


def test_read_only_folders_are_removed_too(repo: Repo, made: Worktree) -> None:
    inside(made).write({"mod/pkg/file": "x"})
    (made.path / "mod/pkg").chmod(0o555)
    (made.path / "mod").chmod(0o555)
    folder.remove(made)
    assert not made.path.exists()


def test_a_branch_checked_out_elsewhere_is_not_deleted(repo: Repo, made: Worktree) -> None:
    folder.remove(made)
    repo.git("checkout", "--quiet", made.branch)
    with pytest.raises(Conflict, match="is checked out in"):
        folder.remove(made, delete_branch=True)


def test_a_worktree_whose_repository_is_gone_can_be_removed(repo: Repo, made: Worktree) -> None:
    folder._remove_folder(repo.path)
    with pytest.raises(GremlinsError):
        folder.remove(made, delete_branch=True)
    assert made.path.exists()
    folder.remove(made, delete_branch=True, force=True)
    assert not made.path.exists()


def test_an_agents_own_commits_run_no_hooks_and_are_not_signed(repo: Repo, made: Worktree, tmp_path: Path) -> None:
    (repo.path / ".git/hooks/pre-commit").write_text("#!/bin/sh\nexit 1\n")
    (repo.path / ".git/hooks/pre-commit").chmod(0o755)
    repo.git("config", "commit.gpgSign", "true")
    env = wt.quiet_env(made, os.environ)
    inside(made).git("commit", "--quiet", "--allow-empty", "-m", "by an agent", env=env)
    other = Repo(tmp_path / "other")
    other.path.mkdir()
    other.git("init", "--quiet", env=env)
    assert inside(made).git("config", "core.hooksPath", env=env) == "/dev/null"
    assert "hookspath" not in other.git("config", "--list", env=env)


def test_a_killed_gits_locks_are_removed_after_a_while(made: Worktree) -> None:
    lock = Git(made.path).git_dir() / "index.lock"
    lock.touch()
    with pytest.raises(HostGitError):
        wt.commit_all(made, message="m", trailer=TRAILER)
    clock = FakeClock()
    assert wt.clear_stale_locks(made, clock=clock) == [lock]
    assert clock.ticks >= 10
    assert wt.clear_stale_locks(made, clock=clock) == []
    assert wt.commit_all(made, message="m", trailer=TRAILER) is None


# --- edits


def test_what_git_only_would_store_otherwise_is_no_change_of_a_command(repo: Repo, tmp_path: Path) -> None:
    repo.commit({"dos.txt": "a\r\nb\r\n"})
    repo.write({".gitattributes": "*.txt text\n"})
    repo.git("add", ".gitattributes")
    repo.git("commit", "--quiet", "-m", "attributes")
    made = folder.create(repo.path, tmp_path / "dos", "gremlins/dos", repo.head())
    (made.path / "dos.txt").touch()
    (made.path / "calc.py").write_text("changed = 1\n")
    assert wt.commit_tracked(made, message="Changes") == ["calc.py"]
    assert made.git.raw("show", "HEAD:dos.txt") == b"a\r\nb\r\n"
    assert wt.commit_tracked(made, message="Changes") == []


def test_changes_are_not_committed_where_a_command_left_another_commit(made: Worktree) -> None:
    inside(made).git("checkout", "--quiet", "--detach")
    (made.path / "calc.py").write_text("changed = 1\n")
    assert wt.commit_tracked(made, message="Changes") == []


def test_edits_become_one_commit_with_the_trailer_and_files(made: Worktree) -> None:
    done = wt.commit_aside(
        made, [FileChange("calc.py", b"fixed\n"), FileChange("new/æ b.py", b"n\n")], message="Fix add", trailer=TRAILER
    )
    assert done == inside(made).head() == wt.find_trailer(made, TRAILER)
    assert inside(made).git("log", "-1", "--format=%B") == f"Fix add\n\n{TRAILER}"
    assert (made.path / "calc.py").read_text() == "fixed\n"
    assert status(made) == ""
    assert wt.tree_differs(made)


LINES = [b"one\r\n", b"two\r\n", b"three\r\n"]


@pytest.mark.parametrize("rule", ["core.autocrlf=input", "core.autocrlf=true", "* text=auto", "none"])
def test_an_edit_of_one_line_changes_no_other_line_end(repo: Repo, tmp_path: Path, rule: str) -> None:
    repo.commit({"dos.txt": b"".join(LINES), "unix.txt": "one\ntwo\n"})
    if rule.startswith("core."):
        repo.git("config", *rule.split("="))
        repo.git("config", "core.safecrlf", "true")
    if rule.startswith("*"):
        repo.write({".gitattributes": rule + "\n"})
        repo.git("add", ".gitattributes")
        repo.git("commit", "--quiet", "-m", "attributes")
    made = folder.create(repo.path, tmp_path / "w", "gremlins/g", "main")
    dos = (made.path / "dos.txt").read_bytes().replace(b"two", b"2")
    unix = (made.path / "unix.txt").read_bytes().replace(b"two", b"2")
    new = b"a\r\nb\r\n"
    changes = [FileChange("dos.txt", dos), FileChange("unix.txt", unix), FileChange("new.txt", new)]
    done = wt.commit_aside(made, changes, message="m", trailer=TRAILER)
    assert inside(made).git("diff", "--numstat", made.base, str(done)).splitlines() == [
        "1\t1\tdos.txt", "2\t0\tnew.txt", "1\t1\tunix.txt",
    ]  # fmt: skip
    stored = Git(made.path).raw("cat-file", "blob", f"{done}:new.txt")
    assert stored == (new if rule == "none" else b"a\nb\n")
    assert (made.path / "dos.txt").read_bytes() == dos
    assert status(made) == ""


def test_more_names_than_a_command_line_takes(made: Worktree) -> None:
    names = [f"d{n % 7}/{'x' * 100}{n}.txt" for n in range(700)]
    done = wt.commit_aside(made, [FileChange(name, b"x\n") for name in names], message="m", trailer=TRAILER)
    assert set(Git(made.path).changed_paths(made.base, str(done))) == set(names)
    assert status(made) == ""


def test_files_that_the_project_ignores_are_told_apart(made: Worktree) -> None:
    inside(made).write({"kept.log": "tracked all the same\n"})
    inside(made).git("add", "--force", "kept.log")
    inside(made).git("commit", "--quiet", "-m", "m")
    names = ["new.log", "ignored/x.py", "kept.log", "x.py", "sub/y.tmp"]
    changes = [FileChange(name, b"x\n") for name in names]
    assert wt.ignored(made, changes) == ["new.log", "ignored/x.py"]
    rules = [FileChange("sub/.gitignore", b"*.tmp\n"), FileChange(".gitignore", b"ignored/\n")]
    assert wt.ignored(made, [*changes, *rules]) == ["ignored/x.py", "sub/y.tmp"]


def test_only_edited_paths_are_committed(made: Worktree) -> None:
    inside(made).write({"README.md": "touched by a test run\n", "dropped.txt": "x", "staged.txt": "y"})
    inside(made).git("add", "staged.txt")
    done = wt.commit_aside(made, [FileChange("calc.py", b"fixed\n")], message="m", trailer=TRAILER)
    assert Git(made.path).changed_paths(made.base, str(done)) == ["calc.py"]
    assert status(made).split("\n") == [" M README.md", "A  staged.txt", "?? dropped.txt"]


def test_edits_that_change_nothing_are_no_commit(made: Worktree) -> None:
    same = (made.path / "calc.py").read_bytes()
    assert wt.commit_aside(made, [FileChange("calc.py", same)], message="m", trailer=TRAILER) is None
    assert inside(made).head() == made.base


def test_an_edit_may_take_back_what_a_test_run_did(made: Worktree) -> None:
    same = (made.path / "calc.py").read_bytes()
    inside(made).write({"calc.py": "scribble\n"})
    assert wt.commit_aside(made, [FileChange("calc.py", same)], message="m", trailer=TRAILER) is None
    assert status(made) == ""


def test_executable_bits_line_ends_and_bytes_are_kept(repo: Repo, tmp_path: Path) -> None:
    repo.write({"run.sh": "#!/bin/sh\n", "dos.txt": b"a\r\nb\r\n", "bin.dat": b"\0\xff\n", "moved": "echo\n"})
    for name in ("run.sh", "moved"):
        (repo.path / name).chmod(0o755)
    os.symlink("calc.py", repo.path / "link")
    repo.commit({})
    made = folder.create(repo.path, tmp_path / "w", "gremlins/g", "main")
    changes = {
        "run.sh": b"#!/bin/sh\nexit 1\n",
        "dos.txt": b"a\r\nc\r\n",
        "bin.dat": b"\0\xfe\n",
        "tool": b"#!/bin/sh\n",
        "bin/moved": b"echo 2\n",
    }
    listed = [FileChange("moved", None), *(FileChange(*item) for item in changes.items())]
    done = wt.commit_aside(made, listed, message="m", trailer=TRAILER)
    assert {name: (made.path / name).read_bytes() for name in changes} == changes
    modes = {path: entry.mode for path, entry in Git(made.path).ls_tree(str(done)).items()}
    assert [name for name, mode in modes.items() if mode == "100755"] == ["bin/moved", "run.sh", "tool"]
    assert (modes["dos.txt"], modes["link"]) == ("100644", "120000")


def test_files_links_and_folders_take_each_others_places(repo: Repo, tmp_path: Path) -> None:
    os.symlink("tests", repo.path / "t")
    os.symlink("tool", repo.path / "link")
    repo.commit({"pkg/sub/a.py": "a\n", "mod.py": "m\n", "tool": "run\n"})
    (repo.path / "tool").chmod(0o755)
    repo.commit({})
    made = folder.create(repo.path, tmp_path / "w", "gremlins/g", "main")
    changes = {
        "pkg/sub/a.py": None, "pkg": b"now a file\n", "mod.py": None, "mod.py/x.py": b"x\n",
        "t": None, "t/x": b"own\n", "link": b"own\n", "tool": b"run 2\n",
    }  # fmt: skip
    done = wt.commit_aside(made, [FileChange(*item) for item in changes.items()], message="m", trailer=TRAILER)
    entries = Git(made.path).ls_tree(str(done))
    assert {path: entries[path].mode for path in changes if path in entries} == {
        "pkg": "100644", "mod.py/x.py": "100644", "t/x": "100644", "link": "100644", "tool": "100755",
    }  # fmt: skip
    assert status(made) == ""
    assert (made.path / "tests/test_calc.py").is_file()


def test_where_git_converts_line_ends_the_repository_keeps_its_own(repo: Repo, made: Worktree) -> None:
    repo.git("config", "core.autocrlf", "true")
    done = wt.commit_aside(made, [FileChange("calc.py", b"x = 1\r\n")], message="m", trailer=TRAILER)
    assert Git(made.path).raw("cat-file", "blob", f"{done}:calc.py") == b"x = 1\n"
    assert (made.path / "calc.py").read_bytes() == b"x = 1\r\n"


def test_a_removed_file_is_gone_with_its_empty_folder(made: Worktree) -> None:
    wt.commit_aside(made, [FileChange("tests/test_calc.py", None)], message="m", trailer=TRAILER)
    assert not (made.path / "tests").exists()
    assert status(made) == ""


def test_a_file_may_make_room_for_a_folder(made: Worktree) -> None:
    changes = [FileChange("calc.py/__init__.py", b"x\n"), FileChange("calc.py", None)]
    assert wt.commit_aside(made, changes, message="m", trailer=TRAILER)
    assert (made.path / "calc.py/__init__.py").read_text() == "x\n"
    assert status(made) == ""


@pytest.mark.parametrize("crash", ["before the files", "between the files", "after all"])
def test_after_a_crash_the_edits_are_only_finished(made: Worktree, crash: str) -> None:
    changes = [FileChange("calc.py", b"fixed\n"), FileChange("b.py", b"b\n"), FileChange("README.md", None)]
    before = (made.path / "calc.py").read_bytes()
    done = wt.commit_aside(made, changes, message="m", trailer=TRAILER)
    if crash != "after all":  # as `update-ref` alone leaves it
        inside(made).git("read-tree", made.base)
        (made.path / "calc.py").write_bytes(before)
        (made.path / "README.md").write_text("old\n")
    if crash == "before the files":
        (made.path / "b.py").unlink()
    assert wt.commit_aside(made, changes, message="m", trailer=TRAILER) == done == inside(made).head()
    assert (made.path / "calc.py").read_text() == "fixed\n"
    assert status(made) == ""


def test_a_commit_that_others_followed_is_not_moved_again(made: Worktree) -> None:
    done = wt.commit_aside(made, [FileChange("calc.py", b"one\n")], message="m", trailer=TRAILER)
    later = wt.commit_aside(made, [FileChange("calc.py", b"two\n")], message="m", trailer=wt.trailer_of("verify/1/1/1"))
    assert wt.commit_aside(made, [FileChange("calc.py", b"one\n")], message="m", trailer=TRAILER) == done
    assert inside(made).head() == later
    assert (made.path / "calc.py").read_text() == "two\n"


def test_a_summary_cannot_pass_for_a_trailer(made: Worktree) -> None:
    other = wt.trailer_of("verify/1/1/1")
    wt.commit_aside(made, [FileChange("calc.py", b"x\n")], message=f"m\n{other}\nrest", trailer=TRAILER)
    assert wt.find_trailer(made, other) is None
    assert wt.find_trailer(made, TRAILER)


def test_without_an_identity_gremlins_is_the_author(made: Worktree) -> None:
    (Path(os.environ["HOME"]) / ".gitconfig").unlink()
    wt.commit_aside(made, [FileChange("calc.py", b"x\n")], message="m", trailer=TRAILER)
    assert inside(made).git("log", "-1", "--format=%an <%ae>") == "gremlins <gremlins@localhost>"


# --- live agents


def test_what_an_agent_left_is_committed_without_droppings(made: Worktree) -> None:
    work = inside(made)
    work.write({"calc.py": "fixed\n", "new.py": "n\n", "ignored/x": "x", "a.log": "x", "__pycache__/calc.pyc": "x"})
    (made.path / "README.md").unlink()
    done = wt.commit_all(made, message="Agent", trailer=TRAILER)
    assert Git(made.path).changed_paths(made.base, str(done)) == ["README.md", "calc.py", "new.py"]
    assert status(made) == "?? __pycache__/"
    assert wt.commit_all(made, message="Agent", trailer=TRAILER) == done == work.head()


def test_an_agent_that_committed_itself_leaves_nothing_to_commit(made: Worktree) -> None:
    theirs = inside(made).commit({"calc.py": "fixed\n"}, "by the agent")
    assert wt.commit_all(made, message="m", trailer=TRAILER) is None
    assert inside(made).head() == theirs
    assert wt.tree_differs(made)


@pytest.mark.parametrize("where", ["another branch", "detached", "an unrelated branch"])
def test_an_agent_that_wandered_off_is_brought_back(made: Worktree, where: str) -> None:
    work = inside(made)
    start = {
        "another branch": ["-b", "feature"],
        "detached": ["--detach"],
        "an unrelated branch": ["--orphan", "island"],
    }[where]
    work.git("checkout", "--quiet", *start)
    work.commit({"calc.py": "fixed\n"}, "by the agent")
    work.write({"more.py": "m\n"})
    done = wt.commit_all(made, message="m", trailer=TRAILER)
    assert work.git("symbolic-ref", "--short", "HEAD") == made.branch
    assert work.head() == done
    assert Git(made.path).is_ancestor(made.base, str(done))
    assert Git(made.path).changed_paths(made.base, str(done)) == ["calc.py", "more.py"]
    assert status(made) == ""


def test_what_was_staged_apart_from_the_files_is_saved_too(made: Worktree) -> None:
    inside(made).write({"README.md": "staged\n"})
    inside(made).git("add", "README.md")
    inside(made).git("restore", "--worktree", "--source=HEAD", "README.md")
    ref = wt.interrupted_ref(made)
    assert wt.save_interrupted(made, ref)
    assert (status(made), inside(made).git("show", f"{ref}^2:README.md")) == ("", "staged")


def side_branch(made: Worktree, files: dict[str, bytes]) -> Sha:
    """A commit beside the gremlin's branch, made without a working tree."""
    git = Git(made.path)
    with git.scratch_index(git.head()) as env:
        blobs = {content: git.text("hash-object", "-w", "--stdin", input=content) for content in set(files.values())}
        lines = "".join(f"100644 {blobs[content]}\t{name}\n" for name, content in files.items())
        git.raw("update-index", "--index-info", input=lines, env=env)
        return git.commit_tree(git.write_tree(env), [made.base], "side")


def test_a_file_that_is_in_no_commit_is_not_merged_over(made: Worktree) -> None:
    theirs = side_branch(made, {"found.txt": b"theirs\n", "calc.py": b"theirs\n"})
    inside(made).write({"found.txt": "a person's\n"})
    with pytest.raises(Conflict, match=r"in the way: found\.txt"):
        wt.merge_branch(made, theirs, message="m", trailer=TRAILER)
    assert (inside(made).read("found.txt"), status(made)) == ("a person's\n", "?? found.txt")
    (made.path / "found.txt").unlink()
    assert wt.merge_branch(made, theirs, message="m", trailer=TRAILER)
    assert status(made) == ""


@pytest.mark.soak
def test_a_merge_of_forty_thousand_paths(made: Worktree) -> None:
    names = [f"d{n % 40}/{n}.txt" for n in range(40_000 if os.environ.get("GREMLINS_SOAK") else 1500)]
    theirs = side_branch(made, dict.fromkeys(names, b"x\n"))
    done = wt.merge_branch(made, theirs, message="m", trailer=TRAILER)
    assert len(Git(made.path).changed_paths(made.base, str(done))) == len(names)
    assert status(made) == ""


def test_a_merge_the_agent_left_open_ends(repo: Repo, made: Worktree) -> None:
    repo.commit({"calc.py": "theirs\n"})
    work = inside(made)
    work.commit({"calc.py": "ours\n"})
    with pytest.raises(AssertionError):
        work.git("merge", "main")
    work.write({"calc.py": "resolved\n"})
    done = wt.commit_all(made, message="m", trailer=TRAILER)
    assert Git(made.path).operation() is None
    assert Git(made.path).raw("cat-file", "blob", f"{done}:calc.py") == b"resolved\n"
    assert status(made) == ""


def test_a_rebase_the_agent_left_open_ends(repo: Repo, made: Worktree) -> None:
    repo.commit({"calc.py": "theirs\n"})
    work = inside(made)
    work.commit({"calc.py": "ours\n"})
    with pytest.raises(AssertionError):
        work.git("rebase", "main")
    work.write({"calc.py": "resolved\n"})
    done = wt.commit_all(made, message="m", trailer=TRAILER)
    assert Git(made.path).operation() is None
    assert work.git("symbolic-ref", "--short", "HEAD") == made.branch
    assert Git(made.path).raw("cat-file", "blob", f"{done}:calc.py") == b"resolved\n"


def test_a_repository_cloned_into_the_worktree_is_left_alone(made: Worktree) -> None:
    work = inside(made)
    work.git("init", "--quiet", "vendored")
    work.write({"vendored/x": "x", "calc.py": "fixed\n"})
    done = wt.commit_all(made, message="m", trailer=TRAILER)
    assert Git(made.path).changed_paths(made.base, str(done)) == ["calc.py"]
    assert (made.path / "vendored/x").exists()


def test_a_folder_may_become_a_link_or_a_file_a_folder(made: Worktree) -> None:
    work = inside(made)
    work.commit({"d/one": "1", "f": "f"})
    folder._remove_folder(made.path / "d")
    os.symlink("tests", made.path / "d")
    (made.path / "f").unlink()
    work.write({"f/inner": "i"})
    done = str(wt.commit_all(made, message="m", trailer=TRAILER))
    entries = Git(made.path).ls_tree(done)
    assert entries["d"].mode == "120000"
    assert "f/inner" in entries
    assert "f" not in entries
    assert status(made) == ""


def test_an_ignored_file_that_the_agent_forced_in_is_committed(made: Worktree) -> None:
    work = inside(made)
    work.write({"ignored/keep": "x"})
    work.git("add", "--force", "ignored/keep")
    done = wt.commit_all(made, message="m", trailer=TRAILER)
    assert Git(made.path).changed_paths(made.base, str(done)) == ["ignored/keep"]


def test_a_crash_after_the_branch_moved_is_finished(made: Worktree) -> None:
    inside(made).write({"calc.py": "fixed\n"})
    done = wt.commit_all(made, message="m", trailer=TRAILER)
    inside(made).git("read-tree", made.base)
    assert wt.commit_all(made, message="m", trailer=TRAILER) == done
    assert status(made) == ""


def test_interrupted_work_is_kept_before_the_worktree_is_set_back(made: Worktree) -> None:
    work = inside(made)
    work.write({"calc.py": "half\n", "new.py": "n\n", "ignored/x": "x", ".venv/bin/python": "x"})
    work.git("add", "calc.py")
    ref = wt.interrupted_ref(made)
    saved = wt.save_interrupted(made, ref)
    assert ref == "refs/gremlins/g-1/interrupted-1"
    assert wt.interrupted_ref(made) == "refs/gremlins/g-1/interrupted-2"
    assert Git(made.path).changed_paths(made.base, str(saved)) == ["calc.py", "new.py"]
    assert status(made) == "?? .venv/"
    assert (made.path / "ignored/x").exists()
    assert wt.save_interrupted(made, wt.interrupted_ref(made)) is None


def test_an_interrupted_agents_own_commits_can_be_set_back_too(made: Worktree) -> None:
    work = inside(made)
    work.git("checkout", "--quiet", "-b", "elsewhere")
    theirs = work.commit({"calc.py": "half\n"})
    saved = wt.save_interrupted(made, "refs/gremlins/g-1/interrupted-1", to=made.base)
    assert Git(made.path).is_ancestor(theirs, str(saved))
    assert (work.head(), work.git("branch", "--show-current")) == (made.base, made.branch)
    assert status(made) == ""


def steps_of_edits(made: Worktree) -> None:
    changes = [FileChange("calc.py", b"fixed\n"), FileChange("b.py", b"b\n"), FileChange("README.md", None)]
    wt.commit_aside(made, changes, message="m", trailer=TRAILER)


def steps_of_an_agent(made: Worktree) -> None:
    wt.commit_all(made, message="m", trailer=TRAILER)


@pytest.mark.soak
@pytest.mark.parametrize("commit", [steps_of_edits, steps_of_an_agent])
def test_a_crash_at_any_step_of_a_commit_commits_once(made: Worktree, commit: Callable[[Worktree], None]) -> None:
    for point in steps(5, 300):
        inside(made).git("reset", "--hard", "--quiet", made.base)
        if commit is steps_of_an_agent:
            inside(made).write({"calc.py": "fixed\n", "b.py": "b\n"})
            (made.path / "README.md").unlink()
        killed = killed_at(point, lambda: commit(made))
        commit(made)
        assert status(made) == "", f"point {point}"
        assert inside(made).git("rev-list", "--count", f"{made.base}..HEAD") == "1", f"point {point}"
        assert (made.path / "calc.py").read_text() == "fixed\n"
        if not killed:
            return
    pytest.fail("it takes ever more steps")


@pytest.mark.soak
def test_a_crash_at_any_step_of_making_a_worktree_is_made_good(repo: Repo, tmp_path: Path) -> None:
    for point in steps(3, 300):
        killed = killed_at(point, lambda: folder.create(repo.path, tmp_path / "w", "gremlins/w", "main"))
        made = folder.create(repo.path, tmp_path / "w", "gremlins/w", "main")
        assert status(made) == ""
        killed |= killed_at(
            point,
            lambda: folder.remove(Worktree(repo.path, tmp_path / "w", "gremlins/w", repo.head()), delete_branch=True),
        )
        folder.remove(made, delete_branch=True)
        assert len(Git(repo.path).checkouts()) == 1
        if not killed:
            return
    pytest.fail("it takes ever more steps")


@pytest.mark.soak
def test_a_crash_at_any_step_of_saving_loses_nothing(made: Worktree) -> None:
    for point in steps(3, 300):
        inside(made).write({"calc.py": f"half {point}\n"})
        ref = wt.interrupted_ref(made)
        killed = killed_at(point, lambda: wt.save_interrupted(made, wt.interrupted_ref(made)))
        wt.save_interrupted(made, wt.interrupted_ref(made))
        assert status(made) == ""
        assert Git(made.path).raw("cat-file", "blob", f"{ref}:calc.py") == f"half {point}\n".encode()
        if not killed:
            return
    pytest.fail("it takes ever more steps")


def test_a_name_that_is_not_utf8_is_committed(made: Worktree) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    inside(made).write({name: "x\n"})
    assert wt.commit_all(made, message="m", trailer=TRAILER)
    assert status(made) == ""
