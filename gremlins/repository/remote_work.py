"""A gremlin's commits on its project's remote, so that another host can go on with them.

They lie below `refs/gremlins/ID/UID-FENCE/`, each under its own commit's name. Such a ref is made and deleted, never
moved, so nothing is forced, and a host that has lost the gremlin writes below its own number only. Which commits count,
and which local refs they stand for, is what the gremlin's record says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from gremlins.clock import SystemClock
from gremlins.errors import Conflict, GremlinsError, NotReady
from gremlins.files import make_private_dir
from gremlins.paths import Home
from gremlins.processes.children import Completed
from gremlins.processes.locks import locked
from gremlins.repository.folder import refuse_to_remove, remove
from gremlins.repository.git import Git, HostGitError, Sha
from gremlins.repository.lfs import push_files
from gremlins.repository.worktree import BRANCH_PREFIX, SIDE, Worktree, interrupted_ref, side_worktrees

REMOTE_HEAD = "refs/remotes/origin/HEAD"
TIMEOUT = 600.0
"""Seconds for one push or fetch."""
PATIENCE = 900.0
"""Seconds to wait for another process that fetches into the same mirror."""
FETCHES = 20
"""Fetches beside others that are adding a worktree."""
COMMANDS = "/commands"
"""Ends the name of the snapshot around running commands. It concerns one worktree, so it stays on its host."""
DEFAULT_PORTS = {"ssh": 22, "git+ssh": 22, "http": 80, "https": 443, "git": 9418}

_SCP = re.compile(r"(?:[^/@]+@)?([^/:]+):(?!//)(.+)")
"""`git@host:path`."""
_PORCELAIN = re.compile(r"^(.)\t([^\t]*):([^\t]*)\t(.*)$", re.MULTILINE)
"""One ref of `git push --porcelain`: flag, source, destination, words."""
_ADVICE = re.compile(r"hint:|Please make sure|and the repository exists|To |Done$|error: failed to push some refs|!\t")


class RemoteTrouble(GremlinsError):
    """The project's remote does not answer, or refuses. It may work later: nothing local was changed."""


@dataclass(frozen=True)
class GremlinRefs:
    """The names by which a gremlin's refs are known everywhere. `uid` tells it from another one of the same id."""

    id: str
    uid: str
    base: str

    def own(self, fence: int) -> str:
        return f"refs/gremlins/{self.id}/{self.uid}-{fence}"

    def local(self, git: Git) -> dict[str, str]:
        """Its branches and the refs of what is kept aside, in one repository, with their commits."""
        branch = f"refs/heads/{BRANCH_PREFIX}{self.id}"
        aside = f"refs/gremlins/{self.id}"
        shown = git.text(
            "for-each-ref", "--format=%(refname) %(objectname)",
            branch, f"{branch}{SIDE}*", aside, f"{aside}{SIDE}*/**",
        )  # fmt: skip
        found = dict(line.split(" ") for line in shown.splitlines())
        return {ref: sha for ref, sha in found.items() if not ref.startswith(f"{aside}/{self.uid}-")}


@dataclass(frozen=True)
class RemoteWork:
    """The work that is on the remote, for the gremlin's record.

    refs: the local refs and their commits. tips: the commits from which all of them are reached, on the remote as
    `PREFIX/COMMIT`. stale: refs on the remote that no record needs any more.
    """

    prefix: str
    tips: tuple[str, ...]
    refs: Mapping[str, str] = field(default_factory=dict)
    stale: tuple[str, ...] = ()

    @property
    def remote_refs(self) -> tuple[str, ...]:
        return tuple(f"{self.prefix}/{tip}" for tip in self.tips)


# --- the project


def address_of(git: Git) -> str:
    """The address that a repository fetches from: of `origin`, or of its only remote. It may hold a password."""
    names = git.text("remote").split()
    if "origin" not in names and len(names) != 1:
        raise NotReady(
            f"{git.path} has no remote `origin`: hosts hand over work by the project's remote",
            hint="git remote add origin ADDRESS",
        )
    found = git.text("remote", "get-url", "origin" if "origin" in names else names[0])
    if "://" in found or _SCP.fullmatch(found):
        return found
    top = git.attempt("rev-parse", "--show-toplevel")
    start = Path(os.fsdecode(top.stdout_bytes.rstrip(b"\n"))) if top.returncode == 0 else git.common_dir()
    return f"file://{os.path.normpath(start / found)}"


def stored_address(address: str) -> str:
    """The address without a password; for HTTP also without the user's name, which may be a token."""
    if "://" not in address:
        return address
    parts = urlsplit(address)
    user, _, where = parts.netloc.rpartition("@")
    if user and parts.scheme not in ("http", "https"):
        where = f"{user.partition(':')[0]}@{where}"
    return parts._replace(netloc=where).geturl()


def project_of(address: str) -> str:
    """The name of the project at an address, the same by SSH and by HTTPS: `github.com/owner/repo`."""
    scp = _SCP.fullmatch(address) if "://" not in address else None
    if scp is not None:
        host, path = scp[1].lower(), scp[2]
    else:
        parts = urlsplit(address)
        if parts.scheme == "file":
            return f"file://{os.path.normpath(parts.path)}"
        host, path = (parts.hostname or "").lower(), parts.path
        if parts.port not in (None, DEFAULT_PORTS.get(parts.scheme)):
            host += f":{parts.port}"
    path = path.strip("/").removesuffix(".git")
    return f"{host}/{path.lower() if host == 'github.com' else path}"


def mirror(home: Home, address: str, *, sha256_objects: bool) -> Path:
    """This host's own clone of a project, bare, made if missing; it holds what its gremlins have needed.

    Its remote is `origin`: a host that needs another address sets it there.
    """
    project = project_of(address)
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", project.rpartition("/")[2])[:40]
    path = home.mirrors / f"{name}-{sha256(project.encode()).hexdigest()[:12]}.git"
    if path.is_dir():
        return path
    make_private_dir(home.mirrors)
    with TemporaryDirectory(prefix=".new-", dir=home.mirrors) as folder:
        git = Git(Path(folder))
        form = ["--object-format=sha256"] if sha256_objects else []
        git.raw("init", "--quiet", "--bare", "--template=", *form, "made.git")
        made = Git(Path(folder) / "made.git")
        made.raw("remote", "add", "origin", stored_address(address))
        try:
            made.path.rename(path)
        except OSError:
            if not path.is_dir():  # another process has made it
                raise
    return path


# --- to the remote


def push_work(git: Git, names: GremlinRefs, fence: int, known: RemoteWork | None) -> RemoteWork:
    """Bring what the gremlin has committed or kept aside to the remote. Returns what its record must then say.

    known: what the record says; it is returned as it is if nothing has changed. Raises RemoteTrouble.
    """
    refs = {ref: sha for ref, sha in names.local(git).items() if not ref.endswith(COMMANDS)}
    refs.setdefault(f"refs/heads/{BRANCH_PREFIX}{names.id}", names.base)
    prefix = names.own(fence)
    if known is not None and known.refs == refs:
        return known
    tips = _independent(git, {*refs.values(), names.base})
    there = known.remote_refs if known is not None else ()
    work = RemoteWork(prefix, tips, refs)
    new = [ref for ref in work.remote_refs if ref not in there]
    if new:
        _push_files(git, tips, [names.base] if known is not None else ["--remotes"])
        _push(git, new, known.stale if known is not None else ())
    stale = [ref for ref in there if ref not in work.remote_refs]
    waiting = known.stale if known is not None and not new else ()
    return RemoteWork(prefix, tips, refs, (*waiting, *stale))


def _push_files(git: Git, tips: Iterable[str], known: Iterable[str]) -> None:
    """The objects of Git LFS for these commits, before the commits. Raises RemoteTrouble."""
    address = address_of(git)
    try:
        done = push_files(git, address, tips, known)
    except HostGitError as error:  # it took too long
        raise RemoteTrouble(str(error), hint="is the server of Git LFS within reach? it is tried again") from error
    if done is not None and done.returncode:
        raise RemoteTrouble(
            f"files of Git LFS cannot be pushed to {stored_address(address)}: {_said(done)}",
            hint="is `git lfs` installed on this host, and may it push? it is tried again",
        )


def _independent(git: Git, commits: Iterable[str]) -> tuple[str, ...]:
    """Those of the commits that none of the others reaches."""
    wanted = sorted(set(commits))
    return (
        tuple(wanted) if len(wanted) == 1 else tuple(sorted(git.text("merge-base", "--independent", *wanted).split()))
    )


def _push(git: Git, new: Sequence[str], stale: Sequence[str] = ()) -> None:
    """Make refs named by their commits, and delete some. One that cannot be deleted stays. Raises RemoteTrouble."""
    made = [f"{ref.rpartition('/')[2]}:{ref}" for ref in new]
    done = _with_remote(
        git, "push", "--porcelain", "--no-verify", address_of(git), *made, *(f":{ref}" for ref in stale)
    )
    flags = {to: (flag, words) for flag, _, to, words in _PORCELAIN.findall(done.stdout)}
    refused = [(ref, flags[ref][1]) for ref in new if ref in flags and flags[ref][0] == "!"]
    if stale and (refused or (done.returncode and not flags)):
        _push(git, new)  # a hook may refuse the whole push for what it deletes
    elif refused:
        raise RemoteTrouble(
            f"the remote {stored_address(address_of(git))} refuses {refused[0][0]}: {_said(done) or refused[0][1]}",
            hint="its rules must allow `refs/gremlins/*` to be made and deleted; it is tried again",
        )
    elif not all(ref in flags for ref in new):
        raise _away(git, done)


def forget_work(git: Git, names: GremlinRefs) -> None:
    """Delete all that is on the remote of this gremlin. Raises RemoteTrouble."""
    own = f"refs/gremlins/{names.id}/{names.uid}-*"
    done = _with_remote(git, "ls-remote", "--refs", address_of(git), own)
    if done.returncode:
        raise _away(git, done)
    found = {ref: sha for sha, _, ref in (line.partition("\t") for line in done.stdout.splitlines())}
    if not found:
        return
    leases = [f"--force-with-lease={ref}:{sha}" for ref, sha in found.items()]
    gone = _with_remote(git, "push", "--porcelain", "--no-verify", *leases, address_of(git), *(f":{r}" for r in found))
    if gone.returncode:
        raise _away(git, gone)


def prove_remote(git: Git) -> None:
    """Make and delete a ref on the remote, as gremlins will. Raises RemoteTrouble."""
    tree = git.text("mktree", input=b"")
    names = GremlinRefs("probe", os.urandom(8).hex(), git.commit_tree(tree, [], "A probe of the remote"))
    _push(git, [f"{names.own(0)}/{names.base}"])
    forget_work(git, names)


# --- from the remote


def bring_work(worktree: Worktree, names: GremlinRefs, work: RemoteWork, *, elsewhere: bool) -> list[str]:
    """Let the gremlin's refs here stand for what its record says. Returns sentences for its log.

    elsewhere: another host has had it since this one. Then an older worktree of it here makes room for a new one, and
    what only this host has is kept aside. Otherwise refs that are here are newer than the record, and stay.
    Raises RemoteTrouble, with nothing changed; Conflict if a person uses the branch here.
    """
    git = Git(worktree.repo)
    here = names.local(git)
    if here.get(worktree.ref) is not None and not elsewhere:
        return []
    kept: list[str] = []
    if here != work.refs:
        fetch_work(git, work)
        refuse_to_remove(worktree)
    for tree in (*side_worktrees(worktree), worktree):
        if elsewhere and (ref := remove(tree)) is not None:
            kept.append(f"files that only this host had are kept as {ref}")
    return [*kept, *_set_refs(git, worktree, names, work)]


def _set_refs(git: Git, worktree: Worktree, names: GremlinRefs, work: RemoteWork) -> list[str]:
    """Set, make and delete the local refs as in `work`, all of them or none, and keep what nothing else reaches."""
    said: list[str] = []
    aside: dict[str, str] = {}
    here = names.local(git)
    for ref, sha in here.items():
        if work.refs.get(ref) == sha or ref.endswith(COMMANDS):
            continue
        if any(git.is_ancestor(sha, tip) for tip in (*work.tips, *aside.values())):
            continue
        kept = ref if ref not in work.refs and "/interrupted-" in ref else _free_name(worktree, {*work.refs, *aside})
        aside[kept] = sha
        if kept != ref:
            said.append(f"{ref} of this host holds commits that no record names: they are kept as {kept}")
    wanted = {**work.refs, **aside}
    zero = "0" * len(names.base)
    lines = [f"delete {ref} {sha}" for ref, sha in here.items() if ref not in wanted]
    lines += [f"update {ref} {sha} {here.get(ref, zero)}" for ref, sha in wanted.items() if here.get(ref) != sha]
    said_to_git = "".join(f"{line}\n" for line in lines)
    git.raw("update-ref", "--create-reflog", "-m", "gremlins: from another host", "--stdin", input=said_to_git)
    return said


def _free_name(worktree: Worktree, taken: set[str]) -> str:
    name = interrupted_ref(worktree)
    stem, _, number = name.rpartition("-")
    return next(free for n in range(int(number), int(number) + len(taken) + 1) if (free := f"{stem}-{n}") not in taken)


def fetch_work(git: Git, work: RemoteWork) -> None:
    """Fetch the commits of a record. Raises RemoteTrouble."""
    _fetch(git, *work.remote_refs)


def fetch_head(git: Git) -> Sha:
    """The commit that the remote's own branch is at, fetched. Raises RemoteTrouble."""
    _fetch(git, f"+HEAD:{REMOTE_HEAD}")
    return git.commit(REMOTE_HEAD)


def _fetch(git: Git, *refs: str) -> None:
    """Only one process at a time fetches into a repository. git refuses while it is adding a worktree there, whose HEAD
    is no object for a moment."""
    clock = SystemClock()
    with locked(git.common_dir() / "gremlins-fetch.lock", clock=clock, patience=PATIENCE) as mine:
        if not mine:
            raise Conflict(f"another process has been fetching into {git.path} for long", hint="is it still at work?")
        words = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-gc")
        for _ in range(FETCHES):
            done = _with_remote(git, *words, address_of(git), *refs)
            if "bad object worktrees/" not in done.stderr:
                break
            clock.sleep(0.1)
    if done.returncode:
        raise _away(git, done)


def _with_remote(git: Git, *args: str) -> Completed:
    try:
        return git.attempt(*args, timeout=TIMEOUT)
    except HostGitError as error:  # it took too long
        raise RemoteTrouble(str(error), hint="is the remote within reach? it is tried again") from error


def _away(git: Git, done: Completed) -> RemoteTrouble:
    where = stored_address(address_of(git))
    return RemoteTrouble(
        f"the remote {where} does not do its part: {_said(done) or 'git said nothing'}",
        hint=f"`git ls-remote {where}` on this host shows why; it is tried again",
    )


def _said(done: Completed) -> str:
    """The reason in git's own words: those of the remote's hook, else the last lines that are not advice."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    remote = [line.removeprefix("remote:").strip() for line in lines if line.startswith("remote:")]
    return "; ".join(dict.fromkeys((remote or [line for line in lines if not _ADVICE.match(line)])[-3:]))[:300]
