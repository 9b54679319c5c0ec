"""A gremlin's worktree, and its commits: of edits, and of an agent's changes.

Every commit is built in a temporary index and carries a trailer that names its model call. Then the branch moves, then
the files. Called again after a crash, a function finds the trailer, commits nothing twice and finishes the rest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1, sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from gremlins.clock import Clock, SystemClock
from gremlins.errors import Conflict
from gremlins.files import write_atomic
from gremlins.repository.git import QUIET, Git, Sha, TreeEntry, error_of, some_of, split_names
from gremlins.repository.merging import merge_aside

BRANCH_PREFIX = "gremlins/"
CALL_TRAILER = "Gremlins-Call"

MADE_AGAIN = re.compile(
    r"""(^|/)(
        __pycache__ | \.pytest_cache | \.mypy_cache | \.ruff_cache | \.hypothesis | \.tox | \.nox | \.eggs
      | node_modules | \.venv | \.cache | \.gradle | [^/]+\.egg-info
      )/
      | \.(pyc|pyo)$
      | (^|/)(\.DS_Store | \.coverage)$
    """,
    re.VERBOSE,
)
"""Files that tools make again. They are never committed nor kept, even if the project does not ignore them."""

_TOOL_FILES = re.compile(
    rf"""{MADE_AGAIN.pattern}
      | \.(swp|orig|rej)$
      | (^|/)(nohup\.out | core\.\d+)$
      | ^\.claude/settings\.local\.json$
    """,
    re.VERBOSE,
)
"""Those, and what tools leave behind of a person's or an agent's text. They are never committed."""


@dataclass(frozen=True)
class Worktree:
    """A gremlin's worktree. `base`: the commit its branch began at. `repo`: the project's path; git runs there."""

    repo: Path
    path: Path
    branch: str
    base: str

    @property
    def git(self) -> Git:
        return Git(self.path)

    @property
    def ref(self) -> str:
        return f"refs/heads/{self.branch}"

    def tip(self) -> Sha:
        """The newest commit of the branch. Needs no worktree."""
        return Git(self.repo).commit(self.ref)


@dataclass(frozen=True)
class FileChange:
    """The new content of a file, as it looks in the worktree. `content` None: the file is deleted."""

    path: str
    content: bytes | None


def branch_name(gremlin_id: str) -> str:
    return BRANCH_PREFIX + gremlin_id


def trailer_of(call_key: str) -> str:
    """The trailer line of a commit made from this call."""
    return f"{CALL_TRAILER}: {call_key}"


# --- its git


def quiet_env(worktree: Worktree, base: Mapping[str, str]) -> dict[str, str]:
    """`base`, plus settings for any git run in this worktree: no hooks, no signing, no background work.

    Set through the environment and a file of ours, so that the repository's configuration stays as it is and other
    repositories, such as those of the project's tests, are not affected.
    """
    git_dir = worktree.git.git_dir().resolve()
    settings = git_dir / "gremlins.config"
    if not settings.exists():
        lines = [f"[{key.rpartition('.')[0]}]\n\t{key.rpartition('.')[2]} = {value}\n" for key, value in QUIET.items()]
        write_atomic(settings, "".join(lines))
    pattern = re.sub(r"([*?\[\]\\])", r"\\\1", str(git_dir))
    number = int(base.get("GIT_CONFIG_COUNT") or 0)
    return {
        **base,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": str(number + 1),
        f"GIT_CONFIG_KEY_{number}": f"includeIf.gitdir:{pattern}.path",
        f"GIT_CONFIG_VALUE_{number}": str(settings),
    }


def clear_stale_locks(worktree: Worktree, *, clock: Clock | None = None, patience: float = 10.0) -> list[Path]:
    """Remove the locks that a killed git left in the gremlin's git directory and on its branch. Returns them.

    The caller must hold the gremlin's lock and have ended its agents and commands; then a lock that is still there
    after `patience` seconds has no holder.
    """
    clock = clock or SystemClock()
    git = worktree.git
    own, common = git.git_dir(), git.common_dir()
    locks = [own / "index.lock", own / "HEAD.lock", own / "ORIG_HEAD.lock", common / f"{worktree.ref}.lock"]
    until = clock.monotonic() + patience
    while any(lock.exists() for lock in locks) and clock.monotonic() < until:
        clock.sleep(0.1)  # a git whose parent was killed still runs to its end
    stale = [lock for lock in locks if lock.exists()]
    for lock in stale:
        lock.unlink(missing_ok=True)
    return stale


# --- worktrees of a pipeline's parallel branches

SIDE = "+"
"""Separates a gremlin's id from the name of its parallel branch; no id contains it."""


def side_worktree(worktree: Worktree, name: str, base: str) -> Worktree:
    """The worktree of a parallel branch, beside the gremlin's own. Creates nothing."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    if plain != name:
        plain += f"-{sha256(name.encode()).hexdigest()[:6]}"
    path = worktree.path.with_name(f"{worktree.path.name}{SIDE}{plain}")
    return Worktree(worktree.repo, path, f"{worktree.branch}{SIDE}{plain}", base)


def side_worktrees(worktree: Worktree) -> list[Worktree]:
    """The side worktrees that exist, as a branch or as a folder."""
    prefix = f"{worktree.branch}{SIDE}"
    refs = Git(worktree.repo).text("for-each-ref", "--format=%(refname:short)", "refs/heads/gremlins/").split()
    ends = {name.removeprefix(prefix) for name in refs if name.startswith(prefix)}
    folder = f"{worktree.path.name}{SIDE}"
    if worktree.path.parent.is_dir():
        ends |= {p.name.removeprefix(folder) for p in worktree.path.parent.iterdir() if p.name.startswith(folder)}
    return [
        Worktree(worktree.repo, worktree.path.with_name(f"{folder}{end}"), prefix + end, worktree.base)
        for end in sorted(ends)
    ]


def merge_branch(worktree: Worktree, theirs: Sha, *, message: str, trailer: str) -> Sha | None:
    """Merge a commit into the gremlin's branch and worktree. None: the branch contains it already.

    Raises Conflict, which names the files, with nothing changed.
    """
    git = worktree.git
    done = find_trailer(worktree, trailer)
    if done is None:
        head = worktree.tip()
        if git.is_ancestor(theirs, head):
            return None
        tree = merge_aside(git, head, theirs, Sha(worktree.base))
        _refuse_in_the_way(git, head, git.changed_paths(head, tree))
        done = git.commit_tree(tree, [head, theirs], _with_trailer(message, trailer))
        git.update_ref(worktree.ref, done, head, reason="gremlins: merge of a branch")
    if done == worktree.tip():
        _attach(git, worktree.branch)
        _move_files(git, done, git.changed_paths(f"{done}^", done))
    return done


def _refuse_in_the_way(git: Git, head: Sha, paths: Sequence[str]) -> None:
    """Raise Conflict if files that are to be written hold changes in no commit."""
    with git.scratch_index(head) as env:
        _, changed = changed_files(git, head, env)
    if found := sorted(set(changed) & set(paths)):
        raise Conflict(f"files with changes in no commit are in the way: {some_of(found)}", hint="commit them first")


# --- finding earlier work


def find_trailer(worktree: Worktree, trailer: str) -> Sha | None:
    """The commit of the branch, after its base, with this trailer line."""
    return worktree.git.find_trailer(trailer, f"{worktree.base}..{worktree.ref}")


def tree_differs(worktree: Worktree) -> bool:
    """True if the branch's tree differs from its base's. Commits that cancel out are no evidence."""
    return Git(worktree.repo).differs(worktree.base, worktree.ref)


# --- edits of a batch call


def commit_aside(worktree: Worktree, changes: Sequence[FileChange], *, message: str, trailer: str) -> Sha | None:
    """Commit exactly these files on the branch and write them into the worktree. None: they change nothing.

    The caller has checked the paths: relative, inside the worktree, through no symbolic link, not ignored.
    """
    git = worktree.git
    done = find_trailer(worktree, trailer)
    if done is None:
        head = worktree.tip()
        tree = _tree_with(git, head, changes)
        if tree == git.tree(head):
            _move_files(git, head, [change.path for change in changes])
            return None
        done = git.commit_tree(tree, [head], _with_trailer(message, trailer))
        git.update_ref(worktree.ref, done, head, reason="gremlins: edits")
    if done == worktree.tip():  # with a later commit, the files of this one are in place
        _attach(git, worktree.branch)
        _move_files(git, done, git.changed_paths(f"{done}^", done))
    return done


def _tree_with(git: Git, head: Sha, changes: Sequence[FileChange]) -> Sha:
    """The tree of `head` with the changes, each blob as `git add` would make it: by the line ends in the index."""
    known = git.ls_tree(head, [change.path for change in changes])
    gone = [change.path for change in changes if change.content is None]
    written = {change.path: change.content for change in changes if change.content is not None}
    with git.scratch_index(head) as env, TemporaryDirectory(prefix="gremlins-edits-") as folder:
        # Removals first: a folder may take the name of a removed file.
        git.raw("update-index", "-z", "--force-remove", "--stdin", input=_nul(gone), env=env)
        for path, content in written.items():
            place = Path(folder) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        aside = Git(Path(folder), told={"GIT_DIR": str(git.git_dir()), "GIT_WORK_TREE": folder, **env})
        # Outside the cone of a sparse checkout, `--add` would pass over them.
        git.raw(
            "update-index", "-z", "--no-skip-worktree", "--stdin", input=_nul(known.keys() & written.keys()), env=env
        )
        aside.raw("update-index", "-z", "--add", "--replace", "--stdin", input=_nul(written))
        lines = []
        moved = {part for path in gone if path in known for part in _of_executable(path, known[path])}
        for path, made in git.ls_tree(git.write_tree(env), written).items() if written else ():
            old = known.get(path)
            regular = old is not None and old.mode in ("100644", "100755")
            mode = old.mode if old and regular else _mode_of_new(git.path / path, written[path])
            mode = "100755" if old is None and {made.sha, Path(path).name} & moved else mode
            lines.append(f"{mode} {made.sha}\t{path}")
        git.raw("update-index", "-z", "--index-info", input=_nul(lines), env=env)
        return git.write_tree(env)


def ignored(worktree: Worktree, changes: Sequence[FileChange]) -> list[str]:
    """The new files among the changes that the project ignores, by its rules as the changes leave them."""
    git, head = worktree.git, worktree.tip()
    rules = [change.path for change in changes if Path(change.path).name == ".gitignore"]
    with git.scratch_index(head) as env, TemporaryDirectory(prefix="gremlins-edits-") as folder:
        named = git.names("ls-files", "-z", "--", ":(glob)**/.gitignore", env=env)
        git.raw("checkout-index", f"--prefix={folder}/", "-z", "--stdin", input=_nul(named), env=env)
        for change in changes:
            if change.path in rules:
                place = Path(folder) / change.path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(change.content or b"")
        aside = Git(Path(folder), told={"GIT_DIR": str(git.git_dir()), "GIT_WORK_TREE": folder, **env})
        done = aside.attempt("check-ignore", "-z", "--stdin", input=_nul(change.path for change in changes))
        if done.returncode > 1:  # 1: none
            raise error_of(("check-ignore",), done)
        return split_names(done.stdout_bytes)


def _of_executable(path: str, entry: TreeEntry) -> tuple[str, ...]:
    """Content and name of an executable file: a new one with either is the same file, moved."""
    return (entry.sha, Path(path).name) if entry.mode == "100755" else ()


def _mode_of_new(path: Path, content: bytes) -> str:
    """A script (`#!`) is executable: a batch reply cannot say so otherwise."""
    runnable = content.startswith(b"#!") or (path.is_file() and not path.is_symlink() and os.access(path, os.X_OK))
    return "100755" if runnable else "100644"


def _move_files(git: Git, commit: Sha, paths: Sequence[str]) -> None:
    """Make only these paths in index and worktree as in `commit`. Idempotent."""
    present = git.ls_tree(commit, paths) if paths else {}
    gone = [path for path in paths if path not in present]
    git.raw("update-index", "-z", "--force-remove", "--stdin", input=_nul(gone))
    for path in gone:
        _remove_file(git.path, path)
    lines = [f"{entry.mode} {entry.sha}\t{path}" for path, entry in present.items()]
    git.raw("update-index", "-z", "--index-info", input=_nul(lines))
    git.raw("checkout-index", "--force", "--index", "--quiet", "-z", "--stdin", input=_nul(present))


def _remove_file(root: Path, name: str) -> None:
    """Remove a file and the folders that become empty, as git does."""
    path = root / name
    if path.is_symlink() or path.is_file():
        path.unlink()
    for folder in path.parents:
        if folder == root:
            return
        try:
            folder.rmdir()
        except OSError:  # not empty, or gone already
            return


def _nul(names: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(name) + b"\0" for name in names)


def _with_trailer(message: str, trailer: str) -> str:
    """The message with the trailer. Trailers in the agent's own text are removed."""
    lines = [line for line in message.strip().splitlines() if not line.startswith("Gremlins-")]
    return "\n".join([*lines, "", trailer])


# --- changes of a live agent


def commit_all(worktree: Worktree, *, message: str, trailer: str) -> Sha | None:
    """Commit the changes in the worktree: tracked files, and new ones except ignored files and tools' files.

    None: nothing to commit; the agent may have committed. If the agent has left the branch, HEAD returns to it, with
    the agent's commits and files kept.
    """
    git = worktree.git
    done = find_trailer(worktree, trailer)
    if done is None:
        parent = _parent_for(worktree)
        tree = tree_of_files(git, parent)
        changed = tree != git.tree(parent)
        if changed:
            done = git.commit_tree(tree, [parent], _with_trailer(message, trailer))
        if (done or parent) != worktree.tip():
            git.update_ref(worktree.ref, done or parent, worktree.tip(), reason="gremlins: agent's changes")
    _attach(git, worktree.branch)
    _end_rebase(git)
    git.raw("reset", "--quiet")  # the index only; also ends a merge the agent left open
    return done


def commit_tracked(worktree: Worktree, *, message: str) -> list[str]:
    """Commit what commands changed in tracked files. Returns the paths; none if HEAD is not the branch's tip.

    A file with the bytes of its blob was not changed: git only would store it otherwise (line ends, filters).
    """
    git = worktree.git
    head = worktree.tip()
    if git.branch() != worktree.branch or git.operation() is not None or not git.dirty_paths():
        return []
    tree = tree_of_files(git, head, leave_out=re.compile(""))  # no new files
    before, after = git.ls_tree(head), git.ls_tree(tree)
    paths = [path for path in git.changed_paths(head, tree) if not _is_untouched(git.path / path, before.get(path))]
    if not paths:
        return []
    lines = (f"{after[path].mode} {after[path].sha}" if path in after else f"0 {'0' * len(head)}" for path in paths)
    with git.scratch_index(head) as env:
        listed = [f"{line}\t{path}" for line, path in zip(lines, paths, strict=True)]
        git.raw("update-index", "-z", "--index-info", input=_nul(listed), env=env)
        done = git.commit_tree(git.write_tree(env), [head], message)
    git.update_ref(worktree.ref, done, head, reason="gremlins: changes of commands")
    git.raw("reset", "--quiet")  # the index only
    return paths


def _is_untouched(path: Path, blob: TreeEntry | None) -> bool:
    if blob is None or path.is_symlink() or not path.is_file():
        return False
    executable = os.access(path, os.X_OK)
    with path.open("rb") as file:
        kind = sha1 if len(blob.sha) == 40 else sha256
        known = kind(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
        while part := file.read(2**20):
            known.update(part)
    return known.hexdigest() == blob.sha and executable == (blob.mode == "100755")


def new_files(worktree: Worktree) -> list[str]:
    """The files in the worktree that git neither tracks nor ignores, without those of tools."""
    return [path for path in worktree.git.untracked() if not _TOOL_FILES.search(path)]


def _parent_for(worktree: Worktree) -> Sha:
    """HEAD if it descends from the branch, else the branch's tip."""
    head, tip = worktree.git.head(), worktree.tip()
    return head if worktree.git.is_ancestor(tip, head) else tip


def _attach(git: Git, branch: str) -> None:
    """Point HEAD at the branch. No file changes."""
    if git.branch() != branch:
        git.raw("symbolic-ref", "-m", "gremlins: back to its branch", "HEAD", f"refs/heads/{branch}")


def _end_rebase(git: Git) -> None:
    if git.operation() == "rebase":
        git.raw("rebase", "--quit")


def tree_of_files(git: Git, start: Sha, *, leave_out: re.Pattern[str] = _TOOL_FILES) -> Sha:
    """The worktree's files as a tree: those tracked in `start` or added since, and new files that are not ignored.

    A repository inside the worktree is left out, because it would become an empty link.
    """
    with git.scratch_index(start) as env:
        gone, files = changed_files(git, start, env, leave_out=leave_out)
        git.raw("update-index", "-z", "--force-remove", "--stdin", input=_nul(gone), env=env)
        git.raw("update-index", "-z", "--add", "--replace", "--stdin", input=_nul(files), env=env)
        return git.write_tree(env)


def changed_files(
    git: Git, start: Sha, env: Mapping[str, str], *, leave_out: re.Pattern[str] = _TOOL_FILES
) -> tuple[list[str], list[str]]:
    """The differences of the worktree to `start`: tracked files that are gone, and files that changed or are new.

    env: a scratch index of `start`.
    """
    forced = git.names("diff", "--cached", "--name-only", "--diff-filter=A", "--no-renames", "-z", start)
    git.answer("update-index", "-q", "--refresh", env=env)  # 1: some differ
    shown = git.names("diff-files", "--name-status", "-z", "--no-renames", "--ignore-submodules=all", env=env)
    changed = dict(zip(shown[1::2], shown[::2], strict=True))
    new = [path for path in git.untracked(env=env) if not path.endswith("/") and not leave_out.search(path)]
    gone = [path for path, status in changed.items() if status == "D"]
    kept = [path for path in {**changed, **dict.fromkeys([*forced, *new])} if path not in set(gone)]
    return gone, [path for path in kept if os.path.lexists(git.path / path) and not _is_folder(git.path / path)]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def save_interrupted(worktree: Worktree, ref: str, *, to: str | None = None) -> Sha | None:
    """Keep an interrupted agent's changes under `ref`, then reset the worktree to `to` (default: the branch's tip).

    The ref is written before anything is removed. Ignored files and tools' files stay. None: no changes.
    """
    git = worktree.git
    goal = git.commit(to or worktree.ref)
    head = git.head()
    tree = tree_of_files(git, head)
    staged = staged_apart(git, head, tree)
    saved = None
    if staged or tree != git.tree(goal) or not git.is_ancestor(head, goal):
        parents = list(dict.fromkeys([head, worktree.tip(), *staged]))
        saved = git.commit_tree(tree, parents, f"Interrupted work of {worktree.branch}")
        git.update_ref(ref, saved, reason="gremlins: interrupted work")
    reset_to(worktree, goal)
    return saved


def staged_apart(git: Git, head: Sha, tree: Sha) -> list[Sha]:
    """A commit of the index, if it holds something else than `head` and the tree of the files."""
    done = git.attempt("write-tree")
    if done.returncode or done.stdout.strip() in (git.tree(head), tree):  # unmerged: the files have all of it
        return []
    return [git.commit_tree(done.stdout.strip(), [head], "Staged")]


def interrupted_ref(worktree: Worktree) -> str:
    """The next free name for `save_interrupted`: `refs/gremlins/ID/interrupted-N`."""
    prefix = f"refs/gremlins/{worktree.branch.removeprefix(BRANCH_PREFIX)}/interrupted-"
    taken = Git(worktree.repo).text("for-each-ref", "--format=%(refname)", f"{prefix}*").split()
    numbers = [int(name.removeprefix(prefix)) for name in taken if name.removeprefix(prefix).isdigit()]
    return f"{prefix}{max(numbers, default=0) + 1}"


def checkout_difference(git: Git, clean: Sha, wanted: Sha) -> None:
    """Change a tree that is at `clean` to the files of `wanted`, without staging them."""
    have, want = git.ls_tree(clean), git.ls_tree(wanted)
    changed = [path for path in want if want[path] != have.get(path)]
    for path in have.keys() - want.keys():
        _remove_file(git.path, path)
    with git.scratch_index(wanted) as env:
        git.raw("checkout-index", "--force", "--quiet", "-z", "--stdin", input=_nul(changed), env=env)


def reset_to(worktree: Worktree, goal: Sha) -> None:
    git = worktree.git
    _end_rebase(git)
    _attach(git, worktree.branch)
    if worktree.tip() != goal:
        git.update_ref(worktree.ref, goal, reason="gremlins: set back")
    git.raw("reset", "--hard", "--quiet")
    for path in git.untracked():
        if not path.endswith("/") and not _TOOL_FILES.search(path):
            _remove_file(git.path, path)
