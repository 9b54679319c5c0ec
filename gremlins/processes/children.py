"""Child processes: run one, start one in a group of its own, end a group, and tell a live pid from a recycled one."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gremlins.clock import Clock

PROC = Path("/proc")
ATTENTION = 0.3
"""Seconds between two looks whether somebody wants a child to be ended."""

_CREDENTIALS = re.compile(
    r"""ANTHROPIC_.*(KEY|TOKEN|TOKEN_FILE|SECRET|HEADERS)
      | ANTHROPIC_(PROFILE|CONFIG_DIR)      # name the files that the SDK reads credentials from
      | (CLAUDE|CLAUDE_CODE)_.*(KEY|TOKEN|SECRET)
      | AWS_BEARER_TOKEN_BEDROCK
      | (OPENAI|CODEX|KILO|KILOCODE|COPILOT|GEMINI|OPENROUTER|MISTRAL)_.*(KEY|TOKEN|SECRET)
      | (GH|GITHUB|GH_ENTERPRISE|GITHUB_ENTERPRISE|COPILOT_GITHUB)_TOKEN
      | GREMLINS_(?!HOME$).*                # ours; the state root stays, so that a command sees the same gremlins
    """,
    re.VERBOSE | re.IGNORECASE,
)
_GIT_PLACES = re.compile(
    # What `git rev-parse --local-env-vars` lists: they name one repository, and it is never the worktree's.
    r"GIT_(DIR|WORK_TREE|INDEX_FILE|INDEX_VERSION|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|COMMON_DIR"
    r"|NAMESPACE|PREFIX|GRAFT_FILE|SHALLOW_FILE|REPLACE_REF_BASE|NO_REPLACE_OBJECTS|IMPLICIT_WORK_TREE"
    r"|INTERNAL_.*|QUARANTINE_PATH|CONFIG|CONFIG_PARAMETERS|LITERAL_PATHSPECS)"
)


@dataclass(frozen=True)
class Completed:
    """How a child process ended. A negative `returncode` is the signal that ended it."""

    returncode: int
    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        """What it printed, bytes that are not UTF-8 replaced."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        return self.stderr_bytes.decode(errors="replace")

    @property
    def output(self) -> str:
        """Both streams, errors last."""
        return self.stdout + self.stderr


class TimedOut(Exception):
    """A child did not end in time; its whole group was killed."""


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    input: bytes | str | None = None,
    timeout: float | None = None,
    pass_fds: Sequence[int] = (),
    shielded: bool = False,
    check: Callable[[], None] | None = None,
) -> Completed:
    """Run a child to its end, in a group of its own so that Ctrl-C at our terminal is not also its Ctrl-C.

    Interrupted, the child is killed; a `shielded` one is waited for first, for it must not be cut in the middle.
    `check` is called now and then meanwhile, and interrupts by raising.
    Raises OSError where it cannot be started, `TimedOut` after `timeout` seconds.
    """
    data = input.encode() if isinstance(input, str) else input
    child = start(
        argv,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=pass_fds,
    )
    try:
        out, err = child.communicate(data, timeout=timeout) if check is None else _attended(child, timeout, check)
    except subprocess.TimeoutExpired:
        _kill_and_reap(child)
        raise TimedOut(f"{argv[0]} took longer than {timeout:g} s") from None
    except BaseException:
        if shielded:
            child.communicate()
        else:
            _kill_and_reap(child)
        raise
    return Completed(child.returncode, out, err)


def _attended(child: subprocess.Popen[bytes], timeout: float | None, check: Callable[[], None]) -> tuple[bytes, bytes]:
    """`communicate`, in short pieces."""
    left = float("inf") if timeout is None else timeout
    while True:
        check()
        piece = min(left, ATTENTION)
        try:
            return child.communicate(timeout=piece)
        except subprocess.TimeoutExpired:
            left -= piece
            if left <= 0:
                raise


def _kill_and_reap(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.communicate()


def start(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a child as the leader of a session and group of its own: its pid is also its group's id.

    It inherits the descriptors in `pass_fds` and no others. Raises OSError.
    """
    return subprocess.Popen(
        list(argv),
        cwd=cwd,
        env=None if env is None else dict(env),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
    )


def terminate_group(
    pgid: int,
    *,
    clock: Clock,
    grace: float = 5.0,
    kill: Callable[[int, int], None] = os.killpg,
    alive: Callable[[int], bool] | None = None,
    poll: float = 0.05,
) -> bool:
    """End a process group: TERM, `grace` seconds, KILL. True when nothing of it is left.

    Whoever started the leader still has to wait for it; a zombie counts as gone.
    """
    if pgid <= 1 or pgid == os.getpgrp():
        raise ValueError(f"refusing to signal process group {pgid}")
    lives = alive or group_alive
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        try:
            kill(pgid, number)
        except ProcessLookupError:
            return True
        except PermissionError:  # macOS says this of a group of zombies
            return not lives(pgid)
        until = clock.monotonic() + patience
        while lives(pgid):
            if clock.monotonic() >= until:
                break
            clock.sleep(poll)
        else:
            return True
    return False


def group_alive(pgid: int) -> bool:
    """Whether a process group has a member that still runs (zombies do not)."""
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    members = [stat for pid in _pids() if (stat := _stat(pid)) and stat.group == pgid]
    return not PROC.is_dir() or any(not member.over for member in members)


@dataclass(frozen=True)
class _Stat:
    state: str
    group: int
    started: str
    """Clock ticks since boot."""

    @property
    def over(self) -> bool:
        return self.state in "ZXx"


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir(PROC) if name.isdigit()]
    except OSError:
        return []


def _stat(pid: int) -> _Stat | None:
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the command in parentheses and may itself hold spaces and parentheses: proc(5).
    fields = text[text.rfind(")") + 1 :].split()
    return _Stat(fields[0], int(fields[2]), fields[19]) if len(fields) > 19 else None


def start_time(pid: int) -> str | None:
    """A word that tells this process from a later one with the same pid, also across reboots. None: it is over."""
    if pid <= 0:
        return None
    if PROC.is_dir():
        stat = _stat(pid)
        return None if stat is None or stat.over else f"{_boot()}:{stat.started}"
    try:
        shown = run(
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
            cwd=Path("/"),
            env={**os.environ, "LC_ALL": "C"},
            timeout=10,
        )
    except (OSError, TimedOut):
        return None
    state, _, started = shown.stdout.strip().partition(" ")
    return started.strip() if started and not state.startswith("Z") else None


def _boot() -> str:
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return "boot"


def is_running(pid: int, started: str | None) -> bool:
    """Whether `pid` still is the process that had this `start_time`."""
    return started is not None and start_time(pid) == started


def holders(path: Path) -> list[int]:
    """The pids, ours left out, that hold a file open. Empty where the system cannot say (only Linux can)."""
    try:
        wanted = os.stat(path)
    except OSError:
        return []
    return [pid for pid in _pids() if pid != os.getpid() and _holds(pid, path.name, wanted)]


def _holds(pid: int, name: str, wanted: os.stat_result) -> bool:
    folder = PROC / str(pid) / "fd"
    try:
        numbers = os.listdir(folder)
    except OSError:
        return False
    for number in numbers:
        with contextlib.suppress(OSError):  # closed meanwhile, or not ours to see
            # The name first: reading a link never blocks, asking a dead network mount for its status does.
            target = os.readlink(folder / number).removesuffix(" (deleted)")
            if target.rsplit("/", 1)[-1] == name:
                found = os.stat(folder / number)
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return True
    return False


def command_env(env: Mapping[str, str]) -> dict[str, str]:
    """The environment for a project's own commands: without our credentials, without variables that point git at
    another repository, and without `GREMLINS_*` except the state root.
    """
    return {
        name: value
        for name, value in env.items()
        if not (_CREDENTIALS.fullmatch(name) or _GIT_PLACES.fullmatch(name) or _has_password(name, value))
    }


def _has_password(name: str, value: str) -> bool:
    """A gateway's address may carry `user:password@`."""
    return name.startswith("ANTHROPIC_") and "://" in value and "@" in value
