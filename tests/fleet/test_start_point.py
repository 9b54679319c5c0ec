"""Where a gremlin starts that needs the work of others, with real git."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gremlins.clock import FakeClock
from gremlins.errors import Conflict
from gremlins.fleet.land import land, try_to_land
from gremlins.fleet.start_point import start_point
from gremlins.paths import Home
from gremlins.repository.git import Git
from gremlins.simulator import ScriptedModel, Simulator
from tests.conftest import Repo
from tests.in_process import InProcessSandbox

NOTHING = "evidence: none\nstages:\n  - {type: exec, name: work, cmds: ['true']}\n"


@pytest.fixture
def sandbox(repo: Repo, tmp_path: Path) -> Iterator[InProcessSandbox]:
    with Simulator(model=ScriptedModel()) as simulator:
        yield InProcessSandbox(repo, Home(tmp_path / "state"), simulator)


def made(sandbox: InProcessSandbox, name: str, text: str, *, base: str | None = None, on: tuple[str, ...] = ()) -> str:
    """A finished gremlin that has written a file."""
    command = f"echo {text} > {name} && git add -A && git commit -qm {text}"
    stages = f"stages:\n  - {{type: exec, name: work, cmds: ['{command}']}}\n"
    gremlin = sandbox.make(stages, gremlin_id=f"does-{text}", base_ref=base, builds_on=on)
    assert sandbox.run(gremlin).status.state == "finished"
    return gremlin


def show(sandbox: InProcessSandbox, commit: str, name: str) -> str:
    return Git(sandbox.repo.path).text("show", f"{commit}:{name}")


def test_one_branch_several_branches_and_what_was_committed_meanwhile(sandbox: InProcessSandbox) -> None:
    one, two = made(sandbox, "one.txt", "one"), made(sandbox, "two.txt", "two")
    tip = Git(sandbox.repo.path).commit(f"refs/heads/{sandbox.read(one).branch}")
    assert start_point(sandbox.home, [one]).commit == tip
    sandbox.repo.commit({"three.txt": "three\n"}, "meanwhile")
    start = start_point(sandbox.home, [one, two])
    assert start.unlanded == (one, two)
    assert start.commit is not None
    assert [show(sandbox, start.commit, f"{name}.txt") for name in ("one", "two", "three")] == ["one", "two", "three"]


def test_branches_that_change_one_line_are_a_conflict_that_names_both(sandbox: InProcessSandbox) -> None:
    one, two = made(sandbox, "one.txt", "one"), made(sandbox, "one.txt", "two")
    start = start_point(sandbox.home, [one, two])
    assert start.commit is None
    assert start.conflict is not None
    assert all(word in start.conflict for word in (one, two, "one.txt"))


def test_what_has_landed_or_was_removed_is_not_merged_in(sandbox: InProcessSandbox) -> None:
    one = made(sandbox, "one.txt", "one")
    land(sandbox.home, one, clock=FakeClock())
    assert start_point(sandbox.home, [one, "gone"]) == start_point(sandbox.home, [])


def test_a_dependent_lands_after_what_it_started_from(sandbox: InProcessSandbox) -> None:
    one = made(sandbox, "one.txt", "one")
    start = start_point(sandbox.home, [one])
    two = made(sandbox, "two.txt", "two", base=start.commit, on=start.unlanded)
    assert (sandbox.worktree(two) / "one.txt").read_text() == "one\n"
    for attempt in (land, try_to_land):
        with pytest.raises(Conflict, match=f"builds on the work of {one}, which has not landed"):
            attempt(sandbox.home, two, clock=FakeClock())
    land(sandbox.home, one, clock=FakeClock())
    assert land(sandbox.home, two, clock=FakeClock()).files_changed == 1
    assert (sandbox.repo.path / "two.txt").read_text() == "two\n"


def test_what_a_person_has_squashed_is_in_head_and_keeps_no_dependent_from_landing(sandbox: InProcessSandbox) -> None:
    one = made(sandbox, "one.txt", "one")
    start = start_point(sandbox.home, [one])
    two = made(sandbox, "two.txt", "two", base=start.commit, on=start.unlanded)
    sandbox.repo.git("merge", "-q", "--squash", sandbox.read(one).branch)
    sandbox.repo.git("commit", "-q", "-m", "squashed")
    sandbox.repo.commit({"one.txt": "one, and more\n"}, "and changed since")
    assert start_point(sandbox.home, [one]) == start_point(sandbox.home, [])
    assert land(sandbox.home, two, clock=FakeClock()).files_changed == 1
    assert land(sandbox.home, one, clock=FakeClock()).by_hand
    assert sandbox.repo.read("one.txt") == "one, and more\n"


def test_what_had_nothing_to_do_passes_on_what_it_started_from(sandbox: InProcessSandbox) -> None:
    one = made(sandbox, "one.txt", "one")
    start = start_point(sandbox.home, [one])
    nothing = sandbox.make(NOTHING, gremlin_id="nothing", base_ref=start.commit, builds_on=start.unlanded)
    sandbox.run(nothing)
    assert start_point(sandbox.home, [nothing]) == start


def test_what_has_landed_on_another_branch_is_merged_in(sandbox: InProcessSandbox) -> None:
    one = made(sandbox, "one.txt", "one")
    sandbox.repo.git("branch", "release")
    land(sandbox.home, one, clock=FakeClock(), into="release")
    start = start_point(sandbox.home, [one])
    assert start.unlanded == (one,)
    two = made(sandbox, "two.txt", "two", base=start.commit, on=start.unlanded)
    assert (sandbox.worktree(two) / "one.txt").read_text() == "one\n"
    sandbox.repo.git("merge", "-q", "release")
    assert start_point(sandbox.home, [one]) == start_point(sandbox.home, [])
    assert land(sandbox.home, two, clock=FakeClock()).files_changed == 1


def test_what_has_landed_and_was_rewritten_or_reverted_since_is_not_merged_in(sandbox: InProcessSandbox) -> None:
    one, two = made(sandbox, "one.txt", "one"), made(sandbox, "two.txt", "two")
    land(sandbox.home, one, clock=FakeClock())
    sandbox.repo.git("commit", "-q", "--amend", "-m", "in other words")
    sandbox.repo.commit({"one.txt": "something else\n"}, "and changed since")
    land(sandbox.home, two, clock=FakeClock())
    sandbox.repo.git("revert", "--no-edit", "HEAD")
    assert start_point(sandbox.home, [one, two]) == start_point(sandbox.home, [])


def test_a_branch_that_a_person_deleted_is_not_taken_for_landed(sandbox: InProcessSandbox) -> None:
    one = made(sandbox, "one.txt", "one")
    tip = sandbox.repo.git("rev-parse", sandbox.read(one).branch)
    sandbox.repo.git("update-ref", "-d", f"refs/heads/{sandbox.read(one).branch}")
    start = start_point(sandbox.home, [one])
    assert (start.commit, start.unlanded) == (tip, (one,))
    two = made(sandbox, "two.txt", "two", base=start.commit, on=start.unlanded)
    with pytest.raises(Conflict, match="has not landed"):
        land(sandbox.home, two, clock=FakeClock())
    sandbox.repo.git("branch", sandbox.read(one).branch, tip)
    land(sandbox.home, one, clock=FakeClock())
    assert land(sandbox.home, two, clock=FakeClock()).files_changed == 1
