"""The board's routes: pages to read, forms that run commands, and streams of what changes."""

from __future__ import annotations

import os
import re
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup, escape
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from gremlins.cli.fleet_table import cost_of, diff_of, group_of
from gremlins.cli.out import ago, dollars
from gremlins.clock import Clock
from gremlins.errors import GremlinsError
from gremlins.fleet.history import History, history
from gremlins.fleet.status import Row
from gremlins.masking import mask
from gremlins.paths import GREMLIN_ID, Home
from gremlins.records.gremlin import Remark
from gremlins.redaction import Redactor
from gremlins.text import cleaned, normalised
from gremlins.web import views
from gremlins.web.actions import Said, run_command, send_back
from gremlins.web.change import change_of
from gremlins.web.pictures import lanes
from gremlins.web.watch import Feed, FleetWatch

HERE = Path(__file__).parent
REMEMBERED_WORDS = 100
"""Answers of commands that wait to be read on the next page."""
PLAIN_VERBS = frozenset({"stop", "rescue", "ack", "land"})
BEAD_VERBS = frozenset({"retry", "release", "close", "reopen", "hold"})


@dataclass
class Board:
    """The pages of one state root. `folder` is where the board was started."""

    home: Home
    clock: Clock
    folder: Path
    env: Mapping[str, str] = field(default_factory=lambda: os.environ)
    words: OrderedDict[str, Said] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.watch = FleetWatch(self.home, self.clock)
        self.feed = Feed(self.watch)
        self.project = views.project_at(self.folder)
        self.root = views.root_at(self.folder)
        self.redactor = Redactor(self.env)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self.fleet),
                Route("/launch", self.launch, methods=["POST"]),
                Route("/events/fleet", self.fleet_events),
                Route("/events/g/{id}", self.gremlin_events),
                Route("/g/{id}", self.gremlin),
                Route("/g/{id}/{verb}", self.act, methods=["POST"]),
                Route("/beads", self.beads),
                Route("/beads/{verb}", self.act_on_bead, methods=["POST"]),
                Route("/money", self.money),
                Mount("/static", StaticFiles(directory=HERE / "static")),
            ],
            exception_handlers={HTTPException: self.trouble, GremlinsError: self.trouble},
        )

    # ── pages ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def fleet(self, request: Request) -> Response:
        await run_in_threadpool(self.watch.look)
        page = await run_in_threadpool(views.fleet_page, self.watch, self.root)
        return self.page(request, "fleet.html", page=page, number=self.watch.changes, row_words=self.row_words())

    async def gremlin(self, request: Request) -> Response:
        name = _id(request)
        await run_in_threadpool(self.watch.look)
        found = await run_in_threadpool(history, self.home, name, self.clock)
        whole = request.query_params.get("part") != "live"
        more = await run_in_threadpool(self._slow_parts, found) if whole else {}
        return self.page(
            request,
            "gremlin.html",
            found=found,
            row=found.row,
            lanes=lanes(found),
            question=views.question(found.row),
            **more,
        )

    def _slow_parts(self, found: History) -> dict[str, Any]:
        finished = found.row.life.state == "finished"
        return {
            "change": change_of(self.home, found.record.id, self.clock),
            "landing": views.landing(self.home, found.row, self.clock) if finished else None,
            "texts": views.texts(found),
        }

    async def beads(self, request: Request) -> Response:
        await run_in_threadpool(self.watch.look)
        others = () if self.home.cluster else self.watch.rows.values()  # a cluster's projects are not all here
        known = {row.record.project for row in others} | ({self.project} if self.project else set())
        asked = request.query_params.get("project", self.project or next(iter(sorted(known)), None))
        if asked is not None and asked not in known:
            raise HTTPException(404, "There is no such project here.")
        page = await run_in_threadpool(views.beads_page, self.home, self.clock, asked, sorted(known))
        return self.page(request, "beads.html", page=page)

    async def money(self, request: Request) -> Response:
        return self.page(request, "money.html", page=await run_in_threadpool(views.money_page, self.home, self.clock))

    async def trouble(self, request: Request, error: Exception) -> Response:
        """A page, in words, for a thing that is not there or cannot be read."""
        code = error.status_code if isinstance(error, HTTPException) else 404
        words = error.detail if isinstance(error, HTTPException) else getattr(error, "message", str(error))
        return self.page(request, "trouble.html", status_code=code, trouble=words)

    # ── actions ───────────────────────────────────────────────────────────────────────────────────────────────

    async def launch(self, request: Request) -> Response:
        form = await request.form()
        task, pipeline = _text(form, "task"), _text(form, "pipeline").strip()
        words = ["launch", "--", *([pipeline] if pipeline else []), "-"]
        said = await run_in_threadpool(run_command, words, self.folder, text=task)
        return self.answer("/", said)

    async def act(self, request: Request) -> Response:
        name, verb, form = _id(request), request.path_params["verb"], await request.form()
        row = self.watch.rows.get(name)
        folder = self.folder if row is None or self.home.cluster else row.record.tree
        back = f"/g/{name}"
        if verb == "revise":
            return self.answer(
                back, await run_in_threadpool(send_back, name, folder, _text(form, "text"), _remarks(form))
            )
        if verb == "answer":
            words, text = ["answer", "--", name, "-"], _text(form, "text")
        elif verb == "rm":
            words, text, back = ["rm", *(["--force"] if form.get("force") else []), "--", name], "", "/"
        elif verb in PLAIN_VERBS:
            words, text = [verb, "--", name], ""
        else:
            raise HTTPException(404, "There is no such action.")
        said = await run_in_threadpool(run_command, words, folder, text=text)
        return self.answer(back if said.good else f"/g/{name}", said)

    async def act_on_bead(self, request: Request) -> Response:
        verb, form = request.path_params["verb"], await request.form()
        project, bead = _text(form, "project"), _text(form, "bead")
        folder = Path(project) if project else self.folder
        if verb == "create":
            more = [f"--description={_text(form, 'description')}", f"--priority={_text(form, 'priority') or '2'}"]
            words = ["bead", "create", *more, "--", _text(form, "title")]
        elif verb == "edit":
            fields = ("title", "description", "priority")
            words = ["bead", "update", *(f"--{name}={_text(form, name)}" for name in fields), "--", bead]
        elif verb == "breaker":
            words = ["dispatch", "breaker", "reset"]
        elif verb in BEAD_VERBS:
            words = ["bead", verb, "--", bead]
        else:
            raise HTTPException(404, "There is no such action.")
        said = await run_in_threadpool(run_command, words, folder)
        return self.answer("/beads", said, project=project)

    def answer(self, path: str, said: Said, **query: str) -> Response:
        """Go to a page that shows what the command said."""
        key = secrets.token_urlsafe(8)
        self.words[key] = said
        while len(self.words) > REMEMBERED_WORDS:
            self.words.popitem(last=False)
        return RedirectResponse(str(_url(path, {**query, "said": key})), 303)

    # ── streams ───────────────────────────────────────────────────────────────────────────────────────────────

    async def fleet_events(self, request: Request) -> Response:
        return _stream(self._fleet_events(_number(request)))

    async def _fleet_events(self, number: int) -> AsyncIterator[str]:
        rows = self.templates.get_template("moved.html")
        async for last, before in self.feed.changes(number):
            moved = [(name, group, self.watch.rows.get(name)) for name, group in before.items()]
            html = rows.render(
                self.common
                | {"moved": moved, "row_words": self.row_words(), "summary": views.fleet_summary(self.watch)}
            )
            yield _event("rows", html, last)

    async def gremlin_events(self, request: Request) -> Response:
        return _stream(self._gremlin_events(_id(request), _number(request)))

    async def _gremlin_events(self, name: str, number: int) -> AsyncIterator[str]:
        async for last, before in self.feed.changes(number):
            if name in before:
                row = self.watch.rows.get(name)
                moved = row is None or before[name] != group_of(row)
                yield _event("moved" if moved else "changed", "", last)

    # ── templates ─────────────────────────────────────────────────────────────────────────────────────────────

    def page(self, request: Request, template: str, *, status_code: int = 200, **context: Any) -> Response:
        said = self.words.pop(request.query_params.get("said", ""), None)
        place = request.url.path.split("/")[1]
        html = self.templates.get_template(template).render(
            self.common | {"said": said, "place": place, "number": self.watch.changes} | context
        )
        return HTMLResponse(html, status_code)

    def row_words(self) -> Callable[[Row], dict[str, Any]]:
        return partial(views.row_words, clock=self.clock, projects=views.projects_of(self.watch))

    @property
    def common(self) -> dict[str, Any]:
        return {"now": self.clock.now(), "views": views, "shown_groups": views.SHOWN, "group_of": group_of}

    @cached_property
    def templates(self) -> jinja2.Environment:
        """Everything that is printed is cleaned of orders to a terminal and of keys, and escaped."""
        made = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            finalize=self._shown,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        made.filters |= {
            "slug": views.slug,
            "markdown": self._markdown,
            "masked": mask,
            "ticks": self._ticks,
            "dollars": dollars,
        }
        made.filters |= {"cost": cost_of, "diff": diff_of, "since": self._since, "ago": ago}
        return made

    def _shown(self, value: Any) -> Any:
        if isinstance(value, Markup) or not isinstance(value, str):
            return "" if value is None else value
        return self.redactor.text(cleaned(value))

    def _markdown(self, text: str) -> Markup:
        tokens = _MARKDOWN.parse(self.redactor.text(mask(cleaned(text))))
        for token in tokens:
            if token.attrs.pop("style", None) == "text-align:right":  # the policy forbids styles in markup
                token.attrs["class"] = "n"
        return Markup(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))

    def _ticks(self, text: str) -> Markup:
        """Commands between backticks as code."""
        return Markup(_TICKS.sub(r"<code>\1</code>", str(escape(self._shown(text)))))

    def _since(self, moment: datetime) -> str:
        return ago((self.clock.now() - moment).total_seconds())


_TICKS = re.compile(r"`([^`\n]{1,200})`")
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


def _id(request: Request) -> str:
    name = str(request.path_params["id"])
    if not GREMLIN_ID.fullmatch(name):
        raise HTTPException(404, "There is no such gremlin.")
    return name


def _text(form: Any, name: str) -> str:
    value = form.get(name, "")
    return normalised(value) if isinstance(value, str) else ""


def _remarks(form: Any) -> list[Remark]:
    """The comments on lines: three fields each."""
    rows = zip(form.getlist("path"), form.getlist("line"), form.getlist("remark"), strict=False)
    return [
        Remark(text=normalised(text), path=normalised(path), line=int(line))
        for path, line, text in rows
        if text.strip() and line.isdecimal()
    ]


def _number(request: Request) -> int:
    """The last change that a page has seen: it says so when it comes back."""
    given = request.headers.get("last-event-id") or request.query_params.get("seen", "")
    return int(given) if given.isdecimal() and len(given) < 18 else 0


def _url(path: str, query: Mapping[str, str]) -> str:
    from urllib.parse import urlencode

    return f"{path}?{urlencode({name: value for name, value in query.items() if value})}"


def _event(name: str, data: str, number: int) -> str:
    lines = "".join(f"data: {line}\n" for line in data.splitlines()) or "data:\n"
    return f"event: {name}\nid: {number}\n{lines}\n"


def _stream(events: AsyncIterator[str]) -> Response:
    return StreamingResponse(events, media_type="text/event-stream")
