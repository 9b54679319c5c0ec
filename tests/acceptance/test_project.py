"""One repository, reached through several working trees or moved elsewhere, is one project for every verb."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.one_batch_call import billed_once, end_batches, park_one
from tests.acceptance.sandbox import Sandbox
from tests.conftest import Repo
from tests.layouts import Files, Trees, bare_git_folder, dot_bare, linked

WORK = """
stages:
  - {type: exec, name: work, cmds: ['echo made > made.txt && git add made.txt && git commit --quiet -m made']}
"""
FILES = {"README.md": "text\n", ".gremlins/pipelines/work.yaml": WORK}


def names(sandbox: Sandbox, tree: Repo) -> list[str]:
    return [row["id"] for row in sandbox.run("status", "--here", "--all", "--json", cwd=tree.path).json()]


@pytest.mark.parametrize("layout", [linked, dot_bare, bare_git_folder])
def test_what_is_launched_in_one_working_tree_is_seen_in_the_other_and_lands_where_it_began(
    sandbox: Sandbox, tmp_path: Path, layout: Callable[[Path, Files], Trees]
) -> None:
    one, other = layout(tmp_path / "layout", FILES)
    other.write({"README.md": "a person's change\n"})
    sandbox.ok("launch", "work", "--id", "g", "--trust", cwd=one.path)
    bead = sandbox.ok("bead", "create", "A bead", "--silent", cwd=one.path).strip()
    assert sandbox.ok("bead", "list", "--json", cwd=other.path).count(bead)
    sandbox.until("g", "finished")
    assert names(sandbox, other) == names(sandbox, one) == ["g"]
    before = other.head()
    sandbox.ok("land", "g", cwd=other.path)
    assert one.read("made.txt") == "made\n"
    assert (other.head(), other.read("README.md")) == (before, "a person's change\n")
    assert not (other.path / "made.txt").exists()


def test_work_of_a_working_tree_that_is_gone_lands_on_a_branch_that_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    one, other = dot_bare(tmp_path / "layout", FILES)
    sandbox.ok("launch", "work", "--id", "g", "--trust", cwd=one.path)
    sandbox.until("g", "finished")
    one.git("worktree", "remove", str(one.path))
    refused = sandbox.run("land", "g", cwd=other.path)
    assert refused.code == 4
    assert "--into BRANCH" in refused.err
    sandbox.ok("land", "g", "--into", "other", cwd=other.path)
    assert other.read("made.txt") == "made\n"


def test_a_gremlin_is_not_launched_in_the_worktree_of_another(sandbox: Sandbox) -> None:
    sandbox.repo.commit(FILES)
    sandbox.ok("launch", "work", "--id", "g")
    sandbox.until("g", "finished")
    refused = sandbox.run("launch", "work", "--id", "h", cwd=sandbox.home / "worktrees/g")
    assert refused.code == 4
    assert "worktree of a gremlin" in refused.err
    assert not (sandbox.home / "gremlins/h").exists()


# ── a repository that was moved ───────────────────────────────────────────────────────────────────────────────────


def move(sandbox: Sandbox) -> str:
    """Move the person's repository. Returns its old path."""
    old = sandbox.repo.path
    old.rename(old.with_name("moved"))
    sandbox.repo = Repo(old.with_name("moved"))
    return str(old)


def test_what_is_parked_while_its_repository_is_moved_goes_on_there(sandbox: Sandbox) -> None:
    park_one(sandbox)
    bead = sandbox.ok("bead", "create", "A bead", "--silent").strip()
    old = move(sandbox)
    assert f"gremlins relocate {old}" in sandbox.run("bead", "list").err
    assert "told 1 gremlin g, and 1 bead" in sandbox.ok("relocate", old)
    assert sandbox.state("g")["project"] == str(sandbox.repo.path)
    assert bead in sandbox.ok("bead", "list", "--json")
    assert names(sandbox, sandbox.repo) == ["g"]
    end_batches(sandbox)
    sandbox.until("g", "finished")
    billed_once(sandbox)
    assert sandbox.peek("g")["project"] == str(sandbox.repo.path)


def test_a_rescue_that_could_not_go_on_is_refused_until_it_is_told_where_the_repository_is(sandbox: Sandbox) -> None:
    park_one(sandbox)
    sandbox.kill("g")
    end_batches(sandbox)
    old = move(sandbox)
    refused = sandbox.run("rescue", "g")
    assert refused.code == 4
    assert f"gremlins relocate {old}" in refused.err
    assert sandbox.life("g") == "detached"
    sandbox.ok("relocate", old)
    sandbox.ok("rescue", "g")
    sandbox.until("g", "finished")
    billed_once(sandbox)


def test_a_state_root_that_was_moved_is_taken_up_where_it_is_now(sandbox: Sandbox) -> None:
    sandbox.repo.commit(FILES)
    sandbox.ok("launch", "work", "--id", "f")
    sandbox.until("f", "finished")
    park_one(sandbox)
    sandbox.wait_for(lambda: sandbox.peek("g")["batch"]["polls"] >= 1, "the waiter at work")
    old = sandbox.home
    sandbox.home = old.with_name("moved state")
    old.rename(sandbox.home)
    sandbox.env["GREMLINS_HOME"] = str(sandbox.home)
    assert f"{old}/gremlins/g was moved" in sandbox.until("g", "detached")["liveness"]["reason"]
    end_batches(sandbox)
    sandbox.ok("rescue", "g")
    sandbox.until("g", "finished")
    assert sandbox.peek("g")["worktree"] == str(sandbox.home / "worktrees/g")
    billed_once(sandbox)


def test_finished_work_lands_in_the_repository_that_was_moved(sandbox: Sandbox) -> None:
    sandbox.repo.commit(FILES)
    sandbox.ok("launch", "work", "--id", "g")
    sandbox.until("g", "finished")
    old = move(sandbox)
    refused = sandbox.run("land", "g")
    assert refused.code == 4
    assert f"gremlins relocate {old}" in refused.err
    sandbox.ok("relocate", old)
    sandbox.ok("land", "g")
    assert sandbox.repo.read("made.txt") == "made\n"
    assert not (sandbox.home / "worktrees/g").exists()
