"""The stages that change code, in batch mode, with a model that answers as scripted."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gremlins.clients.base import Client, Session
from gremlins.clients.registry import make_client
from gremlins.fleet.land import land
from gremlins.paths import Home
from gremlins.processes.locks import GremlinLock
from gremlins.records.gremlin import Bailed, FailedGremlin, Finished, Parked
from gremlins.redaction import Redactor
from gremlins.repository.git import HostGitError
from gremlins.runner import HOST_PAUSES
from gremlins.simulator import ScriptedModel, Simulator
from gremlins.stages.commands import mask_log
from tests.conftest import Repo
from tests.in_process import InProcessSandbox
from tests.stages.conftest import MakeScripted

FIX: dict[str, Any] = {
    "edits": [{"path": "calc.py", "old": "return a - b", "new": "return a + b"}],
    "summary": "add adds",
}
WRONG = {"edits": [{"path": "calc.py", "old": "return a % b", "new": "return a + b"}], "summary": "add adds"}
IMPLEMENT = "stages: [{type: implement, mode: batch}]\n"
# -B: a fix of the same length within the same second would not be seen beside the bytecode of the bug.
CHECK = f"'{sys.executable}' -B -c 'import calc; assert calc.add(2, 3) == 5'"

MakeSandbox = Callable[..., InProcessSandbox]


@pytest.fixture
def sandbox(repo: Repo, tmp_path: Path) -> Iterator[MakeSandbox]:
    running: list[Simulator] = []

    def make(*replies: object) -> InProcessSandbox:
        texts = [reply if isinstance(reply, str) else json.dumps(reply) for reply in replies]
        simulator = Simulator(model=ScriptedModel(texts)).start()
        running.append(simulator)
        return InProcessSandbox(repo, Home(tmp_path / "state"), simulator)

    yield make
    for simulator in running:
        simulator.stop()


@pytest.mark.parametrize(("times", "ending", "batches"), [(3, Parked, 1), (99, FailedGremlin, 0)])
def test_a_lock_that_another_git_holds_for_a_moment_passes(
    sandbox: MakeSandbox, times: int, ending: type, batches: int
) -> None:
    """It ended the gremlin."""
    it = sandbox(FIX)
    gremlin = it.make(IMPLEMENT)
    began, locked = it.clock.now(), [HostGitError(["git", "add"], 128, "index.lock': File exists")] * times

    def client(spec: str, session: Session) -> Client:
        if locked:
            raise locked.pop()
        return make_client(spec, session)

    with GremlinLock.acquire(it.home.gremlin(gremlin).lock, "runner") as lock:
        run = it.process(gremlin, lock)
        run.make_client = client
        run.go()
        run.close()
    status = it.read(gremlin).status
    assert isinstance(status, ending), status
    assert len(it.simulator.batches) == batches
    assert "index.lock': File exists; it is tried again in 4 s" in it.log(gremlin)
    if isinstance(status, FailedGremlin):
        assert (status.failure, (it.clock.now() - began).total_seconds()) == ("host", sum(HOST_PAUSES))
        assert "index.lock" in status.reason


def test_edits_become_a_commit_that_names_its_call(sandbox: MakeSandbox) -> None:
    it = sandbox(FIX)
    gremlin = it.make(IMPLEMENT)
    record = it.run(gremlin)
    assert isinstance(record.status, Finished), record.status
    assert record.status.evidence.kind == "commits"
    assert "return a + b" in (it.worktree(gremlin) / "calc.py").read_text()
    assert "Gremlins-Call: implement a1 t1 r1" in it.repo.git("log", "-1", "--format=%B", record.branch)
    assert "return a - b" in it.repo.read("calc.py"), "the person's own file was touched"


def test_edits_of_ignored_files_are_left_out_with_a_note(sandbox: MakeSandbox) -> None:
    it = sandbox({**FIX, "edits": [*FIX["edits"], {"path": "ignored/x.py", "content": "x\n"}]})
    gremlin = it.make(IMPLEMENT)
    record = it.run(gremlin)
    assert it.repo.git("diff", "--name-only", record.base, record.branch) == "calc.py"
    assert not (it.worktree(gremlin) / "ignored").exists()
    note = "left out, because git ignores them: ignored/x.py"
    assert note in it.log(gremlin)
    assert note in it.repo.git("log", "-1", "--format=%B", record.branch)


def test_a_change_of_ignored_files_only_is_no_change_and_says_so(sandbox: MakeSandbox) -> None:
    it = sandbox({"edits": [{"path": "a.log", "content": "x\n"}], "summary": "logs"})
    status = it.run(it.make(IMPLEMENT)).status
    assert isinstance(status, Bailed)
    assert (status.kind, "git ignores them: a.log" in status.detail) == ("empty_implementation", True)


def test_control_characters_of_a_task_reach_no_commit_message(sandbox: MakeSandbox) -> None:
    it = sandbox(FIX)
    gremlin = it.make(IMPLEMENT, task="Fix \x1b[31madd\x07\x9b\u202e it subtracts\x00")
    record = it.run(gremlin)
    assert it.repo.git("log", "-1", "--format=%s", record.branch) == "Fix add\ufffd\ufffd it subtracts\ufffd"
    land(it.home, gremlin, clock=it.clock)
    message = it.repo.git("log", "-1", "--format=%B", "main")
    assert message.splitlines()[0] == "Fix add\ufffd\ufffd it subtracts\ufffd"
    assert not [c for c in message if ord(c) < 32 and c != "\n"]


def test_edits_that_do_not_match_are_sent_back_once(sandbox: MakeSandbox) -> None:
    it = sandbox(WRONG, FIX)
    gremlin = it.make(IMPLEMENT)
    assert isinstance(it.run(gremlin).status, Finished)
    first, second = it.calls(gremlin)
    assert second.key.try_ == first.key.try_ + 1
    assert [m["role"] for m in second.request["messages"]] == ["user", "assistant", "user"]
    assert "calc.py" in second.request["messages"][2]["content"]


def test_edits_that_never_match_fail_the_stage_and_change_nothing(sandbox: MakeSandbox) -> None:
    it = sandbox(WRONG, WRONG)
    gremlin = it.make(IMPLEMENT)
    status = it.run(gremlin).status
    assert isinstance(status, FailedGremlin)
    assert status.failure == "task"
    assert len(it.simulator.batches) == 2
    assert "return a - b" in (it.worktree(gremlin) / "calc.py").read_text()


@pytest.mark.parametrize("path", ["../out.py", "/etc/out", ".git/hooks/post-commit", "sub/../../x"])
def test_a_path_outside_refuses_the_whole_list(sandbox: MakeSandbox, path: str) -> None:
    it = sandbox({"edits": [*FIX["edits"], {"path": path, "content": "x"}], "summary": "both"})
    gremlin = it.make(IMPLEMENT)
    status = it.run(gremlin).status
    assert isinstance(status, FailedGremlin)
    assert "return a - b" in (it.worktree(gremlin) / "calc.py").read_text()
    assert len(it.simulator.batches) == 1, "what is refused is not asked again"


PARTLY = {"edits": [*FIX["edits"], {"path": "README.md", "old": "Nowhere", "new": "x"}], "summary": "add adds"}


def test_a_second_mismatch_costs_only_the_edits_that_miss_where_verify_can_judge(sandbox: MakeSandbox) -> None:
    it = sandbox(PARTLY, PARTLY)
    gremlin = it.make(f'stages: [{{type: implement, mode: batch}}, {{type: verify, mode: batch, cmds: ["{CHECK}"]}}]\n')
    record = it.run(gremlin)
    assert isinstance(record.status, Finished), record.status
    assert len(it.simulator.batches) == 2
    assert it.repo.git("diff", "--name-only", record.base, record.branch) == "calc.py"
    assert "1 of 2 edits did not fit" in it.repo.git("log", "-1", "--format=%B", record.branch)
    left_out = (it.home.gremlin(gremlin).artifacts / "left-out-implement.md").read_text()
    assert "README.md" in left_out
    assert "Nowhere" in left_out


@pytest.mark.parametrize("after", ["", ", {type: verify, mode: batch}", ", {type: exec, cmds: ['true']}"])
def test_without_a_judge_a_second_mismatch_fails_and_keeps_the_reply(sandbox: MakeSandbox, after: str) -> None:
    it = sandbox(PARTLY, PARTLY)
    gremlin = it.make(f"stages: [{{type: implement, mode: batch}}{after}]\n")
    record = it.run(gremlin)
    assert isinstance(record.status, FailedGremlin)
    assert it.repo.git("diff", "--name-only", record.base, record.branch) == ""
    assert "reply-implement.md" in record.status.reason
    assert json.loads((it.home.gremlin(gremlin).artifacts / "reply-implement.md").read_text()) == PARTLY


def test_a_near_miss_is_taken_and_said(sandbox: MakeSandbox) -> None:
    it = sandbox(
        {"edits": [{"path": "`a/calc.py`", "old": "return a\u00a0 –  b", "new": "return a + b"}], "summary": "s"}
    )
    gremlin = it.make(IMPLEMENT)
    record = it.run(gremlin)
    assert isinstance(record.status, Finished), record.status
    assert "return a + b" in it.repo.git("show", f"{record.branch}:calc.py")
    assert "calc.py: the white space of line 2 differs from `old`, which was taken for it" in it.log(gremlin)


def test_a_file_that_was_not_shown_is_never_replaced(sandbox: MakeSandbox) -> None:
    whole = "".join(f"def f{n}():\n    return {n}\n" for n in range(3_000))
    short = {"edits": [{"path": "big.py", "content": "x = 1\n# ... rest unchanged\n"}], "summary": "s"}
    it = sandbox(short, {"edits": [{"path": "big.py", "content": "x = 1\n"}], "summary": "s"})
    it.repo.commit({"big.py": whole})
    record = it.run(it.make(IMPLEMENT, env={"GREMLINS_BATCH__CONTEXT_TOKENS": "4000"}))
    assert isinstance(record.status, FailedGremlin)
    assert it.repo.git("diff", "--name-only", record.base, record.branch) == ""


def test_replies_with_characters_that_are_no_text_are_used(sandbox: MakeSandbox) -> None:
    """A NUL in a plan or a summary made paid work that could never land."""
    odd = json.dumps({**FIX, "summary": "add\0 adds \x1b[31m"})
    it = sandbox("1. Add\0 it\x1b[31m.", odd.replace("[31m", "\\ud800"))
    gremlin = it.make("stages: [{type: plan, mode: batch}, {type: implement, mode: batch}]\n", task="Do\0 it.")
    record = it.run(gremlin)
    assert isinstance(record.status, Finished), record.status
    assert record.task == "Do\ufffd it."
    assert (it.home.gremlin(gremlin).artifacts / "plan.md").read_text() == "1. Add\ufffd it.\n"
    assert "add\ufffd adds" in it.repo.git("log", "-1", "--format=%B", record.branch)


def test_an_empty_reply_is_sent_back_without_an_empty_turn(sandbox: MakeSandbox) -> None:
    it = sandbox(" ", FIX)
    gremlin = it.make(IMPLEMENT)
    assert isinstance(it.run(gremlin).status, Finished)
    _, second = it.calls(gremlin)
    assert [m["role"] for m in second.request["messages"]] == ["user"]
    assert "could not be used" in second.request["messages"][0]["content"]


@pytest.mark.parametrize(
    "reply",
    [
        {"edits": [], "summary": "Two ways.\nBAIL: needs_human: which one?"},
        '{"edits": [], "summary": "Two ways."}\n\nBail: needs_human: which one?',
    ],
)
def test_an_agent_that_cannot_go_on_bails_and_changes_nothing(sandbox: MakeSandbox, reply: object) -> None:
    it = sandbox(reply)
    status = it.run(it.make(IMPLEMENT)).status
    assert isinstance(status, Bailed)
    assert (status.kind, status.detail, status.stage) == ("needs_human", "which one?", "implement")


def test_no_change_bails_unless_there_was_nothing_to_do(sandbox: MakeSandbox) -> None:
    it = sandbox({"edits": [], "summary": "hm"}, {"edits": [], "summary": "NOTHING TO DO: add adds already"})
    status = it.run(it.make(IMPLEMENT)).status
    assert isinstance(status, Bailed)
    assert status.kind == "empty_implementation"
    done = it.run(it.make(IMPLEMENT)).status
    assert isinstance(done, Finished)
    assert done.evidence.kind == "nothing_to_do"
    assert done.evidence.detail == "add adds already"


def test_verify_lets_the_agent_fix_what_fails(sandbox: MakeSandbox) -> None:
    it = sandbox(FIX)
    gremlin = it.make(f'stages: [{{type: verify, mode: batch, cmds: ["{CHECK}"]}}]\n')
    assert isinstance(it.run(gremlin).status, Finished)
    [call] = it.calls(gremlin)
    assert call.key.stage == "verify/fix[1]"
    assert "AssertionError" in call.request["messages"][0]["content"]


def test_a_secret_that_a_command_prints_is_masked_wherever_it_goes(sandbox: MakeSandbox) -> None:
    token = "ghp_" + "a1B2" * 9
    it = sandbox({"edits": [], "summary": "NOTHING TO DO: no"})
    it.repo.commit({"fail.sh": f"echo T=ghp_''{token[4:]}, $OWN\nexit 3\n"})
    gremlin = it.make('stages: [{type: verify, mode: batch, cmds: ["sh fail.sh"]}]\n')
    record = it.run(gremlin, env={"OWN": "own-token-of-the-caller", "OTHER_TOKEN": "own-token-of-the-caller"})
    assert isinstance(record.status, FailedGremlin)
    [call] = it.calls(gremlin)
    assert "T=***, ***" in call.request["messages"][0]["content"].partition("<failure>")[2]
    folder = it.home.gremlin(gremlin).log.parent
    everything = "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())
    assert "T=***, ***" in everything
    assert token not in everything
    assert "own-token-of-the-caller" not in everything


def test_a_secret_in_a_failed_commands_last_words_is_masked_in_the_reason(sandbox: MakeSandbox) -> None:
    it = sandbox()
    it.repo.commit({"fail.sh": f"echo key: ghp_''{'a1B2' * 9}\nexit 3\n"})
    record = it.run(it.make("stages: [{type: exec, cmds: ['sh fail.sh']}]\n"))
    assert isinstance(record.status, FailedGremlin)
    assert record.status.reason == "`sh fail.sh` exited with 3: key: ***"


def test_a_long_output_is_masked_in_all_its_parts(tmp_path: Path) -> None:
    log = tmp_path / "talk.log"
    token, noise = "ghp_" + "a1B2" * 9, "x = 1\n" * 170_000
    log.write_text(f"first {token}\n{noise}{token}\n{noise}last {token}\n")
    mask_log(log, Redactor({}))
    shown = f"first ***\n{noise}***\n{noise}last ***\n"
    assert log.read_text() == shown
    mask_log(log, Redactor({}))
    assert log.read_text() == shown
    assert [path.name for path in tmp_path.iterdir()] == ["talk.log"]


def test_verify_gives_up_after_its_attempts(sandbox: MakeSandbox) -> None:
    noise = [{"edits": [{"path": f"{n}.txt", "content": f"{n}\n"}], "summary": "try"} for n in range(3)]
    it = sandbox(*noise)
    gremlin = it.make(f'stages: [{{type: verify, mode: batch, max_attempts: 2, cmds: ["{CHECK}"]}}]\n')
    status = it.run(gremlin).status
    assert isinstance(status, FailedGremlin)
    assert status.exit_code == 1
    assert len(it.simulator.batches) == 2


def test_verify_without_commands_is_skipped_and_says_so(sandbox: MakeSandbox) -> None:
    it = sandbox()
    gremlin = it.make("stages: [verify]\nevidence: none\n", env={"GREMLINS_CLAUDE_BIN": "/bin/true"})
    assert isinstance(it.run(gremlin).status, Finished)
    assert "skipped" in it.log(gremlin)


def test_a_pipeline_that_ends_without_its_evidence_bails(sandbox: MakeSandbox) -> None:
    it = sandbox()
    status = it.run(it.make("stages: [{type: exec, cmds: ['true']}]\nevidence: commits\n")).status
    assert isinstance(status, Bailed)
    assert status.kind == "no_evidence"


@pytest.mark.parametrize("stage", ["verify, mode: batch", "exec"])
def test_what_commands_changed_and_passed_on_is_committed_and_said(sandbox: MakeSandbox, stage: str) -> None:
    it = sandbox()
    change = "sed -i.old 's/a - b/a + b/' calc.py && rm calc.py.old && chmod +x README.md && touch loose.txt"
    gremlin = it.make(f'stages: [{{type: {stage}, cmds: ["{change}", "{CHECK}"]}}]\n')
    record = it.run(gremlin)
    assert isinstance(record.status, Finished), record.status
    assert it.repo.git("diff", "--name-only", record.base, record.branch).split() == ["README.md", "calc.py"]
    assert it.repo.git("ls-tree", record.branch, "README.md").startswith("100755")
    assert "Changes made by `sed" in it.repo.git("log", "-1", "--format=%B", record.branch)
    assert "the commands changed README.md, calc.py; committed" in it.log(gremlin)
    assert "new files are not committed, for git does not track them: loose.txt" in it.log(gremlin)
    assert Repo(it.worktree(gremlin)).git("status", "--porcelain") == "?? loose.txt"


def test_a_file_that_a_test_run_drops_is_not_committed(sandbox: MakeSandbox) -> None:
    it = sandbox(FIX)
    gremlin = it.make(f'stages: [{{type: verify, mode: batch, cmds: ["touch dropped.txt; {CHECK}"]}}]\n')
    record = it.run(gremlin)
    assert it.repo.git("diff", "--name-only", record.base, record.branch) == "calc.py"


@pytest.mark.parametrize("says", ["VERDICT: approve: it adds now", "NOTHING TO DO: it adds now"])
def test_a_review_without_findings_is_not_paid_for_twice(sandbox: MakeSandbox, says: str) -> None:
    it = sandbox(FIX, f"The change is right.\n\n{says}")
    stages = "stages: [{type: implement, mode: batch}, review_code, {type: address_code, mode: batch}]\n"
    gremlin = it.make(stages)
    assert isinstance(it.run(gremlin).status, Finished)
    assert len(it.simulator.batches) == 2


def test_findings_are_addressed_and_the_account_is_kept(sandbox: MakeSandbox) -> None:
    done = {"edits": [], "summary": "F1: not followed, because it is right as it is"}
    it = sandbox(FIX, "### F1 (minor) `calc.py:1`\nName it plus.\n\nVERDICT: changes requested: naming", done)
    gremlin = it.make("stages: [{type: implement, mode: batch}, review_code, {type: address_code, mode: batch}]\n")
    assert isinstance(it.run(gremlin).status, Finished)
    assert "F1: not followed" in it.artifact(gremlin, "addressed.md")


def test_no_text_stage_asks_for_structured_output(sandbox: MakeSandbox) -> None:
    it = sandbox("# Plan", FIX, "VERDICT: approve: fine", "A summary.")
    it.repo.write({".gremlins/prompts/s.md": "Sum it up.\n"})
    stages = (
        "[plan, {type: implement, mode: batch}, review_code, {type: agent, name: s, prompt: .gremlins/prompts/s.md}]"
    )
    gremlin = it.make(f"mode: batch\nstages: {stages}\n")
    assert isinstance(it.run(gremlin).status, Finished)
    asked = {call.key.stage: "output_config" in call.request for call in it.calls(gremlin)}
    assert asked == {"plan": False, "implement": True, "review_code": False, "s": False}
    assert it.artifact(gremlin, "plan.md") == "# Plan\n"


@pytest.mark.parametrize("plan", ["# Plan\n\n1.", "No tasks remain.", "- [x] written"])
def test_a_plan_without_a_task_bails_before_anything_more_is_paid(sandbox: MakeSandbox, plan: str) -> None:
    it = sandbox(plan)
    status = it.run(it.make("mode: batch\nstages: [plan, implement]\n")).status
    assert isinstance(status, Bailed)
    assert (status.stage, status.kind) == ("plan", "empty_plan")
    assert len(it.simulator.batches) == 1


def test_what_was_packed_can_be_seen(sandbox: MakeSandbox) -> None:
    it = sandbox("# Plan")
    gremlin = it.make("stages: [plan]\nevidence: none\n", task="add in calc.py subtracts")
    it.run(gremlin)
    assert "`calc.py`" in it.artifact(gremlin, "context-plan.md")
    assert '<file path="calc.py">' in it.calls(gremlin)[0].request["messages"][0]["content"]


def test_file_names_that_are_not_utf8_disturb_no_stage(scripted: MakeScripted) -> None:
    asks = {"need": [{"path": "caf?.txt"}], "why": "it may say more"}
    it = scripted(asks, {"edits": [{"path": "calc.py", "old": "a - b", "new": "a + b"}], "summary": "add adds"})
    it.repo.commit({os.fsdecode(b"caf\xe9.txt"): "odd\n", os.fsdecode(b"d\xff/x.py"): "def add(): pass\n"})
    gremlin = it.make("stages: [{type: implement, mode: batch}, {type: verify, mode: batch, cmds: ['true']}]\n")
    assert isinstance(it.run(gremlin).status, Finished)
