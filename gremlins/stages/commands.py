"""Runs a project's commands: `sh -c` in the worktree, without our credentials."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from subprocess import Popen

from gremlins.clock import SystemClock
from gremlins.files import make_private_dir
from gremlins.processes.children import command_env, start, terminate_group, without_callers_own
from gremlins.processes.output import BoundedOutput, open_private
from gremlins.redaction import Redactor
from gremlins.repository.git import some_of
from gremlins.repository.interrupted import snapshot_around_commands
from gremlins.repository.worktree import commit_tracked, new_files, quiet_env
from gremlins.stages.base import StageContext

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL for a command that ran too long or was stopped."""
TAIL_BYTES = 24_000
"""Of a command's output, what a prompt or a person gets to see; the artifact has more of it."""


@dataclass(frozen=True)
class CommandResult:
    """The end of a command. `exit_code` 124 stands for its timeout, 128 + N for a signal, as in a shell."""

    command: str
    exit_code: int
    tail: str
    seconds: float
    timed_out: bool = False


def first_failure(
    commands: Sequence[str], context: StageContext, *, timeout: float, log: str, mark: str
) -> CommandResult | None:
    """Run commands in order until one fails. Logs are `log`, with `mark` and a number if there are several."""
    with snapshot_around_commands(context.worktree):
        for number, command in enumerate(commands, 1):
            name = f"{log}{mark}{number}.log" if len(commands) > 1 else f"{log}.log"
            result = run_command(command, context, timeout=timeout, log_name=name)
            if result.exit_code:
                return result
    commit_changes(context, "; ".join(commands))
    return None


_committing = threading.Lock()


def commit_changes(context: StageContext, commands: str) -> None:
    """Commit what commands that passed have changed in tracked files, so that what lands is what they passed on."""
    with _committing:  # parallel branches may run commands in one worktree
        subject = f"Changes made by `{' '.join(commands.split())}`"
        changed = commit_tracked(context.worktree, message=subject if len(subject) <= 72 else f"{subject[:70]}…`")
        uncommitted, left = context.worktree.git.dirty_paths(), new_files(context.worktree)
    if changed:
        context.log(f"{context.path}: the commands changed {some_of(changed)}; committed")
    if uncommitted:
        context.log(f"{context.path}: changes in tracked files are not committed: {some_of(uncommitted)}")
    if left:
        context.log(f"{context.path}: new files are not committed, for git does not track them: {some_of(left)}")


def failure_sentence(result: CommandResult) -> str:
    """One line: which command, how it ended, and the last thing it said."""
    lines = [line.strip() for line in result.tail.splitlines() if line.strip()]
    last = f": {lines[-1][:300]}" if lines else ""
    how = f"took longer than {result.seconds:.0f} s" if result.timed_out else f"exited with {result.exit_code}"
    return f"`{result.command}` {how}{last}"


def run_command(command: str, context: StageContext, *, timeout: float, log_name: str) -> CommandResult:
    """Run one command to its end, its timeout, or the end of this process's own life. Raises Terminated."""
    redact = Redactor(context.session.env)
    shown = redact.message(command)
    context.busy(context.clock.now() + timedelta(seconds=timeout), f"running `{shown}`")
    context.log(f"{context.path}: running `{shown}`")
    began = context.clock.monotonic()
    make_private_dir(context.artifacts)
    output = context.artifacts / log_name
    try:
        with BoundedOutput(output) as kept, _running(command, context, kept.fd) as child:
            timed_out = not _wait(child, context, timeout)
            if timed_out:
                terminate_group(child.pid, clock=SystemClock(), grace=GRACE)
            code = child.wait(timeout=GRACE * 2)
    finally:
        mask_log(output, redact)
    seconds = context.clock.monotonic() - began
    code = 124 if timed_out else 128 - code if code < 0 else code
    context.log(f"{context.path}: `{shown}` exited with {code} after {seconds:.1f} s")
    context.busy(None, "")
    return CommandResult(shown, code, redact.message(_tail(output)), timeout if timed_out else seconds, timed_out)


@contextmanager
def _running(command: str, context: StageContext, output: int) -> Iterator[Popen[bytes]]:
    """The command as a child in its own group, holding the work lock; nothing of the group outlives the block."""
    with context.session.enclosed(command) as argv:
        yield from _started(argv, context, output)


def _started(argv: Sequence[str], context: StageContext, output: int) -> Iterator[Popen[bytes]]:
    session = context.session
    child = start(
        argv,
        cwd=context.worktree.path,
        env=quiet_env(context.worktree, _own_env(context)),
        stdout=output,
        stderr=output,
        pass_fds=() if session.work_fd is None else (session.work_fd,),
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            terminate_group(child.pid, clock=SystemClock(), grace=GRACE)
            child.wait(timeout=GRACE)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)  # what the command left in the background


def _own_env(context: StageContext) -> dict[str, str]:
    """No credentials, nothing of the caller's environment, and the programs that the worktree itself holds first."""
    env = without_callers_own(command_env(context.session.env))
    tree = context.worktree.path
    own = [str(folder) for folder in (tree / ".venv/bin", tree / "node_modules/.bin") if folder.is_dir()]
    return {**env, "PATH": os.pathsep.join([*own, env.get("PATH", os.defpath)])}


def _wait(child: Popen[bytes], context: StageContext, timeout: float) -> bool:
    """True if the child ended in time. Returns at once when it ends, or when this process is asked to end."""
    session = context.session
    until = context.clock.monotonic() + timeout
    child_fd = os.pidfd_open(child.pid) if hasattr(os, "pidfd_open") else None
    fds = [fd for fd in (child_fd, session.interrupt_fd) if fd is not None]
    try:
        while child.poll() is None:
            session.check()
            left = until - context.clock.monotonic()
            if left <= 0:
                return False
            # Without pidfds (not Linux) a short look; with them only the interrupt and the end wake us.
            select.select(fds, [], [], min(left, 5.0 if child_fd is not None else 0.05))
        return True
    finally:
        if child_fd is not None:
            os.close(child_fd)


def mask_log(path: Path, redact: Redactor) -> None:
    """Write a command's output again with its secrets masked, a part at a time."""
    masked, changed = path.with_name(f"{path.name}.masked"), False
    with path.open("rb") as old, open_private(masked) as new:
        while part := old.read(1_000_000) + old.readline(100_000):
            text = part.decode(errors="surrogateescape")
            shown = redact.message(text)
            changed = changed or shown != text
            new.write(shown.encode(errors="surrogateescape"))
    if changed:
        masked.replace(path)
    else:
        masked.unlink()


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return ("… (its beginning is left out)\n" + text) if size > TAIL_BYTES else text
