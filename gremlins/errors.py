"""The error tree. Only `cli.main` prints an error and exits, with its `exit_code`.

GremlinsError                       1  one line, and a hint if there is something to do
 ├─ ConfigError                     1  a settings or pipeline file is wrong: file, line, nearest name
 ├─ Conflict                        4  the state does not allow it: lock held, illegal transition, dirty tree
 ├─ NotReady                        5  credentials, binary or configuration missing
 ├─ NotFound                        6  no such gremlin, bead or pipeline
 ├─ CommandFailed                   1  a child process ended with a non-zero code
 │   └─ GitError
 ├─ CorruptRecord                   1  a file of ours cannot be read; it is left alone
 └─ ClientError                     1  a model call failed (see `gremlins.clients`)
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

MACHINE_TROUBLE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EROFS, errno.EIO}
)
"""Of an OSError: the machine's own trouble, which may pass."""


class GremlinsError(Exception):
    """An error for a person: one line, and a hint if there is something to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(GremlinsError):
    """A settings or pipeline file is wrong. `line` counts from 1."""

    def __init__(
        self,
        message: str,
        *,
        file: Path | str | None = None,
        line: int | None = None,
        hint: str | None = None,
    ) -> None:
        where = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(where + message, hint=hint)
        self.file = file
        self.line = line


class Conflict(GremlinsError):
    """The state does not allow it; nothing was changed."""

    exit_code = 4


class NotReady(GremlinsError):
    """Credentials, a binary or configuration are missing; nothing was started."""

    exit_code = 5


class NotFound(GremlinsError):
    """No such gremlin, bead or pipeline."""

    exit_code = 6


class CommandFailed(GremlinsError):
    """A child process ended with a non-zero code. `output`: stdout and stderr."""

    def __init__(self, argv: Sequence[str], returncode: int, output: str) -> None:
        self.argv = tuple(argv)
        self.returncode = returncode
        self.output = output
        last = output.strip().splitlines()[-1:] or ["no output"]
        super().__init__(f"{argv[0]} {argv[1] if len(argv) > 1 else ''} ended with {returncode}: {last[0]}")


class GitError(CommandFailed):
    """git failed."""


class CorruptRecord(GremlinsError):
    """A file of ours cannot be read. It is left as it is."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}", hint="it was left as it is; `gremlins doctor` lists such files")
        self.path = path
        self.why = why


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most similar to a mistyped one, or None."""
    from difflib import get_close_matches  # slow, and only errors need it

    return next(iter(get_close_matches(name, list(known), n=1, cutoff=0.6)), None)


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str | None = None) -> str | None:
    """A hint that offers the nearest known name."""
    near = nearest(name, known)
    return f"did you mean `{near}`?" if near else otherwise
