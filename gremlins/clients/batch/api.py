"""The Message Batches API as we use it. Creating goes through Anthropic's SDK; everything else through `wire`."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode

from gremlins.clients.account import Account
from gremlins.clients.transport import (
    ApiFailure,
    HttpReply,
    Transport,
    Wire,
    connection_failure,
    failure_from_answer,
    sdk_client,
)
from gremlins.clock import parse_time
from gremlins.records.calls import storable

if TYPE_CHECKING:
    import anthropic

BATCHES = "/v1/messages/batches"
COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
"""The keys of `request_counts`; a key of a later day may count anything."""
PAGE_SIZE = 100
LARGEST_PAGE = 1000
PAGE_LIMIT = 100
"""Pages of one look through the account's batches, within reason: a hundred thousand batches."""


@dataclass(frozen=True)
class Batch:
    """A batch as the API shows it. `requests`: how many it holds, or None where the counts are missing. `seen_at`: the
    server's clock at that time, or None."""

    id: str
    status: str
    created_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    requests: int | None
    request_id: str | None = None
    seen_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        return self.status == "ended"


@dataclass(frozen=True)
class Page:
    """One page of the list, newest first, and the server's clock when it was made."""

    batches: tuple[Batch, ...]
    has_more: bool
    server_time: datetime | None


class BatchApi(Protocol):
    """The batch API that the engine uses. Every method raises ApiFailure."""

    @property
    def fingerprint(self) -> str: ...

    def warm_up(self) -> None:
        """Imports the SDK before the POST, because the import takes seconds."""

    def create(self, custom_id: str, params: dict[str, Any]) -> Batch: ...

    def retrieve(self, batch_id: str) -> Batch: ...

    def page(self, *, limit: int = PAGE_SIZE, after: str | None = None) -> Page: ...

    def results(self, batch_id: str) -> bytes: ...

    def cancel(self, batch_id: str) -> Batch: ...

    def model(self, model: str) -> dict[str, Any]: ...


class AnthropicBatchApi:
    """The real one."""

    def __init__(
        self,
        account: Account,
        *,
        timeout: float = 60,
        transport: Transport | None = None,
        http_client: Any | None = None,
    ) -> None:
        self.account = account
        self.wire = Wire(account, timeout=timeout, transport=transport)
        self._http_client = http_client

    @property
    def fingerprint(self) -> str:
        return self.account.fingerprint

    def warm_up(self) -> None:
        """Import the SDK: a second and 75 MB, which only the process that submits pays for.

        Without the collector, which finds nothing to free among three thousand new modules and takes a fifth of the
        time to find that out.
        """
        collects = gc.isenabled()
        gc.disable()
        try:
            import anthropic  # noqa: F401
        finally:
            if collects:
                gc.enable()

    def create(self, custom_id: str, params: dict[str, Any]) -> Batch:
        """Make a batch of one request, sending it once: the SDK's own retries make one batch each (measured)."""
        import anthropic

        client = self._client()
        try:
            raw = client.messages.batches.with_raw_response.create(
                requests=[{"custom_id": custom_id, "params": params}]  # type: ignore[typeddict-item]
            )
            reply = HttpReply(raw.http_response.status_code, raw.http_response.content, dict(raw.headers))
        except anthropic.APIStatusError as error:
            answer = error.response
            failure = failure_from_answer(answer.status_code, answer.content, dict(answer.headers))
            raise self.wire.redacted(failure) from None
        except anthropic.APIConnectionError as error:
            raise self.wire.redacted(connection_failure(error)) from None
        except anthropic.AnthropicError as error:
            raise self.wire.redacted(ApiFailure(f"the reply cannot be read: {error}", phase="ambiguous")) from None
        finally:
            if self._http_client is None:
                client.close()
        return _batch(reply)

    def _client(self) -> anthropic.Anthropic:
        """The SDK on the account of `wire`, even if the environment has changed.

        Its own HTTP client would follow redirects and send the prompt along (measured).
        """
        import anthropic

        http = self._http_client or sdk_client(self.account, self.wire.timeout)
        return anthropic.Anthropic(
            auth_token=self.account.secret,
            base_url=self.account.base_url,
            default_headers=self.account.headers,
            max_retries=0,
            timeout=self.wire.timeout,
            http_client=http,
        )

    def retrieve(self, batch_id: str) -> Batch:
        return _batch(self.wire.call("GET", _path(batch_id)))

    def page(self, *, limit: int = PAGE_SIZE, after: str | None = None) -> Page:
        query = {"limit": str(limit), **({"after_id": after} if after else {})}
        reply = self.wire.call("GET", f"{BATCHES}?{urlencode(query)}")
        body = reply.json()
        rows = body.get("data")
        batches = [_batch_from(row, reply) for row in rows] if isinstance(rows, list) else [None]
        if not all(batches):  # an account without batches has an empty list
            raise reply.unexpected("a list of batches")
        return Page(tuple(filter(None, batches)), bool(body.get("has_more")), reply.server_time)

    def results(self, batch_id: str) -> bytes:
        """The result lines, from our own address: the body's `results_url` may name a stranger's host."""
        return self.wire.call("GET", _path(batch_id) + "/results").body

    def cancel(self, batch_id: str) -> Batch:
        return _batch(self.wire.call("POST", _path(batch_id) + "/cancel"))

    def model(self, model: str) -> dict[str, Any]:
        """The API's description of a model: `max_tokens`, `capabilities`."""
        return self.wire.call("GET", f"/v1/models/{quote(model, safe='')}").json()


def pages(api: BatchApi, *, limit: int = PAGE_SIZE) -> Iterator[Page]:
    """The account's batches, newest first, page by page; at least one page. Raises ApiFailure where there is no end."""
    after: str | None = None
    for _ in range(PAGE_LIMIT):
        page = api.page(limit=limit, after=after)
        yield page
        if not page.has_more or not page.batches or page.batches[-1].id == after:
            return
        after, limit = page.batches[-1].id, LARGEST_PAGE
    raise ApiFailure(f"the account has more batches than {PAGE_LIMIT} pages hold", phase="answered")


def _path(batch_id: str) -> str:
    """A reply must not choose our path: an id of any form is quoted, one of dots only too."""
    name = batch_id.replace(".", "%2E") if not batch_id.strip(".") else quote(batch_id, safe="")
    return f"{BATCHES}/{name}"


def _batch(reply: HttpReply) -> Batch:
    batch = _batch_from(reply.json(), reply)
    if batch is None:
        raise reply.unexpected("a batch")
    return batch


def _batch_from(row: object, reply: HttpReply) -> Batch | None:
    """A batch out of an answer, or None when it is none. Only id and status must be there; the id has any form."""
    if not isinstance(row, dict) or not isinstance(row.get("id"), str) or not row["id"]:
        return None
    if storable(row["id"]) != row["id"] or not isinstance(row.get("processing_status"), str):
        return None
    counts = row.get("request_counts")
    known = [counts.get(name, 0) for name in COUNTS] if isinstance(counts, dict) else []
    whole = all(isinstance(n, int) for n in known) and sum(known) > 0
    return Batch(
        id=row["id"],
        status=row["processing_status"],
        created_at=_time(row.get("created_at")),
        expires_at=_time(row.get("expires_at")),
        ended_at=_time(row.get("ended_at")),
        requests=sum(known) if whole else None,
        request_id=reply.headers.get("request-id"),
        seen_at=reply.server_time,
    )


def _time(value: object) -> datetime | None:
    try:
        return parse_time(value) if isinstance(value, str) else None
    except ValueError:
        return None
