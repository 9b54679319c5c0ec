"""What is measured, installed as a person would install it: into a virtual environment of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the command in it."""

    folder: Path

    @property
    def command(self) -> str:
        return str(self.folder / "bin" / "gremlins")

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def megabytes(self) -> tuple[float, float]:
        """Everything in site-packages but pip and what belongs to it; and the part of it that is byte code."""
        site = next((self.folder / "lib").glob("python3*/site-packages"))
        ours = [
            entry for entry in site.iterdir() if not entry.name.startswith(("pip", "setuptools", "_distutils", "pkg_"))
        ]
        files = [path for entry in ours for path in ([entry] if entry.is_file() else entry.rglob("*"))]
        sizes = {path: path.stat().st_size for path in files if path.is_file() and not path.is_symlink()}
        return sum(sizes.values()) / 1e6, sum(size for path, size in sizes.items() if path.suffix == ".pyc") / 1e6


def install(source: Path, folder: Path) -> Installed | None:
    """A fresh environment with `source` in it; None where that cannot be had (no network)."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        str(source),
    ]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"cannot install {source}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return Installed(folder)


def other(path: str | None, folder: Path) -> Installed | None:
    """The system this one succeeds: an environment that has it already, or its source, which is installed."""
    if not path:
        return None
    given = Path(path).expanduser().absolute()
    if (given / "bin" / "gremlins").exists():
        return Installed(given)
    return install(given, folder)
