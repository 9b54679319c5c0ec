"""The checks of `doctor`: git, credentials, binaries, settings, pipelines, disk, records. It only reads and spends
nothing.

A `Check` says what was found and, if something is wrong, what to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gremlins import __version__
from gremlins.clients.account import find_account
from gremlins.clients.key_proof import list_models
from gremlins.clients.registry import check_ready, known_providers
from gremlins.clients.route import warnings_of
from gremlins.clients.transport import ApiFailure
from gremlins.clock import SystemClock
from gremlins.cluster.overview import cluster_status
from gremlins.config import ClientSpec, LoadedSettings, Settings, known_settings, load_settings, value_of
from gremlins.errors import CorruptRecord, GremlinsError, NotReady
from gremlins.files import read_file
from gremlins.fleet.observe import ids, observe
from gremlins.paths import GREMLIN_ID, GremlinPaths, Home
from gremlins.pipeline.file import list_pipelines
from gremlins.pipeline.freezing import read_frozen
from gremlins.processes import children as proc
from gremlins.processes.locks import GremlinLock, holder_of
from gremlins.processes.sandbox import why_not
from gremlins.records.calls import Ledger, summarize
from gremlins.records.gremlin import overdue, read_record
from gremlins.records.spend import unreadable_lines
from gremlins.redaction import without_password
from gremlins.repository.git import Git, find_root
from gremlins.repository.project import find_project
from gremlins.repository.remote_work import prove_remote
from gremlins.repository.trust import Untrusted, check_trust

Verdict = Literal["ok", "info", "warning", "problem", "not_ready"]
"""info and warning leave everything working; a problem does not; not_ready: nothing can be launched."""

ANTHROPIC = frozenset({"claude", "anthropic"})
OLDEST_GIT = (2, 31)
LITTLE_SPACE = 500_000_000
TOO_LITTLE_SPACE = 20_000_000
CONSOLE = (
    "the Anthropic Console lists the batches of a workspace, each with its custom_id; `gremlins show` has them too"
)
CLOCKS_APART = 60.0
"""Seconds."""
MOST_NAMED = 20
"""Unreadable files that are named one by one."""


@dataclass(frozen=True)
class Check:
    """One look: what was looked at, how it is, and what to do where that is not well."""

    name: str
    verdict: Verdict
    detail: str
    hint: str | None = None


@dataclass(frozen=True)
class SettingShown:
    """A setting that holds here, and where it comes from: `default`, FILE:LINE, or a variable."""

    key: str
    value: Any
    source: str


@dataclass(frozen=True)
class Health:
    """All checks, and the settings where they can be read."""

    checks: tuple[Check, ...]
    settings: tuple[SettingShown, ...]

    @property
    def worst(self) -> Check | None:
        """The first check because of which nothing can be launched, else the first problem. None if all is well."""
        grave = [check for verdict in ("not_ready", "problem") for check in self.checks if check.verdict == verdict]
        return grave[0] if grave else None


def examine(home: Home, cwd: Path, env: Mapping[str, str]) -> Health:
    """Look at everything."""
    repo = _repository(cwd)
    loaded: LoadedSettings | None = None
    try:
        loaded = load_settings(repo, home, env)
        settings_check = Check("settings", "ok", f"{len(loaded.sources)} set, the others at their defaults")
        if loaded.held:
            hint = "set it in config.toml of $GREMLINS_HOME, or in the environment"
            settings_check = Check("settings", "warning", "; ".join(loaded.held), hint)
    except GremlinsError as error:
        settings_check = _bad("settings", error, "problem")
    settings = loaded.settings if loaded else Settings()
    checks = [
        Check("gremlins", "ok", f"{__version__}, Python {platform.python_version()}, {platform.system()}"),
        *_git(cwd, repo),
        *_clients(settings, env),
        settings_check,
        *_trust(repo, home),
        *_editable_installs(repo, env),
        _sandbox(settings, env),
        *_pipelines(repo),
        *_state_root(home),
        *_records(home._replace(cluster="")),
        *_cluster(home, repo),
    ]
    return Health(tuple(checks), tuple(_shown(loaded)) if loaded else ())


def _sandbox(settings: Settings, env: Mapping[str, str]) -> Check:
    missing = why_not(settings.sandbox, env)
    if missing is None:
        return Check("sandbox", "ok", "commands run in bubblewrap")
    if settings.sandbox.mode == "require":
        return Check("sandbox", "not_ready", missing, "install bubblewrap, or set `sandbox.mode` to `auto`")
    return Check("sandbox", "info", f"commands run as you: {missing}")


def _cluster(home: Home, repo: Path | None) -> Iterator[Check]:
    """The database, its clock and workers, and whether the project's remote takes what hosts hand over."""
    if not home.cluster:
        return
    try:
        found = cluster_status(home, SystemClock())
    except GremlinsError as error:
        yield _bad("cluster", error)
        return
    ahead = found["clock_ahead_seconds"]
    if abs(ahead) > CLOCKS_APART:
        hint = "waits are counted by the database; the times that are shown are of both clocks"
        yield Check("cluster", "warning", f"the database's clock is {ahead:+.0f} s from this host's", hint)
    if not found["workers"]:
        yield Check("cluster", "warning", "no worker is there", "`gremlins worker` on a host starts one")
    alone = sum(1 for _ in ids(home._replace(cluster="")))
    if alone:
        yield Check("cluster", "info", f"{alone} gremlins are of this host alone", "`gremlins cluster adopt --all`")
    if repo is not None:
        try:
            prove_remote(Git(repo))
        except GremlinsError as error:
            yield _bad("cluster", error)
            return
    workers = f"{len(found['workers'])} worker{'s' if len(found['workers']) != 1 else ''}"
    yield Check("cluster", "ok", f"{found['database']}, schema {found['schema']}, {workers}")


def _trust(repo: Path | None, home: Home) -> Iterator[Check]:
    if repo is None:
        return
    try:
        check_trust(repo, find_project(repo), home)
    except Untrusted as error:
        yield Check("trust", "warning", error.message, error.hint)
    except GremlinsError as error:
        yield _bad("trust", error)


def _editable_installs(repo: Path | None, env: Mapping[str, str]) -> Iterator[Check]:
    """Python environments that import this project from here: with them, tests of a worktree would test this tree."""
    if repo is None:
        return
    for venv in dict.fromkeys(
        Path(found) for found in (env.get("VIRTUAL_ENV"), repo / ".venv", repo / "venv") if found
    ):
        for note in venv.glob("lib/python*/site-packages/*.dist-info/direct_url.json"):
            with contextlib.suppress(OSError, ValueError):
                found = json.loads(read_file(note))
                if found.get("dir_info", {}).get("editable") and found.get("url") == repo.as_uri():
                    hint = (
                        "let worktree.setup make one: setup = ['python3 -m venv .venv', '.venv/bin/pip install -e .']"
                    )
                    yield Check("python", "warning", f"{venv} has an editable install of this project", hint)


def _bad(name: str, error: GremlinsError, verdict: Verdict | None = None) -> Check:
    return Check(
        name, verdict or ("not_ready" if isinstance(error, NotReady) else "problem"), error.message, error.hint
    )


def _shown(loaded: LoadedSettings) -> Iterator[SettingShown]:
    for setting in known_settings():
        source = loaded.sources.get(setting.key)
        value = value_of(loaded.settings, setting.key)
        shown = list(value) if isinstance(value, tuple) else value
        if setting.key == "cluster.url" and value is not None:
            shown = without_password(value)
        yield SettingShown(setting.key, shown, str(source) if source else "default")


# ── git ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _repository(cwd: Path) -> Path | None:
    try:
        return find_root(cwd)
    except (GremlinsError, OSError):
        return None


def _git(cwd: Path, repo: Path | None) -> Iterator[Check]:
    try:
        text = proc.run(["git", "--version"], cwd=Path("/"), timeout=10).stdout.strip()
    except (OSError, proc.TimedOut):
        yield Check("git", "not_ready", "git is not installed", "install git and see that it is on PATH")
        return
    numbers = [part for part in text.split() if part[:1].isdigit()][:1] or ["0"]
    version = tuple(int(part) for part in numbers[0].split(".")[:2] if part.isdigit())
    if version < OLDEST_GIT:
        oldest = ".".join(map(str, OLDEST_GIT))
        yield Check("git", "not_ready", f"{text} is too old", f"install git {oldest} or newer")
    else:
        yield Check("git", "ok", text)
    if repo is not None:
        yield Check("repository", "ok", str(repo))
        yield _identity(repo)
        return
    try:
        find_root(cwd)
    except GremlinsError as error:
        yield Check("repository", "info", error.message, error.hint)
    except OSError as error:
        yield Check("repository", "info", f"{cwd}: {error.strerror or error}")


def _identity(repo: Path) -> Check:
    try:
        name = Git(repo).text("config", "--get", "user.name").strip()
    except GremlinsError:
        name = ""
    if name:
        return Check("identity", "ok", f"commits are made as {name}")
    return Check("identity", "info", "git has no user.name here: commits are made as `gremlins`")


# ── credentials and binaries ──────────────────────────────────────────────────────────────────────────────────────


def _clients(settings: Settings, env: Mapping[str, str]) -> Iterator[Check]:
    """The API first: with an accepted key, batch pipelines run even if a binary is missing."""
    spec = settings.client_spec
    api = _api(spec, settings, env)
    yield api
    for warning in warnings_of(env):
        yield Check("gateway", "warning", warning, "use an https:// address")
    yield _live(spec, settings, env, batch_works=api.verdict in ("ok", "warning", "problem"))
    for provider in sorted(known_providers() - ANTHROPIC - {"scripted", spec.provider}):
        try:
            check_ready(ClientSpec(provider, "any"), "live", env, settings)
        except GremlinsError as error:
            yield Check(f"provider {provider}", "info", f"not set up: {error.message}", error.hint)
        else:
            yield Check(f"provider {provider}", "ok", "ready")


def _api(spec: ClientSpec, settings: Settings, env: Mapping[str, str]) -> Check:
    """Anthropic's API: credentials, proven by listing the models, which costs nothing."""
    missing: Verdict = "not_ready" if spec.provider in ANTHROPIC else "info"
    try:
        account = find_account(env)
    except NotReady as error:
        return _bad("credentials", error, missing)
    where = f"at {account.base_url}"
    try:
        reply = list_models(account)
    except NotReady as error:
        return Check("credentials", missing, error.message.replace("the API", f"the API {where}", 1), error.hint)
    except ApiFailure as failure:
        hint = "check the network, a proxy, and ANTHROPIC_BASE_URL if it is set; gremlins wait for an API that is down"
        return Check("credentials", "problem", f"the API {where} does not answer: {failure.message}", hint)
    listed = {row.get("id") for row in reply.get("data") or [] if isinstance(row, dict)}
    detail = f"the API {where} accepts this key"
    if spec.provider in ANTHROPIC and listed and not reply.get("has_more") and spec.model not in listed:
        return Check("credentials", "warning", f"{detail}, but does not list the model {spec.model}", "see `client`")
    return Check("credentials", "ok", detail)


def _live(spec: ClientSpec, settings: Settings, env: Mapping[str, str], *, batch_works: bool) -> Check:
    """Checks the live stages of the default client; without it, only batch stages run."""
    name = f"live {spec.provider}"
    try:
        check_ready(spec, "live", env, settings)
    except NotReady as error:
        named = any(env.get(variable) for variable in ("GREMLINS_CLAUDE_BIN",)) and spec.provider == "claude"
        if batch_works and not named:
            return Check(name, "warning", f"{error.message}; stages in batch mode run all the same", error.hint)
        return _bad(name, error)
    except GremlinsError as error:
        return _bad(name, error)
    return Check(name, "ok", f"live stages of {spec} can run")


# ── the project's pipelines ───────────────────────────────────────────────────────────────────────────────────────


def _pipelines(repo: Path | None) -> Iterator[Check]:
    found = list_pipelines(repo)
    wrong = [info for info in found if info.error]
    for info in wrong:
        yield Check(f"pipeline {info.name}", "problem", str(info.error), "`gremlins pipelines` lists them")
    names = ", ".join(info.name for info in found if not info.error)
    yield Check("pipelines", "ok", names or "none")


# ── the state root ────────────────────────────────────────────────────────────────────────────────────────────────


def _state_root(home: Home) -> Iterator[Check]:
    root = home.root
    if not root.exists():
        yield Check("state", "info", f"{root} is made at the first launch")
        yield from _space(_nearest_existing(root))
        return
    try:
        with tempfile.NamedTemporaryFile(dir=root, prefix=".doctor.") as file:
            _try_lock(Path(file.name))
    except (OSError, GremlinsError) as error:
        yield Check("state", "problem", f"{root}: {error}", "see to its permissions, or set GREMLINS_HOME elsewhere")
    else:
        yield Check("state", "ok", f"{root} can be written and locked")
    yield from _privacy(root)
    yield from _space(root)
    crashes = len(list(home.crashes.glob("*.log"))) if home.crashes.is_dir() else 0
    if crashes:
        what = f"{crashes} crash log{'s' if crashes > 1 else ''} in {home.crashes}"
        yield Check("crashes", "warning", what, "please report what is new, then remove them")


def _nearest_existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _try_lock(path: Path) -> None:
    """Some network file systems take a lock and do not keep it."""
    with GremlinLock.acquire(path, "keeper"):
        if holder_of(path) is None:
            raise GremlinsError("locks do not hold on this file system")


def _privacy(root: Path) -> Iterator[Check]:
    mode = stat.S_IMODE(root.stat().st_mode)
    if mode & 0o077:
        yield Check("privacy", "warning", f"{root} is open to others (mode {mode:o})", f"chmod 700 {root}")


def _space(folder: Path) -> Iterator[Check]:
    free = shutil.disk_usage(folder).free
    shown = f"{free / 1e9:.1f} GB free at {folder}" if free >= 1e9 else f"{free / 1e6:.0f} MB free at {folder}"
    if free < LITTLE_SPACE:
        verdict: Verdict = "problem" if free < TOO_LITTLE_SPACE else "warning"
        yield Check("disk", verdict, shown, "free some space; `gremlins clean` removes what has landed")
    else:
        yield Check("disk", "ok", shown)


# ── records ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _records(home: Home) -> Iterator[Check]:
    names = sorted(ids(home))
    calls = unknown = 0
    of_unknown: list[str] = []
    wrong: list[CorruptRecord] = []
    for name in names:
        paths = home.gremlin(name)
        found, unreadable = Ledger(paths).readable()
        calls += len(found)
        if lost := summarize(found).unknown_calls:
            unknown += lost
            of_unknown.append(name)
        wrong += [*_own_files(paths), *unreadable]
    wrong += unreadable_lines(home)
    for error in wrong[:MOST_NAMED]:
        yield Check(
            "record", "problem", error.message, "move it away, or restore it from a backup; nothing overwrites it"
        )
    if len(wrong) > MOST_NAMED:
        yield Check("record", "problem", f"and {len(wrong) - MOST_NAMED} more that cannot be read")
    counted = f"{len(names)} gremlin{'s' if len(names) != 1 else ''}, {calls} call{'s' if calls != 1 else ''}"
    yield Check("records", "ok", counted + (" that can be read" if wrong else ", all readable"))
    yield from _overdue(home, names)
    if unknown:
        detail = f"{unknown} send{'s' if unknown > 1 else ''} may have been billed and cannot be looked up"
        yield Check("unknown cost", "warning", f"{detail} ({', '.join(of_unknown[:MOST_NAMED])})", CONSOLE)
    yield from _beads(home)
    yield from _orphans(home, frozenset(names))


def _overdue(home: Home, names: list[str]) -> Iterator[Check]:
    """Gremlins whose batch should have ended long ago."""
    now = SystemClock().now()
    for name in names:
        with contextlib.suppress(GremlinsError):  # a record that cannot be read is reported already
            seen = observe(str(home.gremlin(name).root), holder_of_the_over=False)
            if (why := overdue(seen.outstanding, now)) is not None:
                hint = f"a gremlin with a process ends this wait itself; else `gremlins rescue {name}`"
                yield Check("overdue", "warning", f"{name}: {why}", hint)


def _own_files(paths: GremlinPaths) -> Iterator[CorruptRecord]:
    """The record of a gremlin and what was frozen at its launch. One that is just being made has neither."""
    looks: tuple[tuple[Path, Callable[[Path], object]], ...] = (
        (paths.state, lambda path: read_record(str(path.parent))),
        (paths.frozen, read_frozen),
    )
    if not paths.state.exists() and holder_of(paths.lock) is not None:
        return
    for path, read in looks:
        try:
            read(path)
        except CorruptRecord as error:
            yield error
        except GremlinsError:
            yield CorruptRecord(path, "it is missing")


def _beads(home: Home) -> Iterator[Check]:
    if not home.beads.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"file:{home.beads}?mode=ro", uri=True, timeout=5)) as database:
            verdict = database.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.Error as error:
        verdict = str(error)
    if verdict == "ok":
        yield Check("beads", "ok", f"{home.beads} is sound")
    else:
        yield Check("beads", "problem", f"{home.beads}: {verdict}", "restore it from a backup (`gremlins bead export`)")


def _orphans(home: Home, names: frozenset[str]) -> Iterator[Check]:
    """Worktrees of gremlins that are gone."""
    if not home.worktrees.is_dir():
        return
    found = sorted(
        entry.name
        for entry in os.scandir(home.worktrees)
        if entry.is_dir() and GREMLIN_ID.fullmatch(entry.name) and entry.name not in names
    )
    if found:
        shown = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
        hint = f"look into them in {home.worktrees}, then `git worktree remove --force`"
        yield Check("worktrees", "warning", f"{len(found)} of no gremlin: {shown}", hint)
