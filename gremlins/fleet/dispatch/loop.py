"""Runs ticks until the process is asked to end. Waits between them for the next due time or the end of a gremlin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gremlins.clock import Clock
from gremlins.errors import GremlinsError
from gremlins.fleet.dispatch.observation import Fleet
from gremlins.fleet.dispatch.tick import Dispatcher, LoopEvent, TickReport

SHORTEST = 0.02
"""Minimum seconds between two ticks."""
IDLE = 0.25
"""Minimum seconds after a tick that changed nothing."""
LONGEST_TROUBLE = 60.0


@dataclass
class Loop:
    """Ticks until `draining()`, or until one is the `last`. An error is reported once and the tick is tried again."""

    dispatcher: Dispatcher
    fleet: Fleet
    clock: Clock
    interval: Callable[[], float]
    draining: Callable[[], bool]
    watch: Callable[[TickReport], None] = lambda report: None
    last: Callable[[TickReport], bool] = lambda report: False
    _told: set[str] = field(default_factory=set)
    _trouble: int = 0

    def run(self) -> None:
        """Return when draining, or after the last tick. Running and parked gremlins go on by themselves."""
        while not self.draining():
            report = self._tick()
            if report is None:
                self.fleet.wait((), min(self.interval() * 2.0**self._trouble, LONGEST_TROUBLE))
                continue
            self.watch(report)
            if self.last(report):
                return
            if not self.draining():
                self.fleet.wait(report.watched, self._pause(report))

    def _tick(self) -> TickReport | None:
        try:
            report = self.dispatcher.tick()
        except (GremlinsError, OSError) as error:
            self._trouble = min(self._trouble + 1, 6)
            self._tell_once("trouble", str(error))
            return None
        self._trouble = 0
        lines = {f"bad {line}": f"cannot be read, and is left alone: {line}" for line in report.bad}
        if report.missing is not None:
            hint = f" ({report.missing.hint})" if report.missing.hint else ""
            lines["waiting"] = f"nothing is started: {report.missing.reason}{hint}"
        for kind, text in lines.items():
            self._tell_once(kind, text)
        self._told &= {f"{kind}\0{text}" for kind, text in lines.items()}
        return report

    def _tell_once(self, kind: str, text: str) -> None:
        """Report a state once while it lasts."""
        key = f"{kind}\0{text}"
        if key not in self._told:
            self._told.add(key)
            self.dispatcher.say(LoopEvent(kind.partition(" ")[0], "", text))

    def _pause(self, report: TickReport) -> float:
        longest = self.interval()
        if report.next_due is None:
            return longest
        shortest = SHORTEST if report.spawned or report.settled or report.moved else IDLE
        return max(shortest, min(longest, report.next_due - self.clock.now().timestamp()))
