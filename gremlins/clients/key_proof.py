"""Proves a key, and that an API is there, by a free call."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from gremlins.clients.account import Account
from gremlins.clients.transport import ApiFailure, Wire
from gremlins.errors import NotReady

TIMEOUT = 10.0
REFUSED_HINT = "check ANTHROPIC_API_KEY (and ANTHROPIC_BASE_URL, if it is set)"


def list_models(account: Account) -> Any:
    """The body of `GET /v1/models`. Raises NotReady if the API refuses the key or no API can be there, ApiFailure for
    any other fault.
    """
    try:
        return Wire(account, timeout=TIMEOUT).call("GET", "/v1/models?limit=1000").json()
    except ApiFailure as failure:
        if failure.status in (401, 403):
            raise NotReady(f"the API refuses this key: {failure.message}", hint=REFUSED_HINT) from None
        _raise_if_no_api(account, failure)
        raise


def _raise_if_no_api(account: Account, failure: ApiFailure) -> None:
    """Raise NotReady for an answer that only a wrong address, a login page or an untrusted server gives."""
    status = failure.status or 0
    if failure.is_tls:
        hint = "name the certificates to trust in SSL_CERT_FILE, if the server is your own"
    elif 300 <= status < 400 or (failure.is_page and status < 500 and not _lacks_only_models(account, status)):
        hint = "ANTHROPIC_BASE_URL, or a proxy on the way, leads to something that is not the API"
    else:
        return
    raise NotReady(f"{account.base_url} cannot be used: {failure.message}", hint=hint)


def _lacks_only_models(account: Account, status: int) -> bool:
    """True if a page came in place of a route that a gateway does not have: its list of batches is no page."""
    if status not in (404, 405):
        return False
    try:
        Wire(account, timeout=TIMEOUT).call("GET", "/v1/messages/batches?limit=1").json()
    except ApiFailure as failure:
        return not failure.is_page
    return True


def sees_batch(account: Account, batch_id: str, *, timeout: float = TIMEOUT) -> bool:
    """False if the API does not show this batch to the key. Raises NotReady if the key is refused, ApiFailure for any
    other fault."""
    try:
        Wire(account, timeout=timeout).call("GET", f"/v1/messages/batches/{quote(batch_id, safe='')}")
    except ApiFailure as failure:
        if failure.status in (401, 403):
            raise NotReady(
                f"this key cannot see the outstanding batch {batch_id}: {failure.message}", hint=REFUSED_HINT
            ) from None
        if failure.status in (404, 410):
            return False
        raise
    return True
