"""Conformance tests of the bead stores: a file of SQLite, and a cluster's PostgreSQL."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gremlins.cluster.database import ClusterDb, migrate
from gremlins.errors import Conflict, CorruptRecord, GremlinsError
from gremlins.fleet.beads.attempts import Attempt, Ending, Episode, Settlement
from gremlins.fleet.beads.bead import Bead, Dependency
from gremlins.fleet.beads.store.interface import (
    AddAttempt,
    BeadStore,
    ChangeAttempt,
    DependencyCircle,
    Event,
    MoveBead,
    Notice,
    PutBead,
    PutEpisode,
    Query,
    SetPaused,
    SettleAttempt,
)
from gremlins.fleet.beads.store.postgres import PostgresStore
from gremlins.fleet.beads.store.sqlite import SqliteStore
from gremlins.fleet.beads.store.transfer import hand_over
from gremlins.fleet.beads.store.writes import SqlStore
from tests.fleet.project import PROJECT, issue
from tests.postgres import PostgresServer

NOW = 1_800_000_000.0
Open = Callable[[], SqlStore]
"""Opens the store of a test once more, as another process does."""


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> str:
    url = postgres.new_database()
    with closing(ClusterDb(url)) as db:
        migrate(db, init=True)
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "beads.db")
    url = request.getfixturevalue("database")
    emptied(url)
    return lambda: PostgresStore(ClusterDb(url))


def emptied(url: str) -> None:
    with closing(ClusterDb(url)) as db:
        db.run("TRUNCATE beads, deps, attempts, episodes, events, notices, pauses")


@pytest.fixture
def store(opened: Open) -> Iterator[SqlStore]:
    with opened() as made:
        yield made


def put(
    store: BeadStore, bead_id: str, *, project: str = PROJECT, needs: tuple[str, ...] = (), **fields: object
) -> Bead:
    assert store.commit(PutBead(Bead(project=project, issue=issue(bead_id, needs=needs, **fields)), None))
    found = store.bead(project, bead_id)
    assert found is not None
    return found


def attempt(bead_id: str, number: int = 1, **more: object) -> Attempt:
    fields = {"project": PROJECT, "bead_id": bead_id, "number": number, "epoch": 1, "gremlin_id": f"g-{number}"}
    fields |= {"kind": "fresh", "pipeline": "local", "mode": None, "scopes": ("claude:1",), "probe": False}
    return Attempt(**(fields | {"expected_usd": 1.0, "claimed_at": NOW} | more))  # type: ignore[arg-type]


def end(failure: str | None = "task", at: float = NOW, cost: float = 0.5) -> Settlement:
    return Settlement(at, failure, "because", cost_usd=cost)  # type: ignore[arg-type]


def test_a_bead_comes_back_as_it_was_put(store: BeadStore) -> None:
    bead = put(store, "a-1", title="Ünïcode", labels=("x",), metadata={"k": [1]}, unknown={"we": "keep"})
    assert store.bead(PROJECT, "a-1") == bead
    assert bead.issue.model_extra == {"unknown": {"we": "keep"}}


def test_the_same_id_may_be_in_two_projects(store: BeadStore) -> None:
    put(store, "a-1")
    put(store, "a-1", project="/elsewhere", title="another")
    assert [bead.issue.title for bead in store.beads("/elsewhere", Query())] == ["another"]
    assert not store.commit(PutBead(Bead(project=PROJECT, issue=issue("a-1")), None))


def test_a_change_against_an_older_generation_is_refused_whole(store: BeadStore) -> None:
    bead = put(store, "a-1")
    assert store.commit(PutBead(replace(bead, status="deferred"), bead.generation))
    event = Event(PROJECT, "a-1", NOW, "x", "must not be written")
    assert not store.commit(event, PutBead(bead, bead.generation))
    assert store.events(PROJECT, "a-1") == ()


def test_a_move_expects_generation_and_status(store: BeadStore) -> None:
    put(store, "a-1")
    work = store.works(PROJECT, ["a-1"]).works[0]
    assert store.commit(MoveBead(work, "closed", "2026-11-21T11:00:00Z", "done"))
    assert not store.commit(MoveBead(work, "open", "2026-11-21T11:00:00Z"))
    closed = store.bead(PROJECT, "a-1")
    assert closed is not None
    assert (closed.status, closed.issue.closed_at, closed.issue.close_reason) == (
        "closed",
        "2026-11-21T11:00:00Z",
        "done",
    )


def test_a_bead_has_one_unsettled_attempt(store: BeadStore) -> None:
    put(store, "a-1")
    assert store.commit(AddAttempt(attempt("a-1")))
    assert not store.commit(AddAttempt(attempt("a-1", 2)))
    assert store.commit(SettleAttempt(attempt("a-1"), end()))
    assert store.commit(AddAttempt(attempt("a-1", 2)))


def test_what_is_under_way_is_what_has_an_unsettled_attempt(store: BeadStore) -> None:
    for bead_id in ("a-1", "a-2", "a-3"):
        put(store, bead_id)
    for bead_id in ("a-1", "a-2"):
        assert store.commit(AddAttempt(attempt(bead_id)))
    assert store.commit(SettleAttempt(attempt("a-1"), end()))
    assert [work.id for work in store.under_way(PROJECT).works] == ["a-2"]


def test_a_claim_may_become_a_probe_until_it_is_settled(store: BeadStore) -> None:
    put(store, "a-1")
    assert store.commit(AddAttempt(attempt("a-1")))
    assert store.commit(ChangeAttempt(attempt("a-1"), replace(attempt("a-1"), probe=True)))
    [work] = store.under_way(PROJECT).works
    assert work.attempts[0].probe
    assert store.commit(SettleAttempt(attempt("a-1"), end()))
    assert not store.commit(ChangeAttempt(attempt("a-1"), replace(attempt("a-1"), probe=True)))


def test_an_attempt_is_settled_once_and_settlements_are_numbered(store: BeadStore) -> None:
    for bead_id in ("a-1", "a-2"):
        put(store, bead_id)
        assert store.commit(AddAttempt(attempt(bead_id)))
    assert store.commit(SettleAttempt(attempt("a-2"), end()))
    assert store.commit(SettleAttempt(attempt("a-1"), end(None)))
    assert not store.commit(SettleAttempt(attempt("a-1"), end()))
    assert [a.bead_id for a in store.recent(PROJECT, 0)] == ["a-2", "a-1"]
    assert store.last_seq(PROJECT) == 2


def test_a_late_event_of_an_earlier_spawn_changes_nothing(store: BeadStore) -> None:
    put(store, "a-1")
    first = attempt("a-1")
    assert store.commit(AddAttempt(first))
    assert store.commit(ChangeAttempt(first, replace(first, spawns=2, base_spawn=1)))
    assert not store.commit(SettleAttempt(first, end()))
    assert not store.commit(ChangeAttempt(first, replace(first, spawned_at=NOW)))
    assert not store.commit(ChangeAttempt(first, replace(first, spawns=2)))
    assert store.works(PROJECT, ["a-1"]).works[0].spawns == 2


def test_an_ending_is_marked_once(store: BeadStore) -> None:
    put(store, "a-1")
    assert store.commit(AddAttempt(attempt("a-1")))
    assert store.commit(ChangeAttempt(attempt("a-1"), replace(attempt("a-1"), ending=Ending("stalled", NOW))))
    assert not store.commit(ChangeAttempt(attempt("a-1"), replace(attempt("a-1"), ending=Ending("deadline", NOW))))


def test_an_episode_is_changed_against_its_version(store: BeadStore) -> None:
    episode = Episode(PROJECT, "fleet", 1, "start", "why", 3, NOW, 0, NOW, NOW + 60)
    assert store.commit(PutEpisode(episode))
    assert not store.commit(PutEpisode(episode))
    assert store.commit(PutEpisode(replace(episode, level=1, version=2)))
    assert not store.commit(PutEpisode(replace(episode, level=9, version=2)))
    assert [e.level for e in store.episodes(PROJECT)] == [1]


def test_a_notice_is_taken_once(store: BeadStore) -> None:
    assert store.commit(Notice(PROJECT, NOW, "closed", {"bead": "a-1"}))
    assert [notice.payload["bead"] for notice in store.take_notices(PROJECT)] == ["a-1"]
    assert store.take_notices(PROJECT) == ()


def test_pausing_is_per_project(store: BeadStore) -> None:
    store.commit(SetPaused(PROJECT, "lunch"))
    assert (store.paused(PROJECT), store.paused("/elsewhere")) == ("lunch", None)
    store.commit(SetPaused(PROJECT, None))
    assert store.paused(PROJECT) is None


def test_unsettled_attempts_are_of_all_projects_and_settled_ones_give_the_average(store: BeadStore) -> None:
    for project in (PROJECT, "/elsewhere"):
        put(store, "a-1", project=project)
        mine = attempt("a-1", project=project)
        assert store.commit(AddAttempt(mine))
        assert store.commit(SettleAttempt(mine, end(cost=0.25 if project == PROJECT else 0.75)))
        assert store.commit(AddAttempt(attempt("a-1", 2, project=project)))
    assert len(store.unsettled_attempts()) == 2
    assert store.average_usd("local") == 0.5
    assert store.average_usd("other") is None


def test_a_project_that_was_moved_takes_everything_along_after_what_is_there_already(store: SqlStore) -> None:
    for bead_id, project in (("a-1", PROJECT), ("b-1", "/new")):
        put(store, bead_id, project=project)
        mine = attempt(bead_id, project=project)
        assert store.commit(AddAttempt(mine), SetPaused(project, "lunch"), Event(project, bead_id, NOW, "made", ""))
        assert store.commit(SettleAttempt(mine, end(cost=0.25)))
    assert store.rename_project([PROJECT, "/unknown"], "/new") == 1
    assert store.projects() == ["/new"]
    assert [found.bead_id for found in store.recent("/new", 0.0)] == ["b-1", "a-1"]
    assert (store.last_seq("/new"), store.paused("/new")) == (2, "lunch")
    assert len(store.events("/new", "a-1")) == 1


@pytest.fixture
def other(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SqlStore]:
    """A store of the other kind."""
    if request.node.callspec.params["opened"] == "postgres":
        with SqliteStore(tmp_path / "other.db") as made:
            yield made
        return
    url = request.getfixturevalue("database")
    emptied(url)
    with PostgresStore(ClusterDb(url)) as made:
        yield made


def test_a_project_goes_to_the_other_store_and_back_with_all_that_it_has(store: SqlStore, other: SqlStore) -> None:
    put(store, "a-1", labels=("x",))
    put(store, "a-2", needs=("a-1",), description="50 %")
    mine, again = attempt("a-1", probe=True), attempt("a-1", 2)
    assert store.commit(AddAttempt(mine), SetPaused(PROJECT, "lunch"), Event(PROJECT, "a-1", NOW, "made", "by me"))
    assert store.commit(SettleAttempt(mine, end()), Notice(PROJECT, NOW, "held", {"bead": "a-1"}))
    assert store.commit(AddAttempt(again), PutEpisode(Episode(PROJECT, "fleet", 1, "start", "why", 1, NOW, 0, NOW, 9)))
    before = (store.works(PROJECT), list(store.beads(PROJECT, Query())), store.episodes(PROJECT))
    assert hand_over(store, PROJECT, other, "/new") == 2
    assert (store.ids(PROJECT), store.events(PROJECT, "a-1"), store.last_seq(PROJECT)) == ([], (), 0)
    assert [work.id for work in other.under_way("/new").works] == ["a-1"]
    assert (other.paused("/new"), other.last_seq("/new"), len(other.events("/new", "a-1"))) == ("lunch", 1, 1)
    assert hand_over(other, "/new", store, PROJECT) == 2
    after = (store.works(PROJECT), list(store.beads(PROJECT, Query())), store.episodes(PROJECT))
    assert [replace(work, n=0) for work in after[0].works] == [replace(work, n=0) for work in before[0].works]
    assert after[1:] == before[1:]
    assert [notice.kind for notice in store.take_notices(PROJECT)] == ["held"]


def test_a_handing_over_that_was_cut_short_is_finished_and_takes_no_other_bead_for_its_own(
    store: SqlStore, other: SqlStore
) -> None:
    put(store, "a-1")
    put(other, "a-1", project="/new")
    assert hand_over(store, PROJECT, other, "/new") == 1  # the same bead: it was written, and not deleted here
    assert other.count("/new") == {"open": 1}
    put(store, "a-1")
    put(store, "a-2")
    with pytest.raises(Conflict, match="a-1"):
        hand_over(store, PROJECT, other, "/new")
    assert (store.count(PROJECT), other.count("/new")) == ({"open": 2}, {"open": 1})


def test_a_project_is_not_moved_over_beads_of_the_same_ids(store: SqlStore) -> None:
    put(store, "a-1")
    put(store, "a-1", project="/new")
    with pytest.raises(Conflict, match="a-1"):
        store.rename_project([PROJECT], "/new")
    assert store.count(PROJECT) == {"open": 1}


def test_a_view_holds_what_is_under_way_what_was_tried_and_the_next_to_start(store: BeadStore) -> None:
    for number in range(9):
        put(store, f"a-{number}", priority=4 - number % 5)
    put(store, "later", defer_until="2100-01-01T00:00:00Z")
    assert store.commit(AddAttempt(attempt("a-0")))
    view = store.view(PROJECT, NOW, fresh=2)
    assert {work.id for work in view.works} == {"a-0", "a-4", "a-3"}
    assert view.next_deferred is not None


def test_a_deferred_bead_may_start_once_its_time_has_come(store: BeadStore) -> None:
    put(store, "a-1", status="deferred", defer_until="2026-11-21T12:00:00Z")
    put(store, "a-2", defer_until="2026-11-21T12:00:00Z")
    assert store.view(PROJECT, 1_700_000_000.0, fresh=9).works == ()
    assert len(store.view(PROJECT, NOW, fresh=9).works) == 2


def test_bad_rows_stand_before_no_good_ones(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "beads.db") as store:
        for number in range(30):
            put(store, f"a-{number:02}")
        store.db.run("UPDATE beads SET epoch = 'garbage' WHERE id < 'a-25'")
        view = store.view(PROJECT, NOW, fresh=2)
        assert [work.id for work in view.works] == ["a-25", "a-26"]
        assert len(view.bad) == 25
        with pytest.raises(CorruptRecord):
            store.bead(PROJECT, "a-00")


def test_circles_are_refused_but_not_among_what_orders_nothing(store: BeadStore) -> None:
    put(store, "a-1")
    put(store, "a-2", needs=("a-1",))
    first = put(store, "a-3", needs=("a-2",))
    one = store.bead(PROJECT, "a-1")
    assert one is not None
    for kind, refused in (("blocks", True), ("parent-child", True), ("waits-for", True), ("related", False)):
        dependency = Dependency(issue_id="a-1", depends_on_id="a-3", type=kind)
        changed = replace(one, issue=one.issue.model_copy(update={"dependencies": (dependency,)}))
        if refused:
            with pytest.raises(DependencyCircle, match="a-1 → a-3 → a-2 → a-1"):
                store.commit(PutBead(changed, one.generation))
        else:
            assert store.commit(PutBead(changed, one.generation))
    assert first.id == "a-3"


def test_a_circle_over_an_id_that_comes_later_is_refused_too(store: BeadStore) -> None:
    put(store, "a-1", needs=("a-2",))
    with pytest.raises(DependencyCircle):
        put(store, "a-2", needs=("a-1",))


def test_a_child_is_blocked_with_its_parent(store: BeadStore) -> None:
    put(store, "blocker")
    put(store, "parent", needs=("blocker",))
    inherits = Dependency(issue_id="child", depends_on_id="parent", type="parent-child")
    put(store, "child", dependencies=(inherits,))
    assert [row[0] for row in store.blockers(PROJECT, "child")] == ["blocker"]
    blocker = store.works(PROJECT, ["blocker"]).works[0]
    assert store.commit(MoveBead(blocker, "closed", "2026-11-21T11:00:00Z"))
    child = store.bead(PROJECT, "child")
    assert child is not None
    assert not child.blocked


def test_what_is_not_here_blocks_nothing_until_it_comes(store: BeadStore) -> None:
    assert not put(store, "a-1", needs=("elsewhere-9",)).blocked
    put(store, "elsewhere-9")
    found = store.bead(PROJECT, "a-1")
    assert found is not None
    assert found.blocked


def test_ids_are_found_by_their_beginning_and_without_the_prefix(store: BeadStore) -> None:
    for bead_id in ("project-ab12", "project-ab12.1", "project-cd34"):
        put(store, bead_id)
    assert store.matching(PROJECT, "project-ab12") == ["project-ab12"]
    assert store.matching(PROJECT, "project-c") == ["project-cd34"]
    assert store.matching(PROJECT, "cd") == ["project-cd34"]
    assert store.matching(PROJECT, "project-") == ["project-ab12", "project-ab12.1", "project-cd34"]
    assert store.matching(PROJECT, "") == []


def test_files_are_private(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "home" / "beads.db") as store:
        put(store, "a-1")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home").iterdir()}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_a_foreign_or_newer_file_is_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "beads.db"
    foreign.write_text("this is no database, but a person's own file" * 40)
    with pytest.raises(CorruptRecord):
        SqliteStore(foreign)
    assert foreign.read_text().startswith("this is no database")
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(GremlinsError, match="newer"):
        SqliteStore(tmp_path / "newer.db")


def test_tables_lists_histories_and_texts_are_the_same_in_both(store: SqlStore) -> None:
    put(store, "a-2", title="100 %s: what? :id", labels=("x",), description="a \\ 'b'")
    put(store, "a-1", needs=("a-2",), assignee="me")
    put(store, "a-3", priority=0)
    listed, bad = store.listing(PROJECT, Query(limit=2))
    assert [(each.work.id, each.title) for each in listed] == [("a-3", "do a-3"), ("a-2", "100 %s: what? :id")]
    assert (bad, store.listing(PROJECT, Query(statuses=("closed",)))) == ((), ([], ()))
    assert [bead.id for bead in store.beads(PROJECT, Query(blocked=True, assignee="me"))] == ["a-1"]
    assert [bead.id for bead in store.beads(PROJECT, Query(labels=("x",), priorities=(2,)))] == ["a-2"]
    assert list(store.beads("/elsewhere", Query())) == []
    assert store.all_blockers(PROJECT) == {"a-1": [("a-2", "open", "a-1")]}
    assert store.dependents(PROJECT, "a-2") == [("a-1", "blocks")]
    assert sorted(store.ids_beginning("a-")) == ["a-1", "a-2", "a-3"]
    assert store.commit(AddAttempt(attempt("a-2")), Event(PROJECT, "a-2", NOW, "claimed", "attempt 1"))
    assert store.attempt_of("g-1") == attempt("a-2")
    assert store.commit(SettleAttempt(attempt("a-2"), end(None)))
    work = store.work(PROJECT, "a-2")
    assert work is not None
    assert store.commit(MoveBead(work, "closed", "2026-11-21T11:00:00Z"))
    assert store.done_by(PROJECT, ["a-1", "a-3"]) == {"a-1": ("g-1",)}
    assert [event.text for event in store.events(PROJECT, "a-2")] == ["attempt 1"]
    assert store.count(PROJECT) == {"open": 2, "closed": 1}


def test_what_was_settled_lately_is_found_among_many(store: SqlStore) -> None:
    put(store, "a-1")
    for number in range(1, 61):
        mine = attempt("a-1", number)
        assert store.commit(AddAttempt(mine))
        assert store.commit(SettleAttempt(mine, end(at=NOW + number, cost=number)))
    assert [a.number for a in store.recent(PROJECT, NOW + 50)] == list(range(41, 61))
    assert [a.number for a in store.recent(PROJECT, NOW + 5)] == list(range(5, 61))
    assert store.average_usd("local") == sum(range(11, 61)) / 50


def test_a_change_that_is_refused_midway_leaves_the_store_in_order(store: SqlStore) -> None:
    put(store, "a-1")
    for _ in range(2):
        assert not store.commit(Event(PROJECT, "a-1", NOW, "x", ""), AddAttempt(attempt("missing")))
        with pytest.raises(KeyError):
            end_within(store)
    assert (store.paused(PROJECT), store.events(PROJECT, "a-1")) == (None, ())


def end_within(store: SqlStore) -> None:
    with store.db.transaction():
        store.db.insert("pauses", {"project": PROJECT, "reason": "no"})
        raise KeyError


def claim_all(opened: Open, results: multiprocessing.Queue[list[str]]) -> None:
    with opened() as store:
        won = []
        for work in store.works(PROJECT).works:
            claimed = attempt(work.id)
            if store.commit(MoveBead(work, "in_progress", "2026-11-21T11:00:00Z"), AddAttempt(claimed)):
                won.append(work.id)
        results.put(won)


def test_of_many_claims_at_once_each_bead_goes_to_one(opened: Open) -> None:
    with opened() as store:
        for number in range(40):
            put(store, f"a-{number}")
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[list[str]] = context.Queue()
    workers = [context.Process(target=claim_all, args=(opened, results)) for _ in range(6)]
    for worker in workers:
        worker.start()
    won = [bead_id for _ in workers for bead_id in results.get(timeout=60)]
    for worker in workers:
        worker.join(timeout=60)
    assert sorted(won) == sorted(f"a-{number}" for number in range(40))


def test_many_processes_may_make_the_database_at_once(tmp_path: Path) -> None:
    def opened() -> SqlStore:
        return SqliteStore(tmp_path / "beads.db")

    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[list[str]] = context.Queue()
    workers = [context.Process(target=claim_all, args=(opened, results)) for _ in range(10)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [[]] * 10
    for worker in workers:
        worker.join(timeout=60)


KINDS = st.sampled_from(["blocks", "parent-child", "waits-for", "related"])
STATUSES = st.sampled_from(["open", "closed", "failed", "in_progress"])
EDGES = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), KINDS), max_size=14)


MOVES = st.lists(st.tuples(st.integers(0, 7), STATUSES), max_size=14)


@settings(max_examples=60)
@given(edges=EDGES, moves=MOVES)
def test_the_blocked_flags_are_those_of_a_plain_model(
    edges: list[tuple[int, int, str]], moves: list[tuple[int, str]]
) -> None:
    with tempfile.TemporaryDirectory() as folder, SqliteStore(Path(folder) / "beads.db") as store:
        store.db.run("PRAGMA synchronous = OFF")
        check_flags(store, edges, moves)


@settings(max_examples=8)
@given(edges=EDGES, moves=MOVES)
def test_the_blocked_flags_are_the_same_in_postgres(
    database: str, edges: list[tuple[int, int, str]], moves: list[tuple[int, str]]
) -> None:
    emptied(database)
    with PostgresStore(ClusterDb(database)) as store:
        check_flags(store, edges, moves)


def check_flags(store: SqlStore, edges: list[tuple[int, int, str]], moves: list[tuple[int, str]]) -> None:
    needs: dict[str, set[tuple[str, str]]] = {f"b{n}": set() for n in range(8)}
    for n in range(8):
        put(store, f"b{n}")
    for issue_id, other, kind in edges:
        bead = store.bead(PROJECT, f"b{issue_id}")
        assert bead is not None
        dependency = Dependency(issue_id=bead.id, depends_on_id=f"b{other}", type=kind)
        changed = bead.issue.model_copy(update={"dependencies": (*bead.issue.dependencies, dependency)})
        try:
            store.commit(PutBead(replace(bead, issue=changed), bead.generation))
        except DependencyCircle:
            continue
        needs[bead.id].add((f"b{other}", kind))
    for number, status in moves:
        work = store.works(PROJECT, [f"b{number}"]).works[0]
        assert store.commit(MoveBead(work, status, "2026-11-21T11:00:00Z"))  # type: ignore[arg-type]
    beads = {bead.id: bead for bead in store.beads(PROJECT, Query())}

    def blocked(bead_id: str) -> bool:
        others = [(beads[other], kind) for other, kind in needs[bead_id]]
        return any(
            other.status != "closed"
            and (kind in ("blocks", "waits-for") or (kind == "parent-child" and blocked(other.id)))
            for other, kind in others
        )

    assert {bead_id: bead.blocked for bead_id, bead in beads.items()} == {
        bead_id: blocked(bead_id) for bead_id in beads
    }
    assert store.circles(PROJECT) == []


def test_many_beads_are_put_at_once_or_not_at_all(store: BeadStore) -> None:
    put(store, "a-1")
    puts = [PutBead(Bead(PROJECT, issue(bead_id)), None) for bead_id in ("a-2", "a-1")]
    with pytest.raises(Conflict):
        store.replace_all(PROJECT, puts)
    assert store.ids(PROJECT) == ["a-1"]
