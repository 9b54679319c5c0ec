"""The simulator as one thing: in a thread for tests and the demo, or in the foreground by hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any

from gremlins.clock import Clock, SystemClock
from gremlins.errors import GremlinsError
from gremlins.simulator.batches import BatchStore, SimulatedBatch
from gremlins.simulator.faults import Fault, FaultBook
from gremlins.simulator.model import Model
from gremlins.simulator.options import Options
from gremlins.simulator.routes import Api, Billed, Call, HttpAnswer, LoggedRequest
from gremlins.simulator.scripts import model_from_json
from gremlins.simulator.server import HttpServer

DEFAULT_KEY = "sk-ant-simulator"


class Simulator:
    """A local Messages and Batches API on a real socket.

    with Simulator(latency=0.2) as sim:
        Anthropic(base_url=sim.url, api_key=sim.key)
    """

    def __init__(
        self,
        options: Options | None = None,
        *,
        model: Model | None = None,
        clock: Clock | None = None,
        **settings: Any,
    ) -> None:
        """`settings` are fields of `Options`, for short."""
        self.options = replace(options or Options(), **settings)
        self._model = model or model_from_json(self.options.model)
        self._clock = clock or SystemClock()
        self._server: HttpServer | None = None
        self._thread: threading.Thread | None = None
        self._port = self.options.port
        self._stopping = threading.Event()
        self.api = Api(self.options, self._clock, self._model, lambda: self.url, self._stopping.wait)

    # -- its life

    def start(self) -> Simulator:
        try:
            self._server = HttpServer((self.options.host, self._port), self._respond)
        except OSError as error:
            raise GremlinsError(
                f"cannot listen on {self.options.host}:{self._port}: {error.strerror}",
                hint="another port: --port N, or 0 for a free one",
            ) from error
        self._port = self._server.port
        self._stopping.clear()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="simulator", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End every connection, hanging ones too. `start` again takes the same port, with all its batches."""
        self._stopping.set()
        if self._server is not None and self._thread is not None:
            self._server.close()
            self._thread.join(timeout=5)
            self._server = self._thread = None

    def __enter__(self) -> Simulator:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://{self.options.host}:{self._port}"

    @property
    def key(self) -> str:
        """A key that it takes: the first of its table, else any will do."""
        return next(iter(self.options.keys), DEFAULT_KEY) if self.options.keys else DEFAULT_KEY

    @property
    def env(self) -> dict[str, str]:
        """The variables that send a client here."""
        return {"ANTHROPIC_BASE_URL": self.url, "ANTHROPIC_API_KEY": self.key}

    # -- what a test sets and asks

    @property
    def faults(self) -> FaultBook:
        return self.api.faults

    def fault(self, on: str, do: str, **details: Any) -> None:
        """Set a fault: `sim.fault("create", "drop", when="after")`."""
        self.api.faults.add(Fault(on=on, do=do, **details))

    def change(self, **values: Any) -> None:
        """Set options while running."""
        self.api.change(**values)

    def advance(self, seconds: float) -> None:
        """Let the simulator's own time go on; the machine's stays."""
        self.api.offset += timedelta(seconds=seconds)

    @property
    def store(self) -> BatchStore:
        return self.api.store

    @property
    def batches(self) -> list[SimulatedBatch]:
        """Every batch ever created, oldest first."""
        return self.api.store.all()

    @property
    def custom_ids(self) -> list[str]:
        """Of every request in every batch, in the order of creation."""
        return [request.custom_id for batch in self.batches for request in batch.requests]

    @property
    def requests(self) -> dict[str, int]:
        """Number of requests of each kind."""
        return dict(self.api.requests)

    @property
    def seen(self) -> list[LoggedRequest]:
        """The requests it got, oldest first."""
        return list(self.api.seen)

    @property
    def billed(self) -> list[Billed]:
        return list(self.api.billed)

    def _respond(self, call: Call) -> HttpAnswer:
        return self.api.answer(call)


def serve_forever(options: Options, *, announce: Callable[[Simulator], None]) -> None:
    """Run until SIGTERM or Ctrl-C, then end cleanly. Only for the main thread: it takes both signals."""
    over = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        over.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with Simulator(options) as simulator:
            announce(simulator)
            over.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
