"""Stories whose processes can be killed at any one of their steps, and what must be true at their end all the same."""

from __future__ import annotations

import contextlib
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
from gremlins.simulator.demo_project import FILES, TASK
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
    """A person's machine that can be set back to how it once was, paths and all, with a new account each time."""

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
        """A workspace of its own, so that no batch of an earlier visit is in sight."""
        self.visits += 1
        key = f"sk-ant-visit-{self.visits:06}"
        self.simulator.change(keys={key: f"workspace-{self.visits}"})
        self.sandbox.env["ANTHROPIC_API_KEY"] = key
        self.batches_before = len(self.simulator.batches)

    def keep(self) -> None:
        """From now on it is set back to how it is now."""
        shutil.rmtree(self.folder / "then", ignore_errors=True)
        shutil.copytree(self.folder / "now", self.folder / "then", symlinks=True)

    def set_back(self) -> None:
        shutil.rmtree(self.folder / "now")
        shutil.copytree(self.folder / "then", self.folder / "now", symlinks=True)
        self.trace.unlink(missing_ok=True)
        self.account()

    def kill_env(self, at: int = 0) -> dict[str, str]:
        """What makes a command, and all that comes of it, die at that step; 0 only counts."""
        return {TRACE: str(self.trace), AT: str(at)}

    @contextlib.contextmanager
    def killed_again(self, further: Sequence[int]) -> Iterator[None]:
        """Whatever a person does next dies too, so many steps from here."""
        before = dict(self.sandbox.env)
        for steps in further:
            self.sandbox.env |= self.kill_env(len(self.steps()) + steps)
        yield
        self.sandbox.env = before

    def steps(self) -> list[str]:
        """What was done, in order."""
        lines = self.trace.read_bytes().decode().splitlines() if self.trace.exists() else []
        assert all(len(line) == LINE - 1 for line in lines)
        return [line.partition(" ")[2].strip() for line in lines]

    def until_over(self) -> str:
        """Wait until nobody is at work for the gremlin. What it is then."""
        sandbox = self.sandbox
        state = sandbox.until("g", *OVER)["liveness"]["state"]
        lock = sandbox.home / "gremlins" / "g" / "lock"
        sandbox.wait_for(lambda: holder_of(lock) is None, "its end")
        return str(state)


@dataclass(frozen=True)
class Scenario:
    """Something a person sets off, and how they bring it to its end when it was cut short."""

    name: str
    begin: Callable[[ResettableSandbox, dict[str, str]], None]
    heal: Callable[[ResettableSandbox], None]
    outcome: Callable[[ResettableSandbox], dict[str, Any]]

    def undisturbed(self, place: ResettableSandbox) -> tuple[int, dict[str, Any]]:
        """How many steps it has, and what comes of it."""
        place.set_back()
        self.begin(place, place.kill_env())
        self.heal(place)
        return len(place.steps()), self.outcome(place)

    def killed(self, place: ResettableSandbox, *at: int) -> tuple[str, dict[str, Any]]:
        """Killed at a step, and on the way back at another one (counted from there): where, and what comes of it."""
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
        """What a person does: launch again what is not there, rescue what is not finished."""
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
    """Everything of a finished gremlin that must not depend on how often it died."""
    sandbox, folder = place.sandbox, place.sandbox.home / "gremlins" / "g"
    record = json.loads((folder / "state.json").read_text())
    made = [json.loads(path.read_text()) for path in sorted((folder / "calls").glob("*.json"))]
    worktree = Path(record["worktree"])
    return {
        "batches": len(place.simulator.batches) - place.batches_before,
        "calls": [(call["key"]["stage"], call["status"]["state"], call["cost"]["usd"]) for call in made],
        "cost": record["total_cost_usd"],
        "wasted": record["cost"]["wasted_usd"],
        "artifacts": {path.name: path.read_bytes() for path in sorted((folder / "artifacts").iterdir())},
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
    """What a person does: say it again, until nothing is at work for it any more. A batch that may be the gremlin's,
    and that nothing proves to be, is not canceled: its end has to be waited for."""
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
    """What must be true after a stop, however far the gremlin had come."""
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
    """A person has no more use for it, whatever it is."""
    for _ in range(5):
        if place.sandbox.run("rm", "--force", "g").code in (0, 6):
            return
    raise AssertionError(f"it cannot be removed\n{place.sandbox.logs()}")


def books(place: ResettableSandbox) -> dict[str, Any]:
    """What is left of a gremlin that is gone: its costs, as the API has billed them, and nothing at work."""
    spend = place.sandbox.home / "spend.jsonl"
    rows = [json.loads(line) for line in spend.read_text().splitlines()] if spend.exists() else []
    return {
        "not booked": not_booked(place, [row.get("usd") for row in rows]),
        "at work": [b.id for b in place.simulator.batches[place.batches_before :] if b.ended_at is None],
    }


REMOVAL = Scenario("a removal", launching("ask"), thrown_away, books)
STOP = Scenario("a stop", stopping, stopped_at_last, nothing_at_work)


# ── landing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def landing(*words: str) -> Scenario:
    def begin(place: ResettableSandbox, env: dict[str, str]) -> None:
        ran = place.sandbox.run("land", "g", *words, env=env)
        assert ran.code in (0, KILLED), ran.err

    def heal(place: ResettableSandbox) -> None:
        """What a person does: land again, and remove what is left where it says that it has landed."""
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
    """For drafts of locks: nobody may remove one that a living process is just making."""
    for draft in (place.sandbox.repo.path / ".git").glob("index.lock.gremlins-*"):
        os.utime(draft, (0, 0))


def landed(place: ResettableSandbox) -> dict[str, Any]:
    """Everything of a landing that must not depend on how often it was cut short."""
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
