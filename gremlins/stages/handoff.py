"""The stage `handoff`: what is left of a larger piece of work, and what the coming round does of it.

Its answer is kept as artifacts: `rolling-plan.md` (what remains), `child-plan.md` (the coming round, on its own),
`follow-ups.md` (what only a person can do), and `handoff.json`, by which a loop knows the decision after a crash.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from gremlins.clients.base import Answer
from gremlins.errors import GremlinsError
from gremlins.files import read_file
from gremlins.outcome import Bail, Done, Failed, Outcome
from gremlins.stages.asking import ask, corrected
from gremlins.stages.base import StageContext, write_text
from gremlins.stages.context.briefing import Briefing, prompt_for
from gremlins.stages.edits.answer import Text, parse_verdict
from gremlins.stages.plan_tasks import has_tasks
from gremlins.stages.secrecy import screen_diff
from gremlins.stages.spec import Handoff
from gremlins.text import normalised_value

LANDED_LIMIT = 120_000
"""Characters of the branch's diff that a handoff gets to see; a longer one is cut, and says so."""
DECISION, CHILD_PLAN, ROLLING_PLAN, FOLLOW_UPS = "handoff.json", "child-plan.md", "rolling-plan.md", "follow-ups.md"


class Decision(BaseModel):
    """The answer of a handoff."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    decision: Literal["done", "next", "bail"]
    reason: Text
    rolling_plan: Text = ""
    child_plan: Text = ""
    operator_follow_ups: tuple[Text, ...] = ()


class Nonsense(GremlinsError):
    """The answer is no decision."""


def run(spec: Handoff, context: StageContext) -> Outcome:
    """Ask what the next round is, and keep the answer. One that is no decision is sent back once."""
    answer = ask(spec, context, prompt_for(spec, context, lambda: _brief(context)))
    if isinstance(answer, Bail):
        return answer
    decided: Decision | Bail | Failed
    try:
        decided = parse_answer(answer.text)
    except Nonsense as error:
        context.log(f"{context.path}: {error.message}; sent back once")
        decided = _ask_again(spec, context, answer, error)
    return _keep(decided, context) if isinstance(decided, Decision) else decided


def _ask_again(spec: Handoff, context: StageContext, first: Answer, error: Nonsense) -> Decision | Bail | Failed:
    correction = (
        f"That cannot be used: {error.message}. Answer again with the whole JSON object and nothing else. `decision` "
        "is `done`, `next` or `bail`, and `reason` says why."
    )
    answer = context.ask(spec, lambda: corrected(first, correction), revision=first.record.revision + 1)
    try:
        return parse_answer(answer.text)
    except Nonsense as again:
        return Failed("task", f"the handoff is no decision, and sending it back did not help: {again.message}")


def parse_answer(text: str) -> Decision | Bail:
    """The decision in an answer, or the verdict in its last line or its reason, as of every stage. Raises Nonsense."""
    verdict = parse_verdict(text)
    if verdict is None:
        decision = parse_decision(text)
        verdict = parse_verdict(decision.reason)
        if verdict is None:
            return decision
    return verdict if isinstance(verdict, Bail) else Decision(decision="done", reason=verdict.reason)


def parse_decision(text: str) -> Decision:
    """The decision in an answer: its JSON object, bare, fenced, or with words around it. Raises Nonsense."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise Nonsense("it holds no JSON object")
    try:
        return Decision.model_validate(normalised_value(json.loads(text[start : end + 1], strict=False)))
    except (ValueError, RecursionError) as error:
        raise Nonsense(_what_is_wrong(error)) from None


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc']) or 'the object'}: {first['msg']}"
    return f"it is not JSON: {error}"


# ── what is asked ─────────────────────────────────────────────────────────────────────────────────────────────────


def _brief(context: StageContext) -> Briefing:
    goal, base = context.task, context.worktree.base
    if context.round is not None:
        goal, base = context.round.goal, context.round.base
    rolling = context.artifact(ROLLING_PLAN)
    sections = {
        "task": goal,
        "plan": rolling if rolling is not None else context.artifact("plan.md") or goal,
        "landed": landed_since(context, base),
        "last_round": context.artifact(f"last-{CHILD_PLAN}") or "",
    }
    return Briefing("handoff", sections)


def landed_since(context: StageContext, base: str) -> str:
    """The branch's log and diff since a commit, as text."""
    git, tip = context.worktree.git, context.worktree.tip()
    if not git.differs(base, tip):
        return "Nothing is on the branch yet."
    log = git.text("log", "--reverse", "--format=%h %s", f"{base}..{tip}")
    diff = screen_diff(git.diff(base, tip))
    if len(diff) > LANDED_LIMIT:
        cut = len(diff) - LANDED_LIMIT
        diff = f"{git.diff_stat(base, tip)}\n{diff[:LANDED_LIMIT]}\n… ({cut} more characters are left out)"
    return f"{log}\n\n{diff}"


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────────────────────


def _keep(decision: Decision, context: StageContext) -> Outcome:
    """Artifacts first; a second time, after a crash, the same is written again."""
    own = context.round.folder if context.round else context.artifacts
    shared = context.round.shared if context.round else context.artifacts
    _keep_follow_ups(shared, decision.operator_follow_ups)
    match decision.decision:
        case "bail":
            return Bail("needs_human", decision.reason.strip() or "the handoff cannot go on, and does not say why")
        case "next":
            if not has_tasks(decision.child_plan):
                return Bail("empty_plan", f"the handoff wants another round without a task: {decision.reason[:300]}")
            for folder in dict.fromkeys((own, shared)):
                write_text(folder / ROLLING_PLAN, decision.rolling_plan.strip() or "Nothing remains after this round.")
            write_text(own / CHILD_PLAN, decision.child_plan)
            write_text(shared / f"last-{CHILD_PLAN}", decision.child_plan)
            outcome = Done(f"next: {_line(decision.reason)}")
        case "done":
            write_text(shared / ROLLING_PLAN, "Nothing remains.")
            outcome = _nothing_left(decision, context)
    write_text(own / DECISION, decision.model_dump_json(indent=1))
    return outcome


def _nothing_left(decision: Decision, context: StageContext) -> Done:
    """Done with nothing on the branch is an agent's word that there was nothing to do."""
    base = context.round.base if context.round else context.worktree.base
    reason = _line(decision.reason) or "the handoff says so"
    if context.worktree.git.differs(base, context.worktree.tip()):
        return Done(f"done: {reason}")
    return Done(f"nothing to do: {reason}", nothing_to_do=reason)


def decision_in(folder: Path) -> Decision | None:
    """The decision of a round's handoff, or None before it."""
    try:
        return Decision.model_validate_json(read_file(folder / DECISION))
    except (OSError, ValidationError):
        return None


def _keep_follow_ups(folder: Path, found: tuple[str, ...]) -> None:
    path = folder / FOLLOW_UPS
    known = read_file(path).decode(errors="replace").splitlines() if path.is_file() else []
    new = [f"- {' '.join(text.split())}" for text in found if text.strip()]
    if new:
        write_text(path, "\n".join(dict.fromkeys([*known, *new])))


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
