"""Scenarios whose processes can be killed at any of their steps, and the outcome that each must still have."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gremlins.errors import NotFound
from gremlins.processes.locks import holder_of
from gremlins.records.prices import price
from gremlins.simulator import Simulator
from gremlins.simulator.demo_repository import FILES, TASK
from tests.acceptance.one_batch_call import FOREVER
from tests.acceptance.sandbox import Sandbox
from tests.conftest import make_repo
from tests.kill_points import AT, LINE, TRACE

ASK = """
evidence: none
stages:
  - {type: agent, name: summary, prompt: .gremlins/prompts/summary.md, mode: batch}
"""
EDIT = """
stages:
  - {type: implement, mode: batch}
"""
KILLED = -9
OVER = ("finished", "landed", "dead", "detached", "bailed", "stopped")


@dataclass
class ResettableSandbox:
    """A sandbox that can be reset to an earlier state, with the same paths and a new account each time."""

    folder: Path
    simulator: Simulator
    python: str
    visits: int = 0
    sandbox: Sandbox = field(init=False)

    def __post_init__(self) -> None:
        repo = make_repo(self.folder / "now" / "project")
        repo.commit(
            {**FILES, ".gremlins/prompts/summary.md": "Say in one line what this project does.\n"}, "An orchard"
        )
        self.sandbox = Sandbox(repo, self.folder / "now" / "state", self.simulator, interpreter=self.python)
        self.sandbox.pipeline("ask", ASK)
        self.sandbox.pipeline("edit", EDIT)
        repo.commit({}, "Pipelines")
        self.account()
        self.keep()

    @property
    def trace(self) -> Path:
        return self.folder / "trace"

    def account(self) -> None:
        """Use a new workspace, which has none of the batches made before a reset."""
        self.visits += 1
        key = f"sk-ant-visit-{self.visits:06}"
        self.simulator.change(keys={key: f"workspace-{self.visits}"})
        self.sandbox.env["ANTHROPIC_API_KEY"] = key
        self.batches_before = len(self.simulator.batches)

    def keep(self) -> None:
        """Later resets go back to the present state."""
        shutil.rmtree(self.folder / "then", ignore_errors=True)
        shutil.copytree(self.folder / "now", self.folder / "then", symlinks=True)

    def replace(self) -> None:
        """Put a copy of the state kept in the place of the present one.

        A shared poll outlives the process that started it, and makes its folder anew: then it is replaced again.
        """
        now, aside, fresh = self.folder / "now", self.folder / "aside", self.folder / "fresh"
        shutil.copytree(self.folder / "then", fresh, symlinks=True)

        def is_replaced() -> bool:
            with contextlib.suppress(FileNotFoundError):
                now.rename(aside)
                shutil.rmtree(aside)
            try:
                fresh.rename(now)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return False
            return True

        self.sandbox.wait_for(is_replaced, "the state kept")

    def set_back(self) -> None:
        self.replace()
        self.trace.unlink(missing_ok=True)
        self.account()

    def kill_env(self, at: int = 0) -> dict[str, str]:
        """The variables by which a command and the processes it starts are killed at that step; 0 only counts."""
        return {TRACE: str(self.trace), AT: str(at)}

    @contextlib.contextmanager
    def killed_again(self, further: Sequence[int]) -> Iterator[None]:
        """Commands run in this block are killed too, so many steps from here."""
        before = dict(self.sandbox.env)
        for steps in further:
            self.sandbox.env |= self.kill_env(len(self.steps()) + steps)
        yield
        self.sandbox.env = before

    def steps(self) -> list[str]:
        """The steps taken so far, in order."""
        lines = self.trace.read_bytes().decode().splitlines() if self.trace.exists() else []
        assert all(len(line) == LINE - 1 for line in lines)
        return [line.partition(" ")[2].strip() for line in lines]

    def until_over(self) -> str:
        """Wait until no process works for the gremlin. Returns its state."""
        sandbox = self.sandbox
        state = sandbox.until("g", *OVER)["liveness"]["state"]
        lock = sandbox.home / "gremlins" / "g" / "lock"
        sandbox.wait_for(lambda: holder_of(lock) is None, "its end")
        return str(state)


@dataclass(frozen=True)
class Scenario:
    """A command of a person, the commands that finish it after a kill, and the outcome to compare."""

    name: str
    begin: Callable[[ResettableSandbox, dict[str, str]], None]
    heal: Callable[[ResettableSandbox], None]
    outcome: Callable[[ResettableSandbox], dict[str, Any]]

    def undisturbed(self, place: ResettableSandbox) -> tuple[int, dict[str, Any]]:
        """Run it without a kill. Returns the number of steps and the outcome."""
        place.set_back()
        self.begin(place, place.kill_env())
        self.heal(place)
        return len(place.steps()), self.outcome(place)

    def killed(self, place: ResettableSandbox, *at: int) -> tuple[str, dict[str, Any]]:
        """Kill it at a step, and its repair at further ones (counted from there). Returns the steps and the outcome."""
        place.set_back()
        self.begin(place, place.kill_env(at[0]))
        died = [len(place.steps())]
        with place.killed_again(at[1:]):
            self.heal(place)
        died += [died[0] + further for further in at[1:]]
        steps = place.steps()
        return "; ".join(steps[n - 1] if n <= len(steps) else "not reached" for n in died), self.outcome(place)


# ── a call, and the edits that come of one ────────────────────────────────────────────────────────────────────────


def launching(pipeline: str) -> Callable[[ResettableSandbox, dict[str, str]], None]:
    def begin(place: ResettableSandbox, env: dict[str, str]) -> None:
        ran = place.sandbox.run("launch", pipeline, TASK, "--id", "g", env=env)
        assert ran.code in (0, KILLED), ran.err
        if ran.code == 0:
            place.until_over()

    return begin


def rescuing(pipeline: str) -> Callable[[ResettableSandbox], None]:
    def heal(place: ResettableSandbox) -> None:
        """Launch it again if it is not there; rescue it until it is finished."""
        for _ in range(5):
            try:
                state = place.until_over()
            except NotFound:
                assert place.sandbox.run("launch", pipeline, TASK, "--id", "g").code in (0, KILLED)
                continue
            if state == "finished":
                return
            assert place.sandbox.run("rescue", "g").code in (0, KILLED)
        raise AssertionError(f"four rescues did not bring it to its end\n{place.sandbox.logs()}")

    return heal


def one_gremlin(place: ResettableSandbox) -> dict[str, Any]:
    """All of a finished gremlin that must not depend on the kills."""
    sandbox, folder = place.sandbox, place.sandbox.home / "gremlins" / "g"
    record = json.loads((folder / "state.json").read_text())
    made = [json.loads(path.read_text()) for path in sorted((folder / "calls").glob("*.json"))]
    worktree = Path(record["worktree"])
    return {
        "batches": len(place.simulator.batches) - place.batches_before,
        "calls": [(call["key"]["stage"], call["status"]["state"], call["cost"]["usd"]) for call in made],
        "cost": record["total_cost_usd"],
        "wasted": record["cost"]["wasted_usd"],
        "artifacts": {p.name: p.read_bytes() for p in sorted((folder / "artifacts").rglob("*")) if p.is_file()},
        "tree": sandbox.repo.git("rev-parse", "gremlins/g^{tree}"),
        "commits": sandbox.repo.git("rev-list", "--count", "main..gremlins/g"),
        "strays": sandbox.repo.git("-C", str(worktree), "status", "--porcelain"),
        "a person's tree": sandbox.repo.git("status", "--porcelain"),
        "modes": sorted({oct(path.stat().st_mode & 0o777) for path in [folder, *folder.rglob("*")]}),
    }


CALL = Scenario("a call", launching("ask"), rescuing("ask"), one_gremlin)
EDITS = Scenario("edits", launching("edit"), rescuing("edit"), one_gremlin)


# ── a stop ────────────────────────────────────────────────────────────────────────────────────────────────────────


def stopping(place: ResettableSandbox, env: dict[str, str]) -> None:
    """Launched, parked on a batch that does not end by itself, and stopped."""
    place.simulator.change(latency=FOREVER)
    sandbox = place.sandbox
    if sandbox.run("launch", "ask", TASK, "--id", "g", env=env).code == KILLED:
        return
    state = sandbox.until("g", "parked", "dead", "detached")
    if state["liveness"]["state"] == "parked":
        sandbox.run("stop", "g", env=env)


def stopped_at_last(place: ResettableSandbox) -> None:
    """Repeat the stop until no process and no batch is left. A batch that is not proven to be the gremlin's is not
    canceled: the stop waits for its end."""
    for _ in range(5):
        ran = place.sandbox.run("stop", "g", env={"GREMLINS_BATCH__STOP_WAIT": "5"})
        if ran.code == 1 and place.sandbox.peek("g")["batch"]["batch_id"] is None:
            place.simulator.advance(FOREVER + 1)
        if ran.code == 6:  # it was never there
            return
        if ran.code == 0 and place.until_over() in ("stopped", "dead"):
            return
    raise AssertionError(f"five stops did not stop it: {ran.err}\n{place.sandbox.logs()}")


def nothing_at_work(place: ResettableSandbox) -> dict[str, Any]:
    """The state after a stop, which must not depend on how far the gremlin had come."""
    mine = place.simulator.batches[place.batches_before :]
    found = [json.loads(path.read_text()) for path in (place.sandbox.home / "gremlins/g/calls").glob("*.json")]
    sent = [call for call in found if call["sends"]]  # one that never was is nothing to be stopped
    return {
        "at work": [batch.id for batch in mine if batch.ended_at is None],
        "two": len(mine) > 1,
        "open": [call["status"]["state"] for call in sent if call["status"]["state"] not in ("failed", "collected")],
        "not booked": not_booked(place, [(call["cost"] or {}).get("usd") for call in found]),
    }


def not_booked(place: ResettableSandbox, booked: Iterable[float | None]) -> float:
    """USD that the API has billed since the place was set back, less what is on record."""
    mine = {request.custom_id for b in place.simulator.batches[place.batches_before :] for request in b.requests}
    due = [price(b.model, b.usage, batch=True, at=b.at) for b in place.simulator.billed if b.custom_id in mine]
    return round(sum(cost.usd for cost in due if cost) - sum(usd or 0 for usd in booked), 9)


def thrown_away(place: ResettableSandbox) -> None:
    """Remove it by force, in any state."""
    for _ in range(5):
        if place.sandbox.run("rm", "--force", "g").code in (0, 6):
            return
    raise AssertionError(f"it cannot be removed\n{place.sandbox.logs()}")


def books(place: ResettableSandbox) -> dict[str, Any]:
    """After a removal: the costs as the API has billed them, and no batch in progress."""
    spend = place.sandbox.home / "spend.jsonl"
    rows = [json.loads(line) for line in spend.read_text().splitlines()] if spend.exists() else []
    return {
        "not booked": not_booked(place, [row.get("usd") for row in rows]),
        "at work": [b.id for b in place.simulator.batches[place.batches_before :] if b.ended_at is None],
    }


REMOVAL = Scenario("a removal", launching("ask"), thrown_away, books)
STOP = Scenario("a stop", stopping, stopped_at_last, nothing_at_work)


# ── a person's words ──────────────────────────────────────────────────────────────────────────────────────────────


def told(*words: str) -> Scenario:
    """`answer` of a bailed gremlin, `revise` of a finished one: said again if the kill came before it was on record."""

    def begin(place: ResettableSandbox, env: dict[str, str]) -> None:
        ran = place.sandbox.run(*words, env=env)
        assert ran.code in (0, KILLED), ran.err
        if ran.code == 0:
            place.until_over()

    def heal(place: ResettableSandbox) -> None:
        for _ in range(6):
            state, known = place.until_over(), json.loads((place.sandbox.home / "gremlins/g/state.json").read_text())
            said = known["answers"] or known["revisions"]
            if state == "finished" and said:
                return
            assert place.sandbox.run(*(("rescue", "g") if said else words)).code in (0, KILLED)
        raise AssertionError(f"it never goes on\n{place.sandbox.logs()}")

    return Scenario(words[0], begin, heal, one_gremlin)


ANSWER = told("answer", "g", "It is the first.")
REVISION = told("revise", "g", "Say why.")


# ── a conflict at landing ─────────────────────────────────────────────────────────────────────────────────────────

TICK = ("dispatch", "--once", "--pipeline", "agreed", "--land")
AGREED = """
evidence: commits
stages:
  - {type: exec, name: work, cmds: ['echo new > new.txt && git add -A && git commit -qm new']}
  - {type: address_code, mode: batch}
"""


def meet_a_conflict(place: ResettableSandbox) -> None:
    """A bead's gremlin has finished; the project has another version of its file by now."""
    sandbox = place.sandbox
    sandbox.env |= {"GREMLINS_DISPATCH__BACKOFF_INITIAL": "0.001", "GREMLINS_DISPATCH__BACKOFF_MAX": "0.001"}
    sandbox.pipeline("agreed", AGREED)
    sandbox.repo.commit({}, "another pipeline")
    sandbox.ok("bead", "create", "Conflicts")
    sandbox.ok(*TICK[:-1])
    _until_its_gremlin_is_over(place)
    sandbox.repo.commit({"new.txt": "another's\n"}, "a conflict")
    place.keep()


def _until_its_gremlin_is_over(place: ResettableSandbox) -> None:
    [gremlin] = (place.sandbox.home / "gremlins").iterdir()
    place.sandbox.until(gremlin.name, *OVER)
    place.sandbox.wait_for(lambda: holder_of(gremlin / "lock") is None, "its end")


def _dispatching(place: ResettableSandbox, env: dict[str, str]) -> None:
    assert place.sandbox.run(*TICK, env=env).code in (0, KILLED)
    _until_its_gremlin_is_over(place)


def _until_it_closes(place: ResettableSandbox) -> None:
    for _ in range(8):
        if '"closed"' in place.sandbox.ok("bead", "list", "--all", "--json", env={AT: "0"}):
            return
        _dispatching(place, {})
    raise AssertionError(f"its bead is never closed\n{place.sandbox.logs()}")


def resolved(place: ResettableSandbox) -> dict[str, Any]:
    """All of a resolved conflict that must not depend on the kills."""
    repo = place.sandbox.repo
    return {
        "batches": len(place.simulator.batches) - place.batches_before,
        "tree": repo.git("rev-parse", "main^{tree}"),
        "commits": repo.git("rev-list", "--count", "main"),
        "status": repo.git("status", "--porcelain"),
        "branches": repo.git("for-each-ref", "--format=%(refname)", "refs/heads"),
    }


CONFLICT = Scenario("a conflict", _dispatching, _until_it_closes, resolved)


# ── landing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def landing(*words: str) -> Scenario:
    def begin(place: ResettableSandbox, env: dict[str, str]) -> None:
        ran = place.sandbox.run("land", "g", *words, env=env)
        assert ran.code in (0, KILLED), ran.err

    def heal(place: ResettableSandbox) -> None:
        """Land again; remove the rest if it has landed already."""
        for _ in range(4):
            _an_hour_passes(place)
            ran = place.sandbox.run("land", "g", *words)
            if ran.code == 4 and "has landed already" in ran.err:
                while place.sandbox.run("rm", "g").code == KILLED:
                    pass
                place.sandbox.ok("clean")
                return
            assert ran.code in (0, KILLED), f"{ran.err}\nafter {place.steps()[-1:]}"
        raise AssertionError("landing has no end")

    return Scenario(f"land {' '.join(words)}".strip(), begin, heal, landed)


def _an_hour_passes(place: ResettableSandbox) -> None:
    """Drafts of locks look old enough to be removed: a young one may belong to a living process."""
    for draft in (place.sandbox.repo.path / ".git").glob("index.lock.gremlins-*"):
        os.utime(draft, (0, 0))


def landed(place: ResettableSandbox) -> dict[str, Any]:
    """All of a landing that must not depend on the kills."""
    repo, target = place.sandbox.repo, "release" if place.sandbox.repo.git("branch", "--list", "release") else "main"
    return {
        "tree": repo.git("rev-parse", f"{target}^{{tree}}"),
        "commits": repo.git("rev-list", "--count", target),
        "status": repo.git("status", "--porcelain", "--ignored"),
        "fixed": "len(counts)\n" in repo.read("orchard/harvest.py"),
        "branches": repo.git("for-each-ref", "--format=%(refname)"),
        "worktrees": len(repo.git("worktree", "list").splitlines()),
        "left": [p.name for part in ("worktrees", "gremlins") for p in (place.sandbox.home / part).iterdir()],
        "in .git": sorted(p.name for p in (repo.path / ".git").iterdir() if "gremlins" in p.name or "lock" in p.name),
        "whole": repo.git("fsck", "--no-dangling", "--connectivity-only"),
    }
