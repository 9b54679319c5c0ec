"""Commands inside bubblewrap: the worktree and caches writable, home read-only, secrets and the state root hidden.

What it does not stop: the network where it is allowed, reading other files of the machine, use of its processor.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from gremlins.config import SandboxSettings
from gremlins.errors import NotReady
from gremlins.processes.children import TimedOut, run

SECRET_PLACES = (
    *(".ssh", ".aws", ".azure", ".gnupg", ".kube", ".docker", ".password-store", ".netrc", ".pypirc", ".npmrc"),
    *(
        ".git-credentials",
        ".claude",
        ".claude.json",
        ".codex",
        ".copilot",
        ".cargo/credentials.toml",
        ".gem/credentials",
    ),
    *(".config/gh", ".config/git/credentials", ".config/gcloud", ".config/anthropic", ".config/github-copilot"),
    *(".config/kilo", ".config/op", ".config/hub", ".config/rclone", ".local/share/keyrings", ".mozilla"),
    *(".config/google-chrome", ".config/chromium", ".terraform.d", ".vault-token", ".m2/settings.xml"),
)
"""Below home. Hidden where they exist."""
SERVICES = ("bus", "systemd", "gnupg", "keyring", "gcr", "ssh-agent.socket", "openssh_agent", "wayland-0")
"""Sockets below `/run/user/ID`: programs of the session that would run a command outside, or lend a key."""
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")
_INSIDE = '{ ulimit -u "$1" || ulimit -p "$1"; } 2> /dev/null; ulimit -d "$2"; exec /bin/sh -c "$3"'
"""The most processes are `-u` in bash and `-p` in dash."""


def shell_command(
    command: str,
    settings: SandboxSettings,
    *,
    worktree: Path,
    state: Path,
    env: Mapping[str, str],
    instead: Mapping[Path, Path],
    readable: Mapping[Path, Path],
) -> list[str]:
    """The argv that runs a shell command in bubblewrap.

    worktree: the only place of the project that it may write to. state: the state root. instead: folders, and the
    writable ones that the command sees in their place. readable: places in the sandbox, and what is seen there.
    """
    memory = "unlimited" if settings.memory is None else str(int(settings.memory * 1024))
    inside = ["/bin/sh", "-c", _INSIDE, "sh", str(settings.processes), memory, command]
    home = Path(env.get("HOME") or "/nonexistent")
    walls = list(_walls(settings, home.resolve(), worktree.resolve(), state.resolve(), env))
    for place, other in instead.items():
        walls += ["--bind", str(other), str(place)]
    for place, source in readable.items():
        walls += ["--ro-bind-try", str(source), str(place)]
    return [
        *_OPENING,
        *([] if settings.network else ["--unshare-net"]),
        *walls,
        "--chdir",
        str(worktree.resolve()),
        *inside,
    ]


_OPENING = (
    *("bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--cap-drop", "ALL"),
    *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
)


def check_sandbox(settings: SandboxSettings, env: Mapping[str, str]) -> None:
    """Raises NotReady if a sandbox is required and there is none."""
    if settings.mode == "require" and (missing := why_not(settings, env)):
        raise NotReady(missing, hint="install bubblewrap, or set `sandbox.mode` to `auto`")


def why_not(settings: SandboxSettings, env: Mapping[str, str]) -> str | None:
    """The reason why commands run without a sandbox; None: they run in one."""
    if settings.mode == "off":
        return "the sandbox is off (`sandbox.mode`)"
    wrapper = shutil.which("bwrap", path=env.get("PATH", os.defpath))
    if wrapper is None:
        return "there is no sandbox: bubblewrap (`bwrap`) is not installed"
    return None if _works(wrapper) else "there is no sandbox: bubblewrap does not work on this machine"


@functools.cache
def _works(wrapper: str) -> bool:
    """False where user namespaces are forbidden, as in many containers."""
    try:
        return run([wrapper, *_OPENING[1:], "--unshare-net", "true"], cwd=Path("/"), timeout=10).returncode == 0
    except (OSError, TimedOut):
        return False


def _walls(settings: SandboxSettings, home: Path, worktree: Path, state: Path, env: Mapping[str, str]) -> Iterator[str]:
    """Mounts in order: what is empty, what is read-only in it, what is writable, what is hidden."""
    empty = [Path(folder) for folder in TEMPORARY if os.path.isdir(folder)]
    for folder in empty:
        yield from ("--tmpfs", str(folder))
    yield from _home_of_its_own(home)
    for place in _programs(env):
        if any(place.is_relative_to(folder) for folder in empty) and place.exists():
            yield from ("--ro-bind", str(place), str(place))
    if state.is_dir():
        yield from ("--tmpfs", str(state))
    yield from ("--bind", str(worktree), str(worktree))
    if (worktree / ".git").exists():
        yield from ("--ro-bind", str(worktree / ".git"), str(worktree / ".git"))
    for cache in settings.caches:
        writable = str((home / os.path.expanduser(cache)).resolve())
        yield from ("--bind-try", writable, writable)
    runtime = Path(env.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    services = [*(runtime / name for name in SERVICES), Path(env.get("SSH_AUTH_SOCK") or runtime / "ssh-agent")]
    for hidden in (place.resolve() for place in (*(home / secret for secret in SECRET_PLACES), *services)):
        if hidden.is_dir():
            yield from ("--tmpfs", str(hidden))
        elif hidden.exists():
            yield from ("--ro-bind", "/dev/null", str(hidden))


def _home_of_its_own(home: Path) -> Iterator[str]:
    """A home where new files can be made, and are forgotten; what is in the real one is there, read-only."""
    if not home.is_dir() or home == Path("/"):
        return
    yield from ("--tmpfs", str(home))
    for entry in sorted(os.scandir(home), key=lambda found: found.name):
        if entry.is_symlink():
            yield from ("--symlink", os.readlink(entry.path), entry.path)
        else:
            yield from ("--ro-bind-try", entry.path, entry.path)


def _programs(env: Mapping[str, str]) -> Iterator[Path]:
    """The folders of programs on PATH, with their libraries beside them."""
    programs = map(Path, env.get("PATH", "").split(os.pathsep))
    yield from (folder.parent for folder in programs if folder.is_absolute() and folder.name == "bin")
