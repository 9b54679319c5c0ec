"""Live views off a terminal: a line for each change, and a clean end on Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from gremlins.cli.watch import Progress, changes, stage_lines, watch_fleet
from gremlins.clock import FakeClock
from gremlins.fleet.status import FleetStatus
from gremlins.records.gremlin import StageRun
from tests.cli.fleet_rows import fleet, row
from tests.fleet.records import NOON, ago


class Looks(FakeClock):
    """Time passes only between looks; after the last one comes Ctrl-C."""

    def __init__(self, count: int) -> None:
        super().__init__(NOON)
        self.left = count

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.left -= 1
        if self.left <= 0:
            raise KeyboardInterrupt


def watch(capsys: pytest.CaptureFixture[str], *fleets: FleetStatus, every: float = 2) -> list[str]:
    clock, rest = Looks(len(fleets)), list(fleets)
    look: Callable[[], FleetStatus] = lambda: rest.pop(0)  # noqa: E731 # it is read as an argument below
    assert watch_fleet(look, clock, every=every) == 130
    return capsys.readouterr().out.splitlines()


def test_what_does_not_change_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    same = fleet(row("a", "parked"))
    assert len(watch(capsys, same, same, same)) == 1


def test_a_change_of_state_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown = watch(capsys, fleet(row("a", "running")), fleet(row("a", "parked")), fleet(row("a", "bailed")))
    assert [line.split("  ")[2] for line in shown] == ["running", "running → parked", "parked → bailed"]
    assert "waits for msgbatch_a" in shown[1]
    assert "needs_decision" in shown[2]


def test_a_new_stage_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown = watch(capsys, fleet(row("a", "running")), fleet(row("a", "running", stage="verify")))
    assert "verify" in shown[1]


def test_who_leaves_the_list_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    shown = watch(capsys, fleet(row("a", "running")), fleet(), fleet())
    assert len(shown) == 2
    assert "gone" in shown[1]


def test_lines_are_whole_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    shown = watch(capsys, fleet(row("x" * 64, "bailed")))
    assert "x" * 64 in shown[0]
    assert "\x1b" not in shown[0]


@pytest.mark.parametrize("every", [0, -1, float("nan")])
def test_no_interval_makes_it_spin(capsys: pytest.CaptureFixture[str], every: float) -> None:
    clock = Looks(3)
    watch_fleet(fleet, clock, every=every)
    assert min(clock.slept) >= 0.1


def test_records_that_cannot_be_read_are_said_once_beside_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    bad = fleet(unreadable=1)
    watch_fleet(lambda: bad, Looks(3), every=1)
    caught = capsys.readouterr()
    assert caught.out == ""
    assert caught.err.count("warning:") == 1


def test_the_first_look_tells_the_oldest_first() -> None:
    shown = list(changes({}, fleet(row("new", "running"), row("old", "running")), NOON))
    assert [line.split("  ")[1] for line in shown] == ["old", "new"]


# ── one gremlin ───────────────────────────────────────────────────────────────────────────────────────────────────


def run(path: str, outcome: str | None = None, began: float = 60) -> StageRun:
    ended = ago(began - 12) if outcome else None
    made = StageRun(path=path, type=path.rpartition("/")[2], attempt=1, started_at=ago(began), ended_at=ended)
    return replace(made, outcome=outcome)


def test_the_view_of_one_gremlin_shows_stages_done_under_way_and_to_come() -> None:
    stages = (run("plan", "done"), run("implement"))
    now = Progress(row("fix-add", "parked", stage="implement", stages=stages), ("plan", "implement", "verify"))
    shown = [line.plain for line in stage_lines(now, NOON, 80)]
    assert shown[0].startswith("fix-add  parked  1h00m, $0.0100, saved $0.0100")
    assert [line.split()[0] for line in shown[1:]] == ["✓", "●", "·"]
    assert "parked batch: asks again in 1m30s" in shown[2]


def test_the_inner_stages_of_a_loop_are_shown_while_it_is_under_way() -> None:
    inner = tuple(run(f"loop[{n}]/verify", "failed") for n in range(1, 20))
    now = Progress(row("g", "running", stage="loop[19]/verify", stages=(run("loop"), *inner)), ("loop",))
    shown = [line.plain for line in stage_lines(now, NOON, 80)]
    assert len(shown) <= 10
    assert "loop[19]/verify" in shown[-1]


@pytest.mark.parametrize("width", [20, 80, 160])
def test_no_line_of_it_is_wider_than_the_screen(width: int) -> None:
    now = Progress(row("x" * 64, "bailed", stages=(run("plan", "bailed"),)), ("plan",))
    assert all(line.cell_len <= width for line in stage_lines(now, NOON, width))
