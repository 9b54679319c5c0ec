"""Hands credentials on to the next process by a descriptor, and keeps them out of the environment.

What a process had in its environment when it started can be read in `/proc` by every process that it starts, even if it
has removed it since. So a gremlin's process is started without credentials, and reads them from an anonymous file.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, MutableMapping

from gremlins.paths import CLUSTER_VARIABLE
from gremlins.processes.children import command_env

CREDENTIALS_FD_VARIABLE = "GREMLINS_CREDENTIALS_FD"


def split(env: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """An environment without credentials, and its credentials."""
    public = command_env(env)
    ours = {name for name in env if name.startswith(("GREMLINS_", "GIT_")) and name != CLUSTER_VARIABLE}
    kept = {name: value for name, value in env.items() if name in public or name in ours}
    return kept, {name: value for name, value in env.items() if name not in kept}


def hand_on(credentials: Mapping[str, str]) -> int:
    """Write credentials to a new anonymous file. Returns its descriptor, which the next program inherits."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("credentials", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.write(fd, json.dumps(dict(credentials)).encode())
    os.set_inheritable(fd, True)
    return fd


def take_over(environ: MutableMapping[str, str]) -> dict[str, str]:
    """The whole environment of this process: what was handed on, and what `environ` holds, out of which every
    credential is removed.
    """
    handed: dict[str, str] = {}
    text = environ.pop(CREDENTIALS_FD_VARIABLE, "")
    if text.isdigit():
        fd = int(text)
        handed = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
        os.close(fd)
    whole = {**environ, **handed}
    for name in split(environ)[1]:
        del environ[name]
    return whole
