"""Changing code, in either mode: a batch answers with edits that become a commit; a live agent edits the worktree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gremlins.clients.base import Answer
from gremlins.clients.next_step import takes_up
from gremlins.outcome import Bail, Failed
from gremlins.records.calls import LiveCall
from gremlins.repository.worktree import (
    Worktree,
    commit_all,
    commit_aside,
    find_trailer,
    ignored,
    interrupted_ref,
    save_interrupted,
    trailer_of,
)
from gremlins.stages.asking import Question, ask, conversation_of, corrected
from gremlins.stages.base import StageContext
from gremlins.stages.edits.answer import (
    Edit,
    NothingToDo,
    UnreadableReply,
    parse_reply,
    parse_verdict,
    render_unreadable,
)
from gremlins.stages.edits.checking import (
    EditsReady,
    Mismatched,
    Refused,
    check_edits,
    render_left_out,
    render_mismatches,
)
from gremlins.stages.spec import AgentStage, Verify


@dataclass(frozen=True)
class Change:
    """The result of asking for a change. `text` is the agent's summary or last words."""

    changed: bool
    text: str
    verdict: Bail | NothingToDo | None = None


@dataclass(frozen=True)
class _SendBack:
    """The reply cannot be used as it is; `correction` says why, to the model."""

    correction: str
    reason: str


def change_code(
    spec: AgentStage, context: StageContext, prompt: Question, *, label: str, subject: str
) -> Change | Failed:
    """Ask for a change and commit what came of it on the gremlin's branch. Raises what a call raises.

    label: the call's path. subject: first line of the commit where the agent gives none.
    """
    if spec.settled_mode == "batch":
        return _by_edits(spec, context, prompt, label, subject)
    return _by_agent(spec, context, prompt, label, subject)


# ── batch ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _by_edits(spec: AgentStage, context: StageContext, prompt: Question, label: str, subject: str) -> Change | Failed:
    answer = ask(spec, context, prompt, label=label)
    if isinstance(answer, Bail):
        return Change(False, "", answer)
    result = _use(answer, context, label, subject)
    if isinstance(result, _SendBack):
        context.log(f"{label}: {result.reason}; sent back once")
        correction, first = result.correction, answer
        answer = context.ask(
            spec, lambda: corrected(first, correction), label=label, revision=first.record.revision + 1
        )
        is_judged = context.is_verified or isinstance(spec, Verify)
        result = _use(answer, context, label, subject, leave_out=is_judged)
    if isinstance(result, _SendBack):
        result = Failed("task", f"the edits cannot be applied, and sending them back did not help: {result.reason}")
    if isinstance(result, Failed):
        name = f"reply-{label.replace('/', '-')}.md"
        context.write_artifact(name, answer.text)
        return replace(result, reason=f"{result.reason} (the reply is kept as artifacts/{name})")
    return result


def _use(
    answer: Answer, context: StageContext, label: str, subject: str, *, leave_out: bool = False
) -> Change | Failed | _SendBack:
    """Apply a reply's edits, all or none; with `leave_out` those that fit, where they do by themselves.
    Never of ignored files: those would be in the way of a person's own.

    What an earlier process applied already is only finished.
    """
    worktree = context.worktree
    try:
        reply = parse_reply(answer.text)
    except UnreadableReply as error:
        return _SendBack(render_unreadable(error), error.message)
    verdict = parse_verdict(reply.summary) or parse_verdict(answer.text)
    trailer = trailer_of(answer.trailer)
    if find_trailer(worktree, trailer) is not None:
        commit_aside(worktree, (), message=subject, trailer=trailer)
        return Change(True, reply.summary, verdict)
    if isinstance(verdict, Bail):
        return Change(False, reply.summary, verdict)
    shown, text = conversation_of(answer), reply.summary
    checked = check_edits(worktree.path, reply.edits, shown)
    if isinstance(checked, Mismatched) and leave_out:
        missed, checked = checked, _without(checked, worktree, reply.edits, shown)
        if isinstance(checked, EditsReady):
            name = f"left-out-{label.replace('/', '-')}.md"
            context.write_artifact(name, render_left_out(missed.mismatches, reply.edits))
            said = f"{len(missed.mismatches)} of {len(reply.edits)} edits did not fit and were left out"
            context.log(f"{label}: {said}, see artifacts/{name}")
            text = f"{text}\n\nNot all of it is here: {said}."
    match checked:
        case Refused():
            return Failed("task", f"the edits were refused whole: {checked.reason}")
        case Mismatched():
            first = checked.mismatches[0]
            return _SendBack(render_mismatches(checked.mismatches), f"{first.path}: {first.reason}")
        case EditsReady():
            left_out = ignored(worktree, checked.changes) if checked.changes else []
            notes = [f"left out, because git ignores them: {', '.join(left_out)}"] if left_out else []
            for note in (*checked.notes, *notes):
                context.log(f"{label}: {note}")
            changes = [change for change in checked.changes if change.path not in left_out]
            text = "\n\n".join([text, *notes]).strip()
            message = context.without_secrets(_message(text, subject))
            sha = commit_aside(worktree, changes, message=message, trailer=trailer) if changes else None
            return Change(sha is not None, text, verdict)


def _without(missed: Mismatched, worktree: Worktree, edits: Sequence[Edit], shown: str) -> EditsReady | Mismatched:
    """The edits that fit, if they change something without the others."""
    numbers = {mismatch.index for mismatch in missed.mismatches}
    rest = [edit for number, edit in enumerate(edits) if number not in numbers]
    checked = check_edits(worktree.path, rest, shown)
    return checked if isinstance(checked, EditsReady) and checked.changes else missed


# ── live ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _by_agent(spec: AgentStage, context: StageContext, prompt: Question, label: str, subject: str) -> Change | Failed:
    worktree = context.worktree
    start = remember_start(worktree, label)
    if not _goes_on(context, label):
        ref = interrupted_ref(worktree)
        if (saved := save_interrupted(worktree, ref)) is not None:
            context.log(f"{label}: changes of an interrupted agent were kept as {ref} ({saved[:12]})")
    answer = context.ask(spec, prompt, label=label, edits_worktree=True)
    verdict = parse_verdict(answer.text)
    message = context.without_secrets(_message(answer.text, subject))
    commit_all(worktree, message=message, trailer=trailer_of(answer.trailer))
    return Change(worktree.git.differs(start, worktree.tip()), answer.text, verdict)


def remember_start(worktree: Worktree, label: str) -> str:
    """The tip before the stage's first call, kept as a ref: an agent may commit by itself, and a process may die."""
    ref = start_ref(worktree, label)
    found = worktree.git.try_commit(ref)
    if found is None:
        found = worktree.tip()
        worktree.git.update_ref(ref, found, reason="gremlins: start of a stage")
    return found


def start_ref(worktree: Worktree, label: str) -> str:
    """The ref of a stage's start. One path level, so that no other stage's name collides with it."""
    flat = label.replace("[", "=").replace("]", "").replace("/", "+")
    name = re.sub(r"[^A-Za-z0-9_=+-]+", "-", flat).strip("-")
    return f"refs/gremlins/{worktree.branch.rpartition('/')[2]}/start/{name}"


def _goes_on(context: StageContext, label: str) -> bool:
    """True if the worktree belongs to an unfinished call, or to a reply that is not committed yet."""
    records = context.session.ledger.of_call(label, context.session.attempt(label))
    return takes_up([record for record in records if isinstance(record, LiveCall)], spawn=context.session.spawn)


# ── both ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _message(text: str, subject: str) -> str:
    """A commit message: the task's words as subject, the agent's summary as body."""
    body = "\n".join(line.rstrip() for line in text.strip().splitlines()[:40])
    return f"{subject}\n\n{body}" if body else subject
