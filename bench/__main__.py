"""`python -m bench`: measure, print a report, and with `--write` put it into `bench/README.md`."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import dispatch, languages, live, packages, waiting
from bench.fleets import make_fleet, make_other_fleet
from bench.installs import HERE, Installed, install, other
from bench.lives import Lives, measure_lives
from bench.parked import COUNTS, Fleet, measure_parked
from bench.timing import Command, Figure, Times, clean_env, measure

SIZES = (0, 100, 1000, 10_000)
OTHER_VARIABLE = "GREMLINS_BENCH_OTHER"
README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def main() -> int:
    options = _options()
    memory = Path("/dev/shm")  # a fleet of ten thousand is made in seconds there; it is read from memory anyway
    where = options.folder or (str(memory) if os.access(memory, os.W_OK) else None)
    with tempfile.TemporaryDirectory(prefix="gremlins-bench.", dir=where) as name:
        report = _measure_all(Path(name), options)
    print(report)
    if options.write:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n\n{report}\n{END}{rest.partition(END)[2]}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Speed and memory, as ratios in one run.")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each command (default 15)")
    parser.add_argument(
        "--lives", type=int, default=5, help="gremlins that are launched, parked and stopped (default 5)"
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="sizes of fleets")
    parser.add_argument("--parked", type=int, nargs="*", default=COUNTS, help="sizes of fleets that are really parked")
    parser.add_argument(
        "--functions", type=int, default=20, help="named functions of each language in long files (default 20)"
    )
    parser.add_argument("--folder", help="where to work (default: memory, else the temporary folder)")
    parser.add_argument("--write", action="store_true", help="put the report into bench/README.md")
    parser.add_argument(
        "--other",
        default=os.environ.get(OTHER_VARIABLE),
        help=f"source, or virtual environment, of the system this succeeds (or {OTHER_VARIABLE}); without it, left out",
    )
    return parser.parse_args()


def _measure_all(folder: Path, options: argparse.Namespace) -> str:
    _say("installing")
    ours = install(HERE, folder / "ours")
    theirs = other(options.other, folder / "theirs")
    if ours is None:
        _say("measuring the command of this environment instead; its size is not measured")
    lines = ["### Starting, and looking at a fleet", ""]
    lines += _starts(folder, ours or Installed(Path(sys.prefix)), theirs, options)
    _say("launching, parking and stopping")
    lives = measure_lives((ours or Installed(Path(sys.prefix))).command, folder / "lives", options.lives)
    lines += ["", "### Living", "", *_living(lives, ours)]
    _say("fleets that are parked: more than a minute each")
    command = [(ours or Installed(Path(sys.prefix))).command]
    fleets = measure_parked(folder / "parked", command, options.parked)
    lines += ["", "### Parked", "", *_parked(fleets), "", "On a simulated clock:", "", *_figures(waiting.measure())]
    _say("dispatching")
    lines += ["", "### Dispatching", "", *_figures(dispatch.measure())]
    _say("live calls")
    lines += ["", "### Live calls", "", *_figures(live.measure_apart())]
    _say("fetching packages for long files by language")
    rows = languages.measure(packages.fetch(folder / "packages"), options.functions)
    lines += ["", "### Long files, by language", "", *_table(languages.HEAD, languages.cells(rows)), "", _machine()]
    return "\n".join(lines) + "\n"


def _parked(fleets: Sequence[Fleet]) -> list[str]:
    head = [
        "parked",
        "polls at first after",
        "memory of each (PSS), MB",
        "of one core, all together, %",
        "requests a minute, all together",
        "`status`, ms",
        "all finished, s after their batches ended",
    ]
    rows = [
        [
            f"{fleet.count:,}",
            f"{fleet.interval:.0f} s",
            f"{fleet.pss_mb:.1f}",
            f"{fleet.core:.2f}",
            f"{fleet.requests:.1f}",
            f"{fleet.status_ms:.0f}",
            f"{fleet.awake_after:.0f}",
        ]
        for fleet in fleets
    ]
    return _table(head, rows)


def _figures(figures: Sequence[Figure]) -> list[str]:
    return _table(["what", ""], [[figure.what, f"{figure.value:,.1f} {figure.unit}".strip()] for figure in figures])


def _starts(folder: Path, ours: Installed, theirs: Installed | None, options: argparse.Namespace) -> list[str]:
    head = ["command", "ms", "of it CPU", "÷ `python -c pass`", "the other, ms", "ours ÷ other"]
    rows = []
    nothing = Command("pass", [str(ours.python), "-c", "pass"], clean_env())
    for words, label, other_words, size in _cases(options.sizes):
        _say(f"{label}")
        commands = [nothing, Command("ours", [ours.command, *words], _our_env(folder, size))]
        if theirs is not None:
            commands.append(Command("theirs", [theirs.command, *other_words], _their_env(folder, theirs, size)))
        rows.append(_row(label, measure(commands, options.rounds)))
    return _table(head, rows)


def _cases(sizes: Sequence[int]) -> list[tuple[list[str], str, list[str], int]]:
    cases: list[tuple[list[str], str, list[str], int]] = [(["--help"], "`--help`", ["--help"], 0)]
    for size in sizes:
        cases.append((["status"], f"`status` of {size:,}", [], size))
        cases.append((["status", "--json"], f"`status --json` of {size:,}", ["--json"], size))
    return cases


def _our_env(folder: Path, size: int) -> dict[str, str]:
    home = folder / f"fleet-{size}"
    if not home.exists():
        make_fleet(home, size)
    return clean_env(GREMLINS_HOME=str(home))


def _their_env(folder: Path, theirs: Installed, size: int) -> dict[str, str]:
    home = folder / f"other-fleet-{size}"
    if not home.exists():
        make_other_fleet(theirs.python, home, size)
    return clean_env(GREMLINS_SANDBOX_ROOT=str(home))


def _row(label: str, times: dict[str, Times]) -> list[str]:
    ours, nothing, theirs = times["ours"], times["pass"], times.get("theirs")
    against = [f"{theirs.median:.0f}", f"**{ours.median / theirs.median:.2f}**"] if theirs else ["–", "–"]
    return [label, f"{ours.median:.0f}", f"{ours.best_cpu:.0f}", f"{ours.median / nothing.median:.1f}", *against]


def _living(lives: Lives, ours: Installed | None) -> list[str]:
    rows = [
        ["`launch` returns after", _spread(lives.launch, "s")],
        ["`stop` of a parked one, its batch canceled", _spread(lives.stop, "s")],
        ["memory of a parked one (PSS)", _spread(lives.parked_mb, "MB")],
        ["installed, without the live extras", _size(ours) if ours else "not measured"],
        [
            "the demo's task, whole pipeline, against the simulator: batch ÷ live",
            f"${lives.batch_usd:.4f} ÷ ${lives.live_usd:.4f} = {lives.batch_usd / lives.live_usd:.2f}",
        ],
    ]
    return _table(["what", "median (least to most)"], rows)


def _size(ours: Installed) -> str:
    whole, code = ours.megabytes()
    return f"{whole:.0f} MB, {whole - code:.0f} MB without the byte code that pip makes of all of it"


def _spread(values: Sequence[float], unit: str) -> str:
    return f"{statistics.median(values):.2f} {unit} ({min(values):.2f} to {max(values):.2f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]


def _machine() -> str:
    system = f"Python {platform.python_version()}, {platform.system()} {platform.release()}"
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"
    return f"{datetime.now(UTC):%Y-%m-%d}, {system}, {_processor()}, {load}. Medians of the clock; the processor's time is the least of all rounds."


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    if shutil.which("git") is None:
        sys.exit("git is not installed")
    sys.exit(main())
