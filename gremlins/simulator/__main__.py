"""`python -m gremlins.simulator`: the simulator by hand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gremlins.errors import GremlinsError
from gremlins.simulator import Options, options_from_file, options_from_json, serve_forever


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m gremlins.simulator", description=__doc__)
    made.add_argument("--options", type=Path, metavar="FILE", help="a JSON file of options; flags come after it")
    made.add_argument("--host", help="address to listen on (127.0.0.1)")
    made.add_argument("--port", type=int, help="port to listen on (0: a free one)")
    made.add_argument("--latency", type=float, metavar="S", help="seconds from a batch's creation to its end")
    made.add_argument("--cancel-latency", type=float, metavar="S", help="seconds a cancellation takes")
    made.add_argument("--reply-latency", type=float, metavar="S", help="seconds before a live reply begins")
    made.add_argument("--state-file", type=Path, metavar="FILE", help="keep the batches there across restarts")
    made.add_argument("--lenient", action="store_const", const=True, help="make up batches for unknown ids")
    return made


def options_of(arguments: Sequence[str] | None) -> Options:
    given = vars(parser().parse_args(arguments))
    file = given.pop("options")
    base = options_from_file(file) if file else Options(port=8787)
    return options_from_json({key: value for key, value in given.items() if value is not None}, base)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        serve_forever(options_of(arguments), announce=_say)
    except GremlinsError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
