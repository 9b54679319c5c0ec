"""Shell completion: the shell's own protocol, with verbs that are imported one at a time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gremlins.cli.completion import complete_ids, complete_pipelines
from gremlins.cli.verbs import VERBS
from tests.fleet.records import Root, record, state_root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    made = state_root(tmp_path)
    monkeypatch.setenv("GREMLINS_HOME", str(made.home.root))
    made.put(record("fix-add"))
    made.put(record("fix-mul"))
    return made


def bash(line: str) -> list[str]:
    """The completions of the last word of a line."""
    env = {
        "PATH": os.environ["PATH"],
        "GREMLINS_HOME": os.environ["GREMLINS_HOME"],
        "_GREMLINS_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "gremlins"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("gremlins sta", ["status"]),
        ("gremlins status --j", ["--json"]),
        ("gremlins show fix-m", ["fix-mul"]),
        ("gremlins stop ", ["fix-add", "fix-mul"]),
        ("gremlins launch ba", ["batch"]),
        ("gremlins launch --mode ", ["batch", "live"]),
        ("gremlins cost --by d", ["day"]),
    ],
)
def test_what_bash_is_offered(root: Root, line: str, offered: list[str]) -> None:
    assert bash(line) == offered


def test_every_verb_is_offered(root: Root) -> None:
    assert set(bash("gremlins ")) == set(VERBS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_can_be_shown(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gremlins"],
        env={
            "PATH": os.environ["PATH"],
            "GREMLINS_HOME": os.environ["GREMLINS_HOME"],
            "_GREMLINS_COMPLETE": f"source_{shell}",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert f"_GREMLINS_COMPLETE=complete_{shell}" in done.stdout


def test_a_record_that_cannot_be_read_spoils_no_completion(root: Root) -> None:
    root.home.gremlin("fix-mul").state.write_text("{")
    assert complete_ids("fix") == ["fix-add", "fix-mul"]


def test_the_projects_own_pipelines_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".gremlins" / "pipelines").mkdir(parents=True)
    (tmp_path / ".gremlins" / "pipelines" / "mine.yaml").write_text("")
    (tmp_path / ".git").mkdir()
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    assert complete_pipelines("m") == ["mine"]
    assert "local" in complete_pipelines("")


def test_no_pipeline_from_above_the_repository_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".gremlins" / "pipelines").mkdir(parents=True)
    (tmp_path / ".gremlins" / "pipelines" / "foreign.yaml").write_text("")
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "repo")
    assert complete_pipelines("f") == []


ORDERS = [
    "$(touch pwned)",
    "`touch pwned`",
    "a$(touch pwned)b",
    "x'; touch pwned; '",
    'x"; touch pwned; "',
    'y"$(touch pwned)"',
    "z\\$(touch pwned)",
    "z\\`touch pwned\\`",
    "${(e):-$(touch pwned)}",
    "q:$(touch pwned)",
    "n\n$(touch pwned)",
    "-e touch pwned",
    "; touch pwned #",
    "\x1b]0;pwned\x07",
]
"""Names of files that order a shell to make the file `pwned`."""
SHELLS = {
    "bash": """
        source <(_GREMLINS_COMPLETE=source_bash gremlins)
        for line in "gremlins launch " "gremlins show "; do
            COMP_WORDS=($line ""); COMP_CWORD=2; COMP_LINE=$line
            _gremlins_completion gremlins; printf '%s\n' "${COMPREPLY[@]}"
        done""",
    "fish": """
        _GREMLINS_COMPLETE=source_fish gremlins | source
        for line in "gremlins launch " "gremlins show "; complete -C $line; end""",
    "zsh": r"""
        zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell 'PS1=; autoload -Uz compinit; compinit -u -D; source <(_GREMLINS_COMPLETE=source_zsh gremlins)'
        zpty -w shell 'zstyle ":completion:*" list-prompt ""; LISTMAX=1000; echo is-$((40 + 2))'
        zpty -r shell seen '*is-42*'
        for line in "gremlins launch " "gremlins show "; do
            zpty -w -n shell "$line"$'\t\t'
            zpty -r shell seen "*end-of-names*"
            print -r -- $seen
            zpty -w -n shell $'\C-u'
        done
        zpty -d shell""",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_file_name_gives_a_shell_no_order(root: Root, tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on PATH: `apt install {shell}`")
    repo = tmp_path / "repo"
    pipelines = repo / ".gremlins" / "pipelines"
    pipelines.mkdir(parents=True)
    (repo / ".git").mkdir()
    for name in ORDERS:
        (pipelines / f"{name}.yaml").write_text("")
        (root.home.gremlins / name).mkdir()
    (pipelines / "mine.yaml").write_text("")
    (pipelines / "zz-end-of-names.yaml").write_text("")
    title = "; ".join(ORDERS)
    root.put(record("zz-end-of-names", title=title, task=title))
    done = subprocess.run(
        [shell, "-c", SHELLS[shell]],
        cwd=repo,
        env={
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GREMLINS_HOME": os.environ["GREMLINS_HOME"],
            "HOME": str(tmp_path),
            "TERM": "xterm",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    offered = set(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", done.stdout).split())
    assert {"mine", "local", "fix-add"} <= offered, done.stdout + done.stderr
    assert "touch" not in done.stdout
    assert not list(tmp_path.rglob("pwned"))
