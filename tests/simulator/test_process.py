"""Options, and the simulator as a process of its own."""

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
from gremlins.simulator import Fault, Options, Simulator, options_from_file, options_from_json
from tests.simulator.conftest import Client

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


@pytest.mark.parametrize("options", [{"latency": "soon"}, {"keys": 3}, {"faults": [{"on": "create", "do": 1}]}])
def test_a_value_of_the_wrong_type_is_one_clear_line(options: dict[str, Any]) -> None:
    with pytest.raises(GremlinsError, match="Expected"):
        options_from_json(options)


def test_a_fault_can_be_written_on_one_line() -> None:
    assert Fault.from_words("create:error:status=529:times=2:message=busy") == Fault(
        on="create", do="error", status=529, times=2, message="busy"
    )
    with pytest.raises(GremlinsError, match="cannot be `dorp`"):
        Fault.from_words("create:dorp")


def test_the_key_it_names_is_one_it_takes() -> None:
    assert Simulator(Options(keys={"k": "w"})).key == "k"


# -- a process of its own


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Starts `gremlins simulate`, yields it and the URL it prints, and always kills it."""
    command = [sys.executable, "-m", "gremlins", "simulate", "--port", "0", *arguments]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "GREMLINS_HOME": "/nowhere"}
    )
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
    command = [sys.executable, "-m", "gremlins", "simulate", "--options", str(tmp_path / "none.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
