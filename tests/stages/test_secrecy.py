"""What of a file may be shown: whole, masked, or nothing."""

from __future__ import annotations

import pytest

from gremlins.masking import MASK
from gremlins.stages.secrecy import screen, screen_diff, secret_name
from tests.stages.conftest import MakeScripted

LINE = "MIIEpAIBAAKCAQEA1c7+9z5Pad7OejecsQ0buFv3jkXc8m2Qwe1ZxyT4LpoMn5R7"
KEY = f"-----BEGIN PRIVATE KEY-----\n{LINE}\n{LINE}\n-----END PRIVATE KEY-----\n"
CERTIFICATE = KEY.replace("PRIVATE KEY", "CERTIFICATE")
TOKEN = "ghp_" + "a1B2" * 9


@pytest.mark.parametrize(
    "path",
    [
        ".env.example", ".env.sample", "config/.env.template", "env.dist", "credentials.vue", "src/Secrets.svelte",
        "credentials.py", "src/secrets.go", "docs/secrets.md", "id_rsa.pub", "tests/fixtures/credentials.json",
        "testdata/server.key", "spec/fixtures/id_rsa", "environment.py", "secrets.tf", "monkey.js", "keyboard.yaml",
    ],
)  # fmt: skip
def test_these_are_not_hidden_because_of_their_names(path: str) -> None:
    assert screen(path, "A=plain\n").text == "A=plain\n"


@pytest.mark.parametrize(
    "path",
    [
        "server.pem", "tls.key", "id_rsa", "deploy/id_ed25519.bak", ".netrc", "credentials.json", "credentials",
        "secrets.yaml", "service-account.json", ".aws/config", "terraform.tfstate", "x.p12", ".git-credentials",
    ],
)  # fmt: skip
def test_these_are_hidden_whatever_they_hold(path: str) -> None:
    assert screen(path, "hunter2hunter2\n").text is None
    assert secret_name(path)


@pytest.mark.parametrize("path", ["server.pem", "ca.crt", "signature.asc", "tls.key"])
def test_a_certificate_is_shown_and_a_private_key_is_masked(path: str) -> None:
    assert screen(path, CERTIFICATE).text == CERTIFICATE
    both = screen(path, CERTIFICATE + KEY)
    assert both.text == CERTIFICATE + KEY.replace(LINE, MASK)
    assert "a private key" in both.why


@pytest.mark.parametrize("path", [".env", ".env.local", "conf/prod.env", ".envrc", ".npmrc", "x.tfvars"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("DB=postgres://u:p@h/x\n", f"DB={MASK}\n"),
        ("export A='b'\r\nC = d\r\n", f"export A={MASK}\r\nC = {MASK}\r\n"),
        ("# a comment\n\nDEBUG=true\nPORT=8080\nEMPTY=\n", "# a comment\n\nDEBUG=true\nPORT=8080\nEMPTY=\n"),
        ("# OLD=hunter2\n", f"# OLD={MASK}\n"),
        (f'KEY="{KEY}"\nB=c', f"KEY={MASK}\n{MASK}\n{MASK}\n{MASK}\n{MASK}\nB={MASK}"),
        ("hunter2\n", f"{MASK}\n"),
        (f"# {TOKEN}\n", f"# {MASK}\n"),
        ("URL=${HOST}\n", "URL=${HOST}\n"),
    ],
)
def test_values_of_settings_are_masked_and_names_stay(path: str, before: str, after: str) -> None:
    assert screen(path, before).text == after


def test_a_source_with_a_key_stays_useful() -> None:
    found = screen("app.py", f"A = 1\nTOKEN = '{TOKEN}'\n\ndef f():\n    pass\n")
    assert found.text == f"A = 1\nTOKEN = '{MASK}'\n\ndef f():\n    pass\n"
    assert found.why == "holds an API key, which is masked"


def test_a_diff_shows_no_secret_on_either_side() -> None:
    removed = "".join(f"-{line}\n" for line in KEY.splitlines())
    diff = (
        f"diff --git a/k.py b/k.py\n--- a/k.py\n+++ b/k.py\n@@ -1,4 +0,0 @@\n{removed}"
        "diff --git a/.env b/.env\n--- a/.env\n+++ /dev/null\n@@ -1 +0,0 @@\n-A=hunter2\n"
        f"diff --git a/z.pem b/z.pem\n--- a/z.pem\n+++ b/z.pem\n@@ -7,2 +7,2 @@\n-{LINE}\n+{LINE}\n"
        f"diff --git a/b.py b/b.py\n--- a/b.py\n+++ b/b.py\n@@ -9,2 +9,2 @@\n {LINE}\n-t = '{TOKEN}'\n+t = ''\n"
    )
    shown = screen_diff(diff)
    assert not [secret for secret in (LINE, "hunter2", TOKEN) if secret in shown]
    assert f"-t = '{MASK}'\n+t = ''\n" in shown
    assert shown.count("diff --git") == 4


def test_a_secret_in_a_task_a_plan_or_a_persons_answer_reaches_no_model(scripted: MakeScripted) -> None:
    own = "correct-horse-battery"
    it = scripted("Use it.", {"edits": [], "summary": "NOTHING TO DO: done"})
    stages = "stages: [{type: plan, mode: batch}, {type: implement, mode: batch}]\n"
    gremlin = it.make(stages, f"The token {TOKEN} and the password {own} are refused.")
    it.run(gremlin, env={"DB_PASSWORD": own, "API_TOKEN": "token"})
    prompts = "".join(request.params["messages"][0]["content"] for b in it.simulator.batches for request in b.requests)
    assert "are refused" in prompts
    assert "The token" in prompts  # a short value is an ordinary word
    assert TOKEN not in prompts
    assert own not in prompts
