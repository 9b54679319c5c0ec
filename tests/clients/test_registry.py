"""Providers by name: built in, from other packages, mistyped, and not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gremlins.clients.registry import BUILT_IN, client_class, known_providers, make_client
from gremlins.errors import ConfigError, GremlinsError, NotReady
from gremlins.fleet.doctor import examine
from gremlins.paths import Home
from gremlins.records.gremlin import FailedGremlin
from gremlins.simulator import Simulator
from tests.clients.session_setup import SessionSetup
from tests.conftest import Repo
from tests.in_process import InProcessSandbox

PLUGIN = """
from gremlins.clients.base import Client

class OutsideClient(Client):
    provider = "outside"

    def run_live(self, prompt, *, label, max_tokens, revision, edits_worktree):
        raise AssertionError("not asked in this test")

class Boaster(OutsideClient):
    batch_support = "yes"

class Nameless(Client):
    run_live = OutsideClient.run_live

class Speechless(Client):
    provider = "speechless"

class Unmade(OutsideClient):
    def __init__(self, model, session):
        raise OSError("no socket")

class Unready(OutsideClient):
    @classmethod
    def check_ready(cls, *_):
        raise KeyError("nothing")

class Quitter(OutsideClient):
    def run_live(self, prompt, **more):
        raise SystemExit(9)

class Babbler(OutsideClient):
    def run_live(self, prompt, **more):
        return "an answer"

not_a_client = 7
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package's providers: one that works, one that is no client, one that cannot be imported."""
    (tmp_path / "outside_pkg.py").write_text(PLUGIN)
    (tmp_path / "outside_quits.py").write_text("raise SystemExit(3)")
    info = tmp_path / "outside_pkg-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-pkg\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[gremlins.clients]\noutside = outside_pkg:OutsideClient\nseven = outside_pkg:not_a_client\n"
        "gone = no_such_module:Client\nboaster = outside_pkg:Boaster\nnameless = outside_pkg:Nameless\n"
        "speechless = outside_pkg:Speechless\nunmade = outside_pkg:Unmade\nquitter = outside_pkg:Quitter\n"
        "unready = outside_pkg:Unready\n"
        "babbler = outside_pkg:Babbler\nquits = outside_quits:Client\nclaude = outside_pkg:OutsideClient\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("provider", sorted(BUILT_IN))
def test_a_built_in_provider_is_the_class_of_its_name(provider: str) -> None:
    assert client_class(f"{provider}:model").provider == provider


def test_a_mistyped_provider_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="unknown provider `cluade`") as caught:
        client_class("cluade:claude-sonnet-5-5")
    assert caught.value.hint == "did you mean `claude`?"


def test_an_unlike_one_is_refused_with_all_names() -> None:
    with pytest.raises(ConfigError) as caught:
        client_class("zzz:model")
    assert "anthropic, claude, copilot, kilo, openai, scripted" in str(caught.value.hint)


@pytest.mark.usefixtures("outside")
def test_a_provider_of_another_package_is_found_and_has_no_batch(tmp_path: Path) -> None:
    client = make_client("outside:m", SessionSetup(tmp_path / "g", tmp_path).session())
    assert client.name == "outside:m"
    assert client.batch_support == "no"
    with pytest.raises(NotImplementedError, match="outside"):
        client.run("Plan.", label="plan", mode="batch")


@pytest.mark.usefixtures("outside")
def test_another_package_cannot_take_over_a_built_in_name() -> None:
    assert client_class("claude:m").__name__ == "ClaudeClient"
    assert "outside" in known_providers()


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("provider", ["seven", "gone", "boaster", "nameless", "speechless", "quits"])
def test_a_provider_that_cannot_be_loaded_is_one_line_that_names_its_package(provider: str) -> None:
    with pytest.raises(NotReady, match=provider) as caught:
        client_class(f"{provider}:m")
    assert "outside-pkg" in str(caught.value.hint)
    assert "another --client" in str(caught.value.hint)


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("provider", "failure", "says"),
    [
        ("outside", "unknown", "raised AssertionError: not asked"),
        ("unmade", "host", "raised OSError: no socket"),
        ("quitter", "unknown", "raised SystemExit: 9"),
        ("babbler", "unknown", "returned a str in place of an Answer"),
    ],
)
def test_an_exception_of_a_plug_in_is_called_its_own(
    repo: Repo, tmp_path: Path, provider: str, failure: str, says: str
) -> None:
    repo.write({".gremlins/ask.md": "Say something.\n"})
    one = f"stages:\n  - {{type: agent, name: one, prompt: .gremlins/ask.md, mode: live, client: '{provider}:m'}}\n"
    with Simulator() as simulator:
        it = InProcessSandbox(repo, Home(tmp_path / "state"), simulator)
        status = it.run(it.make(one)).status
    assert isinstance(status, FailedGremlin)
    assert status.failure == failure
    assert f"the plug-in outside_pkg of `{provider}:m` {says}" in status.reason


@pytest.mark.usefixtures("outside")
def test_a_plug_in_that_raises_while_it_is_checked_is_named(repo: Repo, tmp_path: Path) -> None:
    says = "the plug-in outside_pkg of the provider `outside` raised KeyError: 'nothing'"
    with Simulator() as simulator:
        it = InProcessSandbox(repo, Home(tmp_path / "state"), simulator)
        with pytest.raises(GremlinsError, match=says):
            it.make("stages: [implement]\n", client="unready:m")
        checks = examine(it.home, repo.path, it.env).checks
    assert [check.detail for check in checks if check.name == "provider unready"] == [f"not set up: {says}"]


def test_knowing_the_names_imports_no_provider() -> None:
    code = (
        "import sys, gremlins.clients.registry as r; r.known_providers(); print([m for m in sys.modules if m in "
        "('anthropic', 'agents', 'openai', 'gremlins.clients.copilot', 'gremlins.clients.claude')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
