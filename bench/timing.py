"""Timing whole commands: rounds in which every one has its turn, so that a busy machine is busy for all of them."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PATIENCE = 300.0


@dataclass(frozen=True)
class Command:
    """A command line that is timed. Its output goes nowhere."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str = "/"


@dataclass(frozen=True)
class Figure:
    """One line of a report."""

    what: str
    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.what:<72} {self.value:9.1f} {self.unit}"


@dataclass
class Times:
    """Milliseconds of one command, a value for each round: by the clock, and of the processor."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        return min(self.wall)

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def best_cpu(self) -> float:
        return min(self.cpu)


def clean_env(**more: str) -> dict[str, str]:
    """What a shell would give, without settings or credentials of the person who runs the bench."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | more


def measure(commands: Sequence[Command], rounds: int) -> dict[str, Times]:
    """Times by name, after one round that only warms caches and writes byte code."""
    times = {command.name: Times() for command in commands}
    for number in range(rounds + 1):
        for command in commands:
            wall, cpu = run_once(command)
            if number:
                times[command.name].wall.append(wall)
                times[command.name].cpu.append(cpu)
    return times


def run_once(command: Command) -> tuple[float, float]:
    """Milliseconds by the clock and of the processor. Raises SystemExit when the command fails."""
    began = time.perf_counter()
    child = subprocess.Popen(
        list(command.argv),
        env=dict(command.env),
        cwd=command.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert child.stderr is not None
    said = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stderr.close()
    if child.returncode:
        sys.exit(f"`{' '.join(command.argv)}` ended with {child.returncode}: {said.decode(errors='replace').strip()}")
    return wall * 1000, (used.ru_utime + used.ru_stime) * 1000
