"""The door of the board: only this machine, only who has the token, only requests of our own pages."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gremlins.files import make_private_dir, read_file, write_atomic
from gremlins.paths import Home

LARGEST_BODY = 2**20
"""Bytes of a form."""
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
NO_TOKEN = "This board needs the link that `gremlins board` prints.\n"


def token_of(home: Home) -> str:
    """The token of this state root's board, made at the first call and kept in a file of mode 0600."""
    path = home.root / "board-token"
    try:
        token = read_file(path, 256).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if len(token) < 32:
        token = secrets.token_urlsafe(32)
        make_private_dir(home.root)
        write_atomic(path, token + "\n")
    return token


@dataclass
class Gate:
    """ASGI middleware around the whole board."""

    app: ASGIApp
    token: str
    port: int

    @property
    def cookie(self) -> str:
        """Cookies are shared by all ports of an address, so its name holds ours."""
        return f"gremlins-board-{self.port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self.refusal(scope, headers)
        await (refusal or self.app)(scope, receive, send_with_headers)

    def refusal(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        """The answer to a request that goes no further; None for one that may pass."""
        hosts = {f"127.0.0.1:{self.port}", f"localhost:{self.port}"}
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in hosts:
            return PlainTextResponse("This board answers to 127.0.0.1 only.\n", 403)
        reads = scope["method"] in ("GET", "HEAD")
        same_site = origin == f"http://{host}" if origin is not None else reads or _is_ours(headers)
        if not same_site:
            return PlainTextResponse("This request comes from another page.\n", 403)
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token")
        if reads and given is not None:
            return self._enter(scope, given)
        if not self._is_ours(_cookie(headers.get("cookie", ""), self.cookie)):
            return PlainTextResponse(NO_TOKEN, 403)
        length = headers.get("content-length", "0" if reads else "")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            return PlainTextResponse("This form is too large.\n", 413)
        return None

    def _enter(self, scope: Scope, given: str) -> Response:
        """Put the token into a cookie and take it out of the address."""
        if not self._is_ours(given):
            return PlainTextResponse(NO_TOKEN, 403)
        rest = [pair for pair in parse_qsl(scope["query_string"].decode("latin-1")) if pair[0] != "token"]
        path = "/" + scope["path"].lstrip("/")
        answer = RedirectResponse(path + (f"?{urlencode(rest)}" if rest else ""), 303)
        answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")
        return answer

    def _is_ours(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.token.encode())


def _is_ours(headers: Mapping[str, str]) -> bool:
    """A browser that sends no Origin with a form says by this header where it comes from."""
    return headers.get("sec-fetch-site") == "same-origin"


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""
