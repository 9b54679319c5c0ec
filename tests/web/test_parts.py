"""What the board draws, and how it notices what changed."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("jinja2", reason="needs the extra: pip install -e '.[web]'")

from gremlins.cli.cost import Sum
from gremlins.errors import GremlinsError
from gremlins.fleet.history import history
from gremlins.records.gremlin import Bailed, StageRun
from gremlins.web.change import MOST_LINES, parsed
from gremlins.web.pictures import WIDTH, bars, lanes
from gremlins.web.watch import Feed, FleetWatch, Groups
from tests.fleet.records import Root, ago, record, state_root
from tests.time_limit import DEADLINE

PATCH = """\
diff --git a/a.py b/a.py
index 1..2 100644
--- a/a.py
+++ b/a.py
@@ -10,3 +10,3 @@ def f():
 same = 1
--- old = 1
+++ new = "<b>"
 after = 1
diff --git a/pic.png b/pic.png
new file mode 100644
Binary files /dev/null and b/pic.png differ
"""


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return state_root(tmp_path)


def test_a_patch_has_files_and_lines_numbered_as_in_the_new_file() -> None:
    code, picture = parsed(PATCH).files
    assert (code.path, code.added, code.deleted) == ("a.py", 1, 1)
    assert [(line.kind, line.number) for line in code.lines] == [
        ("hunk", None), ("same", 10), ("del", None), ("add", 11), ("same", 12),
    ]  # fmt: skip
    assert "&lt;b&gt;" in code.lines[3].html
    assert picture.note == "new file mode 100644; Binary files /dev/null and b/pic.png differ"


def test_a_change_of_any_size_is_shown_up_to_a_number_of_lines() -> None:
    found = parsed("diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -0,0 +1,9999 @@\n" + "+x\n" * 9999)
    assert len(found.files[0].lines) == MOST_LINES - 3
    assert found.left_out == 9999 + 5 - MOST_LINES


def test_lanes_show_work_and_the_time_a_person_took(root: Root) -> None:
    runs = (
        StageRun(path="plan", type="plan", attempt=1, started_at=ago(100), ended_at=ago(80), outcome="bailed"),
        StageRun(path="plan", type="plan", attempt=2, started_at=ago(40), ended_at=ago(20), outcome="done"),
        StageRun(path="wait_ci", type="wait_ci", attempt=1, started_at=ago(20), ended_at=ago(0), outcome="failed"),
    )
    status = Bailed(since=ago(0), stage="wait_ci", kind="x", detail="y")
    root.put(record("one", status=status, stages=runs, created_at=ago(100), updated_at=ago(0), ended_at=ago(0)))
    plan, ci = lanes(history(root.home, "one", root.clock))
    assert [(piece.kind, piece.x, piece.width) for piece in plan.pieces] == [
        ("work", 0, 200), ("waiting", 200, 400), ("work", 600, 200),
    ]  # fmt: skip
    assert [(piece.kind, piece.x, piece.width) for piece in ci.pieces] == [("waiting", 800, 200)]
    assert (plan.outcome, plan.seconds, ci.outcome) == ("done", 40, "failed")


def test_bars_have_one_scale() -> None:
    first, second = bars([Sum("a", total_usd=3.0, batch_usd=2.0, live_usd=1.0, saved_usd=2.0), Sum("b", 1)])
    assert (first.batch, first.live, first.saved) == (400, 200, 400)
    assert first.batch + first.live + first.saved == WIDTH
    assert (second.batch, second.shown) == (0, "$0.0000")


def test_a_look_finds_what_came_changed_and_went(root: Root) -> None:
    watch = FleetWatch(root.home, root.clock)
    asks = Bailed(since=ago(60), stage="plan", kind="x", detail="y")
    root.put(record("one", status=asks))
    watch.look()
    assert watch.since(0) == {"one": None}
    seen = watch.changes
    watch.look()
    assert watch.changes == seen
    state = root.home.gremlin("one").state
    good = state.read_bytes()
    state.write_text("{")
    os.utime(state, ns=(1, 1))
    watch.look()
    assert watch.since(seen) == {"one": "needs you"}
    assert watch.unreadable.keys() == {"one"}
    state.write_bytes(good)
    root.put(record("two", status=asks))
    watch.look()
    assert watch.since(seen) == {"one": "needs you", "two": None}
    assert [row.record.id for row in watch.in_order()] == ["two", "one"]


def test_pages_hear_of_changes_again_after_a_look_that_failed(root: Root) -> None:
    class Away(FleetWatch):
        def look(self) -> None:
            if not seen:
                seen.append("away")
                raise GremlinsError("the database is away")
            super().look()

    async def first_change() -> Groups:
        async for _, found in Feed(watch, every=0.0).changes(0):
            return found
        raise AssertionError("no change")

    seen: list[str] = []
    watch = Away(root.home, root.clock)
    root.put(record("one", status=Bailed(since=ago(60), stage="plan", kind="x", detail="y")))
    assert asyncio.run(asyncio.wait_for(first_change(), DEADLINE)) == {"one": None}
    assert seen == ["away"]


def test_pages_look_at_once_from_threads_of_their_own(root: Root) -> None:
    asks = Bailed(since=ago(60), stage="plan", kind="x", detail="y")
    watch = FleetWatch(root.home, root.clock)
    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def page() -> None:
        watch.look()
        assert len([row for row in watch.rows.values() if row.record.id]) <= 30
        watch.since(0)

    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(5):
                for number in range(30):
                    root.put(record(f"g{number}", status=asks))
                pages = [pool.submit(page) for _ in range(20)]
                for number in range(30):
                    shutil.rmtree(root.home.gremlin(f"g{number}").root)
                for each in pages:
                    each.result(DEADLINE)
    finally:
        sys.setswitchinterval(often)
    watch.look()
    assert not watch.rows
