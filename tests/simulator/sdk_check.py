"""The SDK's own tests of batches, messages and models against the simulator: `make sdk-check`.

They come from the source distribution of the SDK that is installed, as the configured package index has it, and are
kept in the virtual environment, outside git.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from gremlins.simulator import Simulator

CACHE = Path(sys.prefix) / "sdk-check"
TESTS = (
    "tests/api_resources/messages/test_batches.py",
    "tests/api_resources/beta/messages/test_batches.py",
    "tests/api_resources/test_messages.py",
    "tests/api_resources/test_models.py",
)
TOOLS = ("pytest", "pytest-asyncio", "respx", "inline-snapshot", "http-snapshot", "aiohttp")
"""Imported by the SDK's conftest."""


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def sources(version: str) -> Path:
    """The unpacked source distribution."""
    folder = CACHE / f"anthropic-{version}"
    if not (folder / TESTS[0]).exists():
        print(f"fetching the source distribution of anthropic {version} …", flush=True)
        pip("download", "--no-binary", "anthropic", "--no-deps", "--dest", str(CACHE), f"anthropic=={version}")
        with tarfile.open(CACHE / f"anthropic-{version}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    return folder


def tools() -> Path:
    """The folder of its own that holds the packages the SDK's tests need."""
    folder = CACHE / "tools"
    if not folder.exists():
        print("installing what its tests need …", flush=True)
        partial = CACHE / "tools.partial"
        pip("install", "--target", str(partial), *TOOLS)
        partial.rename(folder)
    return folder


def main() -> int:
    CACHE.mkdir(exist_ok=True)
    version = importlib.metadata.version("anthropic")
    folder, path = sources(version), tools()
    with Simulator(lenient=True) as simulator:
        environment = os.environ | {"TEST_API_BASE_URL": simulator.url, "PYTHONPATH": str(path)}
        command = [sys.executable, "-m", "pytest", *TESTS, "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
        command += ["-o", "addopts=--tb=short -p tests._alias_httpx"]
        done = subprocess.run(command, cwd=folder, env=environment, check=False)
        print(f"anthropic {version}: the simulator answered {sum(simulator.api.requests.values())} requests")
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
