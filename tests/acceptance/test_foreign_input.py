"""Anything from outside, drawn at random: a gremlin has an end, nothing of a person changes, nothing is paid twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from gremlins.cli.completion import complete_pipelines
from gremlins.cli.main import run
from gremlins.paths import Home
from gremlins.records.gremlin import Bailed, FailedGremlin, Finished
from gremlins.simulator import ScriptedModel, Simulator
from gremlins.stages.context.pack import Subject, build_pack
from gremlins.text import normalised
from tests.conftest import Repo, make_repo
from tests.in_process import InProcessSandbox

SOAK = bool(os.environ.get("GREMLINS_SOAK"))
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
STAGES = "stages: [{type: plan, mode: batch}, {type: implement, mode: batch}, {type: review_code, mode: batch}]\n"
MOST_BATCHES = 9
"""Three stages, each asked at most three times: anew, corrected, with what it needed."""
FILES = {"README.md": "# Calc\n", "calc.py": "def add(a, b):\n    return a - b\n", "a b/ü.txt": "odd\n"}

ODD = st.sampled_from(
    [
        *(
            "\0",
            "\ud800",
            "\x1b[2J",
            "\u202e",
            "\r\n",
            "\u2028",
            "```",
            "<task>",
            "</diff>",
            "BAIL: x: y",
            "NEED: a",
            "BAIL:",
        ),
        *("NOTHING TO DO: no", "VERDICT: approve", "- [ ] x", "{", "}", '"', "\\", "$(id)", "`id`", "é", "e\u0301"),
    ]
)
TEXT = st.lists(ODD | st.text(max_size=12), max_size=8).map("".join)
PATHS = (
    st.sampled_from([*FILES, "new.py", "../out", "/etc/passwd", ".git/config", ".gremlins/config.toml", "a", "", "."])
    | TEXT
)
EDIT = st.one_of(
    st.fixed_dictionaries({"path": PATHS, "content": TEXT}),
    st.fixed_dictionaries({"path": PATHS, "old": st.just("return a - b") | TEXT, "new": TEXT}),
    st.fixed_dictionaries({"path": PATHS, "delete": st.just(True)}),
    st.dictionaries(
        st.sampled_from(["path", "content", "old", "new", "delete", "x"]), st.none() | st.integers() | TEXT
    ),
)
ANSWER = st.fixed_dictionaries({"edits": st.lists(EDIT, max_size=3), "summary": TEXT})
NEED = st.fixed_dictionaries(
    {"need": st.lists(st.fixed_dictionaries({"path": PATHS}) | st.none(), max_size=2), "why": TEXT}
)
REPLY = TEXT | (ANSWER | NEED | st.recursive(st.none() | TEXT, st.lists, max_leaves=3)).map(json.dumps)


@pytest.fixture(scope="module")
def replies() -> list[str]:
    return []


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, replies: list[str]) -> Iterator[InProcessSandbox]:
    place = tmp_path_factory.mktemp("foreign")
    with pytest.MonkeyPatch.context() as patch:
        (place / "home").mkdir()
        (place / "home" / ".gitconfig").write_text("[user]\n\tname = Test Person\n\temail = person@example.org\n")
        patch.setenv("HOME", str(place / "home"))
        patch.setenv("GREMLINS_HOME", str(place / "state"))
        repo = make_repo(place / "project")
        repo.commit(FILES)
        model = ScriptedModel(otherwise=lambda params: replies[len(json.dumps(params)) % len(replies)])
        with Simulator(latency=0.0, model=model) as simulator:
            yield InProcessSandbox(repo, Home(place / "state"), simulator)


def of_the_person(repo: Repo) -> dict[str, Any]:
    plain = [path for path in repo.path.rglob("*") if ".git" not in path.parts and ".gremlins" not in path.parts]
    return {str(path): path.read_bytes() if path.is_file() else None for path in plain} | {
        "main": repo.git("rev-parse", "main"),
        "config": (repo.path / ".git" / "config").read_bytes(),
    }


@settings(max_examples=1000 if SOAK else 5, suppress_health_check=list(HealthCheck), phases=NO_SHRINKING)
@given(drawn=st.lists(REPLY, min_size=1, max_size=4), task=TEXT.filter(lambda task: normalised(task).strip()))
def test_whatever_a_model_replies_there_is_an_end_soak(
    box: InProcessSandbox, replies: list[str], capfd: pytest.CaptureFixture[str], drawn: list[str], task: str
) -> None:
    replies[:] = drawn
    before, sent = of_the_person(box.repo), len(box.simulator.batches)
    ended = box.run(box.make(STAGES, task.encode(errors="replace").decode()))
    note(box.log(ended.id))
    assert isinstance(ended.status, Finished | Bailed | FailedGremlin)
    assert len(box.simulator.batches) - sent <= MOST_BATCHES
    assert all(call.cost is not None for call in box.calls(ended.id))
    assert of_the_person(box.repo) == before
    for verb in (["show"], ["diff", "--name-only"], ["land", "--dry-run"], ["rm", "--force"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GREMLINS_HOME", str(box.home.root))
            code = run([verb[0], ended.id, *verb[1:]])
        said = capfd.readouterr()
        assert code in (0, 1, 4), said.err
        assert "\x1b[2J" not in said.out + said.err
    assert of_the_person(box.repo) == before


@settings(max_examples=1000 if SOAK else 12, suppress_health_check=list(HealthCheck), phases=NO_SHRINKING)
@given(
    files=st.dictionaries(
        st.sampled_from(["a.py", "b.ts", "c.md", "d.go", ".env", "e", "f.min.js", "g.txt", "h.java", "pkg.json"]),
        st.binary(max_size=200) | TEXT.map(lambda text: text.encode(errors="surrogatepass")),
        max_size=5,
    ),
    task=TEXT,
)
def test_whatever_a_repository_holds_it_is_packed_within_the_budget_soak(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], task: str
) -> None:
    repo = make_repo(tmp_path_factory.mktemp("packed") / "repo")
    repo.commit({**FILES, **files})
    first, again = (build_pack(repo.path, Subject(task), budget=3000) for _ in range(2))
    assert first.text == again.text
    assert first.tokens <= 3000


@settings(max_examples=1000 if SOAK else 30, suppress_health_check=list(HealthCheck), phases=NO_SHRINKING)
@given(names=st.lists(TEXT.filter(lambda name: name and "/" not in name and "\0" not in name), max_size=6))
def test_whatever_a_file_is_called_completion_offers_plain_names_soak(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    repo = tmp_path_factory.mktemp("named")
    (repo / ".git").mkdir()
    pipelines = repo / ".gremlins" / "pipelines"
    pipelines.mkdir(parents=True)
    for name in names:
        (pipelines / f"{name.encode(errors='surrogatepass')[:60].decode(errors='replace')}.yaml").touch()
    before = Path.cwd()
    os.chdir(repo)
    try:
        offered = complete_pipelines("")
    finally:
        os.chdir(before)
    assert all(name.replace("-", "").replace("_", "").replace(".", "").isalnum() and name.isascii() for name in offered)
