"""Any bytes in any file of ours: no traceback, nothing written elsewhere, nothing lost, nothing paid for twice."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from gremlins.cli.main import run
from gremlins.simulator import Simulator
from tests.acceptance.crash_scenarios import ASK, ResettableSandbox
from tests.acceptance.fork_server import ForkServer
from tests.acceptance.one_batch_call import FOREVER

SOAK = bool(os.environ.get("GREMLINS_SOAK"))
READING = (
    ("status",),
    ("status", "--all", "--json"),
    ("status", "g", "--json"),
    ("show", "g"),
    ("show", "g", "--json"),
    ("log", "g"),
    ("cost",),
    ("cost", "--by", "stage", "--json"),
    ("pipelines",),
    ("pipelines", "--json"),
)
ACTING = (("rescue", "g"), ("stop", "g"), ("land", "g"), ("ack", "g"), ("rm", "g"), ("clean",))
ANSWERS = {0, 1, 4, 5, 6}
"""Exit codes that say something to a person; 3 would be a bug in gremlins."""
OURS = (
    "state/gremlins/g/state.json",
    "state/gremlins/g/frozen.json",
    "state/gremlins/g/calls/*.json",
    "state/gremlins/g/wait.json",
    "state/gremlins/g/lock",
    "state/gremlins/g/log",
    "state/gremlins/g/output",
    "state/gremlins/g/artifacts/*",
    "state/config.toml",
    "state/spend.jsonl",
    "state/polls/*/answer.json",
    "state/polls/*/waiting/*",
    "project/.gremlins/config.toml",
    "project/.gremlins/pipelines/ask.yaml",
)

Cut = tuple[str, float, float, bytes]
CUTS = st.tuples(
    st.sampled_from(["cut off", "overwrite", "insert", "remove", "replace all", "flip"]),
    st.floats(0, 1),
    st.floats(0, 0.3),
    st.binary(max_size=20)
    | st.sampled_from([b"\0", b"{}", b"[]", b"null", b'"', b"\xff\xfe", b"1e999", b"NaN", b"-1", b"[" * 5000, b"\n"]),
)


def mangled(content: bytes, cut: Cut) -> bytes:
    how, where, share, new = cut
    at = int(where * len(content))
    to = at + max(1, int(share * len(content)))
    match how:
        case "cut off":
            return content[:at]
        case "overwrite":
            return content[:at] + new + content[at + len(new) :]
        case "insert":
            return content[:at] + new + content[at:]
        case "remove":
            return content[:at] + content[to:]
        case "replace all":
            return new
        case _:
            return content[:at] + bytes(byte ^ 0x15 for byte in content[at : at + 1]) + content[at + 1 :]


@dataclass
class Wreck:
    """A detached gremlin, any of whose files may be damaged, set back for each try."""

    place: ResettableSandbox

    def files(self) -> list[Path]:
        now = self.place.folder / "now"
        return sorted(path for pattern in OURS for path in now.glob(pattern) if path.is_file())

    def snapshot(self) -> dict[str, bytes | None]:
        """Everything there is, except what git keeps for itself."""
        now = self.place.folder / "now"
        return {
            str(path.relative_to(now)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
            for path in now.rglob("*")
            if ".git" not in path.relative_to(now).parts
        }


@pytest.fixture(scope="module")
def wreck(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Iterator[Wreck]:
    folder = tmp_path_factory.mktemp("wreck")
    with pytest.MonkeyPatch.context() as patch, Simulator(latency=FOREVER) as simulator:
        home = folder / "home"
        home.mkdir()
        (home / ".gitconfig").write_text("[user]\n\tname = Test Person\n\temail = person@example.org\n")
        patch.setenv("HOME", str(home))
        simulator.fault("cancel", "error", status=404, times=0)  # the batch is there for every try
        place = ResettableSandbox(folder, simulator, fork_server.python)
        sandbox = place.sandbox
        sandbox.pipeline("ask", ASK)
        sandbox.ok("launch", "ask", "A task", "--id", "g")
        sandbox.wait_for(lambda: (sandbox.peek("g")["batch"] or {}).get("batch_id") is not None, "its batch")
        sandbox.until("g", "parked")
        sandbox.kill("g")
        sandbox.repo.write({".gremlins/config.toml": "[batch]\npoll_initial = 0.1\n"})
        (sandbox.home / "config.toml").write_text("[spend]\nper_attempt = 5.0\n")
        (sandbox.home / "spend.jsonl").write_text('{"id": "old", "usd": 1.5, "at": "2026-11-20T10:00:00Z"}\n')
        place.keep()
        yield Wreck(place)
        sandbox.close()


@contextlib.contextmanager
def as_a_person(wreck: Wreck) -> Iterator[None]:
    """In this very process: their environment, their folder."""
    before, folder, mask = dict(os.environ), Path.cwd(), os.umask(0)
    os.umask(mask)
    os.environ.update(wreck.place.sandbox.env)
    os.chdir(wreck.place.sandbox.repo.path)
    try:
        yield
    finally:
        os.chdir(folder)
        os.umask(mask)
        os.environ.clear()
        os.environ.update(before)


def restore(wreck: Wreck) -> None:
    """As it was, without a new account: the batch is still there."""
    wreck.place.sandbox.close()
    wreck.place.replace()


@settings(max_examples=2000 if SOAK else 60, suppress_health_check=list(HealthCheck))
@given(number=st.integers(0, 99), cuts=st.lists(CUTS, min_size=1, max_size=3), verb=st.sampled_from(READING))
def test_whatever_a_file_holds_reading_it_ends_in_words_and_changes_nothing_soak(
    wreck: Wreck, capfd: pytest.CaptureFixture[str], number: int, cuts: list[Cut], verb: tuple[str, ...]
) -> None:
    wreck.place.sandbox.close()
    files = wreck.files()
    path = files[number % len(files)]
    content = path.read_bytes()
    try:
        damaged = content
        for cut in cuts:
            damaged = mangled(damaged, cut)
        path.write_bytes(damaged)
        before = wreck.snapshot()
        with as_a_person(wreck):
            code = run(verb)
        said = capfd.readouterr()
        note(f"{path.name}: {verb} said {code} {said.err}")
        assert code in ANSWERS
        assert "Traceback" not in said.out + said.err
        assert wreck.snapshot() == before
    finally:
        path.write_bytes(content)


@settings(max_examples=300 if SOAK else 12, suppress_health_check=list(HealthCheck))
@given(number=st.integers(0, 99), cut=CUTS, verb=st.sampled_from(ACTING))
def test_whatever_a_file_holds_acting_on_it_pays_for_nothing_twice_and_loses_nothing_soak(
    wreck: Wreck, number: int, cut: Cut, verb: tuple[str, ...]
) -> None:
    sandbox, before = wreck.place.sandbox, len(wreck.place.simulator.batches)
    restore(wreck)
    files = wreck.files()
    path = files[number % len(files)]
    path.write_bytes(mangled(path.read_bytes(), cut))
    around = sorted(place.name for place in wreck.place.folder.iterdir())
    ran = sandbox.run(*verb, env={"GREMLINS_BATCH__STOP_WAIT": "3"})
    note(f"{path.name}: {verb} said {ran.code} {ran.err}")
    assert ran.code in ANSWERS
    if ran.code == 0 and verb[0] == "rescue":
        select.select([], [], [], 0.5)  # time for the process to do something wrong; it may end in any state
    output = sandbox.home / "gremlins/g/output"
    assert "Traceback" not in ran.out + ran.err + (output.read_text(errors="replace") if output.exists() else "")
    assert not list((sandbox.home / "crashes").glob("*"))
    assert len(wreck.place.simulator.batches) == before
    assert sorted(place.name for place in wreck.place.folder.iterdir()) == around
    assert sandbox.repo.git("status", "--porcelain", "--", "orchard", "tests", "README.md") == ""
