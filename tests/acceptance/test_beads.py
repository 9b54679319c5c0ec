"""`gremlins bead …` from outside, as people and scripts use it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.acceptance.world import World

FIELDS = {
    "id", "title", "description", "status", "priority", "issue_type", "labels", "dependencies", "created_at",
    "updated_at", "started_at", "closed_at", "close_reason", "gremlins",
}  # fmt: skip
OURS = {
    "project", "attempts", "spawns", "epoch", "next_eligible_at", "hold", "failure", "gremlin_id", "bucket",
    "bucket_reason",
}  # fmt: skip


def create(world: World, title: str, *more: str) -> str:
    return world.ok("bead", "create", title, "--silent", *more).strip()


def show(world: World, bead_id: str) -> dict[str, Any]:
    return dict(json.loads(world.ok("bead", "show", bead_id, "--json")))


def ids(world: World, *words: str) -> list[str]:
    return [row["id"] for row in json.loads(world.ok("bead", *words, "--json"))]


def test_a_bead_from_its_making_to_its_end(world: World) -> None:
    made = json.loads(
        world.ok(
            "bead",
            "create",
            "Mend the roof",
            "-d",
            "It leaks",
            "-t",
            "bug",
            "-p",
            "P1",
            "-l",
            "house,urgent",
            "-a",
            "anna",
            "--acceptance",
            "Dry inside",
            "--design",
            "Tiles",
            "--notes",
            "Mind the cat",
            "--json",
        )
    )
    assert made.keys() >= FIELDS
    assert made["gremlins"].keys() >= OURS
    bead_id = made["id"]
    assert bead_id.startswith("project-")
    assert (made["priority"], made["issue_type"], made["labels"]) == (1, "bug", ["house", "urgent"])
    assert made["gremlins"]["bucket"] == "ready"
    world.ok("bead", "update", bead_id, "-p", "0", "--add-label", "wet", "--remove-label", "house", "--title", "Roof")
    changed = show(world, bead_id)
    assert (changed["priority"], changed["labels"], changed["title"]) == (0, ["urgent", "wet"], "Roof")
    world.ok("bead", "close", bead_id, "-r", "Dry now")
    closed = show(world, bead_id)
    assert (closed["status"], closed["close_reason"]) == ("closed", "Dry now")
    assert closed["closed_at"]
    world.ok("bead", "reopen", bead_id)
    again = show(world, bead_id)
    assert (again["status"], again["closed_at"], again["close_reason"]) == ("open", None, None)


def test_lists_are_bare_arrays_in_the_order_of_the_work(world: World) -> None:
    late = create(world, "Later", "-p", "3")
    first = create(world, "First", "-p", "0")
    waiting = create(world, "Waiting", "--deps", f"{first},discovered-from:{late}")
    assert ids(world, "list") == [first, waiting, late]
    assert ids(world, "ready") == [first, late]
    assert ids(world, "blocked") == [waiting]
    assert ids(world, "ready", "-n", "1") == [first]
    assert len(world.ok("bead", "ready", "-n", "1").splitlines()) == 2
    assert ids(world, "list", "-n", "2") == [first, waiting]
    assert ids(world, "list", "-b", "blocked", "-n", "1") == [waiting]
    assert ids(world, "list", "-s", "open", "-p", "3") == [late]
    assert ids(world, "list", "-t", "bug") == []
    world.ok("bead", "close", first)
    assert ids(world, "ready") == [waiting, late]
    assert ids(world, "list", "-s", "closed") == [first]


def test_a_claim_is_won_once(world: World) -> None:
    bead_id = create(world, "Take me")
    world.ok("bead", "update", bead_id, "--claim")
    ran = world.run("bead", "update", bead_id, "--claim")
    assert ran.code == 4
    assert ran.err.startswith("error: ")
    claimed = show(world, bead_id)
    assert claimed["status"] == "in_progress"
    assert claimed["gremlins"]["bucket"] == "held"
    world.ok("bead", "release", bead_id)
    assert show(world, bead_id)["gremlins"]["bucket"] == "ready"


def test_what_one_bead_refuses_keeps_nothing_from_the_others(world: World) -> None:
    one, done, two = (create(world, title) for title in ("One", "Done", "Two"))
    world.ok("bead", "close", done)
    ran = world.run("bead", "close", one, done, two, "--json")
    assert (ran.code, [row["id"] for row in ran.json()]) == (4, [one, two])
    assert f"error: {done}" in ran.err
    assert ids(world, "list", "-s", "closed") == [one, done, two]


def test_deferring_holding_and_releasing(world: World) -> None:
    bead_id = create(world, "Not yet", "--defer", "+2h")
    assert show(world, bead_id)["gremlins"]["bucket"] == "deferred"
    world.ok("bead", "update", bead_id, "--defer", "")
    assert show(world, bead_id)["gremlins"]["bucket"] == "ready"
    world.ok("bead", "hold", bead_id, "-r", "ask Anna")
    held = show(world, bead_id)["gremlins"]
    assert (held["bucket"], held["hold"]["kind"], held["bucket_reason"]) == ("held", "person", "ask Anna")
    world.ok("bead", "update", bead_id, "-s", "open")
    assert show(world, bead_id)["gremlins"]["bucket"] == "ready"
    world.ok("bead", "update", bead_id, "-s", "deferred")
    assert ids(world, "ready") == []


def test_children_get_their_parents_number_and_its_blockers(world: World) -> None:
    blocker = create(world, "Blocker")
    parent = create(world, "Parent", "-t", "epic", "--deps", blocker)
    child = create(world, "Child", "--parent", parent)
    assert child == f"{parent}.1"
    assert create(world, "Another", "--parent", parent) == f"{parent}.2"
    assert "blocks its parent" in show(world, child)["gremlins"]["bucket_reason"]
    world.ok("bead", "close", blocker)
    assert child in ids(world, "ready")


def test_circles_are_refused_and_dependencies_can_be_taken_away(world: World) -> None:
    one, two, three = (create(world, title) for title in ("One", "Two", "Three"))
    world.ok("bead", "dep", "add", two, one)
    world.ok("bead", "dep", "add", three, two)
    refused = world.run("bead", "dep", "add", one, three)
    assert refused.code == 4
    assert one in refused.err
    assert world.run("bead", "dep", "add", one, one).code == 4
    tree = json.loads(world.ok("bead", "dep", "tree", three, "--json"))
    assert [(node["id"], node["depth"]) for node in tree] == [(three, 0), (two, 1), (one, 2)]
    world.ok("bead", "dep", "rm", three, two)
    assert show(world, three)["dependencies"] == []
    assert json.loads(world.ok("bead", "dep", "cycles", "--json")) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("show", "nope"), 6),
        (("show", "project-"), 6),
        (("update", "nope", "-p", "1"), 6),
        (("create", "x", "--deps", "nope"), 6),
        (("create", ""), 1),
        (("create", "x" * 501), 1),
        (("create", "x", "-p", "7"), 2),
        (("create", "x", "--id", "a b"), 1),
        (("list", "-b", "nope"), 2),
        (("create", "x", "--defer", "someday"), 2),
        (("list", "-s", "nope"), 2),
        (("create",), 2),
        (("import", "nowhere.jsonl"), 1),
        (("reopen", "{id}"), 4),
        (("release", "{id}"), 4),
        (("dep", "rm", "{id}", "{other}"), 6),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(world: World, words: tuple[str, ...], code: int) -> None:
    made = {"id": create(world, "One"), "other": create(world, "Other")}
    ran = world.run("bead", *(word.format(**made) if "{" in word else word for word in words))
    assert ran.code == code
    assert ran.err.startswith("error: ")
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_an_ambiguous_beginning_lists_its_matches(world: World) -> None:
    made = [create(world, title) for title in ("One", "Two")]
    ran = world.run("bead", "show", "project-")
    assert all(bead_id in ran.err for bead_id in made)


def test_import_and_export_from_outside(world: World) -> None:
    file = world.repo.path / "issues.jsonl"
    stamp = "2026-11-20T10:00:00Z"
    rows = [
        {"id": "bd-1", "title": "One", "status": "hooked", "created_at": stamp, "updated_at": stamp, "wisp": {"x": 1}},
        {"id": "bd-2", "title": "Two", "status": "open", "created_at": stamp, "updated_at": stamp},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert json.loads(world.ok("bead", "import", "issues.jsonl", "--json"))["created"] == 2
    out = [json.loads(line) for line in world.ok("bead", "export").splitlines()]
    assert [row["id"] for row in out] == ["bd-1", "bd-2"]
    assert out[0]["wisp"] == {"x": 1}
    assert out[0]["status"] == "hooked"
    assert show(world, "bd-1")["gremlins"]["hold"]["status"] == "hooked"
    file.write_text(json.dumps(rows[1] | {"title": "Changed", "updated_at": "2030-01-01T00:00:00Z"}) + "\n{oops\n")
    ran = world.run("bead", "import", "issues.jsonl")
    assert ran.code == 1
    assert "issues.jsonl:2" in ran.err
    assert show(world, "bd-2")["title"] == "Two"


def test_each_repository_has_its_own_beads(world: World) -> None:
    from tests.conftest import make_repo

    create(world, "Here")
    other = make_repo(world.repo.path.parent / "other")
    assert world.ok("bead", "list", "--json", cwd=other.path) == "[]\n"
    assert world.run("bead", "list", cwd=world.repo.path.parent).code == 5


def test_a_worktree_of_the_repository_sees_its_beads(world: World) -> None:
    bead_id = create(world, "Here")
    beside = world.repo.path.parent / "beside"
    world.repo.git("worktree", "add", "-q", str(beside))
    assert [row["id"] for row in json.loads(world.ok("bead", "list", "--json", cwd=beside))] == [bead_id]


def test_a_closed_pipe_is_silent(world: World) -> None:
    import subprocess
    import sys

    for number in range(3):
        create(world, f"Number {number}")
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m gremlins bead list --json | head -c 1"],
        cwd=world.repo.path,
        env=world.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[", "")
