"""A `kilo` whose `serve` plays a list of events for each prompt, as a real process with a real port."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = r"""
import base64, json, os, queue, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
here = os.path.dirname(os.path.abspath(__file__))
plan = json.load(open(os.path.join(here, "plan.json")))
def note(kind, **what):
    with open(os.path.join(here, "notes.jsonl"), "a") as file:
        file.write(json.dumps({"kind": kind, **what}) + "\n")
note("start", argv=sys.argv[1:], env=dict(os.environ), pid=os.getpid(), cwd=os.getcwd())
if plan.get("broken"):
    print(plan["broken"]); sys.exit(1)
feeds, spent = [], {"cost": 0, "tokens": {"input": 0, "output": 0, "reasoning": 0, "cache": {"read": 0, "write": 0}}}
messages = []
def emit(event):
    for feed in list(feeds): feed.put(event)
def play(steps):
    for step in steps:
        if "sleep" in step: time.sleep(step["sleep"])
        elif "die" in step: os._exit(3)
        elif "write" in step: open(step["write"][0], "w").write(step["write"][1])
        elif "spent" in step: spent.update(step["spent"])
        elif "message" in step: messages.append(step["message"])
        else: emit(step)
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def answer(self, status, body=None):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status); self.send_header("content-length", str(len(data))); self.end_headers()
        self.wfile.write(data)
    def allowed(self):
        wanted = "Basic " + base64.b64encode(("kilo:" + os.environ["KILO_SERVER_PASSWORD"]).encode()).decode()
        if self.headers.get("authorization") == wanted: return True
        self.answer(401); return False
    def do_GET(self):
        if not self.allowed(): return
        path = self.path.partition("?")[0]
        if path == "/event":
            feed = queue.Queue(); feeds.append(feed)
            self.send_response(200); self.send_header("content-type", "text/event-stream"); self.end_headers()
            self.wfile.write(b'data: {"type":"server.connected","properties":{}}\n\n'); self.wfile.flush()
            while True:
                event = feed.get()
                self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n"); self.wfile.flush()
        elif path.endswith("/message"): self.answer(200, messages)
        else: self.answer(200, {"id": "ses_1", **spent})
    def do_POST(self):
        if not self.allowed(): return
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"null")
        path = self.path.partition("?")[0]
        note("post", path=path, query=self.path.partition("?")[2], body=body)
        if path == "/session": self.answer(200, {"id": "ses_1"})
        elif path.endswith("prompt_async"):
            if plan.get("gone"): return self.answer(404, {"name": "NotFoundError"})
            self.answer(204)
            threading.Thread(target=play, args=(plan["steps"],), daemon=True).start()
        else: self.answer(200, True)
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(f"kilo server listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever(0.05)
"""

BUSY = {"type": "session.status", "properties": {"sessionID": "ses_1", "status": {"type": "busy"}}}
IDLE = {"type": "session.idle", "properties": {"sessionID": "ses_1"}}


def event(kind: str, **properties: Any) -> dict[str, Any]:
    return {"type": kind, "properties": {"sessionID": "ses_1", **properties}}


def spent(cost: float, tokens_in: int, tokens_out: int) -> dict[str, Any]:
    tokens = {"input": tokens_in, "output": tokens_out, "reasoning": 0, "cache": {"read": 0, "write": 0}}
    return {"spent": {"cost": cost, "tokens": tokens}}


def message(text: str, **info: Any) -> dict[str, Any]:
    said = {"role": "assistant", "modelID": "claude-sonnet-5-5", "finish": "stop", **info}
    return {"message": {"info": said, "parts": [{"type": "text", "text": text}]}}


def says(text: str, cost: float = 0.25) -> list[dict[str, Any]]:
    return [BUSY, message(text), spent(cost, 1000, 100), IDLE]


@dataclass
class FakeKilo:
    """The program, its plan, and what it has noted down."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path.write_text(f"#!{sys.executable}\n{PROGRAM}")
        self.path.chmod(0o755)
        self.plan(says("Done."))

    @property
    def path(self) -> Path:
        return self.folder / "kilo"

    def plan(self, steps: list[dict[str, Any]], **more: Any) -> None:
        (self.folder / "plan.json").write_text(json.dumps({"steps": steps, **more}))

    def notes(self, kind: str) -> list[dict[str, Any]]:
        file = self.folder / "notes.jsonl"
        every = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [note for note in every if note["kind"] == kind]

    def posted(self, end: str) -> list[Any]:
        return [note["body"] for note in self.notes("post") if note["path"].endswith(end)]
