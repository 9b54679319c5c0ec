"""Launches gremlins: `prepare` reads and checks, `prove_key` asks the API, `start` makes record, worktree and process.

A launch that fails removes its worktree, branch and folder again.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gremlins import __version__
from gremlins.clients.account import find_account
from gremlins.clients.key_proof import list_models
from gremlins.clients.registry import check_ready, client_class, known_providers
from gremlins.clients.transport import ApiFailure
from gremlins.clock import Clock
from gremlins.cluster.database import need_extra
from gremlins.cluster.hands import launching
from gremlins.cluster.needs import queue_of
from gremlins.config import LoadedSettings, load_settings
from gremlins.errors import GremlinsError, NotReady
from gremlins.files import make_private_dir, write_atomic
from gremlins.paths import GREMLIN_ID, Home
from gremlins.pipeline.file import FrozenPipeline, Pipeline, find_pipeline, freeze, load_pipeline
from gremlins.pipeline.freezing import FrozenLaunch, write_frozen
from gremlins.processes.locks import GremlinLock
from gremlins.processes.sandbox import check_sandbox, why_not
from gremlins.processes.spawn import spawn_runner
from gremlins.records.gremlin import DiffCount, Gremlin, Mode, Queued, RunStore, StageRun
from gremlins.records.journal import Journal
from gremlins.repository.folder import create, remove
from gremlins.repository.git import Git, find_root
from gremlins.repository.github import GitHub
from gremlins.repository.project import find_project, refuse_gremlins_own
from gremlins.repository.remote_work import address_of
from gremlins.repository.trust import check_trust
from gremlins.repository.worktree import Worktree, branch_name
from gremlins.stages.spec import AgentStage, Exec, Handoff, Implement, OpenPr, Plan, Verify, WaitCi, WaitReview, walk
from gremlins.text import normalised

LONGEST_SLUG = 22
"""Characters of an id's words."""
ANTHROPIC = frozenset({"claude", "anthropic"})


@dataclass(frozen=True)
class LaunchRequest:
    """A request to launch, from a person or the dispatch loop."""

    pipeline: str
    cwd: Path
    task: str = ""
    title: str = ""
    plan: str | None = None
    """A written plan; the plan stage then makes no call."""
    gremlin_id: str | None = None
    mode: Mode | None = None
    client: str | None = None
    base_ref: str | None = None
    """None: HEAD at the start."""
    builds_on: tuple[str, ...] = ()
    """Gremlins whose branches `base_ref` holds."""
    bead_id: str | None = None

    def __post_init__(self) -> None:
        for name in ("task", "title", "plan"):
            if (text := getattr(self, name)) is not None:
                object.__setattr__(self, name, normalised(text))


@dataclass(frozen=True)
class Prepared:
    """A request that has passed every check, with the settings and the pipeline it was checked with.

    The dispatch loop prepares once a tick and replaces the request for each bead.
    """

    request: LaunchRequest
    repo: Path
    """The working tree it is launched from."""
    project: Path
    loaded: LoadedSettings
    pipeline: FrozenPipeline


def prepare(
    request: LaunchRequest,
    home: Home,
    env: Mapping[str, str],
    *,
    loaded: LoadedSettings | None = None,
    pipeline: Pipeline | None = None,
) -> Prepared:
    """Check everything that needs nothing to be made or spent, the repository first: a pipeline may be its own.

    loaded, pipeline: the repository's settings and the request's pipeline, if the caller has read them already.
    Raises NotFound (pipeline), ConfigError (pipeline, settings, provider), Untrusted (what the repository brings),
    NotReady (repository, credentials, binary), Conflict (in a gremlin's worktree), GremlinsError (base ref, task).
    """
    repo = find_root(request.cwd)
    refuse_gremlins_own(repo, home.worktrees)
    if pipeline is None:
        pipeline = load_pipeline(find_pipeline(request.pipeline, repo, cwd=request.cwd), providers=known_providers())
    loaded = loaded or load_settings(repo, home, env)
    frozen = freeze(
        pipeline,
        repo=repo,
        settings=loaded.settings,
        cli_client=request.client,
        cli_mode=request.mode,
        providers=known_providers(),
        has_batch=lambda client: client_class(client).batch_support == "yes",
    )
    project = find_project(repo)
    check_trust(repo, project, home)
    check_sandbox(loaded.settings.sandbox, env)
    _check_task(request, frozen)
    if home.cluster:
        need_extra()
        address_of(Git(repo))
    if request.base_ref is not None:
        Git(repo).commit(request.base_ref)
    _check_clients(frozen, request, loaded, env, elsewhere=bool(home.cluster))
    if any(isinstance(spec, OpenPr | WaitReview | WaitCi) for _, spec in walk(frozen.stages)):
        GitHub(repo, env).check_ready()
    return Prepared(request, repo, project, loaded, frozen)


def _check_task(request: LaunchRequest, pipeline: FrozenPipeline) -> None:
    needs = any(isinstance(spec, Plan | Implement | Handoff) for _, spec in walk(pipeline.stages))
    if needs and not request.task.strip() and request.plan is None:
        raise GremlinsError(
            f"the pipeline `{pipeline.name}` needs a task",
            hint=f"gremlins launch {request.pipeline} 'what to do', or --plan FILE",
        )


def _asking(pipeline: FrozenPipeline, request: LaunchRequest) -> Iterator[AgentStage]:
    """The stages that will call a model."""
    for _, spec in walk(pipeline.stages):
        if isinstance(spec, AgentStage) and not (isinstance(spec, Plan) and request.plan is not None):
            yield spec


def check_modes(asking: Iterable[AgentStage]) -> None:
    """Check that the stages' providers can be loaded, and have the mode that was asked for."""
    for client, mode, asked in sorted({(str(s.settled_client), s.settled_mode, s.mode_asked) for s in asking}):
        kind = client_class(client)
        if mode == "batch" and kind.batch_support == "no" and asked:
            raise GremlinsError(
                f"the provider `{kind.provider}` has no batch mode, and batch was asked for",
                hint="use --mode live, or a client `claude:…` or `anthropic:…`",
            )


def _check_clients(
    pipeline: FrozenPipeline, request: LaunchRequest, loaded: LoadedSettings, env: Mapping[str, str], *, elsewhere: bool
) -> None:
    """Check provider, mode, credentials and binary of every stage that will call a model.

    elsewhere: a worker makes the calls, which takes only what its own host has credentials for.
    """
    asking = list(_asking(pipeline, request))
    check_modes(asking)
    for client, mode in sorted({(str(s.settled_client), s.settled_mode) for s in asking}):
        in_batch = mode == "batch" and client_class(client).batch_support == "yes"
        real_mode: Mode = "batch" if in_batch else "live"
        try:
            check_ready(client, real_mode, env, loaded.settings)
        except NotReady:
            if not elsewhere:
                raise


def prove_key(pipeline: FrozenPipeline, request: LaunchRequest, env: Mapping[str, str]) -> None:
    """Prove the key of batch stages by one free call. Raises NotReady at 401 and 403; other faults are ignored."""
    batch = {spec.settled_client for spec in _asking(pipeline, request) if spec.settled_mode == "batch"}
    models = {client.model for client in batch if client.provider in ANTHROPIC}
    if not models:
        return
    try:
        listed = list_models(find_account(env)).get("data")
    except ApiFailure:
        return
    _check_batch_capability(listed, models)


def _check_batch_capability(listed: object, models: Collection[str]) -> None:
    """Refuse a model that the API lists without batch support. A model that it does not list is accepted."""
    for row in listed if isinstance(listed, list) else []:
        if not isinstance(row, dict) or row.get("id") not in models:
            continue
        capability = (row.get("capabilities") or {}).get("batch") or {}
        if capability.get("supported") is False:
            raise GremlinsError(
                f"the model {row['id']} cannot be used in batches", hint="use --mode live, or another --client"
            )


def needs_of(pipeline: FrozenPipeline) -> frozenset[str]:
    """The kinds of calls that its stages make, as `claude-batch`: what a host of a cluster must be able to do."""
    stages = [spec for _, spec in walk(pipeline.stages) if isinstance(spec, AgentStage)]
    found = set()
    for spec in stages:
        support = client_class(str(spec.settled_client)).batch_support
        mode = spec.settled_mode if support == "yes" else "live"
        found.add(f"{spec.settled_client.provider}-{mode}")
    return frozenset(found)


def launch(request: LaunchRequest, home: Home, env: Mapping[str, str], clock: Clock) -> Gremlin:
    """Make a gremlin and start it. Returns its record at the start."""
    prepared = prepare(request, home, env)
    try:
        prove_key(prepared.pipeline, request, env)
    except NotReady:
        if not home.cluster:
            raise
    return start(prepared, home, env, clock)


RESERVED = frozenset({"landing"})
"""`refs/gremlins/landing/` is not a gremlin's."""


def start(prepared: Prepared, home: Home, env: Mapping[str, str], clock: Clock) -> Gremlin:
    """Make record, worktree and process of a prepared launch. Raises Conflict if the id is taken."""
    asked = prepared.request.gremlin_id
    gremlin_id = new_id(prepared.request, home) if asked is None else asked
    if not GREMLIN_ID.fullmatch(gremlin_id) or gremlin_id in RESERVED:
        hint = "1 to 64 of a-z, 0-9 and -, for example fix-login; `landing` is the name of refs of ours"
        raise GremlinsError(f"`{gremlin_id[:80]}` cannot be an id", hint=hint)
    store = RunStore(home, clock)
    try:
        lock = store.claim(gremlin_id)
    except OSError as error:
        raise _cannot_write(home, error) from error
    try:
        with _begun(prepared, gremlin_id, home) as uid:
            record = _make(prepared, gremlin_id, uid, home, store, lock, clock)
            spawn_runner(store.paths(gremlin_id), lock, env)
    except BaseException as error:  # Ctrl-C too: nothing half made is left
        _undo(prepared, gremlin_id, home, lock)
        if isinstance(error, OSError):
            raise _cannot_write(home, error) from error
        raise
    return record


def _cannot_write(home: Home, error: OSError) -> GremlinsError:
    return GremlinsError(
        f"nothing can be written to {error.filename or home.root}: {error.strerror}",
        hint="free some space, or set GREMLINS_HOME to a folder that can be written",
    )


def new_id(request: LaunchRequest, home: Home) -> str:
    """The first words of the task, and four random hex digits: short enough to be shown whole, and to be typed."""
    words = re.findall(r"[a-z0-9]+", (request.title or request.task or request.pipeline).lower())
    slug = words[0][:LONGEST_SLUG] if words else "gremlin"
    for word in words[1:5]:
        if len(slug) + len(word) + 1 > LONGEST_SLUG:
            break
        slug += f"-{word}"
    while True:
        gremlin_id = f"{slug}-{secrets.token_hex(2)}"
        if not home.gremlin(gremlin_id).root.exists():
            return gremlin_id


@contextlib.contextmanager
def _begun(prepared: Prepared, gremlin_id: str, home: Home) -> Iterator[str]:
    """Yields the uid of a new gremlin, which within the block is written to the cluster, if there is one."""
    if not home.cluster:
        yield secrets.token_hex(8)
        return
    base = Git(prepared.repo).commit(prepared.request.base_ref or "HEAD")
    with launching(home, gremlin_id, prepared.repo, base, queue_of(needs_of(prepared.pipeline))) as uid:
        yield uid


def _make(
    prepared: Prepared, gremlin_id: str, uid: str, home: Home, store: RunStore, lock: GremlinLock, clock: Clock
) -> Gremlin:
    request, now = prepared.request, clock.now()
    paths = store.paths(gremlin_id)
    worktree, branch = home.worktree(gremlin_id), branch_name(gremlin_id)
    make_private_dir(home.worktrees)
    if home.cluster:  # the worktree is made where a worker takes it
        base: str = Git(prepared.repo).commit(request.base_ref or "HEAD")
    else:
        base = create(prepared.repo, worktree, branch, request.base_ref or "HEAD").base
    write_frozen(
        paths.frozen,
        FrozenLaunch(program=__version__, pipeline=prepared.pipeline, settings=prepared.loaded.settings),
    )
    stages: tuple[StageRun, ...] = ()
    if request.plan is not None:
        write_atomic(paths.artifacts / "plan.md", request.plan.rstrip("\n") + "\n")
        stages = tuple(
            StageRun(spec.name, "plan", 1, now, ended_at=now, outcome="skipped", note="the plan was given")
            for spec in prepared.pipeline.stages
            if isinstance(spec, Plan)
        )
    first = next((s for s in prepared.pipeline.stages if s.name not in {r.path for r in stages}), None)
    asks = first if isinstance(first, AgentStage) else None
    record = Gremlin(
        id=gremlin_id,
        uid=uid,
        pipeline=prepared.pipeline.name,
        task=request.task or (request.plan or ""),
        title=_title(request),
        bead_id=request.bead_id,
        builds_on=request.builds_on,
        project=str(prepared.project),
        checkout="" if prepared.repo == prepared.project else str(prepared.repo),
        branch=branch,
        worktree=str(worktree),
        base=base,
        stage=first.name if first else "",
        mode=asks.settled_mode if asks else None,
        client=str(asks.settled_client) if asks else None,
        stages=stages,
        diff=DiffCount(),
        status=Queued(since=now),
        created_at=now,
        updated_at=now,
    )
    say = Journal(paths.log, clock)
    say(f"launched: pipeline {prepared.pipeline.name}, branch {branch} from {base[:12]} of {prepared.repo}")
    has_commands = any(isinstance(spec, Exec | Verify) for _, spec in walk(prepared.pipeline.stages))
    if has_commands and (missing := why_not(prepared.loaded.settings.sandbox, os.environ)):
        say(f"commands run as you: {missing}")
    return store.write(record, lock)


def _title(request: LaunchRequest) -> str:
    text = request.title or request.task or request.plan or ""
    line = next((line.strip("# ").strip() for line in text.splitlines() if line.strip()), request.pipeline)
    return line if len(line) <= 72 else line[:71].rstrip() + "…"


def _undo(prepared: Prepared, gremlin_id: str, home: Home, lock: GremlinLock) -> None:
    """Remove everything of a failed launch. Its branch has no commits of its own yet."""
    with contextlib.suppress(GremlinsError, OSError):
        branch = branch_name(gremlin_id)
        git = Git(prepared.repo)
        base, tip = git.try_commit(prepared.request.base_ref or "HEAD"), git.try_commit(f"refs/heads/{branch}")
        if tip is not None and tip == base:  # otherwise nothing was made, or it was there before
            remove(Worktree(prepared.repo, home.worktree(gremlin_id), branch, tip), delete_branch=True)
    shutil.rmtree(home.gremlin(gremlin_id).root, ignore_errors=True)
    lock.release()
