"""One redactor for everything that is shown or written down."""

from __future__ import annotations

import pytest

from gremlins.redaction import Redactor, has_password, without_password

ENV = {
    "ANTHROPIC_API_KEY": "sk-ant-123456",
    "GH_TOKEN": "ghp-abcdef",
    "DB_PASSWORD": "hunter2-hunter2",
    "PGPASSWORD": "letmein",
    "ANTHROPIC_CUSTOM_HEADERS": "x-gateway: bearer s3cret-of-it",
    "ANTHROPIC_BASE_URL": "https://anna:pass-word@gateway.example/v1",
    "HTTPS_PROXY": "http://anna:p%40ss-word-2@proxy.example:3128",
    "MIRROR": "https://user-is-token@mirror.example/",
    "HOME": "/home/anna",
    "TINY_KEY": "abc",
}


@pytest.mark.parametrize(
    "secret",
    [
        "sk-ant-123456",
        "ghp-abcdef",
        "hunter2-hunter2",
        "letmein",
        "x-gateway: bearer s3cret-of-it",
        "bearer s3cret-of-it",
        "s3cret-of-it",
        "pass-word",
        "p@ss-word-2",
        "p%40ss-word-2",
        "user-is-token",
    ],
)
def test_a_secret_of_the_environment_is_replaced(secret: str) -> None:
    assert Redactor(ENV).text(f"<{secret}>") == "<***>"


@pytest.mark.parametrize("plain", ["/home/anna", "abc", "anna"])
def test_ordinary_text_stays(plain: str) -> None:
    assert Redactor(ENV).text(plain) == plain


def test_a_longer_secret_goes_before_one_that_it_holds() -> None:
    assert Redactor({"A_KEY": "secret", "B_KEY": "secret-and-more"}).text("secret-and-more") == "***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pass@host/x", "https://***@host/x"),
        ("https://ghp_token@github.com/x", "https://***@github.com/x"),
        ("ssh://git@github.com/x", "ssh://git@github.com/x"),
        ("{'Authorization': 'Bearer abc.def', 'a': 1}", "{'Authorization': 'Bearer ***', 'a': 1}"),
        ("{b'x-api-key': b'abcdef'}", "{b'x-api-key': b'***'}"),
        ("x-api-key: abcdef", "x-api-key: ***"),
        ("sent Bearer abcdefgh12345", "sent Bearer ***"),
        ("a basic implementation", "a basic implementation"),
        ("invalid x-api-key", "invalid x-api-key"),
        ("key sk-ant-api03-aaaabbbbcccc", "key ***"),
    ],
)
def test_a_message_holds_nothing_that_looks_like_a_credential(text: str, shown: str) -> None:
    assert Redactor({}).message(text) == shown
    assert Redactor({}).text(text) == text


@pytest.mark.parametrize("password", ["hush", "h:u/s@h", "h%40"])
def test_a_database_address_is_shown_without_its_password(password: str) -> None:
    address = f"postgresql://gremlins:{password}@db.example.org/gremlins?sslmode=require"
    assert has_password(address)
    assert without_password(address) == "postgresql://gremlins:***@db.example.org/gremlins?sslmode=require"
    assert not has_password("postgresql://gremlins@db.example.org:5432/gremlins")
