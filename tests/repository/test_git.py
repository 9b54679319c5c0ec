from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from gremlins.errors import Conflict, GitError, NotReady
from gremlins.repository.folder import create, is_whole
from gremlins.repository.git import (
    FALLBACK_IDENTITY,
    Git,
    HostGitError,
    Identity,
    Sha,
    UnknownRef,
    find_root,
    refuse_operation,
)
from tests.conftest import Repo, make_repo
from tests.time_limit import must_end


def test_a_pipe_in_place_of_a_file_that_git_reads_holds_nothing_up(repo: Repo) -> None:
    (repo.path / ".gitignore").unlink(missing_ok=True)
    os.mkfifo(repo.path / ".gitignore")
    with must_end(), pytest.raises(HostGitError, match=r"took longer than 0\.3 s"):
        Git(repo.path, patience=0.3).untracked()


def test_the_root_is_found_from_a_folder_below(repo: Repo) -> None:
    assert find_root(repo.path / "tests") == repo.path


def test_a_folder_outside_any_repository_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="not in a git repository") as caught:
        find_root(tmp_path)
    assert "git init" in (caught.value.hint or "")


def test_a_repository_without_commits_is_refused(tmp_path: Path) -> None:
    empty = make_repo(tmp_path / "empty")
    with pytest.raises(NotReady, match="no commits yet"):
        find_root(empty.path)


def test_a_bare_repository_and_a_git_folder_are_refused(tmp_path: Path, repo: Repo) -> None:
    repo.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare"))
    for place in (tmp_path / "bare", repo.path / ".git"):
        with pytest.raises(NotReady, match="bare"):
            find_root(place)


def test_another_repositorys_variables_do_not_mislead(tmp_path: Path, repo: Repo) -> None:
    other = make_repo(tmp_path / "other")
    env = {**os.environ, "GIT_DIR": str(other.path / ".git"), "GIT_WORK_TREE": str(other.path)}
    assert find_root(repo.path, env=env) == repo.path


def test_no_git_at_all_is_not_ready(repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="git is not installed"):
        Git(repo.path, env={"PATH": str(tmp_path)}).head()


def test_an_unknown_ref_offers_the_nearest(repo: Repo) -> None:
    with pytest.raises(UnknownRef, match="unknown ref `mian`") as caught:
        Git(repo.path).commit("mian")
    assert caught.value.hint == "did you mean `main`?"


def test_a_ref_that_looks_like_an_option_is_only_unknown(repo: Repo) -> None:
    with pytest.raises(UnknownRef):
        Git(repo.path).commit("--all")


def test_a_tree_or_blob_is_no_commit(repo: Repo) -> None:
    assert Git(repo.path).try_commit("HEAD:calc.py") is None
    assert Git(repo.path).try_commit("HEAD") == repo.head()


def test_branch_is_none_when_head_is_detached(repo: Repo) -> None:
    assert Git(repo.path).branch() == "main"
    repo.git("checkout", "--quiet", "--detach")
    assert Git(repo.path).branch() is None


def test_only_tracked_changes_are_dirt(repo: Repo) -> None:
    git = Git(repo.path)
    repo.write({"new.py": "x\n", "ignored/y": "y\n"})
    assert git.dirty_paths() == []
    repo.write({"calc.py": "x\n", "tests/staged æ.py": "x\n"})
    repo.git("add", "tests")
    assert git.dirty_paths() == ["calc.py", "tests/staged æ.py"]
    assert git.untracked() == ["new.py"]


def test_a_merge_in_progress_is_named(repo: Repo) -> None:
    git = Git(repo.path)
    refuse_operation(git)
    (repo.path / ".git/MERGE_HEAD").write_text(repo.head())
    with pytest.raises(Conflict, match="a merge is in progress"):
        refuse_operation(git)


def test_a_lock_that_another_git_holds_is_the_machines_fault(repo: Repo) -> None:
    (repo.path / ".git/index.lock").touch()
    with pytest.raises(HostGitError):
        Git(repo.path).raw("read-tree", "HEAD")


def test_an_ordinary_refusal_is_not_the_machines_fault(repo: Repo) -> None:
    with pytest.raises(GitError) as caught:
        Git(repo.path).raw("read-tree", "nonsense")
    assert not isinstance(caught.value, HostGitError)
    assert caught.value.returncode == 128


def test_a_full_ref_name_with_a_locked_file_is_the_machines_fault(repo: Repo) -> None:
    (repo.path / ".git/refs/heads/other.lock").touch()
    with pytest.raises(HostGitError):
        Git(repo.path).raw("-c", "core.filesRefLockTimeout=0", "update-ref", "refs/heads/other", "HEAD")


def test_identity_is_the_configured_one(repo: Repo) -> None:
    assert Git(repo.path).identity() == Identity("Test Person", "person@example.org")


def test_identity_without_a_whole_one_is_gremlins(repo: Repo) -> None:
    (Path(os.environ["HOME"]) / ".gitconfig").write_text("[user]\n\tname = Half\n")
    assert Git(repo.path).identity() == FALLBACK_IDENTITY


def test_a_persons_settings_do_not_reach_into_a_diff(repo: Repo) -> None:
    base = repo.head()
    new = repo.commit({"calc.py": "def add(a, b):\n    return a + b\n"})
    for key, value in (("diff.noprefix", "true"), ("color.ui", "always"), ("diff.external", "false")):
        repo.git("config", key, value)
    shown = Git(repo.path).diff(base, new)
    assert shown.startswith("diff --git a/calc.py b/calc.py\n")
    assert "\x1b" not in shown
    assert "calc.py" in Git(repo.path).diff_stat(base, new)


def test_files_are_listed_without_submodules_each_once(repo: Repo) -> None:
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{repo.head()},sub")
    assert Git(repo.path).ls_files() == [".gitignore", "README.md", "calc.py", "tests/test_calc.py"]


def test_names_that_are_not_utf8_come_back_as_they_are(repo: Repo) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    repo.commit({name: "x\n"})
    assert name in Git(repo.path).ls_files()
    assert Git(repo.path).ls_tree("HEAD", [name])[name].mode == "100644"


def test_paths_are_taken_literally(repo: Repo) -> None:
    repo.commit({"a[b].txt": "x\n", "ab.txt": "y\n"})
    assert list(Git(repo.path).ls_tree("HEAD", ["a[b].txt"])) == ["a[b].txt"]


def test_a_trailer_is_found_only_as_a_whole_line(repo: Repo) -> None:
    base, git = repo.head(), Git(repo.path)
    repo.commit({"x": "1"}, "s\n\nGremlins-Call: plan/1/10")
    assert git.find_trailer("Gremlins-Call: plan/1/1", f"{base}..HEAD") is None
    new = repo.commit({"x": "2"}, "s\n\nGremlins-Call: plan/1/1")
    repo.commit({"x": "3"}, "mentions Gremlins-Call: plan/1/1 here")
    assert git.find_trailer("Gremlins-Call: plan/1/1", f"{base}..HEAD") == new


def test_a_commit_that_is_undone_is_no_difference(repo: Repo) -> None:
    base, before = repo.head(), repo.read("calc.py")
    middle = repo.commit({"calc.py": "x\n"})
    repo.commit({"calc.py": before})
    assert Git(repo.path).differs(base, middle)
    assert not Git(repo.path).differs(base, "HEAD")


def test_a_commit_can_be_built_without_touching_anything(repo: Repo) -> None:
    git, head = Git(repo.path), repo.head()
    with git.scratch_index(head) as env:
        blob = Sha(git.text("hash-object", "-w", "--stdin", input=b"new\n"))
        git.raw("update-index", "--add", "--cacheinfo", f"100644,{blob},n", env=env)
        made = git.commit_tree(git.write_tree(env), [head], "aside")
    assert git.changed_paths(head, made) == ["n"]
    assert (repo.head(), repo.git("status", "--porcelain")) == (head, "")
    assert repo.git("log", "-1", "--format=%an <%ae>", made) == "Test Person <person@example.org>"


def test_a_ref_moves_only_from_where_it_was_expected(repo: Repo) -> None:
    git, base = Git(repo.path), repo.head()
    new = repo.commit({"x": "1"})
    git.update_ref("refs/gremlins/x/y", base, "0" * 40)
    with pytest.raises(GitError):
        git.update_ref("refs/gremlins/x/y", new, new)
    assert git.commit("refs/gremlins/x/y") == base
    git.delete_ref("refs/gremlins/x/y")
    git.delete_ref("refs/gremlins/x/y")
    assert git.try_commit("refs/gremlins/x/y") is None


def test_worktrees_are_listed_with_their_branches(repo: Repo, tmp_path: Path) -> None:
    repo.git("worktree", "add", "--quiet", "-b", "other", str(tmp_path / "w t"))
    repo.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "d"))
    shown = {place.path: place.branch for place in Git(repo.path).checkouts()}
    assert shown == {repo.path: "main", tmp_path / "w t": "other", tmp_path / "d": None}


def test_a_commit_message_holds_nothing_that_moves_a_cursor(repo: Repo) -> None:
    git = Git(repo.path)
    message = "Fix \x1b[31mred\x1b[0m\x07 \x1b]0;title\x07it\x00\x9b\u202e\r\nand\ttabs\n\ud800 ü"
    made = git.commit_tree(git.tree("HEAD"), [], message)
    assert repo.git("log", "-1", "--format=%B", made).rstrip("\n") == "Fix red it\nand\ttabs\n? ü"


@pytest.mark.parametrize("process", [True, False])
def test_a_filter_that_fails_is_shown_in_its_own_words(repo: Repo, process: bool) -> None:
    repo.git("config", "filter.locked.required", "true")
    key = "filter.locked.process" if process else "filter.locked.clean"
    repo.git("config", key, "no-such-filter")
    repo.write({".gitattributes": "*.bin filter=locked\n", "a.bin": "x\n"})
    with pytest.raises(GitError, match=r"git add: a\.bin: clean filter 'locked' failed: .*no-such-filter") as caught:
        Git(repo.path).raw("add", "a.bin")
    assert "git config" in (caught.value.hint or "")


def test_the_main_tree_of_a_separate_git_directory_is_found(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "tree")
    repo.path.mkdir()
    repo.git("init", "--quiet", "--initial-branch=main", f"--separate-git-dir={tmp_path / 'other'}")
    repo.commit({"a": "a\n"})
    assert [place.path for place in Git(repo.path).checkouts()] == [repo.path]


def test_a_worktree_that_another_git_is_just_making_is_waited_for(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One launch in forty ended with git's own race. Here the other git is done once ours has failed twice."""
    real, half = shutil.which("git"), repo.path / ".git/worktrees/half"
    half.mkdir(parents=True)
    for name, text in {"gitdir": "/nowhere/.git\n", "HEAD": "ref: refs/heads/x\n", "commondir": ""}.items():
        (half / name).write_text(text)
    wrapper = tmp_path / "bin/git"
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/sh\n{real} "$@" && exit 0\ncode=$?\necho . >> {tmp_path}/failed\n'
        f'[ $(wc -l < {tmp_path}/failed) -lt 2 ] || rm -rf "{half}"\nexit $code\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    made = create(repo.path, tmp_path / "worktrees/g", "gremlins/g", repo.head())
    assert is_whole(made)
    assert (tmp_path / "failed").read_text().count(".") >= 2
