"""A gremlin's commits go from host to host by the project's remote: real git, bare remotes, a daemon, two clones."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from gremlins.errors import NotReady
from gremlins.paths import Home
from gremlins.repository.folder import create, restore
from gremlins.repository.git import Git
from gremlins.repository.remote_work import (
    GremlinRefs,
    RemoteTrouble,
    RemoteWork,
    address_of,
    bring_work,
    forget_work,
    mirror,
    project_of,
    prove_remote,
    push_work,
    stored_address,
)
from gremlins.repository.worktree import Worktree, branch_name, commit_all
from tests.conftest import Repo, make_repo
from tests.postgres import free_port
from tests.time_limit import DEADLINE, wait_until

UID = "0123456789abcdef"


@dataclass(frozen=True)
class Host:
    """A state root with a mirror of its own."""

    home: Home
    address: str

    def mirror(self, base: str) -> Path:
        return mirror(self.home, self.address, sha256_objects=len(base) == 64)

    def worktree(self, names: GremlinRefs) -> Worktree:
        return Worktree(self.mirror(names.base), self.home.worktree(names.id), branch_name(names.id), names.base)

    def bring(self, names: GremlinRefs, work: RemoteWork, *, elsewhere: bool = True) -> list[str]:
        worktree = self.worktree(names)
        said = bring_work(worktree, names, work, elsewhere=elsewhere)
        restore(worktree)
        return said

    def change(self, names: GremlinRefs, name: str, content: str) -> str:
        """Change a file and commit it, as a live agent's stage does."""
        worktree = self.worktree(names)
        (worktree.path / name).write_text(content)
        made = commit_all(worktree, message="a change", trailer=f"Gremlins-Call: {name}")
        assert made
        return made

    def push(self, names: GremlinRefs, fence: int, known: RemoteWork | None) -> RemoteWork:
        return push_work(Git(self.mirror(names.base)), names, fence, known)


@dataclass(frozen=True)
class Project:
    """A remote, and the clone of the person who launches."""

    bare: Repo
    clone: Repo

    def hosts(self, place: Path, count: int = 2) -> list[Host]:
        address = stored_address(address_of(Git(self.clone.path)))
        return [Host(Home(place / f"host{n}"), address) for n in range(count)]

    def launch(self, gremlin_id: str = "fix-it", uid: str = UID) -> tuple[GremlinRefs, RemoteWork]:
        names = GremlinRefs(gremlin_id, uid, self.clone.head())
        return names, push_work(Git(self.clone.path), names, 0, None)

    def refs(self) -> dict[str, str]:
        lines = self.bare.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        return dict(line.split(" ") for line in lines)

    def set_hook(self, name: str, script: str) -> None:
        hook = self.bare.path / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n{script}\n")
        hook.chmod(0o755)


def make_project(place: Path, *, form: str = "sha1") -> Project:
    made = Repo(place / "remote.git")
    made.path.mkdir(parents=True)
    made.git("init", "--quiet", "--bare", "--initial-branch=main", f"--object-format={form}", ".")
    clone = Repo(place / "clone")
    clone.path.mkdir()
    clone.git("init", "--quiet", "--initial-branch=main", f"--object-format={form}", ".")
    clone.git("remote", "add", "origin", str(made.path))
    clone.commit({"calc.py": "def add(a, b):\n    return a - b\n"}, "first")
    clone.git("push", "--quiet", "origin", "HEAD:refs/heads/main")
    return Project(made, clone)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "a prøject")


@pytest.fixture(params=["sha1", "sha256", "daemon", "shallow", "partial"])
def any_project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    """Each kind of repository, and a remote that is reached over the network."""
    made = make_project(tmp_path / "project", form="sha256" if request.param == "sha256" else "sha1")
    made.bare.git("config", "uploadpack.allowFilter", "true")
    with contextlib.ExitStack() as stack:
        if request.param == "daemon":
            port = free_port()
            stack.enter_context(daemon(made.bare.path.parent, port))
            made.clone.git("remote", "set-url", "origin", f"git://127.0.0.1:{port}/remote.git")
        elif request.param in ("shallow", "partial"):
            made.clone.commit({"more.py": "1\n"})
            made.clone.git("push", "--quiet", "origin", "HEAD:main")
            how = "--depth=1" if request.param == "shallow" else "--filter=blob:none"
            other = Repo(tmp_path / request.param)
            other.path.mkdir()
            other.git("clone", "--quiet", how, made.bare.path.as_uri(), ".")
            made = Project(made.bare, other)
        yield made


@contextlib.contextmanager
def daemon(folder: Path, port: int) -> Iterator[None]:
    """`git daemon` that serves a folder, and takes pushes."""
    words = ["--export-all", "--enable=receive-pack", f"--base-path={folder}", "--listen=127.0.0.1", f"--port={port}"]
    served = subprocess.Popen(["git", "daemon", "--reuseaddr", *words, str(folder)], stderr=subprocess.PIPE)
    asked = ["git", "ls-remote", f"git://127.0.0.1:{port}/remote.git"]
    try:
        wait_until(lambda: subprocess.run(asked, capture_output=True, check=False).returncode == 0, "the daemon")
        yield
    finally:
        # Its parent is the wrapper `git`, which passes on no signal but this one.
        served.terminate()
        served.communicate(timeout=DEADLINE)


def test_another_host_goes_on_where_the_first_was(any_project: Project, tmp_path: Path) -> None:
    any_project.clone.commit({"local.py": "x = 1\n"}, "not pushed by the person")
    before = any_project.refs()
    names, work = any_project.launch()
    one, two = any_project.hosts(tmp_path)
    assert one.bring(names, work) == []
    git = Git(one.mirror(names.base))
    start = f"refs/gremlins/{names.id}/start/implement"
    git.update_ref(start, names.base)
    git.update_ref(f"refs/gremlins/{names.id}/interrupted-1", git.commit_tree(git.tree(names.base), [], "aside"))
    git.update_ref(f"refs/heads/gremlins/{names.id}+side", names.base)
    git.update_ref(f"refs/gremlins/{names.id}/commands", names.base)
    tip = one.change(names, "calc.py", "def add(a, b):\n    return a + b\n")
    pushed = one.push(names, 1, work)
    assert two.bring(names, pushed) == []
    there = names.local(Git(two.mirror(names.base)))
    assert there == pushed.refs
    assert {start, f"refs/heads/gremlins/{names.id}+side"} < set(there)
    assert two.worktree(names).tip() == tip
    assert (two.worktree(names).path / "calc.py").read_text().endswith("a + b\n")
    assert before.items() <= any_project.refs().items()


def test_a_host_that_had_it_before_makes_room_and_loses_nothing(project: Project, tmp_path: Path) -> None:
    names, work = project.launch()
    one, two = project.hosts(tmp_path)
    one.bring(names, work)
    lost = one.change(names, "one.py", "1\n")  # on no record: the host stalled before it could say so
    (one.worktree(names).path / "draft.py").write_text("an agent was at it\n")
    two.bring(names, work)
    tip = two.change(names, "two.py", "2\n")
    second = two.push(names, 2, work)
    said = one.bring(names, second)
    assert one.worktree(names).tip() == tip
    assert not (one.worktree(names).path / "draft.py").exists()
    kept = {ref: sha for ref, sha in names.local(Git(one.mirror(names.base))).items() if "interrupted" in ref}
    git = Git(one.mirror(names.base))
    assert any(git.is_ancestor(lost, sha) for sha in kept.values())
    assert any(entry.endswith("draft.py") for sha in kept.values() for entry in git.ls_tree(sha))
    assert len(said) >= 1
    third = one.push(names, 3, second)  # and what it had is on the remote from now on
    assert kept.items() <= third.refs.items()


def test_refs_of_the_same_host_are_newer_than_the_record(project: Project, tmp_path: Path) -> None:
    names, work = project.launch()
    (one,) = project.hosts(tmp_path, 1)
    one.bring(names, work)
    tip = one.change(names, "one.py", "1\n")
    (one.worktree(names).path / "draft.py").write_text("an agent was at it\n")
    assert one.bring(names, work, elsewhere=False) == []
    assert one.worktree(names).tip() == tip
    assert (one.worktree(names).path / "draft.py").exists()


def test_a_host_that_has_lost_the_gremlin_harms_nothing_on_the_remote(project: Project, tmp_path: Path) -> None:
    names, work = project.launch()
    one, two, three = project.hosts(tmp_path, 3)
    one.bring(names, work)
    one.change(names, "a.py", "1\n")
    first = one.push(names, 1, work)
    two.bring(names, first)
    two.change(names, "b.py", "2\n")
    second = two.push(names, 2, first)
    one.change(names, "zombie.py", "3\n")
    one.push(names, 1, first)
    three.bring(names, second)
    assert three.worktree(names).tip() == two.worktree(names).tip()


def test_refs_that_no_record_needs_go_with_the_next_push(project: Project, tmp_path: Path) -> None:
    names, work = project.launch()
    (one,) = project.hosts(tmp_path, 1)
    one.bring(names, work)
    for number in range(4):
        one.change(names, "a.py", f"{number}\n")
        work = one.push(names, 1, work)
        assert work is one.push(names, 2, work)
    assert len([ref for ref in project.refs() if ref.startswith("refs/gremlins/")]) == 2
    project.bare.path.rename(project.bare.path.with_name("away.git"))
    assert work is one.push(names, 9, work)  # nothing has changed: the remote is not asked


def test_a_remote_that_is_away_changes_nothing_and_works_later(project: Project, tmp_path: Path) -> None:
    names, work = project.launch()
    one, two = project.hosts(tmp_path)
    one.bring(names, work)
    tip = one.change(names, "a.py", "1\n")
    away = project.bare.path.rename(project.bare.path.with_name("away.git"))
    with pytest.raises(RemoteTrouble, match=r"remote\.git") as trouble:
        one.push(names, 1, work)
    assert "tried again" in (trouble.value.hint or "")
    with pytest.raises(RemoteTrouble):
        two.bring(names, work)
    assert names.local(Git(two.mirror(names.base))) == {}
    away.rename(project.bare.path)
    two.bring(names, one.push(names, 1, work))
    assert two.worktree(names).tip() == tip


def test_a_daemon_that_ends_is_a_remote_that_is_away(project: Project, tmp_path: Path) -> None:
    port = free_port()
    project.clone.git("remote", "set-url", "origin", f"git://127.0.0.1:{port}/remote.git")
    with daemon(project.bare.path.parent, port):
        names, work = project.launch()
        (one,) = project.hosts(tmp_path, 1)
        one.bring(names, work)
    one.change(names, "a.py", "1\n")
    with pytest.raises(RemoteTrouble, match="refused"):
        one.push(names, 1, work)


@pytest.mark.parametrize("hook", ["pre-receive", "update"])
def test_a_remote_that_refuses_is_quoted(project: Project, tmp_path: Path, hook: str) -> None:
    names, work = project.launch()
    (one,) = project.hosts(tmp_path, 1)
    one.bring(names, work)
    one.change(names, "a.py", "1\n")
    project.set_hook(hook, "echo only branches are allowed here >&2; exit 1")
    with pytest.raises(RemoteTrouble, match="only branches are allowed here") as trouble:
        one.push(names, 1, work)
    assert "refs/gremlins/*" in (trouble.value.hint or "")
    with pytest.raises(RemoteTrouble):
        prove_remote(Git(project.clone.path))
    (project.bare.path / "hooks" / hook).unlink()
    assert one.push(names, 1, work).tips


@pytest.mark.parametrize("how", ["hook", "setting"])
def test_a_remote_that_lets_nothing_be_deleted_holds_up_nothing(project: Project, tmp_path: Path, how: str) -> None:
    if how == "hook":
        project.set_hook(
            "pre-receive", 'while read -r old new ref; do case "$new" in *[!0]*) ;; *) exit 1;; esac; done'
        )
    else:
        project.bare.git("config", "receive.denyDeletes", "true")
    names, work = project.launch()
    one, two = project.hosts(tmp_path)
    one.bring(names, work)
    for number in range(3):
        tip = one.change(names, "a.py", f"{number}\n")
        work = one.push(names, 1, work)
    two.bring(names, work)
    assert two.worktree(names).tip() == tip


def test_only_the_gremlins_own_refs_are_forgotten(project: Project, tmp_path: Path) -> None:
    before = project.refs()
    names, _ = project.launch()
    namesake, _ = project.launch(uid="fedcba9876543210")  # of another fleet
    forget_work(Git(project.clone.path), names)
    left = project.refs()
    assert left.keys() - before.keys() == {f"{namesake.own(0)}/{namesake.base}"}
    forget_work(Git(project.clone.path), names)
    prove_remote(Git(project.clone.path))
    assert project.refs() == left


def test_many_gremlins_come_to_one_host_at_once(project: Project, tmp_path: Path) -> None:
    launched = [project.launch(f"task-{number}") for number in range(6)]
    (one,) = project.hosts(tmp_path, 1)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda pair: one.bring(*pair), launched))
        for names, _ in launched:
            one.change(names, "a.py", names.id)
        pushed = list(pool.map(lambda pair: one.push(pair[0], 1, pair[1]), launched))
    assert len({work.tips for work in pushed}) == 6
    assert len(list(one.home.mirrors.iterdir())) == 1


def test_a_fetch_is_tried_again_beside_a_worktree_that_is_being_added(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, its), (names, work) = project.launch("one"), project.launch("two")
    (host,) = project.hosts(tmp_path, 1)
    host.bring(first, its)
    head = next(host.mirror(first.base).glob("worktrees/*/HEAD"))
    added, asked, shim = head.read_text().strip(), tmp_path / "asked", tmp_path / "bin" / "git"
    head.write_text("1" * 40 + "\n")  # git writes one that is no object first
    shim.parent.mkdir()
    shim.write_text(
        '#!/bin/sh\ncase "$*" in *"fetch --quiet"*)\n'
        f"if [ -e '{asked}' ]; then echo '{added}' > '{head}'; fi; touch '{asked}';;\nesac\n"
        f'exec {shutil.which("git")} "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    host.bring(names, work)
    assert head.read_text().strip() == added
    assert host.worktree(names).path.exists()


def test_a_branch_that_a_person_has_checked_out_is_left_alone(project: Project, tmp_path: Path) -> None:
    from gremlins.errors import Conflict

    names, work = project.launch()
    one, two = project.hosts(tmp_path)
    one.bring(names, work)
    one.change(names, "a.py", "1\n")
    newer = one.push(names, 1, work)
    two.bring(names, work)
    two.worktree(names).git.raw("checkout", "--quiet", "--detach")
    looking = Repo(tmp_path / "looking")
    Repo(two.mirror(names.base)).git("worktree", "add", "--quiet", str(looking.path), branch_name(names.id))
    with pytest.raises(Conflict, match="checked out in"):
        bring_work(two.worktree(names), names, newer, elsewhere=True)
    assert looking.head() == names.base


def test_work_lands_in_a_clone_that_never_had_it(project: Project, tmp_path: Path) -> None:
    names, work = project.launch()
    (one,) = project.hosts(tmp_path, 1)
    one.bring(names, work)
    tip = one.change(names, "a.py", "1\n")
    work = one.push(names, 1, work)
    clone = Worktree(project.clone.path, tmp_path / "none", branch_name(names.id), names.base)
    bring_work(clone, names, work, elsewhere=False)
    assert clone.tip() == tip
    assert project.clone.git("branch", "--show-current") == "main"


@pytest.fixture
def lfs(project: Project) -> Path:
    """A project with a file of Git LFS, installed for every host. Returns where the remote keeps them."""
    if shutil.which("git-lfs") is None:
        pytest.skip("no git-lfs here")
    project.clone.git("lfs", "install", "--skip-repo")
    project.clone.git("remote", "set-url", "origin", project.bare.path.as_uri())
    project.clone.commit({".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "old.bin": b"old\n" * 400})
    return project.bare.path / "lfs" / "objects"


def lfs_files(place: Path) -> list[bytes]:
    return sorted(path.read_bytes()[:4] for path in place.rglob("*") if path.is_file())


def test_files_of_git_lfs_travel_with_the_commits_that_name_them(project: Project, lfs: Path, tmp_path: Path) -> None:
    names, work = project.launch()  # its base is not pushed yet, nor its file
    assert lfs_files(lfs) == [b"old\n"]
    one, two = project.hosts(tmp_path)
    one.bring(names, work)
    one.change(names, "new.bin", "new\n" * 400)
    work = one.push(names, 1, work)
    assert lfs_files(lfs) == [b"new\n", b"old\n"]
    two.bring(names, work)
    assert (two.worktree(names).path / "new.bin").read_text() == "new\n" * 400


def test_a_file_of_git_lfs_that_cannot_be_pushed_holds_up_its_commit(
    project: Project, lfs: Path, tmp_path: Path
) -> None:
    names, work = project.launch()
    (one,) = project.hosts(tmp_path, 1)
    one.bring(names, work)
    one.change(names, "new.bin", "new\n" * 400)
    before = project.refs()
    shutil.rmtree(lfs)
    lfs.write_text("no folder")
    with pytest.raises(RemoteTrouble, match="Git LFS"):
        one.push(names, 1, work)
    assert project.refs() == before


def test_a_worktree_begins_as_a_local_one_does(project: Project, tmp_path: Path) -> None:
    names, work = project.launch()
    made = create(project.clone.path, tmp_path / "worktree", branch_name(names.id), names.base)
    assert push_work(Git(made.repo), names, 0, work) is work


@pytest.mark.parametrize(
    ("address", "stored", "project"),
    [
        ("git@github.com:Owner/Repo.git", "git@github.com:Owner/Repo.git", "github.com/owner/repo"),
        ("https://ghp_secret@github.com/owner/repo", "https://github.com/owner/repo", "github.com/owner/repo"),
        ("https://me:pw@git.example.org:443/a/B.git/", "https://git.example.org:443/a/B.git/", "git.example.org/a/B"),
        ("ssh://git:pw@Git.Example.org:2222/a/B", "ssh://git@Git.Example.org:2222/a/B", "git.example.org:2222/a/B"),
        ("ssh://git@git.example.org:22/a/B", "ssh://git@git.example.org:22/a/B", "git.example.org/a/B"),
        ("file:///srv/x/../y.git", "file:///srv/x/../y.git", "file:///srv/y.git"),
    ],
)
def test_the_project_is_known_by_its_remote(address: str, stored: str, project: str) -> None:
    assert stored_address(address) == stored
    assert project_of(address) == project_of(stored) == project


def test_the_address_is_that_of_origin_with_what_git_replaces_in_it(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "project")
    with pytest.raises(NotReady, match="no remote `origin`"):
        address_of(Git(repo.path))
    repo.git("remote", "add", "upstream", "../remote.git")
    assert address_of(Git(repo.path)) == f"file://{tmp_path}/remote.git"
    repo.git("remote", "add", "origin", "short:Owner/Repo")
    repo.git("config", "url.https://example.org/.insteadOf", "short:")
    assert address_of(Git(repo.path)) == "https://example.org/Owner/Repo"
