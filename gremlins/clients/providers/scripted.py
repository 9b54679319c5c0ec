"""The provider `scripted`: replies from a file, for dry runs and demonstrations. It requests nothing and costs nothing.

`scripted:/path/to/script.yaml`, YAML or JSON:

    replies:
      plan: "1. Write greeting.txt."
      implement:
        - {edits: {greeting.txt: "hello\n"}, text: "Wrote it.", delay: 0.5}
      review_code: ["LGTM"]
      "*": "Done."

A label is looked up whole (`loop[1]/plan`), then by its last part (`plan`), then as a pattern, in the file's order.
A list is answered in order, its last entry for ever. `edits` maps a path to its new content, or to null to delete
it: done in the worktree where the call may edit it, else given as the structured list of edits that was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gremlins.clients.base import PromptSource, Session, made
from gremlins.clients.batch.engine import build_request, prompt_of
from gremlins.clients.live.agents import FallsBackToLive
from gremlins.clients.live.engine import Heard, Order
from gremlins.clients.live.records import Booked
from gremlins.config import Settings
from gremlins.errors import NotReady
from gremlins.outcome import FailureClass
from gremlins.records.calls import CallFailed, Cost, Reply, Usage
from gremlins.records.gremlin import Mode


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Failure(_Entry):
    """A reply that is a failure."""

    failure: FailureClass = Field("task", alias="class")
    message: str = "the script says so"


class ScriptedReply(_Entry):
    """One reply. `delay` in seconds; `cost` in USD."""

    text: str = ""
    edits: dict[str, str | None] = Field(default_factory=dict)
    delay: Annotated[float, Field(ge=0)] = 0.0
    cost: Annotated[float, Field(ge=0)] = 0.0
    fail: Failure | None = None


class Script(_Entry):
    """A whole file."""

    replies: dict[str, tuple[ScriptedReply, ...]]

    @field_validator("replies", mode="before")
    @classmethod
    def _short_forms(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        lists = {name: entry if isinstance(entry, list) else [entry] for name, entry in value.items()}
        return {name: [{"text": e} if isinstance(e, str) else e for e in entry] for name, entry in lists.items()}

    def reply(self, label: str, number: int) -> ScriptedReply | None:
        """The reply to the call number `number`, from 0, of a label."""
        last = label.rpartition("/")[2]
        names = [label, last, *(name for name in self.replies if fnmatchcase(label, name))]
        for name in names:
            if entries := self.replies.get(name):
                return entries[min(number, len(entries) - 1)]
        return None


def read_script(path: Path) -> Script:
    """Raises NotReady for a file that is missing or wrong."""
    import yaml  # only a dry run needs it

    try:
        return Script.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise NotReady(f"the script {path} cannot be read: {error.strerror}", hint="scripted:/path/to/file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise NotReady(f"the script {path} is not YAML: {' '.join(str(error).split())[:200]}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise NotReady(f"the script {path} is wrong: {where}: {first['msg']}") from None


class ScriptedClient(FallsBackToLive):
    """`scripted:FILE`."""

    provider: ClassVar[str] = "scripted"

    def agent(self) -> ScriptedAgent:
        return ScriptedAgent(self.session, self.model)

    @classmethod
    def check_ready(cls, model: str, mode: Mode, env: Mapping[str, str], settings: Settings) -> None:
        path = Path(model).expanduser()
        if not path.is_absolute():
            raise NotReady(f"the script `{model}` needs its whole path", hint=f"scripted:{path.absolute()}")
        read_script(path)


class ScriptedAgent:
    """Answers out of a script."""

    def __init__(self, session: Session, file: str) -> None:
        self.session = session
        self.path = Path(file).expanduser()
        self.client = f"scripted:{file}"

    def request(self, prompt: PromptSource, *, edits_worktree: bool, max_tokens: int | None) -> dict[str, Any]:
        ceiling = max_tokens or self.session.settings.batch.max_tokens
        return {**build_request("scripted", made(prompt), ceiling), "edits_worktree": edits_worktree}

    def new_session(self) -> None:
        return None

    def ask(self, order: Order) -> Heard:
        label = order.record.key.stage
        earlier = [r for r in self.session.ledger.records() if r.key.stage == label and r.key != order.record.key]
        entry = read_script(self.path).reply(label, len(earlier))
        if entry is None:
            message = f"the script {self.path} has no reply for `{label}`"
            return Heard(CallFailed(failure="config", kind="no_reply", message=message), Booked())
        if entry.delay:
            self.session.clock.sleep(entry.delay)
            self.session.check()
        booked = Booked(Cost(usd=entry.cost, live_usd=entry.cost), Usage())
        if entry.fail is not None:
            failed = CallFailed(failure=entry.fail.failure, kind="scripted", message=entry.fail.message)
            return Heard(failed, booked)
        return Heard(Reply(text=self._carry_out(entry, order.record.request), stop_reason="end_turn"), booked)

    def _carry_out(self, entry: ScriptedReply, request: Mapping[str, Any]) -> str:
        if request.get("edits_worktree"):
            for name, content in entry.edits.items():
                self._edit(name, content)
        elif prompt_of(request).schema:
            edits = [
                {"path": p, "delete": True} if c is None else {"path": p, "content": c} for p, c in entry.edits.items()
            ]
            return entry.text if entry.text.startswith("{") else json.dumps({"edits": edits, "summary": entry.text})
        return entry.text

    def _edit(self, name: str, content: str | None) -> None:
        root = self.session.worktree.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root) or ".git" in path.relative_to(root).parts:
            raise NotReady(f"the script {self.path} edits outside the worktree: {name}")
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
