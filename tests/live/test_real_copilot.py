"""The real Copilot CLI against the simulator, as a provider of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gremlins.clients.base import CallUnsuccessful
from gremlins.clients.copilot import CopilotClient
from gremlins.config import Settings
from gremlins.errors import NotReady
from gremlins.outcome import Failed
from gremlins.records.calls import Intent
from tests.conftest import Repo
from tests.live.conftest import Live, Start, binary, taken_up_without_its_session, use

pytestmark = pytest.mark.live
MODEL = "claude-sonnet-5-5"


@pytest.fixture
def copilot(start: Start) -> Any:
    def copilot(*replies: Any, **more: Any) -> Live:
        live = start(*replies, **more)
        live.around.env |= {
            "GREMLINS_COPILOT_BIN": binary("copilot"),
            "COPILOT_PROVIDER_TYPE": "anthropic",
            "COPILOT_PROVIDER_BASE_URL": live.sim.url,
            "COPILOT_PROVIDER_API_KEY": live.sim.key,
            "COPILOT_OFFLINE": "true",
        }
        return live

    return copilot


def ask(live: Live, prompt: str = "Do it.", **more: Any) -> str:
    client = CopilotClient(MODEL, live.around.session())
    return client.run(prompt, label="implement", **{"edits_worktree": True, **more}).text


def failure(live: Live, prompt: str = "Do it.") -> Failed:
    with pytest.raises(CallUnsuccessful) as caught:
        ask(live, prompt)
    assert isinstance(caught.value.outcome, Failed)
    return caught.value.outcome


def test_a_file_is_changed_in_a_repository_and_its_tokens_counted(copilot: Any, repo: Repo) -> None:
    edit = use("edit", path=str(repo.path / "calc.py"), old_str="a - b", new_str="a + b")
    live = copilot(edit, "Fixed.")
    assert ask(live) == "Fixed."
    assert "return a + b" in repo.read("calc.py")
    assert live.model.asked[0]["model"] == MODEL
    (record,) = live.around.records
    assert record.usage is not None
    assert record.usage.output_tokens > 0
    assert live.around.ledger.total().total_usd > 0


def test_it_is_offered_files_and_nothing_else(copilot: Any) -> None:
    live = copilot()
    ask(live)
    assert live.tools <= {"view", "grep", "glob", "create", "edit", "apply_patch"}
    assert "edit" in live.tools


def test_a_call_that_only_reads_is_offered_no_more(copilot: Any) -> None:
    live = copilot()
    ask(live, edits_worktree=False)
    assert live.tools == {"view", "grep", "glob"}


@pytest.mark.parametrize("path", ["/tmp/gremlins-live-outside", "{repo}/../outside", "{repo}/link/outside"])
def test_a_path_outside_the_worktree_is_denied(copilot: Any, repo: Repo, tmp_path: Path, path: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (repo.path / "link").symlink_to(tmp_path / "elsewhere")
    target = path.format(repo=repo.path)
    outcome = failure(copilot(use("create", path=target, file_text="x")))
    assert "create" in outcome.reason
    assert not Path(target).exists()


def test_the_worktrees_git_file_is_denied(copilot: Any, repo: Repo) -> None:
    repo.git("worktree", "add", "--quiet", "../tree")
    live = copilot(use("edit", path=str(repo.path.parent / "tree/.git"), old_str="gitdir", new_str="x"))
    live.around.worktree = repo.path.parent / "tree"
    before = (live.around.worktree / ".git").read_text()
    failure(live)
    assert (live.around.worktree / ".git").read_text() == before


@pytest.mark.parametrize(("status", "cls"), [(400, "task"), (401, "config"), (404, "config")])
def test_an_error_of_the_api_has_its_class(copilot: Any, status: int, cls: str) -> None:
    live = copilot()
    live.sim.fault("messages", "error", status=status, times=0)
    assert failure(live).failure == cls


def test_a_prompt_of_two_megabytes_is_too_long_and_says_so(copilot: Any) -> None:
    outcome = failure(copilot(), "word " * 400_000)
    assert (outcome.failure, "budget" in outcome.reason) == ("task", True)


def test_a_session_is_taken_up_again_and_paid_once(copilot: Any) -> None:
    live = copilot()
    ask(live)
    (record,) = live.around.records
    live.around.ledger.put(replace(record, status=Intent(), ended_at=None))
    live.around = live.around.respawned()
    ask(live)
    assert len(live.model.asked[-1]["messages"]) > 2
    first, second = (r.usage for r in live.around.records)
    assert first is not None
    assert second is not None
    assert second.output_tokens == first.output_tokens


def test_without_a_login_it_is_not_ready(tmp_path: Path) -> None:
    env = {"GREMLINS_COPILOT_BIN": binary("copilot"), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    with pytest.raises(NotReady, match="not logged in"):
        CopilotClient.check_ready(MODEL, "live", env, Settings())


def test_a_session_that_was_never_saved_begins_anew(copilot: Any) -> None:
    taken_up_without_its_session(copilot(), "d9ef0f0c-0a3e-4d2c-9d55-93f3b4b6a001", ask)
