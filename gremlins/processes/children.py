"""Child processes: runs and starts them in groups of their own, signals and ends groups, says which pids are alive."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from gremlins.clock import Clock

PROC = Path("/proc")
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
ATTENTION = 0.3
"""Seconds between two calls of `check` while a child runs."""
MOST_OUTPUT = 128 * 2**20
"""Bytes of standard output that `run` takes."""
MOST_ERRORS = 2**20
"""Bytes of standard error that `run` keeps, the last ones."""
CHUNK = 2**16

_CREDENTIALS = re.compile(
    r"""ANTHROPIC_.*(KEY|TOKEN|TOKEN_FILE|SECRET|HEADERS)
      | ANTHROPIC_(PROFILE|CONFIG_DIR)      # name the files that the SDK reads credentials from
      | (CLAUDE|CLAUDE_CODE)_.*(KEY|TOKEN|SECRET)
      | AWS_BEARER_TOKEN_BEDROCK
      | (OPENAI|CODEX|KILO|KILOCODE|COPILOT|GEMINI|OPENROUTER|MISTRAL)_.*(KEY|TOKEN|SECRET)
      | (GH|GITHUB|GH_ENTERPRISE|GITHUB_ENTERPRISE|COPILOT_GITHUB)_TOKEN
      | GREMLINS_(?!HOME$).*                # the state root stays: a command sees the same gremlins
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
    """The result of a child process. A negative `returncode` is the signal that ended it."""

    returncode: int
    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        """Decoded; bytes that are not UTF-8 are replaced."""
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


class TooMuchOutput(OSError):
    """A child printed more than is taken; its whole group was killed."""

    def __init__(self, program: str, most: int) -> None:
        super().__init__(errno.EFBIG, f"it printed more than {most >> 20} MB", program)


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    input: bytes | str | IO[bytes] | None = None,
    timeout: float | None = None,
    pass_fds: Sequence[int] = (),
    shielded: bool = False,
    check: Callable[[], None] | None = None,
    most: int = MOST_OUTPUT,
) -> Completed:
    """Run a child to its end, in a group of its own, which Ctrl-C at our terminal does not reach.

    On an exception here the child is killed; a `shielded` one is waited for first. `check` is called every 0.3 s
    and interrupts by raising. Raises OSError if the child cannot start, `TimedOut` after `timeout` seconds,
    `TooMuchOutput` after `most` bytes.
    """
    data = input.encode(errors="replace") if isinstance(input, str) else input
    child = start(
        argv,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL if data is None else subprocess.PIPE if isinstance(data, bytes) else data,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=pass_fds,
    )
    exchange = _Exchange(child, data if isinstance(data, bytes) else b"", most)
    try:
        exchange.run(timeout, check)
    except subprocess.TimeoutExpired:
        _kill_and_reap(child)
        raise TimedOut(f"{argv[0]} took longer than {timeout:g} s") from None
    except BaseException as error:  # a signal too: the child must not outlive this call
        if shielded and not isinstance(error, TooMuchOutput):
            exchange.run(None, None)
        else:
            _kill_and_reap(child)
        raise
    finally:
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                stream.close()
    return Completed(child.returncode, bytes(exchange.out), bytes(exchange.err))


class _Exchange:
    """The bytes that go to a child and come from it, in bounded memory. `run` again after an exception goes on."""

    def __init__(self, child: subprocess.Popen[bytes], data: bytes, most: int) -> None:
        self.child = child
        self.program = str(child.args[0])  # type: ignore[index]
        self.data = memoryview(data)
        self.most = most
        self.out, self.err = bytearray(), bytearray()
        assert child.stdout is not None
        assert child.stderr is not None
        self.into = {child.stdout.fileno(): self.out, child.stderr.fileno(): self.err}
        if child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)

    def run(self, timeout: float | None, check: Callable[[], None] | None) -> None:
        """Go on to the child's end. Raises TimeoutExpired, TooMuchOutput, and what `check` raises."""
        until = float("inf") if timeout is None else time.monotonic() + timeout
        attention = ATTENTION if check else float("inf")
        with selectors.DefaultSelector() as selector:
            for fd in self.into:
                selector.register(fd, selectors.EVENT_READ)
            if self.child.stdin is not None and not self.child.stdin.closed:
                selector.register(self.child.stdin, selectors.EVENT_WRITE)
            while selector.get_map():
                patience = min(self._left(until, check), attention)
                for key, _ in selector.select(None if patience == float("inf") else patience):
                    if not (self._read(key.fd) if key.events == selectors.EVENT_READ else self._write()):
                        selector.unregister(key.fileobj)
        while True:
            patience = min(self._left(until, check), attention)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(None if patience == float("inf") else patience)
                return

    def _left(self, until: float, check: Callable[[], None] | None) -> float:
        if check is not None:
            check()
        left = until - time.monotonic()
        if left <= 0:
            raise subprocess.TimeoutExpired(self.program, 0)
        return left

    def _write(self) -> bool:
        """True if there is more to write."""
        assert self.child.stdin is not None
        with contextlib.suppress(BlockingIOError):
            try:
                self.data = self.data[os.write(self.child.stdin.fileno(), self.data[:CHUNK]) :]
            except BrokenPipeError:  # it does not want the rest
                self.data = self.data[:0]
        if not self.data:
            self.child.stdin.close()
        return bool(self.data)

    def _read(self, fd: int) -> bool:
        """True if there may be more to read."""
        chunk = os.read(fd, CHUNK)
        self.into[fd] += chunk
        if len(self.out) > self.most:
            raise TooMuchOutput(self.program, self.most)
        del self.err[:-MOST_ERRORS]
        return bool(chunk)


def _kill_and_reap(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.wait()


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
    """Start a child that leads its own session and group and inherits only `pass_fds`. Raises OSError."""
    close_memory()
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


@cache
def close_memory() -> None:
    """Keep other processes of this user from reading our memory, environment and open files (Linux). Only root still
    can. An exec ends it, so that children are as always.
    """
    if sys.platform == "linux":
        import ctypes  # 3 ms: only where a child is started

        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends. Only Linux does."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def terminate_group(
    pgid: int,
    *,
    clock: Clock,
    grace: float = 5.0,
    kill: Callable[[int, int], None] = os.killpg,
    alive: Callable[[int], bool] | None = None,
    poll: float = 0.05,
) -> bool:
    """End a process group: SIGTERM, then SIGKILL after `grace` seconds. True when no process of it runs.

    The parent of the leader still has to reap it; a zombie counts as ended.
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


def signal_process(pid: int, number: int) -> None:
    """Signal a process, and its whole group if it leads one. A process that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def is_alive(pid: int) -> bool:
    """True if a process with this pid runs. A zombie does not."""
    import psutil  # 50 ms that few commands need

    try:
        return pid > 0 and psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def group_alive(pgid: int) -> bool:
    """True if a process group has a member that runs. Zombies do not."""
    import psutil

    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return any(_group_of(pid) == pgid and is_alive(pid) for pid in psutil.pids())


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def uptime() -> float | None:
    """Seconds since the machine booted; None where the system does not say."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return None if boottime is None else time.clock_gettime(boottime)


def age_of(pid: int) -> float | None:
    """Seconds since a process started, independent of the wall clock. None: unknown, or not running."""
    import psutil

    up = uptime()
    if up is None or not is_alive(pid):
        return None
    try:
        return max(0.0, up - (psutil.Process(pid).create_time() - psutil.boot_time()))
    except psutil.Error:
        return None


def holders(path: Path) -> list[int]:
    """The pids, ours left out, that hold a file open. Empty except on Linux.

    Not by psutil, which asks for the status of every open file: a dead network mount would block that.
    """
    try:
        wanted = os.stat(path)
        pids = [int(name) for name in os.listdir(PROC) if name.isdigit()]
    except OSError:
        return []
    return [pid for pid in pids if pid != os.getpid() and _holds(pid, path.name, wanted)]


def _holds(pid: int, name: str, wanted: os.stat_result) -> bool:
    folder = PROC / str(pid) / "fd"
    try:
        numbers = os.listdir(folder)
    except OSError:
        return False
    for number in numbers:
        with contextlib.suppress(OSError):  # closed meanwhile, or another user's
            # The name first: reading a link never blocks.
            target = os.readlink(folder / number).removesuffix(" (deleted)")
            if target.rsplit("/", 1)[-1] == name and os.path.samestat(os.stat(folder / number), wanted):
                return True
    return False


def command_env(env: Mapping[str, str]) -> dict[str, str]:
    """The environment for a project's own commands: no credentials, no variables that name another git repository,
    no `GREMLINS_*` except the state root.
    """
    return {
        name: value
        for name, value in env.items()
        if not (_CREDENTIALS.fullmatch(name) or _GIT_PLACES.fullmatch(name) or _has_password(name, value))
    }


CALLERS_OWN = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "NODE_PATH")
"""Variables that point into the environment of the person who called us, such as an active venv."""


def without_callers_own(env: Mapping[str, str]) -> dict[str, str]:
    """The environment without those variables, and without the entries of PATH that lie in what they name."""
    named = [part for name in CALLERS_OWN for part in env.get(name, "").split(os.pathsep) if part]
    folders = [os.path.join(os.path.abspath(part), "") for part in named]
    entries = env.get("PATH", "").split(os.pathsep)
    kept = [entry for entry in entries if not any(os.path.join(entry, "").startswith(folder) for folder in folders)]
    rest = {name: value for name, value in env.items() if name not in CALLERS_OWN}
    return {**rest, "PATH": os.pathsep.join(kept)} if "PATH" in env else rest


def _has_password(name: str, value: str) -> bool:
    """True for a gateway's address with `user:password@`."""
    return name.startswith("ANTHROPIC_") and "://" in value and "@" in value
