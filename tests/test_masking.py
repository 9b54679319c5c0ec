"""Secrets in any text: found, masked, and nothing else."""

from __future__ import annotations

import time

import pytest

from gremlins.masking import API_KEY, MASK, PRIVATE_KEY, find_secrets, mask

LINE = "MIIEpAIBAAKCAQEA1c7+9z5Pad7OejecsQ0buFv3jkXc8m2Qwe1ZxyT4LpoMn5R7"
BODY = f"{LINE}\n{LINE[::-1]}\nabcdEFGHijklMNOP==\n"
BEGIN, END = "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"
KEYS = [
    "sk-ant-" + "api03-abcdefghij0123456789",
    "sk-proj-" + "aB3" * 12,
    "AKIA" + "QWERTYUIOPASDFGH",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "11ABCDEFG0" * 8 + "ab",
    "glpat-" + "aB3dE6gH9jK2mN5pQ8sT",
    "xoxb-" + "123456789012-123456789012-abcdefghij",
    "AIza" + "SyD9x8C7v6B5n4M3l2K1j0H9g8F7d6S5a4Q",
    "npm_" + "aB3dE6gH9jK2mN5pQ8sTuV1wX4yZ7bC0dE3f",
    "sk_live_" + "51H8aB3dE6gH9jK2mN5pQ8sT",
    "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("frame", ['key = "%s"\n', "%s", "export K=%s\nnext line", "{'a': '%s'}", "got: %s, then\r\n"])
def test_a_key_is_masked_and_what_is_around_it_stays(key: str, frame: str) -> None:
    assert mask(frame % key) == frame % MASK
    assert {secret.kind for secret in find_secrets(key)} == {API_KEY}


@pytest.mark.parametrize("user", ["shop", ""])
def test_a_password_in_an_address_is_masked(user: str) -> None:
    assert (
        mask(f"DB: postgres://{user}:Zx81kkQp2vLwT5r@db.internal/x\n")
        == f"DB: postgres://{user}:{MASK}@db.internal/x\n"
    )


@pytest.mark.parametrize(
    "address",
    [
        "postgres://user:password@localhost/x",
        "redis://:{password_of_it}@{host_of_it}/0",
        "https://$USER_NAME:$PASS_WORD_9@host/x",
        "http://host:8443/a1b2c3d4@e5f6",
        "git+ssh://git@host.org:Owner9/Project-Name@v1.25",
    ],
)
def test_an_address_without_a_password_stays(address: str) -> None:
    assert mask(address) == address


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(f"{BEGIN}\n{BODY}{END}\n", f"{BEGIN}\n{MASK}\n{MASK}\n{MASK}\n{END}\n", id="a file"),
        pytest.param(
            "".join(f"-{line}\n" for line in (BEGIN, *BODY.split(), END)),
            f"-{BEGIN}\n-{MASK}\n-{MASK}\n-{MASK}\n-{END}\n",
            id="deleted by a patch",
        ),
        pytest.param(
            "".join(f'    "{line}\\n" +\n' for line in (BEGIN, LINE, LINE, END)),
            f'    "{BEGIN}\\n" +\n    "{MASK}\\n" +\n    "{MASK}\\n" +\n    "{END}\\n" +\n',
            id="a source's strings",
        ),
        pytest.param(
            f'{{"private_key": "{BEGIN}\\n{LINE}\\n{LINE}\\n{END}\\n", "id": 1}}',
            f'{{"private_key": "{BEGIN}\\n{MASK}\\n{MASK}\\n{END}\\n", "id": 1}}',
            id="JSON on one line",
        ),
        pytest.param(f"{BEGIN}\n{LINE}\n{LINE}\n", f"{BEGIN}\n{MASK}\n{MASK}\n", id="cut off"),
        pytest.param(
            f"{BEGIN}\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n{BODY}{END}",
            f"{BEGIN}\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n{MASK}\n{MASK}\n{MASK}\n{END}",
            id="with headers",
        ),
    ],
)
def test_a_private_keys_body_is_masked_line_by_line(before: str, after: str) -> None:
    assert mask(before) == after
    assert {secret.kind for secret in find_secrets(before)} == {PRIVATE_KEY}


@pytest.mark.parametrize(
    "text",
    [
        "sk-ant-xxxxxxxxxxxxxxxxxxxxxxxx",
        "AKIAIOSFODNN7EXAMPLE",
        "sk-this-is-a-very-long-css-class-name",
        f'if "{BEGIN}" in text:\n    return check_the_whole_of_it(text)\n',
        f"-----BEGIN CERTIFICATE-----\n{BODY}-----END CERTIFICATE-----\n",
        f"-----BEGIN PUBLIC KEY-----\n{BODY}-----END PUBLIC KEY-----\n",
        "token = self.next_token()\npassword: str = field(default='')\n",
        "commit 09242ce9c8a60d9b051fc2d166f9e849b88c7ac0",
        "sha512-" + "aB3dE6gH9jK2mN5pQ8sT" * 4 + "==",
        "ANTHROPIC_API_KEY=your-key-here",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask(text) == text


def test_a_key_in_a_very_long_line_is_found_wherever_it_is() -> None:
    key = KEYS[3]
    for at in (0, 3_990, 4_000, 4_010, 7_990, 50_000):
        line = "a=1;" * (at // 4) + f'"{key}"' + ";b=2" * 10_000 + "ghp_"
        assert key not in mask(line), at


UNITS = [
    "-----BEGIN RSA PRIVATE KEY----- a b", "-----BEGIN A A A A ", f"{BEGIN}\n{LINE}\n", "adafruit ", "sk-", "ey",
    "AKIA", "a\\nb", "<\n", "twitter = ", "A3-ABCDEF-", "eyABCDEFGHIJKLMNOPQRSTUV.ey", "(", "facebook\t\t\t''",
    "-", "A", " ",
]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_no_text_takes_more_than_linear_time(unit: str) -> None:
    mask("")
    began = time.process_time()
    mask(unit * (300_000 // len(unit)))
    assert time.process_time() - began < 5
