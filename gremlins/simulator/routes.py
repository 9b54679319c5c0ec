"""The endpoints: from one HTTP call to one answer. Knows no sockets; what happens on the wire is told in the answer."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from gremlins.clock import Clock
from gremlins.simulator.api import ApiError, Ids, Json, ModelError, bad_request, not_found
from gremlins.simulator.batches import BatchStore, Outcome, SimulatedBatch, errored
from gremlins.simulator.catalogue import Catalogue
from gremlins.simulator.checks import MAX_BYTES, Request, check_envelope, check_params
from gremlins.simulator.faults import (
    CREATE_ACTIONS,
    LIST_ACTIONS,
    OUTCOME_ACTIONS,
    REPLY_ACTIONS,
    RESULTS_ACTIONS,
    STREAM_ACTIONS,
    TRANSPORT_ACTIONS,
    Fault,
    FaultBook,
)
from gremlins.simulator.messages import (
    Event,
    ModelReply,
    Tier,
    build_message,
    encode_event,
    input_tokens,
    stream_events,
)
from gremlins.simulator.model import Model
from gremlins.simulator.options import Options

LOGGED_REQUESTS = 20_000
BATCH_ENDPOINTS = frozenset({"create", "list", "retrieve", "cancel", "results", "delete"})

_BATCHES = "/v1/messages/batches"
_BATCH = rf"{_BATCHES}/(?P<id>[^/]+)"
_ROUTES: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (endpoint, method, re.compile(pattern))
    for endpoint, method, pattern in (
        ("messages", "POST", "/v1/messages"),
        ("create", "POST", _BATCHES),
        ("list", "GET", _BATCHES),
        ("count_tokens", "POST", "/v1/messages/count_tokens"),
        ("retrieve", "GET", _BATCH),
        ("delete", "DELETE", _BATCH),
        ("cancel", "POST", f"{_BATCH}/cancel"),
        ("results", "GET", f"{_BATCH}/results"),
        ("models", "GET", "/v1/models"),
        ("model", "GET", "/v1/models/(?P<id>[^/]+)"),
    )
)


@dataclass(frozen=True)
class Call:
    """One HTTP request. Header names in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise bad_request(f"The request body is not valid JSON: {error}") from error

    def parameter(self, name: str) -> str | None:
        values = parse_qs(self.query).get(name)
        return values[-1] if values else None

    def key(self) -> str | None:
        key = self.headers.get("x-api-key")
        if key:
            return key
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None

    def text(self) -> str:
        return f"{self.method} {self.path}?{self.query}\n{self.body.decode(errors='replace')}"


@dataclass(frozen=True)
class HttpAnswer:
    """An HTTP answer. `stream` replaces `body`; None in it sends nothing more and keeps the connection open."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Iterator[bytes | None] | None = None
    wire: Fault | None = None
    """A fault for the transport to play: drop, hang, truncate."""
    wait: float = 0.0
    """Seconds before the answer goes out."""


@dataclass(frozen=True)
class LoggedRequest:
    """One request the simulator got. `status` is None when it got no answer."""

    endpoint: str
    method: str
    path: str
    key: str | None
    status: int | None


@dataclass(frozen=True)
class Billed:
    """Tokens that the API would bill."""

    model: str
    tier: Tier
    usage: Json
    at: datetime
    batch_id: str | None = None
    custom_id: str | None = None


class Api:
    """The API's state and endpoints. Safe for many threads."""

    def __init__(
        self, options: Options, clock: Clock, model: Model, base_url: Callable[[], str], wait: Callable[[float], Any]
    ) -> None:
        self.options = options
        self.model = model
        self.clock = clock
        self.offset = timedelta(seconds=options.clock_offset)
        self.faults = FaultBook(options.faults)
        self.ids = Ids(options.seed)
        self.catalogue = Catalogue(lambda: self.options)
        self.billed: list[Billed] = []
        self.requests: Counter[str] = Counter()
        self.seen: deque[LoggedRequest] = deque(maxlen=LOGGED_REQUESTS)
        self._base_url = base_url
        self._wait = wait
        self._lock = threading.Lock()
        self._allowance: dict[str, tuple[float, float]] = {}
        self.store = BatchStore(lambda: self.options, self.now, self.ids, self._process, self._results_base)

    def now(self) -> datetime:
        return self.clock.now() + self.offset

    def change(self, **values: Any) -> None:
        """Set options while running; names as in `Options`."""
        self.options = replace(self.options, **values)

    # -- one call

    def answer(self, call: Call) -> HttpAnswer:
        """Answer a call, faults included. Never raises."""
        endpoint, matched = _route(call)
        request_id = self.ids.new("req")
        fault = self.faults.strike(endpoint, call.text, among=TRANSPORT_ACTIONS)
        if fault is not None and fault.when == "before":
            answer = self._hit(fault, lambda: self._plain(call, endpoint, matched, request_id), request_id)
        else:
            answer = self._plain(call, endpoint, matched, request_id)
            if fault is not None:
                done = answer
                answer = self._hit(fault, lambda: done, request_id)
        silent = answer.wire is not None and answer.wire.do in ("drop", "hang")
        status = None if silent else answer.status
        with self._lock:
            self.requests[endpoint] += 1
            self.seen.append(LoggedRequest(endpoint, call.method, call.path, call.key(), status))
        return replace(answer, headers=self._headers(request_id) | dict(answer.headers))

    def _hit(self, fault: Fault, proceed: Callable[[], HttpAnswer], request_id: str) -> HttpAnswer:
        match fault.do:
            case "drop" | "hang":
                return HttpAnswer(wire=fault)
            case "error":
                extra = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
                return _refusal(ApiError(fault.failure(), status=fault.status, headers=extra), request_id=request_id)
            case "slow":
                if fault.when == "before":
                    self._wait(fault.seconds)
                    return proceed()
                return replace(proceed(), wait=fault.seconds)
            case "garbage":
                return HttpAnswer(body=b"<html><body>Bad Gateway</body></html>", content_type="text/html")
            case "body":
                return HttpAnswer(body=fault.body.encode())
            case _:
                return replace(proceed(), wire=fault)

    def _plain(self, call: Call, endpoint: str, matched: Mapping[str, str], request_id: str) -> HttpAnswer:
        try:
            if endpoint == "other":
                return _other(call)
            workspace = self._admit(call, endpoint)
            return self._dispatch(call, endpoint, matched.get("id", ""), workspace)
        except ApiError as error:
            return _refusal(error, request_id=request_id)

    def _admit(self, call: Call, endpoint: str) -> str:
        """The workspace of the call's key. Raises ApiError (401, 403, 429, 400, 413)."""
        key = call.key()
        if key is None:
            raise ApiError(ModelError("authentication_error", "x-api-key header is required"))
        options = self.options
        if key in options.forbidden_keys:
            raise ApiError(ModelError("permission_error", "Your API key does not have permission to do this"))
        workspace = "default" if options.keys is None else options.keys.get(key)
        if workspace is None:
            raise ApiError(ModelError("authentication_error", "invalid x-api-key"))
        if "anthropic-version" not in call.headers:
            raise bad_request("anthropic-version: header is required")
        if len(call.body) > MAX_BYTES:
            raise ApiError(ModelError("request_too_large", "Request exceeds the maximum size"))
        if endpoint in BATCH_ENDPOINTS and options.batch_rate_limit:
            self._spend_allowance(workspace, options.batch_rate_limit)
        return workspace

    def _spend_allowance(self, workspace: str, per_minute: int) -> None:
        """A bucket of `per_minute` requests that fills evenly."""
        with self._lock:
            now = self.clock.monotonic()
            left, then = self._allowance.get(workspace, (float(per_minute), now))
            left = min(per_minute, left + (now - then) * per_minute / 60)
            self._allowance[workspace] = (max(left - 1, 0) if left >= 1 else left, now)
        if left < 1:
            wait = str(max(1, round((1 - left) * 60 / per_minute)))
            message = f"Number of requests to the Message Batches API has exceeded {per_minute} per minute"
            raise ApiError(ModelError("rate_limit_error", message), headers={"retry-after": wait})

    def _dispatch(self, call: Call, endpoint: str, item: str, workspace: str) -> HttpAnswer:
        match endpoint:
            case "create":
                return self._create(call, workspace)
            case "list":
                return self._list(call, workspace)
            case "messages":
                return self._messages(call)
            case "count_tokens":
                return _json({"input_tokens": input_tokens(_object(call))})
            case "models":
                return self._models()
            case "model":
                return self._model(item)
            case _:
                return self._one_batch(endpoint, item, workspace)

    # -- batches

    def _create(self, call: Call, workspace: str) -> HttpAnswer:
        requests = check_envelope(call.json())
        fault = self.faults.strike("create", call.text, among=CREATE_ACTIONS)
        shown = self.store.create(
            requests,
            workspace=workspace,
            key=call.key() or "",
            version=call.headers["anthropic-version"],
            latency=fault.seconds if fault and fault.do == "latency" else None,
            hidden_for=fault.seconds if fault and fault.do == "late" else 0.0,
        )
        return HttpAnswer(body=shown)

    def _list(self, call: Call, workspace: str) -> HttpAnswer:
        limit = _limit(call)
        after_id, before_id = call.parameter("after_id"), call.parameter("before_id")
        if self.options.lenient:
            after_id = before_id = None
        if after_id is not None and before_id is not None:
            raise bad_request("after_id and before_id cannot be used together")
        page = self.store.page(workspace, limit=limit, after_id=after_id, before_id=before_id)
        items = page.items
        if self.faults.strike("list", call.text, among=LIST_ACTIONS):
            items = ()
        edges = (items[0][0], items[-1][0]) if items else (None, None)
        tail = json.dumps({"has_more": page.has_more and bool(items), "first_id": edges[0], "last_id": edges[1]})
        return HttpAnswer(body=b'{"data": [' + b", ".join(shown for _, shown in items) + b"], " + tail[1:].encode())

    def _one_batch(self, endpoint: str, batch_id: str, workspace: str) -> HttpAnswer:
        try:
            match endpoint:
                case "retrieve":
                    return HttpAnswer(body=self.store.retrieve(batch_id, workspace))
                case "cancel":
                    return HttpAnswer(body=self.store.cancel(batch_id, workspace))
                case "delete":
                    return _json(self.store.delete(batch_id, workspace))
                case _:
                    return self._results(batch_id, workspace)
        except ApiError as error:
            if error.status == 404 and self.options.lenient:
                return _made_up(endpoint, batch_id, self._results_base())
            raise

    def _results(self, batch_id: str, workspace: str) -> HttpAnswer:
        lines = []
        for line in self.store.results(batch_id, workspace):
            fault = self.faults.strike("results", partial(str, line["custom_id"]), among=RESULTS_ACTIONS)
            lines.extend([line] if fault is None else _spoilt(line, fault))
        body = "".join(json.dumps(line) + "\n" for line in lines)
        return HttpAnswer(body=body.encode(), content_type="application/x-jsonl")

    def _process(self, batch: SimulatedBatch, request: Request, outcome: Outcome) -> Json:
        """The result of one request of a batch."""

        def text() -> str:
            return f"{request.custom_id}\n{json.dumps(request.params, ensure_ascii=False)}"

        if outcome == "expired":
            return {"type": "expired"}
        if outcome == "canceled":
            late = self.faults.strike("outcome", text, among=("late_success",))
            if late is None and not self.options.cancel_too_late:
                return {"type": "canceled"}
        refused = check_params(request.params, version=batch.version, catalogue=self.catalogue, batch=True)
        if refused is not None:
            return errored(refused, self.ids.new("req"))
        fault = self.faults.strike("outcome", text, among=OUTCOME_ACTIONS.keys() - {"late_success"})
        if fault is not None:
            return _fate(fault, self.ids.new("req"))
        reply = self._reply(request.params, "outcome", text)
        if isinstance(reply, ModelError):
            return errored(reply, self.ids.new("req"))
        message = build_message(request.params, reply, tier="batch", ids=self.ids)
        self.billed.append(
            Billed(message["model"], "batch", message["usage"], batch.created_at, batch.id, request.custom_id)
        )
        return {"type": "succeeded", "message": message}

    def _reply(self, params: Json, on: str, text: Callable[[], str]) -> ModelReply | ModelError:
        fault = self.faults.strike(on, text, among=REPLY_ACTIONS)
        try:
            reply = self.model.reply(params)
        except Exception as error:  # noqa: BLE001  a model is a person's code; the API would answer 500 as well
            return ModelError("api_error", f"the scripted model failed: {error!r}")
        if fault is None or isinstance(reply, ModelError):
            return reply
        return _bent(reply, fault)

    # -- live calls and models

    def _messages(self, call: Call) -> HttpAnswer:
        params = _object(call)
        refused = check_params(params, version=call.headers["anthropic-version"], catalogue=self.catalogue, batch=False)
        if refused is not None:
            raise ApiError(refused)
        if self.options.reply_latency:
            self._wait(self.options.reply_latency)
        reply = self._reply(params, "messages", call.text)
        if isinstance(reply, ModelError):
            raise ApiError(reply)
        message = build_message(params, reply, tier="standard", ids=self.ids)
        self.billed.append(Billed(message["model"], "standard", message["usage"], self.now()))
        if not params.get("stream"):
            return _json(message)
        fault = self.faults.strike("messages", call.text, among=STREAM_ACTIONS)
        return HttpAnswer(stream=self._stream(message, fault), content_type="text/event-stream; charset=utf-8")

    def _stream(self, message: Json, fault: Fault | None) -> Iterator[bytes | None]:
        """The encoded events. A `stall` yields None, a `cut` ends as if the line had broken."""
        for count, (name, data) in enumerate(stream_events(message)):
            if fault is not None and count >= fault.events:
                if fault.do == "stall":
                    yield None
                if fault.do == "cut":
                    raise ConnectionAbortedError
                yield encode_event(*_error_event(fault))
                return
            yield encode_event(name, data)
            if self.options.stream_delay:
                self._wait(self.options.stream_delay)

    def _models(self) -> HttpAnswer:
        infos = [self.catalogue.info(model) for model in self.catalogue.ids()]
        return _json({"data": infos, "has_more": False, "first_id": infos[0]["id"], "last_id": infos[-1]["id"]})

    def _model(self, model: str) -> HttpAnswer:
        if not self.catalogue.known(model):
            raise not_found(f"model: {model}")
        return _json(self.catalogue.info(model))

    def _results_base(self) -> str:
        return self.options.results_base or self._base_url()

    def _headers(self, request_id: str) -> dict[str, str]:
        return {
            "date": format_datetime(self.now() + timedelta(seconds=self.options.date_offset), usegmt=True),
            "request-id": request_id,
            "anthropic-organization-id": self.options.organization,
        }


def _route(call: Call) -> tuple[str, Mapping[str, str]]:
    for endpoint, method, pattern in _ROUTES:
        if method == call.method and (matched := pattern.fullmatch(call.path)):
            return endpoint, matched.groupdict()
    return "other", {}


def _other(call: Call) -> HttpAnswer:
    """A path the API does not have, another method on one it has, or the probe some clients begin with."""
    if call.path == "/" and call.method in ("GET", "HEAD"):
        return HttpAnswer()
    if any(pattern.fullmatch(call.path) for _, _, pattern in _ROUTES):
        raise ApiError(ModelError("invalid_request_error", "Method Not Allowed"), status=405)
    raise not_found("Not found")


def _json(value: Json) -> HttpAnswer:
    return HttpAnswer(body=json.dumps(value).encode())


def _refusal(error: ApiError, *, request_id: str) -> HttpAnswer:
    return HttpAnswer(
        status=error.status,
        body=json.dumps(error.failure.response(request_id)).encode(),
        headers=error.headers,
    )


def _object(call: Call) -> Json:
    value = call.json()
    if not isinstance(value, dict):
        raise bad_request("The request body is not a JSON object")
    return value


def _limit(call: Call) -> int:
    text = call.parameter("limit") or "20"
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise bad_request("limit: Input should be between 1 and 1000")
    return int(text)


def _spoilt(line: Json, fault: Fault) -> list[Json]:
    foreign = line | {"custom_id": "foreign"}
    match fault.do:
        case "missing":
            return []
        case "foreign":
            return [foreign]
        case "duplicate":
            return [line, line]
        case _:
            return [foreign, line]


def _fate(fault: Fault, request_id: str) -> Json:
    match fault.do:
        case "errored":
            return errored(fault.failure(), request_id)
        case "unknown":
            return {"type": "postponed", "until": "later"}
        case other:
            return {"type": other}


def _bent(reply: ModelReply, fault: Fault) -> ModelReply:
    match fault.do:
        case "max_tokens":
            return ModelReply(reply.text[: len(reply.text) // 2], stop_reason="max_tokens", usage=reply.usage)
        case "refusal":
            details = {"type": "refusal", "category": None, "explanation": fault.message}
            return ModelReply("", stop_reason="refusal", stop_details=details, usage=reply.usage)
        case "pause_turn":
            return replace(reply, stop_reason="pause_turn")
        case "stop_reason":
            return replace(reply, stop_reason=fault.stop_reason)
        case _:
            return ModelReply("", usage=reply.usage)


def _error_event(fault: Fault) -> Event:
    failure = replace(fault.failure(), kind=fault.error or "overloaded_error")
    return "error", {"type": "error", "error": failure.error()}


def _made_up(endpoint: str, batch_id: str, base: str) -> HttpAnswer:
    """For client test suites: an ended batch under any id."""
    if endpoint == "delete":
        return _json({"id": batch_id, "type": "message_batch_deleted"})
    if endpoint == "results":
        line = {"custom_id": "my-custom-id-1", "result": {"type": "canceled"}}
        return HttpAnswer(body=(json.dumps(line) + "\n").encode(), content_type="application/x-jsonl")
    counts = {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 1, "expired": 0}
    return _json(
        {
            "id": batch_id,
            "type": "message_batch",
            "processing_status": "ended",
            "request_counts": counts,
            "created_at": "2026-11-20T18:37:24.100435Z",
            "expires_at": "2026-11-21T18:37:24.100435Z",
            "ended_at": "2026-11-20T18:37:25.100435Z",
            "cancel_initiated_at": None,
            "archived_at": None,
            "results_url": f"{base}/v1/messages/batches/{batch_id}/results",
        }
    )
