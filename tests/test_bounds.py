"""Whatever we read or run is bounded in memory, on disk and in time, and has an end that is a sentence."""

from __future__ import annotations

import os
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from gremlins.cli.log import LogReader
from gremlins.cli.persons_text import read_text
from gremlins.config import Settings, load_settings
from gremlins.errors import ConfigError, CorruptRecord, GremlinsError
from gremlins.files import read_file, read_given
from gremlins.paths import Home
from gremlins.pipeline.file import find_pipeline, freeze, load_pipeline
from gremlins.pipeline.freezing import read_frozen
from gremlins.processes.output import MOST_OUTPUT, BoundedOutput
from gremlins.records.calls import read_call
from gremlins.records.gremlin import read_record
from gremlins.records.stop_request import read_stop
from gremlins.repository.folder import create, is_whole
from gremlins.repository.git import short_text
from tests.conftest import Repo
from tests.time_limit import must_end


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def folder(path: Path) -> None:
    path.mkdir()


ODD = pytest.mark.parametrize("make", [fifo, device, huge, folder])
Make = Callable[[Path], None]


@ODD
def test_a_file_that_is_none_is_refused_at_once(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "odd")
    with must_end(), pytest.raises(OSError, match=r"regular file|larger than 64 MB"):
        read_file(tmp_path / "odd")


@ODD
def test_a_settings_file_that_is_none_is_a_sentence(tmp_path: Path, make: Make) -> None:
    home = Home(tmp_path)
    make(home.config)
    with must_end(), pytest.raises(ConfigError, match="cannot be read"):
        load_settings(None, home, {})


@ODD
def test_a_record_that_is_none_is_a_sentence(tmp_path: Path, make: Make) -> None:
    paths = Home(tmp_path).gremlin("g")
    paths.root.mkdir(parents=True)
    for path in (paths.state, paths.frozen, paths.stop):
        make(path)
    with must_end():
        for read in (lambda: read_record(str(paths.root)), lambda: read_frozen(paths.frozen)):
            with pytest.raises(CorruptRecord):
                read()
        with pytest.raises(CorruptRecord):
            read_call(paths.state)
        assert read_stop(paths) is not None


@ODD
def test_a_pipeline_that_is_none_is_a_sentence(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "p.yaml")
    with must_end(), pytest.raises(GremlinsError):
        load_pipeline(find_pipeline(str(tmp_path / "p.yaml"), None, cwd=tmp_path), providers=frozenset({"claude"}))


@ODD
def test_a_file_of_git_that_is_none_is_no_worktree(repo: Repo, make: Make) -> None:
    place = repo.path.parent / "worktree"
    made = create(repo.path, place, "gremlins/g", "HEAD")
    own = made.git.git_dir()
    (place / ".git").unlink()
    make(place / ".git")
    make(own / "locked")
    with must_end():
        assert not is_whole(made)
        assert short_text(place / ".git") is None


def test_standard_input_is_bounded() -> None:
    with must_end(), subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        assert endless.stdout is not None
        saved = os.dup(0)
        os.dup2(endless.stdout.fileno(), 0)
        try:
            with pytest.raises(GremlinsError, match="standard input cannot be read: it is larger than 4 MB"):
                read_text("-", quoted="")
        finally:
            os.dup2(saved, 0)
            os.close(saved)
            endless.kill()


def test_a_plan_may_come_from_a_pipe_and_has_an_end(tmp_path: Path) -> None:
    with must_end():
        with pytest.raises(OSError, match="larger than 1 MB"):
            read_given("/dev/zero", 2**20)
        assert read_given("/dev/null", 10) == b""


# ── what a person or a repository writes ───────────────────────────────────────────────────────────────────────

TOML = {
    "open brackets": ("a = " + "[" * 50_000, "nested too deeply"),
    "closed brackets": ("a = " + "[" * 20_000 + "]" * 20_000, "nested too deeply"),
    "tables": ("[" + ".".join("a" * 20_000) + "]", "nested too deeply|unknown"),
    "digits": ("batch.http_timeout = " + "9" * 5_000, "too many digits"),
    "a huge time": ("batch.http_timeout = 1e300", "less than or equal"),
    "a huge wait": ("dispatch.deadline = 1e300", "less than or equal"),
    "no number": ("batch.poll_max = inf", "finite"),
}


@pytest.mark.parametrize(("text", "said"), TOML.values(), ids=TOML.keys())
def test_odd_settings_end_in_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with must_end(), pytest.raises(ConfigError, match=said):
        load_settings(None, Home(tmp_path), {})


YAML = {
    "open brackets": "a: " + "[" * 50_000,
    "closed brackets": "stages: " + "[" * 5_000 + "]" * 5_000,
    "maps": "\n".join(" " * n + "a:" for n in range(600)),
    "digits": "stages:\n- {type: exec, cmds: [x], timeout: " + "9" * 5_000 + "}",
    "a huge time": "stages:\n- {type: exec, cmds: [x], timeout: 1.0e+300}",
    "no number": "stages:\n- {type: exec, cmds: [x], timeout: .inf}",
}


@pytest.mark.parametrize("text", YAML.values(), ids=YAML.keys())
def test_an_odd_pipeline_ends_in_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with must_end(), pytest.raises(ConfigError):
        load_pipeline(find_pipeline(str(tmp_path / "p.yaml"), None, cwd=tmp_path), providers=frozenset({"claude"}))


def link_out(repo: Repo) -> None:
    (repo.path / "prompt.md").symlink_to(".env")


def link_by_folder(repo: Repo) -> None:
    (repo.path / "shown").symlink_to("ignored")
    (repo.path / "ignored" / "prompt.md").write_text("secret")


def ignored(repo: Repo) -> None:
    repo.write({".gitignore": "prompt.md\n", "prompt.md": "secret"})


def pipe(repo: Repo) -> None:
    (repo.path / ".gremlins").mkdir(exist_ok=True)
    os.mkfifo(repo.path / ".gremlins" / "prompt.md")


def untracked(repo: Repo) -> None:
    repo.write({"prompt.md": "a note of a person's own"})


PROMPTS = [
    (untracked, "prompt.md", "does not track"),
    (link_out, "prompt.md", "is a link"),
    (link_by_folder, "shown/prompt.md", "is a link"),
    (ignored, "prompt.md", "git ignores"),
    (pipe, ".gremlins/prompt.md", "not a regular file"),
]


@pytest.mark.parametrize(("make", "name", "said"), PROMPTS)
def test_a_prompt_is_a_file_of_the_repository(repo: Repo, make: Callable[[Repo], None], name: str, said: str) -> None:
    (repo.path / "ignored").mkdir()
    repo.write({".gitignore": "ignored/\n.env\n", ".env": "PASSWORD=secret", "p.yaml": ""})
    make(repo)
    repo.write({"p.yaml": f"evidence: none\nstages: [{{type: agent, name: a, prompt: {name}}}]\n"})
    pipeline = load_pipeline(find_pipeline("p.yaml", repo.path, cwd=repo.path), providers=frozenset({"claude"}))
    with must_end(), pytest.raises(ConfigError, match=said):
        freeze(
            pipeline,
            repo=repo.path,
            settings=Settings(),
            cli_client=None,
            cli_mode=None,
            providers=frozenset({"claude"}),
            has_batch=lambda _client: True,
        )


# ── output ─────────────────────────────────────────────────────────────────────────────────────────────────────


def output_of(command: str, path: Path) -> bytes:
    with BoundedOutput(path) as output:
        subprocess.run(["sh", "-c", command], stdout=output.fd, stderr=output.fd, check=False, timeout=100)
    return path.read_bytes()


def test_a_short_output_is_whole(tmp_path: Path) -> None:
    assert output_of("echo one; echo two >&2; printf three", tmp_path / "log") == b"one\ntwo\nthree"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_long_output_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        kept = output_of("echo first; head -c 100000000 /dev/zero | tr '\\0' x; echo last", tmp_path / "log")
        assert tracemalloc.get_traced_memory()[1] < 4 * MOST_OUTPUT
    finally:
        tracemalloc.stop()
    assert len(kept) < MOST_OUTPUT + 200_000
    assert kept.startswith(b"first\nxxx")
    assert kept.endswith(b"xxxlast\n")
    assert b"bytes are left out" in kept


def test_a_process_that_escaped_and_prints_for_ever_holds_nothing_up(tmp_path: Path) -> None:
    with must_end(), BoundedOutput(tmp_path / "log") as output:
        escaped = subprocess.Popen(["yes"], stdout=output.fd)
    escaped.kill()
    escaped.wait(100)


def test_a_log_of_any_size_is_read_in_little_memory(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        for _ in range(30):
            file.write(b"2026-11-28T00:00:00Z  something happened\n" * 25_000)
        file.write(b"x" * 3_000_000)
    tracemalloc.start()
    try:
        lines = sum(1 for _ in LogReader(log).new_lines(whole=True))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert lines > 30 * 25_000
