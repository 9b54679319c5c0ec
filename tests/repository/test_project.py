"""A project is a repository, not a path: it has one name from each of its working trees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gremlins.errors import Conflict, NotReady
from gremlins.repository.git import Git
from gremlins.repository.project import find_project, main_tree, refuse_gremlins_own
from tests.conftest import Repo
from tests.layouts import LAYOUTS, Files, Trees, bare_git_folder, dot_bare, linked, submodule

Layout = Callable[[Path, Files], Trees]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_working_trees_of_a_repository_are_one_project_in_which_git_runs(tmp_path: Path, layout: Layout) -> None:
    one, other = layout(tmp_path, {"a/b.txt": "text\n"})
    project = find_project(one.path)
    assert project == find_project(other.path) == find_project(other.path / "a") == find_project(project)
    assert Git(project).commit("refs/heads/other") == other.head()
    assert main_tree(one.path, find_project(one.path)) == one.path
    assert (main_tree(other.path, find_project(other.path)) / "a/b.txt").is_file()


def test_a_project_is_named_by_its_main_working_tree_where_it_has_one(tmp_path: Path) -> None:
    names = {layout: find_project(layout(tmp_path / layout.__name__, {"f": ""})[1].path) for layout in LAYOUTS}
    assert names[linked] == tmp_path / "linked/project"
    assert names[submodule] == tmp_path / "submodule/outer/module"
    assert names[dot_bare] == tmp_path / "dot_bare/project/.bare"
    assert names[bare_git_folder] == tmp_path / "bare_git_folder/project"


def test_a_folder_without_a_repository_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="not in a git repository"):
        find_project(tmp_path)


def test_a_gremlins_own_worktree_is_refused_also_that_of_another_state_root(repo: Repo, tmp_path: Path) -> None:
    worktrees = tmp_path / "state/worktrees"
    repo.git("worktree", "add", "--quiet", "-b", "gremlins/g", str(worktrees / "g"))
    for known in (worktrees, tmp_path / "elsewhere"):
        with pytest.raises(Conflict, match="worktree of a gremlin") as refused:
            refuse_gremlins_own(worktrees / "g", known)
        assert str(repo.path) in (refused.value.hint or "")
    repo.git("checkout", "--quiet", "-b", "gremlins/mine")
    refuse_gremlins_own(repo.path, worktrees)
