"""A person's verbs on beads, and their limits while a gremlin works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest

from gremlins.errors import Conflict, GremlinsError, NotFound
from gremlins.fleet.beads.edit import BeadEditor
from gremlins.fleet.dispatch.ownership import settle_for_retry
from tests.fleet.project import PROJECT, Project


@pytest.fixture
def editor(project: Project) -> BeadEditor:
    return BeadEditor(
        project.store,
        PROJECT,
        project.clock,
        "anna",
        partial(settle_for_retry, observe=project.fleet.observe, policy=project.policy),
    )


def test_ids_are_short_and_begin_with_the_projects_name(editor: BeadEditor) -> None:
    made = {editor.create(f"Number {n}").id for n in range(50)}
    assert len(made) == 50
    assert all(bead_id.startswith("project-") and len(bead_id) == len("project-") + 4 for bead_id in made)


def test_a_retry_starts_counters_over_and_says_so(project: Project, editor: BeadEditor) -> None:
    project.add("a-1")
    for _ in range(12):
        project.tick()
        for gremlin in project.fleet.living("a-1"):
            project.fleet.fail(gremlin, "task")
        project.clock.advance(4000)
    assert project.bead("a-1").status == "failed"
    editor.retry("a-1")
    assert project.charged("a-1") == 0
    assert project.bead("a-1").epoch == 2
    assert project.store.events(PROJECT, "a-1")[-1].kind == "retried"
    assert len(project.tick().spawned) == 1
    assert len(project.attempts("a-1")) == 6


@pytest.mark.parametrize(
    "verb",
    [
        lambda editor: editor.retry("a-1"),
        lambda editor: editor.update("a-1", {}, "open"),
        lambda editor: editor.update("a-1", {}, "deferred"),
        lambda editor: editor.claim("a-1", "anna"),
        lambda editor: editor.release("a-1"),
        lambda editor: editor.reopen("a-1", ""),
    ],
)
def test_a_bead_of_a_running_gremlin_cannot_be_taken(
    project: Project, editor: BeadEditor, verb: Callable[[BeadEditor], object]
) -> None:
    project.add("a-1")
    project.tick()
    before = project.bead("a-1")
    with pytest.raises(Conflict):
        verb(editor)
    assert project.bead("a-1") == before


def test_a_retry_of_what_has_finished_meanwhile_closes_it_instead(project: Project, editor: BeadEditor) -> None:
    project.add("a-1")
    project.tick()
    project.fleet.finish(project.fleet.of("a-1"))
    with pytest.raises(Conflict, match="closed"):
        editor.retry("a-1")
    assert project.bead("a-1").status == "closed"


def test_a_retry_of_a_detached_gremlin_takes_it_up_in_the_new_epoch(project: Project, editor: BeadEditor) -> None:
    project.add("a-1")
    project.tick()
    gremlin = project.fleet.of("a-1")
    project.fleet.park(gremlin)
    project.fleet.end(gremlin, "detached")
    editor.retry("a-1")
    assert project.tick().spawned == [("a-1", gremlin.id)]
    assert project.work("a-1").spawns == 1
    assert project.charged("a-1") == 0


def test_a_reopened_bead_keeps_its_counters_and_gets_a_fresh_gremlin(project: Project, editor: BeadEditor) -> None:
    project.add("a-1")
    project.tick()
    first = project.fleet.of("a-1")
    project.fleet.finish(first)
    project.tick()
    editor.reopen("a-1", "not quite")
    assert project.tick().spawned[0][1] != first.id
    assert project.work("a-1").spawns == 2


def test_a_bead_reopened_while_its_gremlin_works_is_in_progress(project: Project, editor: BeadEditor) -> None:
    project.add("a-1")
    project.tick()
    editor.close("a-1", "by hand")
    editor.reopen("a-1", "not so fast")
    assert project.bead("a-1").status == "in_progress"
    assert project.tick().spawned == []


def test_a_failed_bead_is_not_reopened_but_retried(project: Project, editor: BeadEditor) -> None:
    project.add("a-1")
    project.tick()
    project.fleet.end(project.fleet.of("a-1"), "bailed", bail="needs_human", reason="?")
    project.tick()
    for verb in (lambda: editor.reopen("a-1", ""), lambda: editor.update("a-1", {}, "open")):
        with pytest.raises(Conflict) as caught:
            verb()
        assert "retry" in (caught.value.hint or "")


def test_what_is_wrong_is_named_by_its_field(editor: BeadEditor) -> None:
    bead = editor.create("Fine")
    with pytest.raises(GremlinsError, match=r"^title: "):
        editor.update(bead.id, {"title": "x" * 501})
    with pytest.raises(GremlinsError, match=r"^priority: "):
        editor.update(bead.id, {"priority": 9})


def test_a_wrong_id_offers_the_nearest(project: Project, editor: BeadEditor) -> None:
    project.add("project-abcd")
    with pytest.raises(NotFound) as caught:
        editor.resolve("project-abce")
    assert "project-abcd" in (caught.value.hint or "")


def test_labels_that_two_people_add_at_once_are_both_there(project: Project, editor: BeadEditor) -> None:
    project.add("a-1", labels=["old"])
    seen: list[list[str]] = []

    def relabel(labels: Sequence[str]) -> list[str]:
        seen.append(list(labels))
        if len(seen) == 1:  # another process is quicker
            editor.update("a-1", {}, relabel=lambda labels: [*labels, "theirs"])
        return [*labels, "mine"]

    editor.update("a-1", {}, relabel=relabel)
    assert project.bead("a-1").issue.labels == ("old", "theirs", "mine")
