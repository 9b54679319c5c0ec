"""Asks a stage's model in batch mode, and gives it once what it says it lacks.

The request is answered by one more turn of the same call.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from gremlins.clients.base import Answer, Prompt
from gremlins.clients.batch.engine import prompt_of
from gremlins.outcome import Bail
from gremlins.stages.base import StageContext
from gremlins.stages.spec import AgentStage
from gremlins.stages.wants import Need, read_need


class Question(Protocol):
    """A prompt on demand, and the answer to a request for more. `shown`: all that the conversation holds so far."""

    def __call__(self) -> Prompt: ...

    def supply(self, need: Need, shown: str) -> str: ...


def ask(spec: AgentStage, context: StageContext, question: Question, *, label: str | None = None) -> Answer | Bail:
    """The model's result. A request in its place is answered once; a second one bails. Raises what a call raises."""
    path = label or context.path
    first = context.ask(spec, question, label=path)
    need = read_need(first.text) if spec.settled_mode == "batch" else None
    if need is None:
        return first
    context.log(f"{path}: the model asks for {need}")

    def supplied() -> Prompt:
        more = question.supply(need, conversation_of(first))
        return replace(corrected(first, more), turn=first.record.key.turn + 1)

    answer = context.ask(spec, supplied, label=path, revision=first.record.revision + 1)
    again = read_need(answer.text)
    return answer if again is None else Bail("missing_context", f"asked once more for {again}")


def conversation_of(answer: Answer) -> str:
    """All that the model was told in the conversation of a reply."""
    asked = prompt_of(answer.record.request)
    return "\n".join([asked.text, *(said for _, said in asked.followups)])


def corrected(answer: Answer, correction: str) -> Prompt:
    """The same conversation, with the reply and what is wrong with it."""
    asked = prompt_of(answer.record.request)
    return replace(asked, followups=(*asked.followups, (answer.text, correction)), turn=answer.record.key.turn)
