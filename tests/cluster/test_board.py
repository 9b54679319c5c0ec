"""The board of a host that belongs to a cluster."""

from __future__ import annotations

import pytest

pytest.importorskip("jinja2", reason="needs the extra: pip install -e '.[web]'")

from starlette.testclient import TestClient

from gremlins.clock import SystemClock
from gremlins.paths import Home
from gremlins.web.app import Board
from tests.cluster.machines import ASK, Cluster


def test_a_board_shows_the_fleet_of_all_hosts(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.found({"a.txt": "a\n"}, ask=ASK)
    one, desk = cluster.machine("one"), cluster.machine("desk")
    one.ok("launch", "ask", "--id", "g")
    monkeypatch.chdir(desk.repo.path)
    board = Board(Home.from_env(desk.env), SystemClock(), desk.repo.path, desk.env)
    browser = TestClient(board.app())
    fleet, page = browser.get("/"), browser.get("/g/g")
    assert fleet.status_code == page.status_code == 200
    assert "/g/g" in fleet.text
    assert "remote.git" in page.text
    seen = board.watch.changes
    assert board.watch.since(0) == {"g": None}
    board.watch.look()
    assert board.watch.changes == seen
    one.ok("launch", "ask", "--id", "h")
    board.watch.look()
    assert board.watch.since(seen) == {"h": None}
