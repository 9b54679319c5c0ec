"""The board over real HTTP, as its own process: the door, the pages, and hostile text in them."""

from __future__ import annotations

import http.client
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from gremlins.records.gremlin import Bailed, DiffCount, Evidence, Finished, StageRun
from tests.conftest import GITCONFIG, make_repo
from tests.fleet.records import Root, ago, record, state_root
from tests.time_limit import DEADLINE

pytest.importorskip("jinja2", reason="needs the extra: pip install -e '.[web]'")
KEY = "sk-ant-canary-0123456789abcdef"
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str


@dataclass(frozen=True)
class Page:
    """A board that runs, and what a browser sends to it."""

    root: Root
    link: str
    project: Path

    @property
    def port(self) -> int:
        found = re.search(r":(\d+)/", self.link)
        assert found is not None
        return int(found[1])

    @property
    def token(self) -> str:
        return self.link.partition("token=")[2]

    def ask(self, path: str, form: dict[str, str] | None = None, **headers: str | None) -> Answer:
        """A request as our own page makes it; a header that is None is left out."""
        own = {"Host": f"127.0.0.1:{self.port}", "Cookie": f"gremlins-board-{self.port}={self.token}"}
        body = None if form is None else urlencode(form)
        if form is not None:
            own |= {"Origin": f"http://127.0.0.1:{self.port}", "Content-Type": "application/x-www-form-urlencoded"}
        sent = {**own, **{name.replace("_", "-"): value for name, value in headers.items()}}
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            line.request(
                "GET" if form is None else "POST", path, body, {k: v for k, v in sent.items() if v is not None}
            )
            answer = line.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())
        finally:
            line.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("board")
    (folder / "home").mkdir()
    (folder / "home/.gitconfig").write_text(GITCONFIG)
    env = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "ANTHROPIC_API_KEY": KEY}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", env["HOME"])
        repo = make_repo(folder / "project")
        base = repo.commit({"a.txt": "one\n"}, "one")
    root = state_root(folder)
    more = {"project": str(repo.path), "base": base, "branch": "main"}
    evidence = Evidence(kind="commits", base=base, tip=base, holds=True)
    run = StageRun(path="plan", type="plan", attempt=1, started_at=ago(90), ended_at=ago(30), outcome="done")
    asks = Bailed(since=ago(60), stage="plan", kind="unclear", detail=f"{HOSTILE} {KEY}")
    root.put(record("asks", status=asks, title=HOSTILE, stages=(run,), **more))
    root.put(record("done", status=Finished(since=ago(5), evidence=evidence), diff=DiffCount(1, 2, 3), **more))
    root.home.gremlin("asks").artifacts.mkdir(exist_ok=True)
    (root.home.gremlin("asks").artifacts / "plan.md").write_text(
        f"# Plan\n{HOSTILE} [x](javascript:alert(1)) ![](http://evil.example/x.png) {KEY}\n\n|a|b|\n|-|-:|\n|1|2|\n"
    )
    (root.home.gremlin("asks").log).write_text(f"{HOSTILE} {KEY}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "gremlins", "board", "--port", "0", "--no-open"],
        cwd=repo.path,
        env=env | {"GREMLINS_HOME": str(root.home.root), "NO_PROXY": "*"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        link = next(line.strip() for line in process.stdout if "token=" in line)
        yield Page(root, link, repo.path)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) in (0, 130)
    finally:
        process.kill()
        process.wait(DEADLINE)
        if process.stdout is not None:
            process.stdout.close()


def test_the_token_goes_from_the_link_into_a_cookie(page: Page) -> None:
    entered = page.ask(f"/?token={page.token}", Cookie=None)
    assert (entered.status, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    kept = page.root.home.root / "board-token"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert kept.read_text().strip() == page.token


EVIL = "http://evil.example"


@pytest.mark.parametrize(
    ("path", "form", "headers"),
    [
        ("/", None, {"Cookie": None}),
        ("/", None, {"Cookie": "gremlins-board=x"}),
        ("/?token=wrong", None, {"Cookie": None}),
        ("/static/board.css", None, {"Cookie": None}),
        ("/events/fleet", None, {"Cookie": None}),
        ("/", None, {"Host": "evil.example"}),
        ("/", None, {"Host": "127.0.0.1"}),
        ("/", None, {"Origin": EVIL}),
        ("/g/asks/ack", {}, {"Origin": EVIL}),
        ("/g/asks/ack", {}, {"Origin": "null"}),
        ("/g/asks/ack", {}, {"Origin": None}),
        ("/g/asks/ack", {}, {"Origin": None, "Sec_Fetch_Site": "cross-site"}),
        ("/g/asks/ack", {}, {"Cookie": None}),
        ("/g/asks/ack?token={token}", {}, {"Cookie": None}),
        ("/g/asks/ack", {}, {"Host": "evil.example", "Origin": EVIL}),
    ],
)
def test_a_stranger_is_refused(page: Page, path: str, form: dict[str, str] | None, headers: dict[str, str]) -> None:
    before = page.root.home.gremlin("asks").state.read_bytes()
    answer = page.ask(path.replace("{token}", page.token), form, **headers)
    assert answer.status == 403
    assert "asks" not in answer.text
    assert page.root.home.gremlin("asks").state.read_bytes() == before


@pytest.mark.parametrize("path", ["/g/asks/ack", "/g/asks/rm", "/g/done/land", "/launch", "/beads/create"])
def test_reading_changes_nothing(page: Page, path: str) -> None:
    assert page.ask(path).status in (404, 405)


def test_a_form_has_a_size(page: Page) -> None:
    assert page.ask("/launch", {"task": "x" * 2**21}).status == 413


@pytest.mark.parametrize("path", ["/", "/g/asks", "/g/done", "/beads", "/money", "/g/nobody", "/nothing"])
def test_every_page_is_strict_and_holds_neither_markup_of_others_nor_a_key(page: Page, path: str) -> None:
    answer = page.ask(path)
    assert answer.status == (404 if path in ("/g/nobody", "/nothing") else 200)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script>alert" not in answer.text
    assert "javascript:" not in re.sub(r"\[x\]\(javascript:.*", "", answer.text)
    assert not re.search(r"<[^>]+ (style|on\w+)=", answer.text)
    assert KEY not in answer.text
    assert not {"\x1b", "\u202e"} & set(answer.text)


def test_the_fleet_shows_first_what_needs_a_person(page: Page) -> None:
    text = page.ask("/").text
    places = [text.index(f'id="rows-{group}"') for group in ("needs-you", "ready-to-land", "working", "waiting")]
    assert places == sorted(places)
    assert places[0] < text.index('id="g-asks"') < places[1] < text.index('id="g-done"') < places[2]
    assert "unclear: &lt;script&gt;" in text
    assert "1 file, +2 −3" in text


def test_a_gremlins_page_has_its_question_its_time_and_its_plan(page: Page) -> None:
    text = page.ask("/g/asks").text
    assert 'action="/g/asks/answer"' in text
    assert 'aria-label="plan: done, 1m00s"' in text
    assert "<h1>Plan</h1>" in text
    assert '<td class="n">2</td>' in text
    assert "<img" not in text


def test_a_refusal_is_shown_in_the_commands_words(page: Page) -> None:
    sent = page.ask("/g/done/answer", {"text": "yes"})
    assert sent.status == 303
    assert "it asks nothing" in page.ask(sent.headers["location"]).text
    assert "it asks nothing" not in page.ask(sent.headers["location"]).text  # said once


def test_beads_are_made_changed_and_closed(page: Page) -> None:
    def send(verb: str, **form: str) -> str:
        sent = page.ask(f"/beads/{verb}", {"project": str(page.project), **form})
        assert sent.status == 303
        return page.ask(sent.headers["location"]).text

    text = send("create", title="- [ ] Later <b>", description="Do it\nwell", priority="1")
    found = re.search(r"(\S+): created", re.sub(r"<[^>]+>", " ", text))
    assert found is not None
    bead = found[1]
    assert "- [ ] Later &lt;b&gt;" in text
    send("edit", bead=bead, title="Sooner", description="", priority="0")
    text = send("hold", bead=bead)
    assert "Sooner" in text
    assert "P0" in text
    assert 'action="/beads/release"' in text
    send("release", bead=bead)
    assert "closed" in send("close", bead=bead)
    assert "no bead" in send("retry", bead="nothing-at-all")


def test_without_the_extra_it_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError(\"No module named 'uvicorn'\", name='uvicorn')\n")
    done = subprocess.run(
        [sys.executable, "-m", "gremlins", "board"],
        env={"PATH": os.environ["PATH"], "GREMLINS_HOME": str(tmp_path / "state"), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 5
    assert done.stderr.splitlines() == ["error: the board needs an extra", "hint: pip install 'gremlins-fleet[web]'"]
