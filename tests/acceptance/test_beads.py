"""`gremlins bead …` from outside, as people and scripts use it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.acceptance.sandbox import Sandbox

FIELDS = {
    "id", "title", "description", "status", "priority", "issue_type", "labels", "dependencies", "created_at",
    "updated_at", "started_at", "closed_at", "close_reason", "gremlins",
}  # fmt: skip
OURS = {
    "project", "attempts", "spawns", "epoch", "next_eligible_at", "hold", "failure", "gremlin_id", "bucket",
    "bucket_reason",
}  # fmt: skip


def create(sandbox: Sandbox, title: str, *more: str) -> str:
    return sandbox.ok("bead", "create", title, "--silent", *more).strip()


def show(sandbox: Sandbox, bead_id: str) -> dict[str, Any]:
    return dict(json.loads(sandbox.ok("bead", "show", bead_id, "--json")))


def ids(sandbox: Sandbox, *words: str) -> list[str]:
    return [row["id"] for row in json.loads(sandbox.ok("bead", *words, "--json"))]


def test_a_bead_from_its_making_to_its_end(sandbox: Sandbox) -> None:
    made = json.loads(
        sandbox.ok(
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
    sandbox.ok("bead", "update", bead_id, "-p", "0", "--add-label", "wet", "--remove-label", "house", "--title", "Roof")
    changed = show(sandbox, bead_id)
    assert (changed["priority"], changed["labels"], changed["title"]) == (0, ["urgent", "wet"], "Roof")
    sandbox.ok("bead", "close", bead_id, "-r", "Dry now")
    closed = show(sandbox, bead_id)
    assert (closed["status"], closed["close_reason"]) == ("closed", "Dry now")
    assert closed["closed_at"]
    sandbox.ok("bead", "reopen", bead_id)
    again = show(sandbox, bead_id)
    assert (again["status"], again["closed_at"], again["close_reason"]) == ("open", None, None)


def test_lists_are_bare_arrays_in_the_order_of_the_work(sandbox: Sandbox) -> None:
    late = create(sandbox, "Later", "-p", "3")
    first = create(sandbox, "First", "-p", "0")
    waiting = create(sandbox, "Waiting", "--deps", f"{first},discovered-from:{late}")
    assert ids(sandbox, "list") == [first, waiting, late]
    assert ids(sandbox, "ready") == [first, late]
    assert ids(sandbox, "blocked") == [waiting]
    assert ids(sandbox, "ready", "-n", "1") == [first]
    assert len(sandbox.ok("bead", "ready", "-n", "1").splitlines()) == 2
    assert ids(sandbox, "list", "-n", "2") == [first, waiting]
    assert ids(sandbox, "list", "-b", "blocked", "-n", "1") == [waiting]
    assert ids(sandbox, "list", "-s", "open", "-p", "3") == [late]
    assert ids(sandbox, "list", "-t", "bug") == []
    sandbox.ok("bead", "close", first)
    assert ids(sandbox, "ready") == [waiting, late]
    assert ids(sandbox, "list", "-s", "closed") == [first]


def test_a_claim_is_won_once(sandbox: Sandbox) -> None:
    bead_id = create(sandbox, "Take me")
    sandbox.ok("bead", "update", bead_id, "--claim")
    ran = sandbox.run("bead", "update", bead_id, "--claim")
    assert ran.code == 4
    assert ran.err.startswith("error: ")
    claimed = show(sandbox, bead_id)
    assert claimed["status"] == "in_progress"
    assert claimed["gremlins"]["bucket"] == "held"
    sandbox.ok("bead", "release", bead_id)
    assert show(sandbox, bead_id)["gremlins"]["bucket"] == "ready"


def test_what_one_bead_refuses_keeps_nothing_from_the_others(sandbox: Sandbox) -> None:
    one, done, two = (create(sandbox, title) for title in ("One", "Done", "Two"))
    sandbox.ok("bead", "close", done)
    ran = sandbox.run("bead", "close", one, done, two, "--json")
    assert (ran.code, [row["id"] for row in ran.json()]) == (4, [one, two])
    assert f"error: {done}" in ran.err
    assert ids(sandbox, "list", "-s", "closed") == [one, done, two]


def test_deferring_holding_and_releasing(sandbox: Sandbox) -> None:
    bead_id = create(sandbox, "Not yet", "--defer", "+2h")
    assert show(sandbox, bead_id)["gremlins"]["bucket"] == "deferred"
    sandbox.ok("bead", "update", bead_id, "--defer", "")
    assert show(sandbox, bead_id)["gremlins"]["bucket"] == "ready"
    sandbox.ok("bead", "hold", bead_id, "-r", "ask Anna")
    held = show(sandbox, bead_id)["gremlins"]
    assert (held["bucket"], held["hold"]["kind"], held["bucket_reason"]) == ("held", "person", "ask Anna")
    sandbox.ok("bead", "update", bead_id, "-s", "open")
    assert show(sandbox, bead_id)["gremlins"]["bucket"] == "ready"
    sandbox.ok("bead", "update", bead_id, "-s", "deferred")
    assert ids(sandbox, "ready") == []


def test_children_get_their_parents_number_and_its_blockers(sandbox: Sandbox) -> None:
    blocker = create(sandbox, "Blocker")
    parent = create(sandbox, "Parent", "-t", "epic", "--deps", blocker)
    child = create(sandbox, "Child", "--parent", parent)
    assert child == f"{parent}.1"
    assert create(sandbox, "Another", "--parent", parent) == f"{parent}.2"
    assert "blocks its parent" in show(sandbox, child)["gremlins"]["bucket_reason"]
    sandbox.ok("bead", "close", blocker)
    assert child in ids(sandbox, "ready")


def test_circles_are_refused_and_dependencies_can_be_taken_away(sandbox: Sandbox) -> None:
    one, two, three = (create(sandbox, title) for title in ("One", "Two", "Three"))
    sandbox.ok("bead", "dep", "add", two, one)
    sandbox.ok("bead", "dep", "add", three, two)
    refused = sandbox.run("bead", "dep", "add", one, three)
    assert refused.code == 4
    assert one in refused.err
    assert sandbox.run("bead", "dep", "add", one, one).code == 4
    tree = json.loads(sandbox.ok("bead", "dep", "tree", three, "--json"))
    assert [(node["id"], node["depth"]) for node in tree] == [(three, 0), (two, 1), (one, 2)]
    sandbox.ok("bead", "dep", "rm", three, two)
    assert show(sandbox, three)["dependencies"] == []
    assert json.loads(sandbox.ok("bead", "dep", "cycles", "--json")) == []


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
def test_what_cannot_be_done_is_said_in_one_line(sandbox: Sandbox, words: tuple[str, ...], code: int) -> None:
    made = {"id": create(sandbox, "One"), "other": create(sandbox, "Other")}
    ran = sandbox.run("bead", *(word.format(**made) if "{" in word else word for word in words))
    assert ran.code == code
    assert ran.err.startswith("error: ")
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_an_ambiguous_beginning_lists_its_matches(sandbox: Sandbox) -> None:
    made = [create(sandbox, title) for title in ("One", "Two")]
    ran = sandbox.run("bead", "show", "project-")
    assert all(bead_id in ran.err for bead_id in made)


def test_import_and_export_from_outside(sandbox: Sandbox) -> None:
    file = sandbox.repo.path / "issues.jsonl"
    stamp = "2026-11-20T10:00:00Z"
    rows = [
        {"id": "bd-1", "title": "One", "status": "hooked", "created_at": stamp, "updated_at": stamp, "wisp": {"x": 1}},
        {"id": "bd-2", "title": "Two \u200f\u05d0", "status": "open", "created_at": stamp, "updated_at": stamp},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert json.loads(sandbox.ok("bead", "import", "issues.jsonl", "--json"))["created"] == 2
    out = [json.loads(line) for line in sandbox.ok("bead", "export").splitlines()]
    assert [row["id"] for row in out] == ["bd-1", "bd-2"]
    assert out[0]["wisp"] == {"x": 1}
    assert out[0]["status"] == "hooked"
    assert out[1]["title"] == "Two \u200f\u05d0", "a mark of direction is text too"
    assert show(sandbox, "bd-1")["gremlins"]["hold"]["status"] == "hooked"
    file.write_text(json.dumps(rows[1] | {"title": "Changed", "updated_at": "2030-01-01T00:00:00Z"}) + "\n{oops\n")
    ran = sandbox.run("bead", "import", "issues.jsonl")
    assert ran.code == 1
    assert "issues.jsonl:2" in ran.err
    assert show(sandbox, "bd-2")["title"] == "Two \u200f\u05d0"


def test_each_repository_has_its_own_beads(sandbox: Sandbox) -> None:
    from tests.conftest import make_repo

    create(sandbox, "Here")
    other = make_repo(sandbox.repo.path.parent / "other")
    assert sandbox.ok("bead", "list", "--json", cwd=other.path) == "[]\n"
    assert sandbox.run("bead", "list", cwd=sandbox.repo.path.parent).code == 5


def test_a_worktree_of_the_repository_sees_its_beads(sandbox: Sandbox) -> None:
    bead_id = create(sandbox, "Here")
    beside = sandbox.repo.path.parent / "beside"
    sandbox.repo.git("worktree", "add", "-q", str(beside))
    assert [row["id"] for row in json.loads(sandbox.ok("bead", "list", "--json", cwd=beside))] == [bead_id]


def test_a_closed_pipe_is_silent(sandbox: Sandbox) -> None:
    import subprocess
    import sys

    for number in range(3):
        create(sandbox, f"Number {number}")
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m gremlins bead list --json | head -c 1"],
        cwd=sandbox.repo.path,
        env=sandbox.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[", "")
