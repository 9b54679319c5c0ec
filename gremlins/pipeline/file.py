"""Finds pipelines by name, reads them from YAML with the line of each error, and freezes them for one gremlin."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from gremlins.config import ClientSpec, Command, Settings, explain, shown
from gremlins.errors import ConfigError, NotFound, did_you_mean
from gremlins.files import read_file
from gremlins.records.gremlin import Mode
from gremlins.repository.git import Git
from gremlins.stages.spec import (
    STAGE_TYPES,
    AgentStage,
    LoopStage,
    Parallel,
    PromptStage,
    Stage,
    StageSpec,
    checked_client,
    named,
    walk,
    with_changes,
)
from gremlins.yaml_lines import MAX_BYTES, Node, read_yaml

SCHEMA = 1
BUILT_IN = Path(__file__).parents[1] / "pipelines"
BUILT_IN_PROMPTS = Path(__file__).parents[1] / "prompts"
PROJECT_PIPELINES = Path(".gremlins") / "pipelines"
PROJECT_PROMPTS = Path(".gremlins") / "prompts"
MAX_PROMPT_BYTES = 1024 * 1024

Evidence = Literal["commits", "none"]
Where = Literal["project", "built-in", "file"]
M = TypeVar("M", bound=BaseModel)
A = TypeVar("A", bound=AgentStage)


@dataclass(frozen=True)
class PipelineFile:
    """The file of a pipeline."""

    name: str
    path: Path
    where: Where

    @property
    def hides_built_in(self) -> bool:
        return self.where == "project" and (BUILT_IN / self.path.name).exists()


@dataclass(frozen=True)
class Pipeline:
    """A checked pipeline. `lines`: the line of each field, by stage path and field name."""

    name: str
    file: Path
    description: str
    client: str | None
    mode: Mode | None
    evidence: Evidence | None
    stages: tuple[StageSpec, ...]
    lines: Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class PipelineInfo(PipelineFile):
    """An entry of the list of pipelines, with the error if the file is wrong."""

    description: str = ""
    stages: tuple[str, ...] = ()
    error: str | None = None


class FrozenPipeline(BaseModel):
    """A pipeline as one gremlin runs it: every default chosen, every prompt read. Later file changes have no effect.

    Kept as JSON. Copies of an older or newer program can be read.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: int = Field(SCHEMA, alias="schema")
    name: str
    file: str
    evidence: Evidence
    stages: tuple[StageSpec, ...]

    def stage(self, path: str) -> StageSpec | None:
        """The stage at a path. Rounds in it (`loop[3]/plan`) are ignored."""
        return dict(walk(self.stages)).get("/".join(part.partition("[")[0] for part in path.split("/")))


class PipelineHeader(BaseModel):
    """The top level of a pipeline file, except its stages."""

    model_config = ConfigDict(extra="forbid")

    name: Command | None = None
    description: str = ""
    client: str | None = None
    mode: Mode | None = None
    evidence: Evidence | None = None

    @field_validator("client")
    @classmethod
    def _client(cls, value: str | None) -> str | None:
        return checked_client(value)


def find_pipeline(name: str, repo: Path | None, *, cwd: Path) -> PipelineFile:
    """Find a pipeline: the project's own, then a built-in one. A name that ends in `.yaml` is a path from `cwd`.

    Raises NotFound with the nearest names.
    """
    if name.endswith(".yaml"):
        path = cwd / Path(name).expanduser()
        if path.is_file():
            return PipelineFile(path.stem, path, "file")
        raise NotFound(f"no pipeline file {name}")
    known = {file.name: file for file in _files(repo)}
    if name in known:
        return known[name]
    others = "there are " + ", ".join(sorted(known))
    raise NotFound(f"no pipeline `{name}`", hint=did_you_mean(name, known, otherwise=others))


def load_pipeline(file: PipelineFile, *, providers: Collection[str] | None = None) -> Pipeline:
    """Read and check a pipeline. Raises ConfigError with file, line and nearest name.

    providers: the allowed providers of clients; None: unchecked.
    """
    return _Reader(file.path, providers).pipeline(read_yaml(file.path))


def list_pipelines(repo: Path | None) -> tuple[PipelineInfo, ...]:
    """The pipelines that can be launched by name, the project's own first."""
    return tuple(_info(file) for file in _files(repo))


def freeze(
    pipeline: Pipeline,
    *,
    repo: Path | None,
    settings: Settings,
    cli_client: str | None = None,
    cli_mode: Mode | None = None,
    providers: Collection[str] | None = None,
    has_batch: Callable[[str], bool] = lambda _client: True,
) -> FrozenPipeline:
    """Choose client and mode of every stage and read its prompt.

    Client: command line > stage > pipeline > settings. Mode: command line > stage > pipeline > the type's default,
    or live if the client has no batch mode.
    Raises ConfigError for a prompt that cannot be read and for an unknown provider.
    """
    if cli_client is not None:
        check_client(cli_client, providers)
    freezer = _Freezer(pipeline, repo, settings, cli_client, cli_mode, providers, has_batch)
    stages = freezer.stages(pipeline.stages, "")
    owed: Evidence = "commits" if any(stage.owes_commits for stage in stages) else "none"
    return FrozenPipeline(
        name=pipeline.name, file=str(pipeline.file), evidence=pipeline.evidence or owed, stages=stages
    )


def check_client(
    client: str, providers: Collection[str] | None, *, file: Path | None = None, line: int | None = None
) -> None:
    """Raise ConfigError unless the client is well-formed and its provider known."""
    provider = ClientSpec.parse(client).provider
    if providers is not None and provider not in providers:
        others = "there are " + ", ".join(sorted(providers))
        raise ConfigError(
            f"unknown provider `{provider}` in client `{client}`",
            file=file,
            line=line,
            hint=did_you_mean(provider, providers, otherwise=others),
        )


def _files(repo: Path | None) -> Iterator[PipelineFile]:
    """The pipelines with a name. A project's pipeline hides the built-in one of the same name."""
    own = sorted((repo / PROJECT_PIPELINES).glob("*.yaml")) if repo else []
    for path in own:
        yield PipelineFile(path.stem, path, "project")
    hidden = {path.stem for path in own}
    for path in sorted(BUILT_IN.glob("*.yaml")):
        if path.stem not in hidden:
            yield PipelineFile(path.stem, path, "built-in")


def _info(file: PipelineFile) -> PipelineInfo:
    try:
        pipeline = load_pipeline(file)
    except ConfigError as error:
        return PipelineInfo(file.name, file.path, file.where, error=error.message)
    stages = tuple(path for path, _ in walk(pipeline.stages))
    return PipelineInfo(file.name, file.path, file.where, pipeline.description, stages)


class _Reader:
    """Turns the nodes of one file into stages. Checks keys and types, so that errors have a line."""

    def __init__(self, file: Path, providers: Collection[str] | None) -> None:
        self.file = file
        self.providers = providers
        self.seen: list[Node] = []
        """The node of every stage in the order of `walk`."""

    def pipeline(self, root: Node) -> Pipeline:
        if not isinstance(root.value, dict):
            self._fail(root.line, "a pipeline is a mapping with a list of `stages`")
        self._check_keys(root, {*PipelineHeader.model_fields, "stages"}, "a pipeline")
        if "stages" not in root.value:
            self._fail(root.line, "has no `stages`")
        plain = {key: node.plain() for key, node in root.value.items() if key != "stages"}
        header = self._validated(PipelineHeader, plain, root, "a pipeline")
        stages = named(self._stages(root.value["stages"], "`stages`"))
        lines = self._lines(stages)
        self._check_artifacts(stages, lines)
        return Pipeline(
            name=header.name or self.file.stem,
            file=self.file,
            description=header.description.strip() or _leading_comment(self.file),
            client=header.client,
            mode=header.mode,
            evidence=header.evidence,
            stages=stages,
            lines=lines,
        )

    def _stages(self, node: Node, what: str) -> tuple[StageSpec, ...]:
        if not isinstance(node.value, tuple) or not node.value:
            self._fail(node.line, f"{what} should be a list of at least one stage")
        return tuple(self._stage(item) for item in node.value)

    def _stage(self, node: Node) -> StageSpec:
        self.seen.append(node)
        if isinstance(node.value, str):
            return self._of_type(node, node.value, node.line, {})
        if not isinstance(node.value, dict):
            self._fail(node.line, "a stage is a type, or a mapping with a `type`")
        kind = node.value.get("type")
        if kind is None:
            one = next((key for key in node.value if key.replace("-", "_") in STAGE_TYPES), None)
            self._fail(node.line, "a stage has no `type`", f"write `type: {one}`" if one else None)
        if not isinstance(kind.value, str):
            self._fail(kind.line, f"unknown stage type {shown(kind.plain())}")
        return self._of_type(node, kind.value, kind.line, node.value)

    def _of_type(self, node: Node, written: str, line: int, given: Mapping[str, Node]) -> StageSpec:
        kind = written.replace("-", "_")
        model = STAGE_TYPES.get(kind)
        if model is None:
            others = "there are " + ", ".join(STAGE_TYPES)
            self._fail(line, f"unknown stage type `{written}`", did_you_mean(kind, STAGE_TYPES, otherwise=others))
        if given:
            self._check_keys(node, model.model_fields.keys() - model.frozen_only, f"`{kind}`")
        values = {key: self._value(model, key, value) for key, value in given.items()}
        checked = self._validated(model, {**values, "type": kind}, node, f"`{kind}`")
        return cast(StageSpec, checked)  # every model of STAGE_TYPES is one of the union

    def _value(self, model: type[Stage], key: str, node: Node) -> Any:
        if model is LoopStage and key == "body":
            return self._stages(node, "`body`")
        if model is Parallel and key == "branches" and isinstance(node.value, dict):
            return {name: self._stages(inner, f"branch `{name}`") for name, inner in node.value.items()}
        if key == "cmds" and isinstance(node.value, tuple):  # `true` and `false` are commands too
            return tuple(item.text if isinstance(item.value, bool) else item.plain() for item in node.value)
        return node.plain()

    def _validated(self, model: type[M], values: Mapping[str, Any], node: Node, what: str) -> M:
        try:
            valid = model.model_validate(values, strict=True)
        except ValidationError as error:
            self._explain(model, error.errors()[0], node, what)
        client = getattr(valid, "client", None)
        if client is not None:
            check_client(client, self.providers, file=self.file, line=node.line_of(["client"]))
        return valid

    def _explain(self, model: type[BaseModel], error: ErrorDetails, node: Node, what: str) -> NoReturn:
        path = [step for step in error["loc"] if step not in ("[key]",)]
        line = node.line_of(path)
        if error["type"] == "missing":
            self._fail(line, f"{what} needs `{path[-1]}`")
        if not path:
            self._fail(line, f"{what} {explain(error)}")
        name = ".".join(str(step) for step in path if isinstance(step, str))
        value = error["input"]
        quoted = error["type"] == "string_type" and isinstance(value, (bool, int, float))
        words = [word for word in _words(model.model_fields[str(path[0])].annotation) if isinstance(word, str)]
        hint = "put it in quotes" if quoted else did_you_mean(str(value), words)
        self._fail(line, f"`{name}` {explain(error)}, not {shown(value)}", hint)

    def _check_keys(self, node: Node, known: Collection[str], what: str) -> None:
        for key, line in node.key_lines.items():
            if key not in known:
                others = "it takes " + ", ".join(sorted(known))
                self._fail(line, f"{what} has no key `{key}`", did_you_mean(key, known, otherwise=others))

    def _lines(self, stages: Sequence[StageSpec]) -> dict[tuple[str, str], int]:
        lines: dict[tuple[str, str], int] = {}
        for (path, _), node in zip(walk(stages), self.seen, strict=True):
            lines[path, ""] = node.line
            for key, line in node.key_lines.items():
                lines[path, key] = line
        return lines

    def _check_artifacts(self, stages: Sequence[StageSpec], lines: Mapping[tuple[str, str], int]) -> None:
        first: dict[str, str] = {}
        for path, stage in walk(stages):
            if isinstance(stage, PromptStage) and first.setdefault(stage.name, path) != path:
                self._fail(
                    lines[path, "name"],
                    f"`{path}` and `{first[stage.name]}` would both write artifacts/{stage.name}.md",
                    "give one of them another name",
                )

    def _fail(self, line: int, message: str, hint: str | None = None) -> NoReturn:
        raise ConfigError(message, file=self.file, line=line, hint=hint)


@dataclass(frozen=True)
class _Freezer:
    """The inputs of `freeze`."""

    pipeline: Pipeline
    repo: Path | None
    settings: Settings
    cli_client: str | None
    cli_mode: Mode | None
    providers: Collection[str] | None
    has_batch: Callable[[str], bool]

    def stages(self, stages: Sequence[StageSpec], prefix: str) -> tuple[StageSpec, ...]:
        return tuple(self._stage(stage, prefix + stage.name) for stage in stages)

    def _stage(self, stage: StageSpec, path: str) -> StageSpec:
        match stage:
            case LoopStage():
                return with_changes(stage, body=self.stages(stage.body, f"{path}/"))
            case Parallel():
                frozen = {name: self.stages(inner, f"{path}/{name}/") for name, inner in stage.branches.items()}
                return with_changes(stage, branches=frozen)
            case AgentStage():
                return self._asks(stage, path)
            case _:
                return stage

    def _asks(self, stage: A, path: str) -> A:
        asked = self.cli_mode or stage.mode or self.pipeline.mode
        prompt, text = self._prompt(stage, path)
        client = self._client(stage)
        return with_changes(
            stage,
            client=client,
            mode=asked or (stage.default_mode if self.has_batch(client) else "live"),
            mode_asked=asked is not None,
            prompt=prompt,
            prompt_text=text,
        )

    def _client(self, stage: AgentStage) -> str:
        client = self.cli_client or stage.client or self.pipeline.client or self.settings.client
        check_client(client, self.providers)
        return str(ClientSpec.parse(client))

    def _prompt(self, stage: AgentStage, path: str) -> tuple[str | None, str | None]:
        """Name and text of a stage's prompt: its own, the project's for the type, or the built-in one (no name)."""
        if stage.prompt is not None:
            line = self.pipeline.lines.get((path, "prompt"))
            return stage.prompt, self._text(stage.prompt, self.pipeline.file, line)
        own = PROJECT_PROMPTS / f"{stage.type}.md"
        if self.repo is not None and (self.repo / own).is_file():
            return str(own), self._text(str(own), self.repo / own, None)
        built_in = BUILT_IN_PROMPTS / f"{stage.type}.md"
        return None, built_in.read_text() if built_in.is_file() else None

    def _text(self, prompt: str, file: Path, line: int | None) -> str:
        """Read a prompt of the repository. file, line: the place that an error names."""
        if self.repo is None:
            raise ConfigError(f"there is no repository to read prompt `{prompt}` from", file=file, line=line)
        root = self.repo.resolve()
        target = (root / prompt).resolve()
        if not target.is_relative_to(root) or ".git" in target.relative_to(root).parts:
            raise ConfigError(f"prompt `{prompt}` lies outside the repository", file=file, line=line)
        if not target.exists() or target.is_dir():
            raise ConfigError(f"no prompt file `{prompt}` in the repository", file=file, line=line)
        if target != Path(os.path.normpath(root / prompt)):
            raise ConfigError(
                f"prompt `{prompt}` is a link; a prompt is a file of the repository", file=file, line=line
            )
        if Git(root).attempt("check-ignore", "--quiet", "--", str(target)).returncode == 0:
            raise ConfigError(f"git ignores prompt `{prompt}`: it is not the repository's", file=file, line=line)
        if not (self._is_tracked(root, target) or target.is_relative_to(root / PROJECT_PROMPTS.parent)):
            hint = f"`git add {prompt}`, or keep it below {PROJECT_PROMPTS.parent}/, whose new files are yours"
            raise ConfigError(f"git does not track prompt `{prompt}`", file=file, line=line, hint=hint)
        try:
            text = read_file(target, MAX_PROMPT_BYTES).decode()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"prompt `{prompt}` cannot be read: {why}", file=file, line=line) from None
        if not text.strip():
            raise ConfigError(f"prompt `{prompt}` is empty", file=file, line=line)
        return text

    def _is_tracked(self, root: Path, target: Path) -> bool:
        name, literal = str(target.relative_to(root)), {"GIT_LITERAL_PATHSPECS": "1"}
        return Git(root).attempt("ls-files", "--error-unmatch", "--", name, env=literal).returncode == 0


def _words(annotation: Any) -> Iterator[object]:
    """The values of every Literal in an annotation."""
    for part in get_args(annotation):
        yield part
        yield from _words(part)


def _leading_comment(file: Path) -> str:
    """The comment at the top of a file, as one line."""
    words: list[str] = []
    for line in read_file(file, MAX_BYTES).decode().splitlines():
        if not line.startswith("#"):
            break
        words += line.lstrip("#").split()
    return " ".join(words)
