"""The board in a real browser: from a task to a landing by clicks, and by keys."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gremlins.simulator import ScriptedModel, Simulator
from tests.acceptance.sandbox import Sandbox
from tests.time_limit import DEADLINE

pytest.importorskip("jinja2", reason="needs the extra: pip install -e '.[web]'")
driver = pytest.importorskip("playwright.sync_api", reason="needs a driver for the browser: pip install playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt install chromium")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run")  # fmt: skip
FIX = {"edits": [{"path": "mean.py", "content": "MEAN = 4\n"}], "summary": "the mean is 4"}
AGAIN = {"edits": [{"path": "mean.py", "content": "MEAN = 5\n"}], "summary": "F1: done, the mean is 5"}
REPLIES: list[object] = []


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    REPLIES[:] = ["BAIL: needs_human: which of the <two>?", json.dumps(FIX), json.dumps(AGAIN)]
    with Simulator(latency=0.0, model=ScriptedModel(otherwise=lambda _: str(REPLIES.pop(0)))) as running:
        yield running


@contextmanager
def board(sandbox: Sandbox) -> Iterator[str]:
    """The link of a board that runs."""
    argv = [sys.executable, "-m", "gremlins", "board", "--port", "0", "--no-open"]
    process = subprocess.Popen(argv, cwd=sandbox.repo.path, env=sandbox.env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield next(line.strip() for line in process.stdout if "token=" in line)
    finally:
        process.kill()
        process.wait(DEADLINE)
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def browser(width: int = 1280) -> Iterator[Any]:
    """A page of a real browser; its scripts raise no error and break no rule of the policy."""
    with driver.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = chromium.new_page(viewport={"width": width, "height": 800})
        page.set_default_timeout(DEADLINE * 1000)
        troubles: list[str] = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "console", lambda line: troubles.append(f"{line.location} {line.text}") if line.type == "error" else None
        )
        yield page
        chromium.close()
    assert not troubles


def test_from_a_task_to_a_landing_by_clicks(sandbox: Sandbox) -> None:
    sandbox.pipeline("work", "stages: [{type: implement, mode: batch}]\n")
    with board(sandbox) as link, browser() as page:
        page.goto(link)
        assert "token" not in page.url
        page.fill("#task", "Mend the mean.")
        page.select_option("#pipeline", "work")
        page.click("text=Launch >> nth=-1")
        page.wait_for_selector(".needs-you .row")  # it came by itself
        assert "needs_human: which of the <two>?" in page.inner_text(".needs-you .asks")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.fill("#answer", "The first.")
        page.click("button:has-text('Answer')")
        page.wait_for_selector(".ready")  # by itself too
        assert "It would land on main, 1 file changed" in page.inner_text(".ready")
        page.click("button.say")
        page.fill("tr.comment textarea", "Rather 5.")
        page.click("#send-back")
        page.wait_for_selector("text=round 1 of revision begins, with 1 remark")
        page.wait_for_selector(".ready")
        page.click("button:has-text('Land')")
        page.wait_for_selector("text=landed on main")
    assert sandbox.repo.read("mean.py") == "MEAN = 5\n"
    assert len(sandbox.simulator.batches) == 3
    asked = sandbox.simulator.batches[2].requests[0].params["messages"][0]["content"]
    assert "mean.py:1" in asked
    assert "Rather 5." in asked


def test_on_a_phone_nothing_is_wider_than_the_page_and_it_reads_without_scripts(sandbox: Sandbox) -> None:
    sandbox.pipeline("work", "stages: [{type: exec, cmds: ['echo a-very-long-word-" + "x" * 300 + "; exit 3']}]\n")
    sandbox.ok("launch", "work", "A task " + "y" * 300, "--id", "a" * 60)
    sandbox.until("a" * 60, "dead")
    sandbox.ok("bead", "create", "A bead " + "z" * 300)
    with board(sandbox) as link, browser(width=380) as page:
        page.goto(link)
        for path in ("", f"g/{'a' * 60}", "beads", "money"):
            page.goto(link.partition("?")[0] + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= 380, path
        plain = page.context.browser.new_context(java_script_enabled=False).new_page()
        plain.goto(link)
        assert "a" * 60 in plain.inner_text("#rows-needs-you")
        plain.click(f"text={'a' * 60}")
        plain.click("button:has-text('Rescue')")
        assert "was dead" in plain.inner_text(".said")
