"""`/_simulator/…`: what a test or a person in another process may ask of and do to a running simulator."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Any, Literal

from gremlins.errors import GremlinsError, did_you_mean
from gremlins.simulator.api import ApiError, Failure, Json, bad_request, not_found, timestamp
from gremlins.simulator.batches import Batch
from gremlins.simulator.faults import Fault
from gremlins.simulator.models import model_from_json
from gremlins.simulator.options import CHANGEABLE, options_from_json
from gremlins.simulator.routes import Answer, Api, Call

PREFIX = "/_simulator"


def is_control(path: str) -> bool:
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def answer_control(api: Api, call: Call) -> Answer:
    """One control call. Not counted, and struck by no fault."""
    try:
        if not api.options.control:
            raise not_found("The control endpoint is off; the simulator was started without --control")
        value = _dispatch(api, call)
    except ApiError as error:
        return Answer(status=error.status, body=json.dumps(error.failure.response("")).encode())
    except (GremlinsError, KeyError, TypeError, ValueError) as error:
        hint = f" ({error.hint})" if isinstance(error, GremlinsError) and error.hint else ""
        failure = Failure("invalid_request_error", f"{error}{hint}")
        return Answer(status=400, body=json.dumps(failure.response("")).encode())
    return Answer(body=json.dumps(value).encode())


def _dispatch(api: Api, call: Call) -> Any:
    parts = call.path.strip("/").split("/")[1:]
    route = (call.method, *parts[:1])
    match route:
        case ("GET", "state"):
            return state(api)
        case ("GET", "batches"):
            return [described(batch, with_params=call.parameter("params") == "1") for batch in api.store.all()]
        case ("POST", "batches") if len(parts) == 3:
            return _meddle(api, parts[1], parts[2])
        case ("GET", "requests"):
            return [vars(seen) for seen in list(api.seen)]
        case ("GET", "faults"):
            return api.faults.report()
        case ("POST", "faults"):
            value = call.json()
            api.faults.add(*(Fault.from_json(item) for item in (value if isinstance(value, list) else [value])))
            return api.faults.report()
        case ("DELETE", "faults"):
            api.faults.clear()
            return []
        case ("POST", "options"):
            return _change(api, call.json())
        case ("POST", "clock"):
            api.offset += timedelta(seconds=float(call.json()["advance"]))
            return {"now": timestamp(api.now())}
        case ("POST", "model"):
            api.model = model_from_json(call.json())
            return {}
        case _:
            raise not_found(f"no such control: {call.method} {call.path}")


def _meddle(api: Api, batch_id: str, what: str) -> Json:
    known: dict[str, Literal["cancel", "expire", "end", "forget"]] = {
        "cancel": "cancel",
        "expire": "expire",
        "end": "end",
        "forget": "forget",
    }
    if what not in known:
        raise bad_request(f"a batch cannot be told to {what}; known are {', '.join(known)}")
    batch = api.store.find(batch_id)
    api.store.meddle(batch_id, known[what])
    return described(batch, with_params=False)


def _change(api: Api, value: Json) -> Json:
    for key in value:
        if key not in CHANGEABLE:
            hint = did_you_mean(key, CHANGEABLE)
            raise GremlinsError(f"`{key}` cannot be set while the simulator runs", hint=hint)
    api.options = options_from_json(value, api.options)
    return {key: value[key] for key in value}


def described(batch: Batch, *, with_params: bool) -> Json:
    shown: Json = {
        "id": batch.id,
        "workspace": batch.workspace,
        "key": batch.key,
        "processing_status": batch.status,
        "request_counts": batch.counts(),
        "created_at": timestamp(batch.created_at),
        "ended_at": batch.ended_at and timestamp(batch.ended_at),
        "deleted": batch.deleted,
        "custom_ids": [request.custom_id for request in batch.requests],
    }
    if with_params:
        shown["params"] = {request.custom_id: request.params for request in batch.requests}
    return shown


def state(api: Api) -> Json:
    """Counters and what would have been billed."""
    batches = api.store.all()
    statuses = Counter(batch.status for batch in batches)
    return {
        "now": timestamp(api.now()),
        "requests": dict(api.requests),
        "batches": {"created": len(batches), **statuses},
        "custom_ids": [request.custom_id for batch in batches for request in batch.requests],
        "billed": totals(api),
        "faults_struck": len(api.faults.struck()),
    }


def totals(api: Api) -> list[Json]:
    """Billed tokens by model and tier."""
    sums: dict[tuple[str, str], Counter[str]] = {}
    for item in list(api.billed):
        numbers = {key: value for key, value in item.usage.items() if key.endswith("_tokens")}
        sums.setdefault((item.model, item.tier), Counter()).update({"requests": 1, **numbers})
    return [{"model": model, "tier": tier, **total} for (model, tier), total in sums.items()]
