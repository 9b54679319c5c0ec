"""The way to an API: its address, the proxy and the certificates, read from the environment and proven before use.

Every request of ours takes this one route. A fault that can only fail is refused here, with the variable's name.
"""

from __future__ import annotations

import importlib.util
import re
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from gremlins.errors import NotReady

DEFAULT_BASE_URL = "https://api.anthropic.com"
BASE_URL = "ANTHROPIC_BASE_URL"
_ADDRESS_HINT = "it looks like https://gateway.example or https://gateway.example/anthropic"
_ODD = re.compile(r"[\x00-\x20\x7f\"'<>`{}|\\^]|[^\x00-\x7f]")
_SOCKS = ("socks5", "socks5h")


@dataclass(frozen=True)
class Route:
    """`proxy` is the address of a proxy, or None; `certificates` a file of trusted ones, or None for the system's."""

    proxy: str | None = field(default=None, repr=False)
    certificates: str | None = None

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """The settings of TLS connections. Made once: it reads all certificates."""
        if self.certificates:
            return ssl.create_default_context(cafile=self.certificates)
        import truststore  # the system's own certificates, as the SDK takes them

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


DIRECT = Route()


def find_base_url(env: Mapping[str, str]) -> str:
    """The API's address, without a slash at its end. Raises NotReady if no request to it can succeed."""
    return check_base_url(env.get(BASE_URL) or DEFAULT_BASE_URL)


def check_base_url(text: str) -> str:
    """An address as it is used. Raises NotReady if no request to it can succeed. Never repeats a password."""
    if odd := _ODD.search(text):
        raise NotReady(f"{BASE_URL} holds {_named(odd[0])}, which no address has", hint=_ADDRESS_HINT)
    try:
        parts = urlsplit(text)
        port = parts.port
        host = parts.hostname or ""
        if "[" in parts.netloc or "]" in parts.netloc:
            ip_address(host)
    except ValueError as error:
        raise NotReady(f"{BASE_URL} is not an address: {_fault(error)}", hint=_ADDRESS_HINT) from None
    fault = _fault_of(parts, host, port)
    if fault:
        raise NotReady(f"{BASE_URL} {fault[0]}", hint=fault[1])
    return text.rstrip("/")


def _fault_of(parts: SplitResult, host: str, port: int | None) -> tuple[str, str] | None:
    """A fault and what to do about it, or None."""
    if parts.scheme not in ("http", "https"):
        return "is not an address: it does not begin with https://", _ADDRESS_HINT
    if "@" in parts.netloc:
        return "has a user or a password in it", "put the credential into ANTHROPIC_API_KEY or ANTHROPIC_CUSTOM_HEADERS"
    if not host or port == 0 or re.search(r"[\[\]%]|\.\.", host) or len(host) > 253:
        return "is not an address: it has no usable host and port", _ADDRESS_HINT
    if parts.query or parts.fragment:
        return "has a `?` or a `#` in it, so that no path can follow", _ADDRESS_HINT
    if "[" in parts.path or "]" in parts.path:
        return "has brackets in its path", _ADDRESS_HINT
    if parts.path.rstrip("/").endswith("/v1"):
        return "ends in /v1, which is added to it for each request", "leave /v1 out"
    return None


def _named(character: str) -> str:
    names = {"\r": "a carriage return", "\n": "a line break", " ": "a space", '"': "a quote", "'": "a quote"}
    return names.get(character, f"the character {character!r}")


def _fault(error: ValueError) -> str:
    """The reason in Python's words, without a value in it, which may hold a password."""
    return "its port is not a number from 1 to 65535" if "ort" in str(error) else "its brackets hold no IPv6 address"


def find_route(base_url: str, env: Mapping[str, str]) -> Route:
    """The route to an address. Raises NotReady for settings with which every request must fail."""
    certificates = _certificates(env)
    _check_no_proxy(env)
    parts = urlsplit(base_url)
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        variable = name if env.get(name) else name.upper()
        if value := env.get(variable) or _system_proxies(env).get(name.removesuffix("_proxy")):
            return Route(None if _is_bypassed(parts, env) else _check_proxy(variable, value), certificates)
    return Route(None, certificates)


def _system_proxies(env: Mapping[str, str]) -> dict[str, str]:
    """The proxies of the system's own settings (macOS), used only where the environment names none."""
    if any(name.lower().endswith("_proxy") and value for name, value in env.items()):
        return {}
    found: dict[str, str] = getattr(urllib.request, "getproxies_macosx_sysconf", dict)()
    return found


def _certificates(env: Mapping[str, str]) -> str | None:
    folder = env.get("SSL_CERT_DIR")
    if folder and not any(Path(part).is_dir() for part in folder.split(":")):
        raise NotReady(f"SSL_CERT_DIR names no folder: {folder}", hint="unset it, or name a folder of certificates")
    path = env.get("SSL_CERT_FILE")
    if not path:
        return None
    hint = "unset it, or name a file of certificates in PEM form"
    if not Path(path).is_file():
        raise NotReady(f"SSL_CERT_FILE names no file: {path}", hint=hint)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except OSError:  # an SSLError is one too
        raise NotReady(f"SSL_CERT_FILE holds no certificate that can be read: {path}", hint=hint) from None
    return path


def _no_proxy(env: Mapping[str, str]) -> list[str]:
    return [entry.strip() for entry in (env.get("no_proxy") or env.get("NO_PROXY") or "").split(",") if entry.strip()]


def _check_no_proxy(env: Mapping[str, str]) -> None:
    for entry in _no_proxy(env):
        if re.search(r"[\[\]/]", entry.removeprefix("http://").removeprefix("https://")):
            kind = "an IPv6 address in brackets" if "[" in entry else "an address range"
            raise NotReady(
                f"NO_PROXY holds {kind}, which HTTP clients read differently or not at all: {entry}",
                hint="name hosts, domains like .example.org, or plain addresses",
            )


def _is_bypassed(parts: SplitResult, env: Mapping[str, str]) -> bool:
    host = (parts.hostname or "").lower()
    for entry in _no_proxy(env):
        name = entry.lower().removeprefix("http://").removeprefix("https://").lstrip(".")
        if name == "*" or name in (host, f"{host}:{parts.port}") or host.endswith(f".{name}"):
            return True
    return False


def _check_proxy(variable: str, value: str) -> str:
    """A proxy's address, with its scheme. Raises NotReady, never with the password in it."""
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and not _ODD.search(url)
    except ValueError:
        usable = False
    if not usable:
        raise NotReady(f"{variable} is not the address of a proxy", hint="it looks like http://proxy.example:3128")
    if parts.scheme in _SOCKS:
        if importlib.util.find_spec("socks") is None or importlib.util.find_spec("socksio") is None:
            raise NotReady(
                f"{variable} names a SOCKS proxy, and the packages for it are not installed",
                hint="pip install 'gremlins-fleet[socks]', or name an HTTP proxy",
            )
    elif parts.scheme != "http":
        raise NotReady(
            f"{variable} names a proxy of an unknown kind: {parts.scheme}://",
            hint="http:// and socks5:// are possible",
        )
    return url


def proxy_credentials(proxy: SplitResult) -> tuple[str, str] | None:
    """The user and password in a proxy's address, decoded."""
    return (unquote(proxy.username), unquote(proxy.password or "")) if proxy.username else None


def warnings_of(env: Mapping[str, str]) -> list[str]:
    """Settings that work and are not safe. Empty for an address that is none."""
    try:
        parts = urlsplit(find_base_url(env))
    except NotReady:
        return []
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        return [f"{BASE_URL} is plain http: the key and every prompt can be read on the way to {parts.hostname}"]
    return []


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
