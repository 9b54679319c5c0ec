"""Makes a stage's prompt for its kind and mode, in batch mode with the context pack."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from gremlins.clients.base import CallUnsuccessful, Prompt
from gremlins.outcome import Failed
from gremlins.processes.limited import OverLimit
from gremlins.records.persons_words import ANSWERS
from gremlins.stages.base import StageContext
from gremlins.stages.context.aside import pack_aside, supply_aside
from gremlins.stages.context.pack import Subject
from gremlins.stages.context.prompting import Kind, build
from gremlins.stages.context.showing import render_manifest
from gremlins.stages.spec import AgentStage
from gremlins.stages.wants import Need, items_of


@dataclass(frozen=True)
class Briefing:
    """The sections of a prompt. `evidence` is text that points at files: failing output, findings, a diff."""

    kind: Kind
    sections: Mapping[str, str]
    evidence: str = ""
    diff_base: str | None = None
    """For a review: the commit whose difference to the branch is under review."""


def prompt_for(
    spec: AgentStage, context: StageContext, brief: Callable[[], Briefing], *, label: str | None = None
) -> BriefedQuestion:
    """The prompt of a stage's call."""
    return BriefedQuestion(spec, context, brief, label or context.path)


@dataclass(frozen=True)
class BriefedQuestion:
    """A stage's prompt, made on demand: a call on record packs nothing again."""

    spec: AgentStage
    context: StageContext
    brief: Callable[[], Briefing]
    label: str

    def __call__(self) -> Prompt:
        briefing = self.brief()
        mode: Literal["live", "batch"] = self.spec.settled_mode
        given = {**briefing.sections, "answers": self.context.artifact(ANSWERS) or ""}
        sections = {name: self.context.without_secrets(text) for name, text in given.items()}
        if mode == "batch":
            sections.pop("diff", None)  # the pack holds it, within the budget
            sections["repository"] = _pack(self.context, briefing, self.label)
        return build(briefing.kind, mode=mode, template=self.spec.prompt_text, sections=sections)

    def supply(self, need: Need, shown: str) -> str:
        """The next message to a model that asked for more; what was given is listed in an artifact."""
        context = self.context
        with _within_limits():
            pack = supply_aside(context.session, need, shown, budget=context.settings.batch.context_tokens)
        name = f"context-{self.label.replace('/', '-')}-need.md"
        context.write_artifact(name, render_manifest(pack, stage=f"{self.label}, when it asked for more,"))
        context.log(f"{self.label}: it gets about {pack.tokens} tokens more (artifacts/{name})")
        return pack.text


_NEEDS = re.compile(r"[\W_]*needs[\W_]*:(?P<rest>.*)", re.IGNORECASE)
CLOSING_LINES = 12


def plan_needs(plan: str) -> tuple[str, ...]:
    """The files that a plan names for the stages after it: `needs: a.py, b.py`, or a list below it, at its end."""
    lines = [line.strip() for line in plan.split("\n") if line.strip()][-CLOSING_LINES:]
    for number in range(len(lines) - 1, -1, -1):
        if found := _NEEDS.fullmatch(lines[number]):
            return tuple(items_of(", ".join([found["rest"], *(line.lstrip("-*+ ") for line in lines[number + 1 :])])))
    return ()


def _pack(context: StageContext, briefing: Briefing, label: str) -> str:
    """The part of the repository the model needs, within the budget; what was sent is listed in an artifact."""
    subject = Subject(
        task=context.task,
        plan=briefing.sections.get("plan", ""),
        failure=briefing.evidence,
        diff_base=briefing.diff_base,
        needs=plan_needs(briefing.sections.get("plan", "")),
    )
    with _within_limits():
        pack = pack_aside(context.session, subject, budget=context.settings.batch.context_tokens)
    name = label.replace("/", "-")
    context.write_artifact(f"context-{name}.md", render_manifest(pack, stage=label))
    shown = sum(entry.form != "listed" for entry in pack.entries)
    context.log(f"{label}: packed {shown} files, about {pack.tokens} tokens (artifacts/context-{name}.md)")
    return pack.text


@contextmanager
def _within_limits() -> Iterator[None]:
    """The stage fails, and keeps its attempt, where a repository is more than the limits allow."""
    try:
        yield
    except OverLimit as error:
        raise CallUnsuccessful(Failed("environment", error.message)) from None
