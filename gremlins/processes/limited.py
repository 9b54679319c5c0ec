"""Runs the function `work` of a module over foreign content in a child process, with limits on time and memory.

The order goes to the child as JSON on standard input, the result comes back the same way. Not a fork: our process may
have threads. The child ends with the process that waits.
"""

from __future__ import annotations

import importlib
import json
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gremlins.errors import GremlinsError
from gremlins.processes.children import TimedOut, TooMuchOutput, run

SECONDS = 300.0
"""Of the clock, and of the processor."""
MEMORY = 2 * 2**30
"""Bytes."""
OUT_OF_MEMORY, REFUSED = 71, 72
PR_SET_PDEATHSIG = 1


class OverLimit(GremlinsError):
    """The work was more than the limits allow, and was ended."""


class RunLimited(Protocol):
    """Runs `work(order)` of a module within limits. `what` names the work in errors: "the search"."""

    def __call__(
        self,
        module: str,
        order: Mapping[str, Any],
        *,
        what: str,
        check: Callable[[], None],
        seconds: float = SECONDS,
    ) -> Any: ...


def run_limited(
    module: str,
    order: Mapping[str, Any],
    *,
    what: str,
    check: Callable[[], None],
    seconds: float = SECONDS,
    memory: int = MEMORY,
) -> Any:
    """The result. Raises OverLimit, GremlinsError where the child did, and what `check` raises."""
    document = json.dumps({"seconds": seconds, "memory": memory, "order": order})
    argv = [sys.executable, "-P", "-m", __name__, module]
    try:
        done = run(argv, cwd=Path("/"), input=document, timeout=seconds, check=check)
    except TimedOut:
        raise OverLimit(f"{what} took longer than {seconds:g} s") from None
    except TooMuchOutput as error:
        raise OverLimit(f"{what}: {error.strerror}") from None
    if done.returncode == OUT_OF_MEMORY:
        raise OverLimit(f"{what} needs more than {memory >> 20} MB of memory")
    if done.returncode == -signal.SIGXCPU:
        raise OverLimit(f"{what} took more than {seconds:g} s of the processor")
    if done.returncode < 0:
        raise OverLimit(f"{what} was ended by {signal.Signals(-done.returncode).name}")
    if done.returncode == REFUSED:
        raise GremlinsError(**json.loads(done.stdout))
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def main(argv: Sequence[str]) -> int:
    """The child: `argv` is the module."""
    _end_with_parent()
    given = json.load(sys.stdin.buffer)
    _limit(resource.RLIMIT_CPU, max(1, round(given["seconds"])))
    _limit(resource.RLIMIT_DATA, given["memory"])  # not RLIMIT_AS: git maps packs of any size
    _limit(resource.RLIMIT_CORE, 0)
    try:
        sys.stdout.write(json.dumps(importlib.import_module(argv[0]).work(given["order"])))
    except MemoryError:
        return OUT_OF_MEMORY
    except (GremlinsError, OSError) as error:
        said = error.message if isinstance(error, GremlinsError) else str(error)
        sys.stdout.write(json.dumps({"message": said, "hint": getattr(error, "hint", None)}))
        return REFUSED
    return 0


def _limit(kind: int, most: int) -> None:
    """Never above a limit that holds already."""
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, hard))


def _end_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
