"""The model protocol, and models that follow a script."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from gremlins.simulator.api import ModelError
from gremlins.simulator.messages import ModelReply
from gremlins.simulator.reading import ReadPrompt, read_prompt

Params = Mapping[str, Any]
Reaction = ModelReply | ModelError
Scripted = str | ModelReply | ModelError | Callable[[Params], "str | ModelReply | ModelError"]
Condition = str | Callable[[ReadPrompt], bool]
"""A regular expression searched in the whole prompt (`^` and `$` are lines), or a predicate on it."""


class Model(Protocol):
    """Answers one request. Called from many threads; may be asked the same thing twice."""

    def reply(self, params: Params) -> Reaction:
        """The reply, or the error the API is to report."""


class ScriptedModel:
    """Replies given in advance.

    `when` is looked through first: (condition, reply) pairs, each usable any number of times. Then the next of
    `replies` is taken. When they are used up, `otherwise` answers, or an `api_error` says that the script is over.
    """

    def __init__(
        self,
        replies: Iterable[Scripted] = (),
        *,
        when: Sequence[tuple[Condition, Scripted]] = (),
        otherwise: Model | Scripted | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._replies = list(replies)
        self._when = tuple(when)
        self._otherwise = otherwise
        self.asked: list[Params] = []
        """Every request's params, in order."""

    def reply(self, params: Params) -> Reaction:
        prompt = read_prompt(params)
        with self._lock:
            self.asked.append(params)
            chosen = self._choose(prompt)
        if chosen is None:
            return ModelError("api_error", "the script has no reply left")
        if not isinstance(chosen, (str, ModelReply, ModelError)) and hasattr(chosen, "reply"):
            answer: Reaction = chosen.reply(params)
            return answer
        return as_answer(chosen, params)

    def _choose(self, prompt: ReadPrompt) -> Any:
        for condition, reply in self._when:
            if holds(condition, prompt):
                return reply
        return self._replies.pop(0) if self._replies else self._otherwise


def holds(condition: Condition, prompt: ReadPrompt) -> bool:
    if isinstance(condition, str):
        return re.search(condition, prompt.whole, re.MULTILINE) is not None
    return condition(prompt)


def as_answer(scripted: Any, params: Params) -> Reaction:
    made = scripted if isinstance(scripted, (str, ModelReply, ModelError)) else scripted(params)
    return ModelReply(made) if isinstance(made, str) else made
