"""The installed command on a real terminal: a pseudo-terminal of a given size, and real signals."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gremlins.records.gremlin import Bailed
from tests.fleet.records import Root, ago, record, state_root

PATIENCE = 30.0
ALTERNATE, BACK, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


@dataclass
class Terminal:
    """The command on a pseudo-terminal, and all that it has written there."""

    root: Root
    words: tuple[str, ...]
    width: int = 80
    env: dict[str, str] = field(default_factory=dict)
    text: str = ""

    def __enter__(self) -> Terminal:
        self.near, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, self.width, 0, 0))
        env = {"PATH": os.environ["PATH"], "TERM": "xterm", "GREMLINS_HOME": str(self.root.home.root), **self.env}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gremlins", *self.words],
            stdin=far,
            stdout=far,
            stderr=far,
            env=env,
            start_new_session=True,
        )
        os.close(far)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self.near)

    def read_until(self, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while what not in self.text:
            assert self._read(deadline), f"ended without {what!r}: {self.text!r}"

    def read_to_end(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.process.wait(PATIENCE)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.near], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more came after {self.text!r}"
        try:
            data = os.read(self.near, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            return False
        self.text += data.decode(errors="replace")
        return bool(data)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    made = state_root(tmp_path)
    made.put(record(status=Bailed(since=ago(60), stage="plan", kind="unclear", detail="which of them? " * 20)))
    return made


def test_the_live_view_ends_cleanly_on_ctrl_c(root: Root) -> None:
    with Terminal(root, ("status", "--watch")) as terminal:
        terminal.read_until("fix-add")
        os.kill(terminal.process.pid, signal.SIGINT)
        assert terminal.read_to_end() == 130
    assert ALTERNATE in terminal.text
    assert terminal.text.index(BACK) > terminal.text.index(ALTERNATE)
    assert terminal.text.rindex(SHOW_CURSOR) > terminal.text.rindex("fix-add")
    assert "Traceback" not in terminal.text
    assert "error" not in terminal.text


@pytest.mark.parametrize("words", [("status",), ("show", "fix-add"), ("log", "fix-add"), ("doctor",)])
def test_no_color_means_no_escape_at_all(root: Root, words: tuple[str, ...]) -> None:
    root.home.gremlin("fix-add").log.write_text("2026-11-21T12:00:00Z  plan: begins\n")
    with Terminal(root, words, env={"NO_COLOR": "1"}) as terminal:
        terminal.read_to_end()
    assert terminal.text
    assert "\x1b" not in terminal.text


@pytest.mark.parametrize("words", [("status",), ("show", "fix-add")])
def test_there_is_colour_on_a_terminal(root: Root, words: tuple[str, ...]) -> None:
    with Terminal(root, words) as terminal:
        assert terminal.read_to_end() == 0
    assert "\x1b[" in terminal.text


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("words", [("status",), ("show", "fix-add")])
def test_lines_keep_to_the_terminal(root: Root, words: tuple[str, ...], width: int) -> None:
    with Terminal(root, words, width, {"NO_COLOR": "1"}) as terminal:
        assert terminal.read_to_end() == 0
    assert max(len(line) for line in terminal.text.splitlines()) <= width


def test_a_watch_into_a_pipe_ends_when_its_reader_goes(root: Root) -> None:
    env = {"PATH": os.environ["PATH"], "GREMLINS_HOME": str(root.home.root)}
    watch = subprocess.Popen(
        [sys.executable, "-m", "gremlins", "status", "--watch", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    )
    assert watch.stdout is not None
    assert watch.stderr is not None
    assert b"fix-add" in watch.stdout.readline()
    watch.stdout.close()
    assert watch.wait(PATIENCE) == 0
    assert watch.stderr.read() == b""
    watch.stderr.close()


@pytest.mark.parametrize(
    ("words", "streams", "code", "said"),
    [
        (["status"], ">&-", 0, ""),
        (["nope"], "2>&-", 6, ""),
        (["status"], "<&- >&- 2>&-", 0, ""),
        (["status", "--json"], ">/dev/full", 1, "error: No space left on device\n"),
        (["cost", "--json"], ">/dev/full", 1, "error: No space left on device\n"),
    ],
)
def test_output_that_cannot_be_written(root: Root, words: list[str], streams: str, code: int, said: str) -> None:
    command = ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "gremlins", *words]
    env = {"PATH": os.environ["PATH"], "GREMLINS_HOME": str(root.home.root)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr[: len(said) or None] == said


def test_without_a_text_the_editor_opens_with_the_question_quoted(root: Root, tmp_path: Path) -> None:
    """The editor writes nothing below the question: an empty answer is wrong usage, and nothing changes."""
    editor = tmp_path / "editor"
    editor.write_text(f'#!/bin/sh\ncp "$1" "{tmp_path}/seen"\n')
    editor.chmod(0o700)
    with Terminal(root, ("answer", "fix-add"), env={"EDITOR": str(editor)}) as terminal:
        assert terminal.read_to_end() == 2
    assert "# unclear: which of them?" in (tmp_path / "seen").read_text()
