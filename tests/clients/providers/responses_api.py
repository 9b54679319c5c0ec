"""OpenAI's Responses API as far as one agent run needs it: streamed replies out of a list, on a real socket."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

USAGE = {
    "input_tokens": 1000,
    "output_tokens": 100,
    "total_tokens": 1100,
    "input_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}


def says(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


def calls(name: str, **given: Any) -> dict[str, Any]:
    arguments = json.dumps(given)
    return {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": name, "arguments": arguments}


class ResponsesApi:
    """`replies`: an output item, or (status, error code, message), one for each request, the last one for ever."""

    def __init__(self, *replies: Any) -> None:
        self.replies = replies
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                api.headers.append(dict(self.headers))
                api.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                reply = api.replies[min(len(api.asked), len(api.replies)) - 1]
                self._refuse(*reply) if isinstance(reply, tuple) else self._stream(reply)

            def _refuse(self, status: int, code: str, message: str) -> None:
                body = json.dumps({"error": {"code": code, "message": message, "type": "x"}}).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _stream(self, item: dict[str, Any]) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                begun = _response("in_progress", [], None)
                done = _response("completed", [item], USAGE)
                for number, (kind, data) in enumerate(
                    [
                        ("response.created", {"response": begun}),
                        ("response.output_item.added", {"output_index": 0, "item": item}),
                        ("response.output_item.done", {"output_index": 0, "item": item}),
                        ("response.completed", {"response": done}),
                    ]
                ):
                    event = {"type": kind, "sequence_number": number, **data}
                    self.wfile.write(f"event: {kind}\ndata: {json.dumps(event)}\n\n".encode())

            def log_message(self, *_: object) -> None:
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def _response(status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "gpt-5",
        "output": output,
        "usage": usage,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
