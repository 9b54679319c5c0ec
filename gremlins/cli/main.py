"""Runs a command line: the only place that prints an error or decides an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from gremlins.cli.out import note
from gremlins.cli.quick import quick
from gremlins.cli.verbs import VERBS, normalise
from gremlins.errors import GremlinsError, NotFound, NotReady, nearest

INTERRUPTED = 130
BUG = 3
WRONG_USAGE = 2


def run(argv: Sequence[str]) -> int:
    """Carry out a command line. Returns the exit code."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a locale that has no `…` must not be a crash
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _dispatch([_readable(word) for word in argv])
        sys.stdout.flush()
        return code
    except GremlinsError as error:
        return _tell(error.message, error.hint, error.exit_code)
    except KeyboardInterrupt:
        return _tell("interrupted", None, INTERRUPTED)
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # how typer ends on a closed pipe
            return _reader_gone()
        raise
    except OSError as error:
        if _folder_is_gone():
            return _tell("the current folder is gone", "go to another one: cd ~", NotReady.exit_code)
        where = f": {error.filename}" if error.filename else ""
        return _tell(f"{error.strerror or error}{where}", "`gremlins doctor` looks at disk and permissions", 1)
    except Exception:  # noqa: BLE001 # the last handler: an exception here is a bug, kept in a crash log
        return _crash()


def _open_closed_streams() -> None:
    """Lead standard streams that were closed (`>&-`) nowhere. Else the next file opened, a lock perhaps, is one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 # for as long as the process lives


def _folder_is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _readable(word: str) -> str:
    """A word of the command line as text: records hold UTF-8. The name of a file stays as it is."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return word if os.path.lexists(word) else os.fsencode(word).decode(errors="replace")
    return word


def _reader_gone() -> int:
    _drop_output()
    return 0


def _drop_output() -> None:
    """Write no more data, not even by the interpreter's last flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _dispatch(argv: Sequence[str]) -> int:
    words = normalise(list(argv))
    try:
        code = quick(words)
        return _parse(words) if code is None else code
    except NotFound as error:
        _offer_a_verb(argv, error)
        raise


def _parse(words: list[str]) -> int:
    from gremlins.cli.app import build, usage_errors  # typer: only where `quick` does not know the way

    app = build(words)
    try:
        result = app(args=words, prog_name="gremlins", standalone_mode=False)
    except usage_errors() as error:
        where = error.ctx.command_path if error.ctx is not None else " ".join(["gremlins", *words[:1]])
        return _tell(error.format_message(), f"`{where} --help` shows how", WRONG_USAGE)
    return result if isinstance(result, int) else 0


def _offer_a_verb(argv: Sequence[str], error: NotFound) -> None:
    """`gremlins lunch` reads as an id; where it is close to a verb, that is what was meant."""
    if argv and argv[0] not in VERBS and (verb := nearest(argv[0], VERBS)):
        error.hint = f"did you mean `gremlins {verb}`?"


def _tell(message: str, hint: str | None, code: int) -> int:
    """One line, and what to do next."""
    lines = [f"error: {' '.join(message.split())}", *([f"hint: {' '.join(hint.split())}"] if hint else [])]
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()  # a full disk, or the reader is gone
    try:
        for line in lines:
            note(line)
    except OSError:
        pass  # the reader is gone
    return code


def _crash() -> int:
    import traceback  # with what follows 15 ms that `--help` need not pay

    from gremlins.clock import SystemClock
    from gremlins.files import make_private_dir, write_atomic
    from gremlins.paths import Home
    from gremlins.redaction import Redactor

    text = Redactor(os.environ).message(traceback.format_exc().encode(errors="backslashreplace").decode())
    try:
        folder = Home.from_env().crashes
        make_private_dir(folder)
        path = folder / f"cli-{SystemClock().now():%Y%m%dT%H%M%S}-{os.getpid()}.log"
        write_atomic(path, text)
        where = str(path)
    except OSError:
        where = "(it could not be written)"
    last = text.strip().splitlines()[-1][:200]
    return _tell(f"a bug in gremlins: {last}", f"the crash log is {where}; please report it", BUG)
