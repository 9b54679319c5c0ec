"""The interface of a stage: its context and its permissions. It returns an Outcome and never writes the record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from gremlins.clients.base import Answer, CallUnsuccessful, Client, PromptSource, Session
from gremlins.clients.registry import client_class, plug_in_of
from gremlins.clock import Clock
from gremlins.config import Settings
from gremlins.errors import GremlinsError
from gremlins.files import make_private_dir, read_file, write_atomic
from gremlins.masking import mask
from gremlins.outcome import Failed, FailureClass, Outcome
from gremlins.redaction import Redactor
from gremlins.repository.worktree import Worktree
from gremlins.stages.spec import AgentStage, Stage
from gremlins.text import normalised

SHORTEST_IN_TEXT = 12
"""Characters of a secret of the environment: a shorter one would blank out ordinary words of a text."""


class Steps(Protocol):
    """Runs the stages inside another one in order, and skips those that are done."""

    def __call__(self, stages: Sequence[Stage], prefix: str, context: StageContext) -> Outcome: ...


@dataclass(frozen=True)
class Round:
    """The round of a loop around a stage."""

    number: int
    folder: Path
    """The round's artifacts. What goes from round to round lies in the folder around it."""
    goal: str
    """The task of the loop as a whole; within a round, the context's own task is that of the round."""
    base: str
    """The commit the gremlin's branch began at; within a round, the worktree's base is where the round began."""

    @property
    def shared(self) -> Path:
        return self.folder.parent


@dataclass(frozen=True)
class StageContext:
    """One stage's surroundings."""

    path: str
    """Path in the pipeline: `plan`, `loop[3]/plan`, `parallel/docs/implement`."""
    task: str
    title: str
    worktree: Worktree
    session: Session
    artifacts: Path
    """The folder of this stage's artifacts; rounds and branches have folders of their own inside."""
    settings: Settings
    make_client: Callable[[str, Session], Client]
    busy: Callable[[datetime | None, str], None]
    """Say until when the stage may rightly be silent, and what it does."""
    steps: Steps
    done: Callable[[], frozenset[str]]
    """Paths of the stages that are done."""
    round: Round | None = None
    is_verified: bool = False
    """True if commands of a `verify` stage judge what this stage leaves."""

    @property
    def clock(self) -> Clock:
        return self.session.clock

    @property
    def log(self) -> Callable[[str], None]:
        return self.session.log

    def at(self, path: str) -> StageContext:
        return replace(self, path=path)

    def ask(
        self,
        spec: AgentStage,
        prompt: PromptSource,
        *,
        label: str | None = None,
        revision: int = 0,
        edits_worktree: bool = False,
    ) -> Answer:
        """Ask the stage's model in the stage's mode. Raises what `Client.run` raises. The record keeps the reply as it
        came; the text given back is normalised.
        """
        try:
            client = self.make_client(str(spec.settled_client), self.session)
            answer = client.run(
                prompt,
                label=label or self.path,
                mode=spec.settled_mode,
                max_tokens=spec.max_tokens,
                revision=revision,
                edits_worktree=edits_worktree,
            )
        except (Exception, SystemExit) as error:
            if isinstance(error, GremlinsError) or (plug_in := self._plug_in(spec)) is None:
                raise
            failure: FailureClass = "host" if isinstance(error, OSError) else "unknown"
            raise CallUnsuccessful(Failed(failure, f"{plug_in} raised {type(error).__name__}: {error}")) from error
        if not isinstance(answer, Answer) and (plug_in := self._plug_in(spec)) is not None:
            why = f"{plug_in} returned a {type(answer).__name__} in place of an Answer"
            raise CallUnsuccessful(Failed("unknown", why))
        return replace(answer, text=normalised(answer.text))

    def _plug_in(self, spec: AgentStage) -> str | None:
        """The plug-in that answers for a stage, in words; None for a provider of ours."""
        module = plug_in_of(client_class(str(spec.settled_client)))
        return None if module is None else f"the plug-in {module} of `{spec.settled_client}`"

    def artifact(self, name: str) -> str | None:
        """The text of an artifact of this scope, else of the scopes around it; None while there is none."""
        for folder in (self.artifacts, *self.artifacts.parents):
            if (folder / name).is_file():
                return read_file(folder / name).decode(errors="replace")
            if folder.name == "artifacts":
                break
        return None

    def inside(self, scope: str) -> StageContext:
        """The context of what runs inside this stage: artifacts in a folder of their own, named `scope`."""
        return replace(self, artifacts=self.artifacts / scope)

    def write_artifact(self, name: str, text: str) -> None:
        write_text(self.artifacts / name, self.without_secrets(text))

    def without_secrets(self, text: str) -> str:
        """A text from outside for a prompt, a file or a commit: keys and tokens are masked, and the secrets of our
        environment.
        """
        return Redactor(self.session.env, shortest=SHORTEST_IN_TEXT).text(mask(text))


def write_text(path: Path, text: str) -> None:
    """Write an artifact, its last line ended, and make its folder."""
    make_private_dir(path.parent)
    text = normalised(text)
    write_atomic(path, text if text.endswith("\n") else text + "\n")


StageFunction = Callable[..., Outcome]
"""`run(spec, context) -> Outcome`, one module per stage type."""
