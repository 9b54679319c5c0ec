"""Pull requests through `gh`: a real bare repository is the remote, a fake `gh` is on PATH."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gremlins.cli.launch import _read_plan
from gremlins.errors import Conflict, GremlinsError, NotFound, NotReady
from gremlins.fleet.land import land_pr
from gremlins.processes.interrupt import Terminated
from gremlins.processes.locks import GremlinLock
from gremlins.records.gremlin import Bailed, FailedGremlin, Finished, Interrupted, Landed, Running
from gremlins.repository.git import Git
from gremlins.repository.github import GhFailed, GitHub, PushRefused, _pull_request, push
from gremlins.runner import Run
from tests.conftest import Repo, put_gh
from tests.in_process import InProcessSandbox
from tests.stages.conftest import MakeScripted
from tests.time_limit import must_end, wait_until

FIX = {"edits": [{"path": "calc.py", "old": "return a - b", "new": "return a + b"}], "summary": "add adds"}
AGAIN = {"edits": [{"path": "again.txt", "content": "x\n"}], "summary": "again"}
GREEN = {"__typename": "CheckRun", "name": "tests", "status": "COMPLETED", "conclusion": "SUCCESS"}
RED = {**GREEN, "conclusion": "FAILURE", "detailsUrl": "https://github.example/o/r/actions/runs/99/job/1"}
BUSY = {**GREEN, "status": "IN_PROGRESS", "conclusion": ""}
OPEN = "mode: batch\nstages: [implement, open_pr]\n"
CI = "mode: batch\nstages: [implement, open_pr, {type: wait_ci, poll: 10, timeout: 60, max_attempts: 2}]\n"
REVIEW = (
    "mode: batch\nstages: [implement, open_pr, {type: wait_review, poll: 10, timeout: 60}, address_code, "
    "{type: wait_ci, poll: 10, timeout: 60}]\n"
)


@dataclass
class Hub:
    """The folder of the fake, and the bare repository that is the remote."""

    folder: Path
    remote: Repo
    env: dict[str, str]

    def say(self, name: str, value: Any) -> None:
        (self.folder / name).write_text(json.dumps(value))

    def pull(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "pr.json").read_text()))

    def change_pull(self, **changes: Any) -> None:
        self.say("pr.json", {**self.pull(), **changes})

    def calls(self, beginning: str) -> int:
        lines = (self.folder / "calls").read_text().splitlines()
        return sum(line.startswith(beginning) for line in lines)


@pytest.fixture
def hub(tmp_path: Path, repo: Repo) -> Hub:
    folder, bare = tmp_path / "hub", tmp_path / "remote.git"
    folder.mkdir()
    repo.git("clone", "--quiet", "--bare", str(repo.path), str(bare))
    repo.git("remote", "add", "origin", str(bare))
    (folder / "remote").write_text(str(bare))
    put_gh(folder)
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "FAKE_GH": str(folder)}
    return Hub(folder, Repo(bare), env)


def live(it: InProcessSandbox, hub: Hub, stages: str, waits: int = 200) -> str:
    gremlin = it.make(stages, task="Make add add.", env=hub.env)
    it.run(gremlin, env=hub.env, waits=waits)
    return gremlin


def test_a_pull_request_is_opened_from_the_gremlins_own_branch(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX)
    before = hub.remote.git("rev-parse", "main")
    gremlin = live(it, hub, OPEN)
    assert isinstance(it.read(gremlin).status, Finished), it.log(gremlin)
    assert hub.pull()["title"] == "Make add add."
    assert hub.pull()["headRefName"] == f"gremlins/{gremlin}"
    assert hub.remote.git("rev-parse", f"gremlins/{gremlin}") == it.repo.git("rev-parse", f"gremlins/{gremlin}")
    assert hub.remote.git("rev-parse", "main") == before
    assert json.loads(it.artifact(gremlin, "pull-request.json"))["number"] == 7


def test_opening_again_finds_the_pull_request_that_is_there(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX)
    gremlin = live(it, hub, OPEN.replace("open_pr", "open_pr, {type: open_pr, name: again}"))
    assert isinstance(it.read(gremlin).status, Finished)
    assert hub.calls("pr create") == 1


def test_somebodys_commits_are_never_forced_over(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX)
    foreign = hub.remote.git("commit-tree", "main^{tree}", "-p", "main", "-m", "another's")
    hub.remote.git("update-ref", "refs/heads/gremlins/mine", foreign)
    gremlin = it.make(OPEN, task="Make add add.", env=hub.env, gremlin_id="mine")
    status = it.run(gremlin, env=hub.env).status
    assert isinstance(status, Bailed)
    assert status.kind == "push_refused"
    assert hub.remote.git("rev-parse", "gremlins/mine") == foreign


def test_a_remote_that_refuses_is_told_in_its_own_words(scripted: MakeScripted, hub: Hub) -> None:
    hook = hub.remote.path / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho branches need a ticket >&2\nexit 1\n")
    hook.chmod(0o755)
    it = scripted(FIX)
    status = it.read(live(it, hub, OPEN)).status
    assert isinstance(status, Bailed)
    assert status.kind == "push_refused"
    assert "branches need a ticket" in status.detail


def test_a_stop_does_not_wait_for_a_push_that_hangs(scripted: MakeScripted, hub: Hub, tmp_path: Path) -> None:
    begun, hook = tmp_path / "begun", hub.remote.path / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch '{begun}'\nexec sleep 300\n")
    hook.chmod(0o755)
    it = scripted(FIX)
    gremlin = it.make(OPEN, task="Make add add.", env=hub.env)
    runs: list[Run] = []
    waker = threading.Thread(target=_when, args=(begun, lambda: runs[-1].interrupt.trigger("SIGTERM")))
    waker.start()
    with must_end():
        while not isinstance(it.read(gremlin).status, Interrupted):
            with GremlinLock.acquire(it.home.gremlin(gremlin).lock, "runner") as lock:
                runs.append(it.process(gremlin, lock, env=hub.env))
                runs[-1].go()
                runs[-1].close()
    waker.join(timeout=30)


def _when(path: Path, action: Callable[[], None]) -> None:
    wait_until(path.exists, path.name)
    action()


def test_a_remote_that_is_gone_is_waited_for(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX)
    gremlin = it.make(OPEN, task="Make add add.", env=hub.env)
    hub.remote.path.rename(hub.remote.path.with_name("moved.git"))
    status = it.run(gremlin, env=hub.env, waits=3).status
    assert isinstance(status, Running)
    assert "does not appear to be a git repository" in it.log(gremlin)  # git's own reason, not its advice
    hub.remote.path.with_name("moved.git").rename(hub.remote.path)
    assert isinstance(it.run(gremlin, env=hub.env).status, Finished)
    assert len(it.simulator.batches) == 1


@pytest.mark.parametrize(("trouble", "said"), [("down", "HTTP 502"), ("logged-out", "run `gh auth login`")])
def test_a_fault_while_a_pull_request_is_opened_is_waited_out(
    scripted: MakeScripted, hub: Hub, trouble: str, said: str
) -> None:
    it = scripted(FIX)
    gremlin = it.make(OPEN, task="Make add add.", env=hub.env)
    (hub.folder / trouble).touch()
    assert isinstance(it.run(gremlin, env=hub.env, waits=3).status, Running)
    assert said in it.log(gremlin)
    assert said in it.waits[-1].why
    (hub.folder / trouble).unlink()
    assert isinstance(it.run(gremlin, env=hub.env).status, Finished)
    assert hub.calls("pr create") == 1


def test_a_stop_does_not_wait_for_a_gh_that_hangs(tmp_path: Path) -> None:
    """It took the whole 75 seconds."""
    gh = tmp_path / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text("#!/bin/sh\nexec sleep 600\n")
    gh.chmod(0o755)

    def stop() -> None:
        raise Terminated("SIGTERM")

    env = {"PATH": f"{gh.parent}:{os.environ['PATH']}"}
    with pytest.raises(Terminated):
        GitHub(tmp_path, env, stop).view(7)
    with must_end(), pytest.raises(NotReady, match=r"does not work: gh took longer than 0\.1 s"):
        GitHub(tmp_path, env).check_ready(patience=0.1)


# ── checks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_green_checks_end_the_wait_without_a_process_in_memory(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX)
    hub.say("checks.json", {"*": [GREEN]})
    gremlin = live(it, hub, CI)
    assert isinstance(it.read(gremlin).status, Finished)
    slept = [wait for wait in it.waits if not wait.calls]
    assert slept
    assert all("#7" in wait.why for wait in slept)


def test_waiting_survives_a_kill_and_backs_off(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX)
    hub.say("checks.json", {"*": [BUSY]})
    gremlin = live(it, hub, CI.replace("timeout: 60", "timeout: 3000"), waits=14)
    moments = [wait.until for wait in it.waits if not wait.calls]
    pauses = [(later - sooner).total_seconds() for sooner, later in pairwise(moments)]
    assert pauses[0] == pytest.approx(10.0)
    assert pauses[-1] > pauses[0]
    hub.say("checks.json", {"*": [GREEN]})
    assert isinstance(it.run(gremlin, env=hub.env).status, Finished)
    assert len(it.simulator.batches) == 1


@pytest.mark.parametrize(("checks", "kind"), [([], "no_checks"), ([BUSY], "checks_pending")])
def test_checks_that_never_report_or_never_end_bail(
    scripted: MakeScripted, hub: Hub, checks: list[Any], kind: str
) -> None:
    it = scripted(FIX)
    hub.say("checks.json", {"*": checks})
    status = it.read(live(it, hub, CI)).status
    assert isinstance(status, Bailed)
    assert status.kind == kind


def test_a_failing_check_goes_to_the_fixer_with_its_log(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX, AGAIN)
    hub.say("checks.json", {"*": [RED]})
    gremlin = it.make(CI, task="Make add add.", env=hub.env)
    for _ in range(60):  # red until the fix has been pushed
        record = it.run(gremlin, env=hub.env, waits=1)
        if "run not found" in it.log(gremlin):  # one fault while the log is read
            (hub.folder / "run-99.log").write_text("AssertionError: 7 != 8\n")
        tip = it.repo.git("rev-parse", f"gremlins/{gremlin}")
        if "again.txt" in it.repo.git("ls-tree", "--name-only", tip):
            hub.say("checks.json", {tip: [GREEN]})
        if isinstance(record.status, Finished | FailedGremlin | Bailed):
            break
    assert isinstance(record.status, Finished), record.status
    fix = it.calls(gremlin)[-1]
    assert fix.key.stage == "wait_ci/fix[1]"
    assert "AssertionError: 7 != 8" in fix.request["messages"][0]["content"]
    assert hub.remote.git("rev-parse", f"gremlins/{gremlin}") == it.repo.git("rev-parse", f"gremlins/{gremlin}")


def test_checks_that_stay_red_fail_after_so_many_fixes(scripted: MakeScripted, hub: Hub) -> None:
    other = {"edits": [{"path": "other.txt", "content": "x\n"}], "summary": "other"}
    it = scripted(FIX, AGAIN, other)
    hub.say("checks.json", {"*": [RED]})
    status = it.read(live(it, hub, CI)).status
    assert isinstance(status, FailedGremlin)
    assert status.failure == "task"
    assert "after 2 fixes: tests" in status.reason
    assert len(it.simulator.batches) == 3


@pytest.mark.parametrize(("state", "ending"), [("CLOSED", Bailed), ("MERGED", Finished)])
def test_a_pull_request_that_a_person_ends(scripted: MakeScripted, hub: Hub, state: str, ending: type) -> None:
    it = scripted(FIX)
    hub.say("checks.json", {"*": [BUSY]})
    gremlin = live(it, hub, CI, waits=6)
    hub.change_pull(state=state, headRefOid=it.repo.git("rev-parse", f"gremlins/{gremlin}"))
    status = it.run(gremlin, env=hub.env).status
    assert isinstance(status, ending), status
    if isinstance(status, Bailed):
        assert status.kind == "pr_closed"


def test_github_being_down_is_waited_out(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX)
    hub.say("checks.json", {"*": [BUSY]})
    gremlin = live(it, hub, CI, waits=5)
    (hub.folder / "down").touch()
    it.run(gremlin, env=hub.env, waits=3)
    assert "HTTP 502" in it.log(gremlin)
    (hub.folder / "down").unlink()
    hub.say("checks.json", {"*": [GREEN]})
    assert isinstance(it.run(gremlin, env=hub.env).status, Finished)


def test_github_being_down_for_ever_ends_with_the_reason(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX)
    hub.say("checks.json", {"*": [BUSY]})
    gremlin = live(it, hub, CI, waits=4)
    (hub.folder / "down").touch()
    status = it.run(gremlin, env=hub.env).status
    assert isinstance(status, FailedGremlin)
    assert (status.failure, status.stage) == ("host", "wait_ci")
    assert "HTTP 502" in status.reason
    assert "tried for 60 s" in status.reason
    assert len(it.simulator.batches) == 1


# ── reviews ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_review_becomes_the_next_stages_input_and_its_fix_is_pushed(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX, AGAIN)
    review = {"id": "R1", "author": {"login": "alice"}, "state": "CHANGES_REQUESTED", "body": "Close."}
    hub.say("reviews.json", [review])
    hub.say("remarks.json", [{"user": {"login": "alice"}, "path": "calc.py", "line": 2, "body": "Say why."}])
    hub.say("checks.json", {"*": [GREEN]})
    gremlin = live(it, hub, REVIEW)
    assert isinstance(it.read(gremlin).status, Finished), it.log(gremlin)
    text = it.artifact(gremlin, "review.md")
    assert "### F1 alice\nClose." in text
    assert "### F2 `calc.py:2` (alice)\nSay why." in text
    assert "VERDICT: changes requested" in text
    assert "Say why." in it.calls(gremlin)[-1].request["messages"][0]["content"]
    assert "again.txt" in hub.remote.git("ls-tree", "--name-only", f"gremlins/{gremlin}")


def test_that_nobody_reviews_is_no_failure(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX)
    hub.say("checks.json", {"*": [GREEN]})
    gremlin = live(it, hub, REVIEW)
    assert isinstance(it.read(gremlin).status, Finished)
    assert "no review came" in it.artifact(gremlin, "review.md")
    assert len(it.simulator.batches) == 1, "there is nothing to address"


def test_only_the_reviewer_that_is_named_counts(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX)
    hub.say("reviews.json", [{"id": "R1", "author": {"login": "bob"}, "state": "APPROVED", "body": ""}])
    hub.say("checks.json", {"*": [GREEN]})
    gremlin = live(it, hub, REVIEW.replace("wait_review,", "wait_review, reviewer: copilot,"))
    assert "no review came" in it.artifact(gremlin, "review.md")


# ── landing, launching, issues ────────────────────────────────────────────────────────────────────────────────────


def test_land_has_it_merged_and_sees_that_before_anything_is_removed(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX)
    gremlin = live(it, hub, OPEN)
    (hub.folder / "queue").touch()
    with pytest.raises(GremlinsError, match="not merged yet"):
        land_pr(it.home, gremlin, clock=it.clock, env={**it.env, **hub.env})
    assert it.worktree(gremlin).is_dir()
    (hub.folder / "queue").unlink()
    landed = land_pr(it.home, gremlin, clock=it.clock, env={**it.env, **hub.env})
    assert landed.sha == hub.remote.git("rev-parse", "main")
    assert "return a + b" in hub.remote.git("show", "main:calc.py")
    assert isinstance(it.read(gremlin).status, Landed)
    assert not it.worktree(gremlin).exists()


def test_a_merge_whose_answer_is_lost_is_seen(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX)
    gremlin = live(it, hub, OPEN)
    (hub.folder / "lost").touch()
    assert land_pr(it.home, gremlin, clock=it.clock, env={**it.env, **hub.env}).target == "main"
    assert isinstance(it.read(gremlin).status, Landed)


@pytest.mark.parametrize("checks", [[RED], [BUSY], [GREEN, RED]])
def test_what_is_not_green_is_not_merged(scripted: MakeScripted, hub: Hub, checks: list[Any]) -> None:
    it = scripted(FIX)
    gremlin = live(it, hub, OPEN)
    hub.say("checks.json", {"*": checks})
    with pytest.raises(Conflict, match="not green"):
        land_pr(it.home, gremlin, clock=it.clock, env={**it.env, **hub.env})
    assert hub.pull()["state"] == "OPEN"
    assert it.worktree(gremlin).is_dir()


def test_one_that_somebody_merged_is_landed(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX)
    gremlin = live(it, hub, OPEN)
    head = it.repo.git("rev-parse", f"gremlins/{gremlin}")
    hub.change_pull(state="MERGED", headRefOid=head, mergeCommit={"oid": "a" * 40})
    assert land_pr(it.home, gremlin, clock=it.clock, env={**it.env, **hub.env}).sha == "a" * 40
    assert hub.calls("pr merge") == 0


def test_a_branch_that_somebody_pushed_to_is_not_merged(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX)
    gremlin = live(it, hub, OPEN)
    branch = f"gremlins/{gremlin}"
    more = hub.remote.git("commit-tree", f"{branch}^{{tree}}", "-p", branch, "-m", "another's")
    hub.remote.git("update-ref", f"refs/heads/{branch}", more)
    with pytest.raises(Conflict, match="ends in"):
        land_pr(it.home, gremlin, clock=it.clock, env={**it.env, **hub.env})


def test_without_gh_or_a_login_nothing_is_started(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted()
    with pytest.raises(NotReady, match="not installed"):
        it.make(OPEN, task="x", env={**hub.env, "PATH": "/nonexistent"})
    (hub.folder / "logged-out").touch()
    with pytest.raises(NotReady, match="not logged in") as caught:
        it.make(OPEN, task="x", env=hub.env)
    assert caught.value.exit_code == 5
    assert caught.value.hint == "run `gh auth login`"


def test_without_a_remote_nothing_is_started(scripted: MakeScripted, hub: Hub, repo: Repo) -> None:
    repo.git("remote", "remove", "origin")
    with pytest.raises(NotReady, match="no remote"):
        scripted().make(OPEN, task="x", env=hub.env)


@pytest.mark.parametrize("name", ["#42", "o/r#42", "https://github.com/o/r/issues/42"])
def test_an_issue_can_be_the_plan(hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for key, value in hub.env.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(NotFound):
        _read_plan(name)
    hub.say("issue.json", {"title": "Add subtracts", "body": "Mend it.", "url": "https://github.com/o/r/issues/42"})
    assert _read_plan(name) == "# Add subtracts\n\nMend it.\n\nFrom https://github.com/o/r/issues/42\n"


def test_pages_of_an_answer_are_one_list(tmp_path: Path) -> None:
    gh = tmp_path / "gh"
    gh.write_text("#!/bin/sh\necho '[1, 2]\n[3]'\n")
    gh.chmod(0o755)
    assert GitHub(tmp_path, {"PATH": f"{tmp_path}:/usr/bin:/bin"}).json("api", "x") == [1, 2, 3]


LIMIT = '{"message": "API rate limit exceeded"}'


@pytest.mark.parametrize("answer", ["", "null", "7", '["a"]', "[null]", LIMIT, f"[{LIMIT}]", "<html>", '[{"number": 7'])
def test_an_answer_of_another_shape_is_a_fault_that_may_pass(tmp_path: Path, answer: str) -> None:
    """Some ended the gremlin as a bug; a list of remarks that came back empty was taken for none."""
    gh = tmp_path / "gh"
    gh.write_text(f"#!/bin/sh\necho '{answer}'\n")
    gh.chmod(0o755)
    hub = GitHub(tmp_path, {"PATH": f"{tmp_path}:/usr/bin:/bin"})
    for ask in (lambda: hub.of_branch("b"), lambda: hub.view(7), lambda: hub.remarks(7)):
        with pytest.raises(GhFailed):
            ask()


def test_what_gh_says_holds_no_secret(tmp_path: Path) -> None:
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    gh = tmp_path / "gh"
    gh.write_text(f"#!/bin/sh\necho 'it fails:\n\033[31m{token} of https://me:hunter22@h/x' >&2\nexit 1\n")
    gh.chmod(0o755)
    with pytest.raises(GhFailed, match=r"it fails:; .* of https://") as caught:
        GitHub(tmp_path, {"PATH": f"{tmp_path}:/usr/bin:/bin"}).view(7)
    for secret in (token, "hunter22", "\x1b"):
        assert secret not in caught.value.message


def test_a_remotes_own_trouble_may_pass_and_its_refusal_does_not(repo: Repo, hub: Hub) -> None:
    git = Git(repo.path)
    git.raw("branch", "mine")
    lock = hub.remote.path / "refs" / "heads" / "mine.lock"
    lock.touch()
    with pytest.raises(GhFailed, match=r"did not work: .*cannot lock ref .*mine\.lock': File exists"):
        push(git, "mine", {}, lambda: None)
    lock.unlink()
    push(git, "mine", {}, lambda: None)
    git.raw("branch", "-f", "mine", git.text("commit-tree", "HEAD^{tree}", "-m", "another root"))
    with pytest.raises(PushRefused, match="has commits on mine"):
        push(git, "mine", {}, lambda: None)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("""printf '{"body": "a\\\\u001b[2J\\\\ud800b"}'""", ""),
        ("head -c 100000 /dev/zero | tr '\\0' '['", "not JSON"),
        ("cat /dev/zero", "printed more than 128 MB"),
    ],
)
def test_an_answer_is_text_and_bounded(tmp_path: Path, answer: str, said: str) -> None:
    gh = tmp_path / "gh"
    gh.write_text(f"#!/bin/sh\n{answer}\n")
    gh.chmod(0o755)
    hub = GitHub(tmp_path, {"PATH": f"{tmp_path}:/usr/bin:/bin"})
    if said:
        with pytest.raises(GhFailed, match=said):
            hub.json("api", "x")
    else:
        assert hub.json("api", "x") == {"body": "a\ufffdb"}


# ── what GitHub's own answers are like ────────────────────────────────────────────────────────────────────────────


def run_of(number: int, conclusion: str, at: str, **more: str) -> dict[str, str]:
    url = f"https://github.example/o/r/actions/runs/{number}/job/{at}"
    return {
        "name": "tests",
        "workflowName": "CI",
        "status": "COMPLETED",
        "conclusion": conclusion,
        "startedAt": f"2026-11-21T10:0{at}:00Z",
        "detailsUrl": url,
        **more,
    }


@pytest.mark.parametrize(
    ("rows", "states"),
    [
        ([run_of(1, "FAILURE", "1"), run_of(1, "SUCCESS", "2")], ["passed"]),  # run again
        ([run_of(1, "SUCCESS", "2"), run_of(1, "FAILURE", "1")], ["passed"]),
        ([run_of(1, "SUCCESS", "1"), run_of(1, "FAILURE", "2")], ["failed"]),
        ([run_of(1, "CANCELLED", "1"), run_of(2, "SUCCESS", "2")], ["passed"]),  # canceled by a newer one
        ([run_of(1, "CANCELLED", "1")], ["failed"]),
        ([run_of(1, "FAILURE", "1"), run_of(2, "SUCCESS", "2")], ["failed", "passed"]),  # of another event, perhaps
        ([run_of(1, "FAILURE", "1"), run_of(1, "SUCCESS", "2", name="lint")], ["failed", "passed"]),
        ([run_of(1, "FAILURE", "1"), run_of(1, "", "2", status="QUEUED")], ["pending"]),
        ([{**GREEN}, {**RED, "detailsUrl": ""}], ["passed", "failed"]),  # without dates nothing is taken for older
        ([{"context": "ci/x", "state": "EXPECTED"}, {"context": "ci/y", "state": "ERROR"}], ["pending", "failed"]),
    ],
)
def test_a_check_that_was_run_again_counts_by_its_newest_run(rows: list[Any], states: list[str]) -> None:
    pull = _pull_request({"number": 7, "state": "OPEN", "statusCheckRollup": rows})
    assert [check.state for check in pull.checks] == states


def test_what_copilot_remarks_belongs_to_its_review(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX, AGAIN)
    author = {"login": "copilot-pull-request-reviewer"}
    hub.say("reviews.json", [{"id": "R1", "author": author, "state": "COMMENTED", "body": "Overview."}])
    remark = {"id": 5, "user": {"login": "Copilot"}, "path": "calc.py", "line": 2, "body": "Say why."}
    bob = {"id": 6, "user": {"login": "bob"}, "path": "calc.py", "line": 3, "body": "Unasked."}
    hub.say("remarks.json", [remark, bob])
    hub.say("checks.json", {"*": [GREEN]})
    gremlin = live(it, hub, REVIEW.replace("wait_review,", "wait_review, reviewer: copilot,"))
    assert isinstance(it.read(gremlin).status, Finished), it.log(gremlin)
    assert "`calc.py:2` (Copilot)\nSay why." in it.artifact(gremlin, "review.md")
    assert "Unasked." not in it.artifact(gremlin, "review.md")


def test_a_second_wait_takes_only_what_is_new(scripted: MakeScripted, hub: Hub) -> None:
    waits = "{type: wait_review, poll: 10, timeout: 60}, {type: wait_review, name: more, poll: 10, timeout: 60}"
    stages = f"mode: batch\nstages: [implement, open_pr, {waits}]\n"
    it = scripted(FIX)
    hub.say("reviews.json", [{"id": "R1", "author": {"login": "alice"}, "state": "COMMENTED", "body": "First."}])
    hub.say("remarks.json", [{"id": 5, "user": {"login": "alice"}, "path": "calc.py", "line": 2, "body": "Old."}])
    gremlin = it.make(stages, task="Make add add.", env=hub.env)
    while not it.read(gremlin).stage.startswith("more"):
        it.run(gremlin, env=hub.env, waits=1)
    assert "Old." in it.artifact(gremlin, "review.md")
    hub.say(
        "reviews.json",
        [
            {"id": "R1", "author": {"login": "alice"}, "state": "COMMENTED", "body": "First."},
            {"id": "R2", "author": {"login": "alice"}, "state": "COMMENTED", "body": "Second."},
        ],
    )
    assert isinstance(it.run(gremlin, env=hub.env).status, Finished), it.log(gremlin)
    review = it.artifact(gremlin, "review.md")
    assert "Second." in review
    assert "First." not in review
    assert "Old." not in review


def test_a_pull_request_that_the_list_does_not_show_yet_is_known_by_its_address(
    scripted: MakeScripted, hub: Hub
) -> None:
    (hub.folder / "slow-list").touch()
    it = scripted(FIX)
    gremlin = live(it, hub, OPEN)
    assert isinstance(it.read(gremlin).status, Finished), it.log(gremlin)
    assert json.loads(it.artifact(gremlin, "pull-request.json"))["number"] == 7


def test_gh_gets_its_own_login_and_none_of_our_keys(tmp_path: Path) -> None:
    gh = tmp_path / "gh"
    gh.write_text("#!/bin/sh\nenv\n")
    gh.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "GH_TOKEN": "t1", "ANTHROPIC_API_KEY": "sk-1", "GIT_DIR": "/x"}
    seen = GitHub(tmp_path, env).command("x")
    assert "GH_TOKEN=t1" in seen
    assert "ANTHROPIC_API_KEY" not in seen
    assert "GIT_DIR" not in seen


def test_one_that_was_merged_with_somebodys_commits_on_top_is_landed(
    scripted: MakeScripted, hub: Hub, repo: Repo
) -> None:
    it = scripted(FIX)
    gremlin = live(it, hub, OPEN)
    branch = f"gremlins/{gremlin}"
    more = hub.remote.git("commit-tree", f"{branch}^{{tree}}", "-p", branch, "-m", "brought up to date")
    hub.remote.git("update-ref", "refs/pull/7/head", more)
    hub.change_pull(state="MERGED", headRefOid=more, mergeCommit={"oid": "b" * 40})
    assert land_pr(it.home, gremlin, clock=it.clock, env={**it.env, **hub.env}).sha == "b" * 40


def test_one_that_was_merged_without_all_of_the_gremlins_commits_is_not_landed(
    scripted: MakeScripted, hub: Hub
) -> None:
    it = scripted(FIX)
    gremlin = live(it, hub, OPEN)
    hub.change_pull(state="MERGED", headRefOid=hub.remote.git("rev-parse", "main"), mergeCommit={"oid": "b" * 40})
    with pytest.raises(Conflict, match="merged without all commits") as caught:
        land_pr(it.home, gremlin, clock=it.clock, env={**it.env, **hub.env})
    assert f"gremlins land {gremlin}" in (caught.value.hint or "")
    assert it.worktree(gremlin).is_dir()


def test_a_merge_without_the_last_fix_is_said(scripted: MakeScripted, hub: Hub) -> None:
    it = scripted(FIX)
    hub.say("checks.json", {"*": [BUSY]})
    gremlin = live(it, hub, CI, waits=6)
    hub.change_pull(state="MERGED", headRefOid=hub.remote.git("rev-parse", "main"))
    record = it.run(gremlin, env=hub.env)
    tip = it.repo.git("rev-parse", f"gremlins/{gremlin}")
    assert f"before {tip[:12]} was pushed" in record.stages[-1].note
