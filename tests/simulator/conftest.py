"""A plain HTTP client for the simulator, so that its tests see what is on the wire."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import pytest

from gremlins.clock import FakeClock
from gremlins.simulator import Simulator

MODEL = "claude-sonnet-5-5"
VERSION = "2023-06-01"


def params(prompt: str = "Write a plan", **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 1000, "messages": [{"role": "user", "content": prompt}], **more}


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        assert self.json["type"] == "error"
        return self.status, self.json["error"]["type"]


@dataclass
class Client:
    """One request per connection. What goes wrong on the wire is raised as it comes."""

    url: str
    key: str = "sk-test"
    version: str = VERSION
    headers: dict[str, str] = field(default_factory=dict)
    timeout: float = 10

    def open(self, method: str, path: str, body: Any = None) -> tuple[HTTPConnection, HTTPResponse]:
        parts = urlsplit(path if path.startswith("http") else self.url + path)
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=self.timeout)
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        head = {"x-api-key": self.key, "anthropic-version": self.version, **self.headers}
        try:
            connection.request(method, f"{parts.path}?{parts.query}".rstrip("?"), raw, head)
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def call(self, method: str, path: str, body: Any = None) -> Reply:
        connection, response = self.open(method, path, body)
        try:
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, headers, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        return self.call("GET", path)

    def post(self, path: str, body: Any = None) -> Reply:
        return self.call("POST", path, body)

    # -- batches

    def create(self, *requests: tuple[str, dict[str, Any]] | str) -> str:
        """A batch of these requests; a name alone is a request for a plan. Returns the batch's id."""
        made = [(item, params()) if isinstance(item, str) else item for item in requests or ("one",)]
        body = {"requests": [{"custom_id": name, "params": value} for name, value in made]}
        reply = self.post("/v1/messages/batches", body)
        assert reply.status == 200, reply.body
        return str(reply.json["id"])

    def batch(self, batch_id: str) -> Any:
        return self.get(f"/v1/messages/batches/{batch_id}").json

    def results(self, batch_id: str) -> list[Any]:
        reply = self.get(f"/v1/messages/batches/{batch_id}/results")
        assert reply.status == 200, reply.body
        return [json.loads(line) for line in reply.body.splitlines()]

    def result(self, batch_id: str) -> Any:
        (line,) = self.results(batch_id)
        return line["result"]

    def listed(self, query: str = "") -> list[str]:
        return [batch["id"] for batch in self.get(f"/v1/messages/batches?{query}").json["data"]]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


Start = Callable[..., Simulator]


@pytest.fixture
def start(clock: FakeClock) -> Iterator[Start]:
    """Starts simulators on the test's clock, and ends them after it."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Simulator(clock=clock, **options))


@pytest.fixture
def sim(start: Start) -> Simulator:
    return start()


@pytest.fixture
def api(sim: Simulator) -> Client:
    return Client(sim.url)
