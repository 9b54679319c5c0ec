"""Source code of twelve languages, as packages of public registries, fetched by the registries' own clients."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

NPM = (
    "effect",  # TypeScript
    "eslint",  # JavaScript
    "cordova-android @react-native-firebase/auth @react-native-firebase/firestore",  # Java
    "@stripe/stripe-react-native @rnmapbox/maps lottie-ios",  # Kotlin, Swift
    "com.neuecc.unirx com.cysharp.unitask",  # C#
    "lmdb node-expat",  # C
)
DEBIAN = (
    "golang-golang-x-tools-dev",  # Go
    "librust-syn-dev librust-regex-automata-dev",  # Rust
    "ruby-activerecord",  # Ruby
    "wordpress",  # PHP
    "catch2 nlohmann-json3-dev",  # C++
)
PYPI = ("django",)


def fetch(folder: Path) -> list[Path]:
    """Every package that can be had, unpacked into a folder of its own below `folder`. Runs none of their code."""
    folder.mkdir(parents=True, exist_ok=True)
    fetched = []
    for name in " ".join(NPM).split():
        fetched += _unpacked(folder, name, ["npm", "pack", "--silent", "--ignore-scripts", name])
    for name in " ".join(DEBIAN).split():
        fetched += _unpacked(folder, name, ["apt-get", "download", "--quiet", name])
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    for name in PYPI:
        fetched += _unpacked(folder, name, [*pip, name])
    return fetched


def _unpacked(folder: Path, name: str, command: Sequence[str]) -> list[Path]:
    into = folder / name.replace("/", "+")
    if into.exists():
        return [into]
    had = set(folder.iterdir())
    done = None
    if shutil.which(command[0]) is not None:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    found = [path for path in set(folder.iterdir()) - had if path.suffix in (".tgz", ".deb", ".whl")]
    if done is None or done.returncode or not found:
        print(f"… left out: {name} ({command[0]} cannot fetch it)", file=sys.stderr)
        return []
    into.mkdir()
    match found[0].suffix:
        case ".tgz":
            subprocess.run(["tar", "-xzf", str(found[0]), "-C", str(into)], check=True)
        case ".deb":
            subprocess.run(["dpkg-deb", "-x", str(found[0]), str(into)], check=True)
        case _:
            with zipfile.ZipFile(found[0]) as archive:
                archive.extractall(into)
    return [into]
