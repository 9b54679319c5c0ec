"""Observing a gremlin: its record, lock, calls and signs of life."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gremlins.clock import rfc3339
from gremlins.errors import CorruptRecord, NotFound
from gremlins.fleet.observe import ids, observe, resolve
from gremlins.records.calls import (
    Submitted,
)
from tests.fleet.records import NOON, Root, call, record, state_root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return state_root(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"id": "fix-add"}', '{"id": "another"}', "\x00\x01", "[" * 5000],
)
def test_a_half_written_or_foreign_record_is_reported_and_left_alone(root: Root, text: str) -> None:
    root.put(record())
    paths = root.home.gremlin("fix-add")
    paths.state.write_text(text)
    with pytest.raises(CorruptRecord, match="fix-add"):
        observe(str(paths.root))
    assert paths.state.read_text() == text


def test_what_outlives_its_process_is_found_in_its_calls(root: Root) -> None:
    outstanding = call(status=Submitted(), cost=None)
    root.put(record(), outstanding, call("verify"))
    seen = observe(str(root.home.gremlin("fix-add").root))
    assert [found.batch_id for found in seen.outstanding] == ["msgbatch_plan_1"]


def test_a_call_that_cannot_be_read_hides_no_other(root: Root) -> None:
    root.put(record(), call(status=Submitted(), cost=None))
    (root.home.gremlin("fix-add").calls / "broken.json").write_text("{")
    assert len(observe(str(root.home.gremlin("fix-add").root)).outstanding) == 1


def test_whoever_holds_the_lock_is_seen(root: Root) -> None:
    with root.alive(record()):
        seen = observe(str(root.home.gremlin("fix-add").root))
        assert seen.holder is not None
        assert seen.holder.pid == 4242
    assert observe(str(root.home.gremlin("fix-add").root)).holder is None


def test_the_last_sign_of_life_is_the_newest_file(root: Root) -> None:
    with root.alive(record()):
        paths = root.home.gremlin("fix-add")
        paths.activity.touch()
        os.utime(paths.activity, (0, NOON.timestamp() + 10 * 365 * 86400))
        seen = observe(str(paths.root))
    assert seen.last_sign is not None
    assert rfc3339(seen.last_sign).startswith("2036")


def test_a_gremlin_brings_its_own_idle_timeout(root: Root) -> None:
    with root.alive(record()):
        paths = root.home.gremlin("fix-add")
        paths.frozen.write_text(json.dumps({"settings": {"live": {"idle_timeout": 1.5}}}))
        assert observe(str(paths.root)).idle_timeout == 1.5


def test_a_foreign_folder_is_no_gremlin(root: Root) -> None:
    root.put(record())
    (root.home.gremlins / "Not An Id").mkdir()
    (root.home.gremlins / "a-file").write_text("x")
    assert list(ids(root.home)) == ["fix-add"]


def test_a_unique_beginning_names_a_gremlin(root: Root) -> None:
    for name in ("fix-add", "fix-mul", "other"):
        root.put(record(name))
    assert resolve(root.home, "oth") == "other"
    with pytest.raises(NotFound) as several:
        resolve(root.home, "fix-")
    assert several.value.hint == "one of: fix-add, fix-mul"
    with pytest.raises(NotFound) as none:
        resolve(root.home, "fix-adt")
    assert none.value.hint == "did you mean `fix-add`?"


def test_a_whole_id_wins_over_longer_ones(root: Root) -> None:
    for name in ("fix", "fix-add"):
        root.put(record(name))
    assert resolve(root.home, "fix") == "fix"


@pytest.mark.parametrize("name", ["../../etc", "", "Fix", "a/b", "."])
def test_a_name_that_is_none_reaches_no_file(root: Root, name: str) -> None:
    root.put(record())
    with pytest.raises(NotFound):
        resolve(root.home, name)
