"""`relocate` tells only gremlins of the repository that was moved, and never takes another for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gremlins.errors import Conflict
from gremlins.fleet.relocate import relocate
from gremlins.records.gremlin import Gremlin, Parked, Running
from tests.conftest import Repo, make_repo
from tests.fleet.records import Root, ago, record, state_root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return state_root(tmp_path)


def of(repo: Repo, old: str, gremlin_id: str = "g", **changes: object) -> Gremlin:
    return record(gremlin_id, base=repo.head(), project=old, **changes)


def project_of(root: Root, gremlin_id: str = "g") -> str:
    return root.store.read(gremlin_id).project


def test_a_repository_with_none_of_the_commits_is_not_the_one_that_was_moved(root: Root, repo: Repo) -> None:
    root.put(record(project="/old"))
    with pytest.raises(Conflict, match="is not the repository"):
        relocate(root.home, Path("/old"), repo.path, root.clock)
    assert project_of(root, "fix-add") == "/old"


def test_where_another_repository_is_by_now_nothing_was_moved(root: Root, repo: Repo, tmp_path: Path) -> None:
    other = make_repo(tmp_path / "other")
    root.put(of(repo, str(other.path)))
    with pytest.raises(Conflict, match="repository of its own"):
        relocate(root.home, other.path, repo.path, root.clock)
    assert project_of(root) == str(other.path)


def test_one_at_work_is_left_alone_and_named(root: Root, repo: Repo) -> None:
    root.put(of(repo, "/old", "a"))
    with root.alive(of(repo, "/old", "b", status=Running(since=ago(60)))):
        done = relocate(root.home, Path("/old"), repo.path, root.clock)
    assert done.gremlins == ("a",)
    assert "b is at work" in done.left[0]
    assert project_of(root, "b") == "/old"


def test_what_waits_is_told_beside_its_record_which_only_its_process_writes(root: Root, repo: Repo) -> None:
    parked = of(repo, "/old", status=Parked(since=ago(60), calls=()))
    with root.alive(parked):
        written = root.store.paths("g").state.read_bytes()
        relocate(root.home, Path("/old"), repo.path, root.clock)
        assert root.store.paths("g").state.read_bytes() == written
        assert project_of(root) == str(repo.path)
    relocate(root.home, Path("/old"), repo.path, root.clock)
    assert project_of(root) == str(repo.path)


def test_a_working_tree_moves_along_with_its_repository(root: Root, repo: Repo, tmp_path: Path) -> None:
    place = repo.path.parent
    repo.git("worktree", "add", "--quiet", "-b", "feature", str(place / "feature"))
    root.put(of(repo, f"/old/{repo.path.name}", "a", checkout="/old/feature"))
    root.put(of(repo, f"/old/{repo.path.name}", "b", checkout="/old/removed"))
    relocate(root.home, Path("/old") / repo.path.name, repo.path, root.clock)
    assert root.store.read("a").tree == place / "feature"
    assert root.store.read("b").tree == repo.path


def test_a_damaged_record_stops_nothing(root: Root, repo: Repo) -> None:
    root.put(of(repo, "/old", "a"))
    root.put(of(repo, "/old", "b"))
    root.store.paths("b").state.write_text("{")
    assert relocate(root.home, Path("/old"), repo.path, root.clock).gremlins == ("a",)
