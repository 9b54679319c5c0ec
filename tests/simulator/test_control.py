"""The control endpoint, and the simulator as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gremlins.errors import GremlinsError
from gremlins.simulator import Options, Simulator, announcement, options_from_file, options_from_json
from tests.simulator.conftest import Client, Start, params


@pytest.fixture
def control(start: Start) -> Client:
    return Client(start(control=True, latency=60).url)


def test_it_is_off_unless_asked_for(api: Client) -> None:
    assert api.get("/_simulator/state").error == (404, "not_found_error")


def test_state_counts_requests_batches_and_what_is_billed(control: Client) -> None:
    batch_id = control.create("a", "b")
    control.post(f"/_simulator/batches/{batch_id}/end")
    control.batch(batch_id)
    state = control.get("/_simulator/state").json
    assert state["requests"] == {"create": 1, "retrieve": 1}
    assert state["batches"] == {"created": 1, "ended": 1}
    assert state["custom_ids"] == ["a", "b"]
    (billed,) = state["billed"]
    assert (billed["model"], billed["tier"], billed["requests"]) == ("claude-sonnet-5-5", "batch", 2)
    assert billed["input_tokens"] > 0


def test_batches_are_described_with_key_and_params(control: Client) -> None:
    control.create(("a", params("hello")))
    (plain,) = control.get("/_simulator/batches").json
    (full,) = control.get("/_simulator/batches?params=1").json
    assert (plain["key"], plain["custom_ids"], "params" in plain) == ("sk-test", ["a"], False)
    assert full["params"] == {"a": params("hello")}


def test_requests_are_listed_with_their_status(control: Client) -> None:
    control.get("/v1/nowhere")
    assert control.get("/_simulator/requests").json == [
        {"endpoint": "other", "method": "GET", "path": "/v1/nowhere", "key": "sk-test", "status": 404}
    ]


def test_faults_are_set_reported_and_taken_back(control: Client) -> None:
    (fault,) = control.post("/_simulator/faults", {"on": "list", "do": "error", "times": 0}).json
    assert (fault["on"], fault["struck"]) == ("list", 0)
    assert control.get("/v1/messages/batches").status == 500
    assert control.get("/_simulator/faults").json[0]["struck"] == 1
    assert control.call("DELETE", "/_simulator/faults").json == []
    assert control.get("/v1/messages/batches").status == 200


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("faults", {"on": "list", "do": "eror"}, "did you mean `error`?"),
        ("options", {"latncy": 1}, "did you mean `latency`?"),
        ("options", {"port": 1}, "cannot be set while the simulator runs"),
        ("model", {"kind": "dmeo"}, "did you mean `demo`?"),
        ("clock", {}, "advance"),
    ],
)
def test_what_is_wrong_is_refused_and_named(control: Client, path: str, body: Any, says: str) -> None:
    reply = control.post(f"/_simulator/{path}", body)
    assert reply.error == (400, "invalid_request_error")
    assert says in reply.json["error"]["message"]


def test_options_clock_and_model_change_a_running_one(control: Client) -> None:
    control.post("/_simulator/options", {"latency": 5})
    control.post("/_simulator/model", {"kind": "scripted", "replies": ["as told"]})
    batch_id = control.create()
    control.post("/_simulator/clock", {"advance": 5})
    assert control.result(batch_id)["message"]["content"][0]["text"] == "as told"


@pytest.mark.parametrize(("what", "kind"), [("end", "succeeded"), ("expire", "expired"), ("cancel", "canceled")])
def test_a_batch_may_be_ended_from_outside(control: Client, what: str, kind: str) -> None:
    batch_id = control.create()
    control.post(f"/_simulator/batches/{batch_id}/{what}")
    assert control.result(batch_id)["type"] == kind


def test_a_batch_may_vanish(control: Client) -> None:
    batch_id = control.create()
    control.post(f"/_simulator/batches/{batch_id}/forget")
    assert control.get(f"/v1/messages/batches/{batch_id}").error == (404, "not_found_error")


def test_the_endpoint_is_struck_by_no_fault_and_counted_nowhere(start: Start) -> None:
    sim = start(control=True)
    sim.fault("*", "error", times=0)
    assert Client(sim.url).get("/_simulator/state").status == 200
    assert sim.requests == {}


# -- options


def test_options_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "options.json"
    file.write_text(json.dumps({"latency": None, "keys": {"k": "w"}, "faults": [{"on": "create", "do": "drop"}]}))
    options = options_from_file(file)
    assert (options.latency, options.keys) == (float("inf"), {"k": "w"})
    assert options.faults[0].do == "drop"


def test_a_mistyped_option_names_the_nearest() -> None:
    with pytest.raises(GremlinsError) as caught:
        options_from_json({"latncy": 3})
    assert caught.value.hint == "did you mean `latency`?"


def test_what_is_announced_says_that_it_is_no_model(sim: Simulator) -> None:
    text = announcement(sim)
    assert "simulator" in text
    assert "not a model" in text
    assert f"export ANTHROPIC_BASE_URL={sim.url}\nexport ANTHROPIC_API_KEY={sim.key}\n" in text


def test_the_key_it_names_is_one_it_takes() -> None:
    assert Simulator(Options(keys={"k": "w"})).key == "k"


# -- a process of its own


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`python -m gremlins.simulator`, and the URL it says it has. Killed in the end, whatever happens."""
    command = [sys.executable, "-m", "gremlins.simulator", "--port", "0", *arguments]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
    try:
        assert running.stdout is not None
        for line in running.stdout:
            if found := re.match(r"export ANTHROPIC_BASE_URL=(\S+)", line):
                yield running, found[1]
                break
    finally:
        running.kill()
        running.communicate(timeout=20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    with process("--latency", "0") as (running, url):
        client = Client(url)
        assert client.result(client.create())["type"] == "succeeded"
        running.send_signal(number)
        assert running.wait(timeout=20) == 0


def test_a_killed_one_goes_on_where_it_was(tmp_path: Path) -> None:
    file = str(tmp_path / "state.jsonl")
    with process("--state-file", file, "--latency", "0") as (running, url):
        batch_id = Client(url).create("mine")
        running.kill()
        running.wait(timeout=20)
    with process("--state-file", file) as (_, url):
        assert [line["custom_id"] for line in Client(url).results(batch_id)] == ["mine"]


def test_a_wrong_option_file_is_one_clear_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gremlins.simulator", "--options", str(tmp_path / "none.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
