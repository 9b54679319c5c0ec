"""Reads typed settings from the repository's file, the person's file and the environment, with their sources.

Later places win: `.gremlins/config.toml` in the repository, `$GREMLINS_HOME/config.toml`, `GREMLINS_<SECTION>__<KEY>`.
"""

from __future__ import annotations

import json
import re
import tomllib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator
from pydantic_core import ErrorDetails

from gremlins.errors import ConfigError, did_you_mean, nearest
from gremlins.files import read_file
from gremlins.paths import Home
from gremlins.redaction import has_password
from gremlins.toml_lines import key_lines

YEAR = 366 * 86400
"""Seconds. A longer time is a slip of the keyboard, and no clock adds it up."""
Seconds = Annotated[float, Field(gt=0, le=YEAR, allow_inf_nan=False)]
Delay = Annotated[float, Field(ge=0, le=YEAR, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Command = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

REPO_CONFIG = Path(".gremlins") / "config.toml"


@dataclass(frozen=True)
class ClientSpec:
    """`provider:model`. The model is sent as it is; `clients.registry` knows the providers."""

    provider: str
    model: str

    @classmethod
    def parse(cls, text: str) -> ClientSpec:
        """Raises ConfigError. The first colon separates; a model may contain more."""
        provider, colon, model = text.strip().partition(":")
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", provider) or not colon or not model.strip():
            raise ConfigError(
                f"client {shown(text)} is not of the form PROVIDER:MODEL",
                hint="for example `claude:claude-sonnet-5-5`",
            )
        return cls(provider, model.strip())

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}"


class Section(BaseModel):
    """A group of settings. Unknown keys are ignored: a frozen copy may be newer than this program."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class BatchSettings(Section):
    poll_initial: Seconds = Field(20.0, description="seconds to the first poll of a batch")
    poll_max: Seconds = Field(600.0, description="longest interval between polls, in seconds")
    retry_initial: Seconds = Field(30.0, description="first backoff of everything that is sent again, in seconds")
    retry_max: Seconds = Field(600.0, description="longest backoff of everything that is sent again, in seconds")
    http_timeout: Seconds = Field(60.0, description="seconds for one request")
    on_expired: Literal["live", "resubmit", "fail"] = Field(
        "live", description="what follows when a batch expires: `live`, `resubmit` or `fail`"
    )
    stop_wait: Delay = Field(30.0, description="seconds `stop` waits for a cancelled batch to end")
    context_tokens: Count = Field(60_000, description="budget of the context pack, in tokens")
    max_tokens: Count = Field(32_000, description="most tokens one call may answer with")
    reconcile_grace: Delay = Field(
        60.0, description="seconds to look for a batch that may have been created before sending again"
    )


class LiveSettings(Section):
    idle_timeout: Seconds = Field(360.0, description="seconds of silence before a live agent is taken for stalled")
    permission_mode: Literal["default", "acceptEdits", "plan", "dontAsk", "auto", "bypassPermissions"] = Field(
        "acceptEdits", description="permission mode of a live agent; not from a repository's file"
    )
    allowed_tools: tuple[Command, ...] = Field(
        (), description="tools a live agent may use without asking; not from a repository's file"
    )
    bash: bool = Field(False, description="whether a live agent of ours may run commands; not from a repository's file")
    resume_backoff: tuple[Delay, ...] = Field(
        (60.0, 300.0, 600.0), description="seconds before each new try of a live agent that was cut off"
    )


class DispatchSettings(Section):
    pipeline: Command = Field("local", description="pipeline where `--pipeline` names none")
    retry_cap: Count = Field(5, description="charged attempts per bead and epoch")
    spawn_cap: Count = Field(15, description="spawns in all per bead and epoch")
    backoff_initial: Seconds = Field(30.0, description="seconds a bead waits after its first failed attempt")
    backoff_max: Seconds = Field(1800.0, description="longest wait of a bead after a failed attempt, in seconds")
    max_running: Count = Field(3, description="gremlins that work at the same time")
    max_parked: Annotated[int, Field(ge=0)] = Field(200, description="parked gremlins that need no slot")
    interval: Seconds = Field(5.0, description="longest time between two ticks, in seconds")
    start_window: Delay = Field(
        20.0, description="a death within so many seconds, with no sign of work, is a start failure"
    )
    start_from: Literal["branch", "landed"] = Field(
        "branch",
        description="where a bead starts whose blockers are closed and not landed: on their branches, or later",
    )
    deadline: Seconds = Field(14_400.0, description="seconds an attempt may work, parked time not counted")


class SandboxSettings(Section):
    mode: Literal["auto", "require", "off"] = Field(
        "auto",
        description="bubblewrap around commands: `auto` (where it works), `require` or `off`; "
        "not from a repository's file",
    )
    network: bool = Field(True, description="whether commands reach the network; not from a repository's file")
    caches: tuple[Command, ...] = Field(
        (
            ".cache",
            ".npm",
            ".cargo/registry",
            ".cargo/git",
            "go/pkg",
            ".m2/repository",
            ".gradle",
            ".nuget",
            ".local/share/pnpm",
        ),
        description="folders below home, or absolute, that commands may write to; not from a repository's file",
    )
    memory: Annotated[float, Field(gt=0)] | None = Field(
        None, description="most MB of data of one process of a command; not from a repository's file"
    )
    processes: Count = Field(4096, description="most processes of a command; not from a repository's file")


class SpendSettings(Section):
    per_attempt: Dollars | None = Field(5.0, description="most USD of one attempt; `none` lifts it")
    per_bead: Dollars | None = Field(None, description="most USD of one bead")
    per_day: Dollars | None = Field(25.0, description="most USD of one UTC day; `none` lifts it")

    @field_validator("*", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return None if isinstance(value, str) and value.strip().lower() == "none" else value


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message='Field name "copy"')  # pydantic's old name of `model_copy`

    class WorktreeSettings(Section):
        setup: tuple[Command, ...] = Field((), description="commands run once in a fresh worktree, such as `npm ci`")
        copy: tuple[Command, ...] = Field(  # type: ignore[assignment]
            (), description="ignored files copied into a fresh worktree, as patterns of .gitignore"
        )

        submodules: bool = Field(False, description="fill submodules of a worktree from the repository's own store")

        @field_validator("setup", "copy", mode="before")
        @classmethod
        def _one(cls, value: object) -> object:
            return (value,) if isinstance(value, str) else value


class ClusterSettings(Section):
    url: Command | None = Field(
        None,
        description="PostgreSQL that holds the fleet of several hosts; not from a repository's file, and in a file "
        "without a password",
    )
    heartbeat: Seconds = Field(
        10.0, description="seconds between signs of life of a worker, the same on all hosts; after 1.5 it is gone"
    )

    @property
    def stale(self) -> float:
        """Seconds without a sign of life after which another host goes on."""
        return float(1.5 * self.heartbeat)


class Settings(Section):
    """All settings. Frozen into each gremlin as JSON; older and newer copies can be read."""

    client: str = Field("claude:claude-sonnet-5-5", description="client where neither stage nor pipeline names one")
    verify: tuple[Command, ...] = Field((), description="commands of `verify` stages that name none")
    notify: tuple[str, ...] | Command | None = Field(
        None,
        description="command told about what needs a person: a list runs as it is, a string in a shell; "
        "not from a repository's file",
    )
    batch: BatchSettings = BatchSettings()
    live: LiveSettings = LiveSettings()
    dispatch: DispatchSettings = DispatchSettings()
    spend: SpendSettings = SpendSettings()
    sandbox: SandboxSettings = SandboxSettings()
    worktree: WorktreeSettings = WorktreeSettings()
    cluster: ClusterSettings = Field(ClusterSettings(), exclude=True)  # of a host, and never in a record

    @field_validator("client")
    @classmethod
    def _client(cls, value: str) -> str:
        try:
            return str(ClientSpec.parse(value))
        except ConfigError:
            raise ValueError("should be PROVIDER:MODEL") from None

    @field_validator("verify", mode="before")
    @classmethod
    def _one_command(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("notify")
    @classmethod
    def _argv(cls, value: object) -> object:
        if value == () or (isinstance(value, tuple) and not value[0]):
            raise ValueError("should name a program to run")
        return value

    @property
    def client_spec(self) -> ClientSpec:
        return ClientSpec.parse(self.client)


class Place(IntEnum):
    """The origin of a value. The greater one wins."""

    DEFAULT = 0
    REPOSITORY = 1
    PERSON = 2
    ENVIRONMENT = 3


@dataclass(frozen=True)
class Source:
    """A file and a line, or an environment variable."""

    place: Place
    name: str
    line: int | None = None

    def __str__(self) -> str:
        return self.name if self.line is None else f"{self.name}:{self.line}"


@dataclass(frozen=True)
class LoadedSettings:
    """Settings, and the source of each value that is not a default, by dotted key."""

    settings: Settings
    sources: Mapping[str, Source]
    held: tuple[str, ...] = ()
    """A sentence for each cap that the repository sets above the default, which holds instead."""


@dataclass(frozen=True)
class Setting:
    """The documentation of a setting."""

    key: str
    default: Any
    meaning: str

    @property
    def variable(self) -> str:
        return "GREMLINS_" + self.key.upper().replace(".", "__")


def known_settings() -> tuple[Setting, ...]:
    """All settings, those without a section first."""
    return tuple(_known())


def value_of(settings: Settings, key: str) -> Any:
    """The value of a dotted key."""
    section, dot, name = key.rpartition(".")
    return getattr(getattr(settings, section) if dot else settings, name)


def load_settings(repo: Path | None, home: Home, env: Mapping[str, str]) -> LoadedSettings:
    """Read the settings of a repository (None: outside any). Raises ConfigError with file and line."""
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    files = [] if repo is None else [(Place.REPOSITORY, repo / REPO_CONFIG)]
    for place, file in [*files, (Place.PERSON, home.config)]:
        for key, value, source in _read_file(file, place):
            values[key], sources[key] = value, source
    for key, value, source in _read_env(env):
        values[key], sources[key] = value, source
    held = tuple(_tighten(values, sources))
    settings = _assemble(values)
    for low, high in _ORDERED:
        _check_order(settings, sources, low, high)
    return LoadedSettings(settings, sources, held)


def _tighten(values: dict[str, Any], sources: dict[str, Source]) -> Iterator[str]:
    """Take out the caps that a repository's file sets above their defaults."""
    for key in _CAPS & values.keys():
        default, source = value_of(Settings(), key), sources[key]
        looser = default is not None and (values[key] is None or values[key] > default)
        if source.place is Place.REPOSITORY and looser:
            del values[key], sources[key]
            yield f"{source}: a repository's file may only lower `{key}`; {default:g} holds"


_EXPLAINED = {
    "string_type": "should be text",
    "string_too_short": "should not be empty",
    "string_pattern_mismatch": "should be 1 to 64 letters, digits, `.`, `_` or `-`, a letter or digit first",
    "tuple_type": "should be a list",
    "too_short": "should have at least one entry",
    "dict_type": "should be a mapping",
    "float_type": "should be a number",
    "float_parsing": "should be a number",
    "int_type": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
}


def explain(details: ErrorDetails) -> str:
    """The text of a validation error, to follow the name of the value."""
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    return _EXPLAINED.get(details["type"], message)


def shown(value: object) -> str:
    """A wrong value for an error message: one line, shortened, never a key."""
    if isinstance(value, dict):
        return "a table"
    bare = isinstance(value, str) and not re.fullmatch(r"true|false|[-+.\d]+", value)
    text = str(value) if bare else json.dumps(value, default=str)
    if re.search(r"sk-[\w-]{8,}", text):
        return "`sk-…`"
    line = " ".join(text.split())
    return f"`{line}`" if len(line) <= 60 else f"`{line[:57]}…`"


# Settings refused from a repository: they act outside the worktree or widen an agent's permissions.
_PERSONAL = {
    "notify": "it is a command that would run outside the worktree",
    "live.permission_mode": "it decides what an agent may do",
    "live.allowed_tools": "it decides what an agent may do",
    "live.bash": "it decides what an agent may do",
    "live.bypass": "it decides what an agent may do",
    "cluster.url": "it decides where records go",
    **{f"sandbox.{key}": "it decides what commands may do" for key in SandboxSettings.model_fields},
}
_CAPS = frozenset(
    {
        "spend.per_attempt",
        "spend.per_bead",
        "spend.per_day",
        "dispatch.retry_cap",
        "dispatch.spawn_cap",
        "dispatch.deadline",
    }
)
"""A repository's file may lower these, not raise them."""
_ORDERED = (
    ("batch.poll_initial", "batch.poll_max"),
    ("batch.retry_initial", "batch.retry_max"),
    ("dispatch.backoff_initial", "dispatch.backoff_max"),
)
_SECTIONS: dict[str, type[Section]] = {
    "batch": BatchSettings,
    "live": LiveSettings,
    "dispatch": DispatchSettings,
    "spend": SpendSettings,
    "sandbox": SandboxSettings,
    "worktree": WorktreeSettings,
    "cluster": ClusterSettings,
}
_SECRET = re.compile(r"(^|[_-])(api[_-]?key|key|token|secret|password|passwd|credentials?)$", re.IGNORECASE)
_URL = re.compile(r"(^|[_-])(base[_-]?url|url|endpoint)$", re.IGNORECASE)


def _known() -> Iterator[Setting]:
    for name, field in Settings.model_fields.items():
        if name not in _SECTIONS:
            yield Setting(name, field.default, field.description or "")
    for section, model in _SECTIONS.items():
        for name, field in model.model_fields.items():
            yield Setting(f"{section}.{name}", field.default, field.description or "")


_KEYS = frozenset(setting.key for setting in _known())


LARGEST_SETTINGS = 2**20
"""Bytes of a settings file."""


def _read_file(file: Path, place: Place) -> Iterator[tuple[str, Any, Source]]:
    try:
        text = read_file(file, LARGEST_SETTINGS).decode()
        flat = list(_flat(tomllib.loads(text), ()))
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=file) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError("is not UTF-8", file=file, line=line) from None
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(error, file, text) from None
    except RecursionError:
        raise ConfigError("is nested too deeply", file=file) from None
    except ValueError:
        raise ConfigError("holds a number with too many digits", file=file) from None
    lines = key_lines(text)
    entries = [(key, value, Source(place, str(file), _line_of(key, lines))) for key, value in flat]
    for check in (_refuse_secret, _refuse_unknown, _refuse_widening):  # secrets are reported before any other fault
        for key, _, source in entries:
            check(key, source)
    for key, value, source in entries:
        if key == ("cluster", "url") and has_password(str(value)):
            raise _error(
                source,
                "`cluster.url` holds a password, and secrets only come from the environment",
                "take it out: PGPASSFILE or PGSERVICE can give it, or GREMLINS_CLUSTER__URL the whole address",
            )
        yield ".".join(key), _checked(".".join(key), value, source), source


def _flat(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value of a document with its path. An empty table with an unknown name counts as a value."""
    for name, value in table.items():
        here = (*path, name)
        if not isinstance(value, dict) or ".".join(here) in _KEYS:
            yield here, value
        elif value:
            yield from _flat(value, here)
        elif here[0] not in _SECTIONS or len(here) > 1:
            yield here, value


def _line_of(key: Sequence[str], lines: Mapping[tuple[str, ...], int]) -> int | None:
    return next((lines[tuple(key[:n])] for n in range(len(key), 0, -1) if tuple(key[:n]) in lines), None)


def _syntax_error(error: tomllib.TOMLDecodeError, file: Path, text: str) -> ConfigError:
    found = re.fullmatch(r"(.*?) \(at (?:line (\d+), column \d+|end of document)\)", str(error), re.DOTALL)
    if found is None:
        return ConfigError(str(error), file=file)
    line = int(found[2]) if found[2] else text.count("\n") + 1
    return ConfigError(f"not TOML: {found[1]}", file=file, line=line)


def _refuse_secret(key: Sequence[str], source: Source) -> None:
    if ".".join(key) in _KEYS:
        return
    if any(_SECRET.search(part) for part in key):
        raise _error(
            source,
            f"`{'.'.join(key)}` is a secret, and secrets only come from the environment: set ANTHROPIC_API_KEY",
            "take it out of the file, and change it if others could read the file",
        )
    if any(_URL.search(part) for part in key):
        raise _error(
            source, f"`{'.'.join(key)}`: a base URL only comes from the environment: set ANTHROPIC_BASE_URL", None
        )


def _refuse_unknown(key: Sequence[str], source: Source) -> None:
    name = ".".join(key)
    if name in _KEYS or name in _PERSONAL:
        return
    if len(key) == 1 and name in _SECTIONS:
        raise _error(source, f"`{name}` is a section, not a value", f"write [{name}] and its keys below it")
    if len(key) > 1 and key[0] not in _SECTIONS and key[0] not in _KEYS:
        raise _error(source, f"unknown section `{key[0]}`", _suggest(name, key[0], _SECTIONS))
    raise _error(source, f"unknown setting `{name}`", _suggest(name, name, _KEYS))


def _suggest(name: str, wrong: str, known: Iterable[str]) -> str | None:
    """The nearest name. For a key in the wrong section, the key with its own section."""
    last = name.rpartition(".")[2]
    same = sorted(key for key in _KEYS if key.rpartition(".")[2] == last)
    if same:
        return f"did you mean `{same[0]}`?"
    if hint := did_you_mean(wrong, known):
        return hint
    tails = {key.rpartition(".")[2]: key for key in sorted(_KEYS, reverse=True)}
    near = nearest(last, tails)
    return f"did you mean `{tails[near]}`?" if near else "`gremlins doctor` lists all settings"


def _refuse_widening(key: Sequence[str], source: Source) -> None:
    why = _PERSONAL.get(".".join(key))
    if why is None:
        return
    if source.place is Place.REPOSITORY:
        raise _error(
            source,
            f"a repository's file cannot set `{'.'.join(key)}`: {why}",
            "set it in config.toml of $GREMLINS_HOME, or in the environment",
        )
    if ".".join(key) not in _KEYS:
        raise _error(source, f"unknown setting `{'.'.join(key)}`", "see `live.permission_mode`")


def _read_env(env: Mapping[str, str]) -> Iterator[tuple[str, Any, Source]]:
    for variable in sorted(env):
        if not variable.startswith("GREMLINS_") or not env[variable].strip():
            continue
        section, nested, name = variable.removeprefix("GREMLINS_").lower().partition("__")
        key = f"{section}.{name}" if nested else section
        source = Source(Place.ENVIRONMENT, variable)
        if nested and key not in _KEYS:
            raise _error(source, f"unknown setting `{key}`", _suggest_variable(key))
        if key in _KEYS:  # GREMLINS_HOME, GREMLINS_CLAUDE_BIN and others are not settings
            yield key, _checked(key, _from_text(key, env[variable]), source), source


def _suggest_variable(key: str) -> str | None:
    hint = _suggest(key, key, _KEYS)
    found = re.search(r"`([a-z._]+)`\?", hint or "")
    return f"did you mean {Setting(found[1], None, '').variable}?" if found else hint


def _from_text(key: str, text: str) -> Any:
    """The value of an environment variable: a JSON list for list settings, else the text."""
    text = text.strip()
    default = {setting.key: setting.default for setting in _known()}[key]
    listed = isinstance(default, tuple) or key == "notify"
    if listed:
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if isinstance(value, list):
            return tuple(value)
        return text if key == "notify" else (text,)
    return None if default is None and text.lower() == "none" else text


def _checked(key: str, value: Any, source: Source) -> Any:
    """The validated value. Files are read strictly, variables leniently (`"5"` is a number)."""
    section, _, name = key.rpartition(".")
    model: type[Section] = _SECTIONS[section] if section else Settings
    given = tuple(value) if isinstance(value, list) else value
    try:
        valid = model.model_validate({name: given}, strict=source.place is not Place.ENVIRONMENT)
    except ValidationError as error:
        first = error.errors()[0]
        words = [word for word in get_args(model.model_fields[name].annotation) if isinstance(word, str)]
        hint = did_you_mean(str(value), words)
        raise _error(source, f"`{key}` {explain(first)}, not {shown(value)}", hint) from None
    return getattr(valid, name)


def _assemble(values: Mapping[str, Any]) -> Settings:
    tree: dict[str, Any] = {name: {} for name in _SECTIONS}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (tree[section] if section else tree)[name] = value
    return Settings.model_validate(tree)


def _check_order(settings: Settings, sources: Mapping[str, Source], low: str, high: str) -> None:
    """Refuse a first interval above the longest one, unless a later place lowered the longest one."""
    if low not in sources or value_of(settings, low) <= value_of(settings, high):
        return
    if high in sources and sources[high].place > sources[low].place:
        return
    ceiling = f"{value_of(settings, high):g} ({sources.get(high, 'the default')})"
    raise _error(
        sources[low], f"`{low}` is {value_of(settings, low):g}, above `{high}`, {ceiling}", f"set `{high}` too"
    )


def _error(source: Source, message: str, hint: str | None) -> ConfigError:
    return ConfigError(message, file=source.name, line=source.line, hint=hint)
