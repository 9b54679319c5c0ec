"""Work over foreign content in a child: an end in time and memory, a sentence, and a stop meanwhile."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gremlins.clients.providers import searching
from gremlins.errors import GremlinsError
from gremlins.processes.interrupt import Interrupt, Terminated, nothing_to_check
from gremlins.processes.limited import OverLimit, run_limited
from gremlins.stages.context import aside
from tests.conftest import Repo

WORK = """
import os, signal
def work(order):
    match order:
        case "hang": signal.pause()
        case "compute":
            while True: pass
        case "fill": return len(bytearray(300_000_000))
        case "die": os.kill(os.getpid(), signal.SIGKILL)
        case "whose": return os.getppid()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "foreign_work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "foreign_work"


@pytest.mark.parametrize(
    ("order", "seconds", "memory", "said"),
    [
        ("hang", 0.8, 2**31, r"the work took longer than 0\.8 s"),
        ("compute", 0.8, 2**31, r"the work took (longer than 0\.8 s|more than 0\.8 s of the processor)"),
        ("die", 300, 2**31, "the work was ended by SIGKILL"),
        pytest.param(
            *("fill", 300, 200 * 2**20, "the work needs more than 200 MB of memory"),
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a limit of memory"),
        ),
    ],
)
def test_what_takes_too_much_ends_with_a_sentence(
    module: str, order: str, seconds: float, memory: int, said: str
) -> None:
    with pytest.raises(OverLimit, match=said):
        run_limited(module, order, what="the work", check=nothing_to_check, seconds=seconds, memory=memory)  # type: ignore[arg-type]


def test_a_stop_ends_it_at_once(module: str) -> None:
    interrupt = Interrupt()
    looks = iter([None, None, "SIGTERM"])

    def check() -> None:
        if name := next(looks):
            interrupt.trigger(name)
        interrupt.check()

    with pytest.raises(Terminated):
        run_limited(module, "hang", what="the work", check=check)  # type: ignore[arg-type]
    interrupt.close()


def test_it_is_a_process_of_its_own_whose_errors_are_ours(module: str, tmp_path: Path) -> None:
    assert run_limited(module, "whose", what="", check=nothing_to_check) == os.getpid()  # type: ignore[arg-type]
    order = {"root": str(tmp_path / "gone"), "budget": 1, "subject": {"task": "x", "needs": []}}
    with pytest.raises(GremlinsError, match="gone is not a folder"):
        run_limited(aside.__name__, order, what="the pack", check=nothing_to_check)


def search(root: Path, do: str, pattern: str, path: str = "", seconds: float = 300) -> str:
    order = {"do": do, "root": str(root), "pattern": pattern, "path": path}
    return str(run_limited(searching.__name__, order, what="the search", check=nothing_to_check, seconds=seconds))


def test_a_models_patterns_end_and_stay_inside(repo: Repo, tmp_path: Path) -> None:
    repo.write({"evil.txt": "a" * 60 + "!\n", "b/c.py": "x = 1\n", "n.bin": "a\0b"})
    (tmp_path / "outside.txt").write_text("a secret")
    (repo.path / "link.txt").symlink_to(tmp_path / "outside.txt")
    (repo.path / "out").symlink_to(tmp_path)
    os.mkfifo(repo.path / "pipe")
    with pytest.raises(OverLimit, match="the search took"):
        search(repo.path, "grep", "(a+)+$", seconds=1)
    with pytest.raises(GremlinsError, match="no regular expression"):
        search(repo.path, "grep", "(")
    assert search(repo.path, "grep", "x = [0-9]|secret") == f"{repo.path}/b/c.py:1:x = 1"
    assert search(repo.path, "glob", "b/*.*") == f"{repo.path}/b/c.py"
    for path in ("..", "out", "/etc"):
        with pytest.raises(GremlinsError, match="not in the working directory"):
            search(repo.path, "grep", "x", path)
    with pytest.raises(GremlinsError, match="relative"):
        search(repo.path, "glob", "../*")
