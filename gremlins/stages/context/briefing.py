"""Makes a stage's prompt for its kind and mode, in batch mode with the context pack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from gremlins.clients.base import Prompt
from gremlins.records.persons_words import ANSWERS
from gremlins.stages.base import StageContext
from gremlins.stages.context.pack import Subject, build_pack, render_manifest
from gremlins.stages.context.prompting import Kind, build
from gremlins.stages.spec import AgentStage


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
) -> Callable[[], Prompt]:
    """Makes the prompt on demand: a call on record packs nothing again."""

    def make() -> Prompt:
        briefing = brief()
        mode: Literal["live", "batch"] = spec.settled_mode
        sections = {**briefing.sections, "answers": context.artifact(ANSWERS) or ""}
        if mode == "batch":
            sections.pop("diff", None)  # the pack holds it, within the budget
            sections["repository"] = _pack(context, briefing, label or context.path)
        return build(briefing.kind, mode=mode, template=spec.prompt_text, sections=sections)

    return make


def _pack(context: StageContext, briefing: Briefing, label: str) -> str:
    """The part of the repository the model needs, within the budget; what was sent is listed in an artifact."""
    subject = Subject(
        task=context.task,
        plan=briefing.sections.get("plan", ""),
        failure=briefing.evidence,
        diff_base=briefing.diff_base,
    )
    pack = build_pack(context.worktree.path, subject, budget=context.settings.batch.context_tokens)
    name = label.replace("/", "-")
    context.write_artifact(f"context-{name}.md", render_manifest(pack, stage=label))
    shown = sum(entry.form != "listed" for entry in pack.entries)
    context.log(f"{label}: packed {shown} files, about {pack.tokens} tokens (artifacts/context-{name}.md)")
    return pack.text
