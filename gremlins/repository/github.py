"""Reads and changes GitHub by the `gh` command on PATH, with the person's own login."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gremlins.errors import GremlinsError, NotFound, NotReady
from gremlins.processes.children import TimedOut, command_env, run
from gremlins.redaction import Redactor
from gremlins.repository.git import Git, HostGitError
from gremlins.text import normalised, normalised_value

TIMEOUT = 120.0
"""Seconds for one command of gh."""
AUTH_NEEDED = 4
"""gh's exit code if a login is needed."""
FIELDS = (
    "number,url,state,isDraft,headRefName,headRefOid,baseRefName,mergeCommit,statusCheckRollup,reviews,comments,title"
)
GOOD = frozenset({"SUCCESS", "NEUTRAL", "SKIPPED"})
GIVEN_UP = frozenset({"CANCELLED", "STALE"})
"""Conclusions of a run that no longer count once there is a newer run."""
LOG_TAIL = 16_000
"""Characters of a failed run's log that are kept."""

CheckState = Literal["passed", "failed", "pending"]


class GhFailed(GremlinsError):
    """gh failed; it may work later."""


@dataclass(frozen=True)
class CommitCheck:
    """One check of a commit."""

    name: str
    state: CheckState
    url: str = ""


@dataclass(frozen=True)
class Review:
    """One review of a pull request. `state`: APPROVED, CHANGES_REQUESTED, COMMENTED; any other counts for nothing."""

    id: str
    author: str
    state: str
    body: str


@dataclass(frozen=True)
class Comment:
    """A review comment at a line of the diff."""

    id: str
    author: str
    path: str
    line: int | None
    body: str


@dataclass(frozen=True)
class PullRequest:
    """A pull request as it is now."""

    number: int
    url: str
    state: Literal["OPEN", "CLOSED", "MERGED"]
    head: str
    """The tip of its branch on GitHub."""
    base: str
    merge_commit: str | None
    checks: tuple[CommitCheck, ...]
    reviews: tuple[Review, ...]


@dataclass(frozen=True)
class GitHubIssue:
    """An issue of GitHub."""

    title: str
    body: str
    url: str

    @property
    def text(self) -> str:
        return f"# {self.title}\n\n{self.body.strip()}\n\nFrom {self.url}\n"


class GitHub:
    """gh in one repository. Raises NotReady if gh is missing or not logged in, else GhFailed."""

    def __init__(self, cwd: Path, env: Mapping[str, str], check: Callable[[], None] | None = None) -> None:
        """`check` is called while gh runs, and ends it by raising."""
        self.cwd = cwd
        self.check = check
        # gh has its own login and runs git: no credential of ours, no variable that names another repository.
        self.login = {name: value for name, value in env.items() if re.match(r"(GH|GITHUB)_", name)}
        quiet = {"GH_PROMPT_DISABLED": "1", "NO_COLOR": "1", "GH_NO_UPDATE_NOTIFIER": "1", "GH_PAGER": "cat"}
        self.env = {**command_env(env), **self.login, **quiet}

    def command(self, *args: str, timeout: float = TIMEOUT) -> str:
        """Standard output of gh."""
        try:
            done = run(["gh", *args], cwd=self.cwd, env=self.env, timeout=timeout, check=self.check)
        except FileNotFoundError:
            raise NotReady(
                "the GitHub command `gh` is not installed", hint="see https://cli.github.com, then `gh auth login`"
            ) from None
        except TimedOut as error:
            raise GhFailed(str(error)) from None
        except OSError as error:  # it printed too much, or it is just being replaced
            raise GhFailed(f"`gh {' '.join(args[:2])}`: {error.strerror}") from None
        if done.returncode == 0:
            return done.stdout
        said = done.stderr.strip() or done.stdout.strip()
        if done.returncode == AUTH_NEEDED or re.search(r"gh auth login|authentication required|HTTP 401", said):
            raise NotReady("`gh` is not logged in to GitHub", hint="run `gh auth login`")
        cause = _cause(said.splitlines(), self.login) or "it said nothing"
        raise GhFailed(f"`gh {' '.join(args[:2])}` ended with {done.returncode}: {cause}")

    def json(self, *args: str) -> Any:
        """The JSON that gh printed. Several arrays in a row (pages) are joined."""
        text = self.command(*args).strip()
        decoder, values, at = json.JSONDecoder(), [], 0
        try:
            while at < len(text):
                value, at = decoder.raw_decode(text, at)
                values.append(normalised_value(value))
                at += len(text[at:]) - len(text[at:].lstrip())
        except (ValueError, RecursionError) as error:
            raise GhFailed(f"`gh {' '.join(args[:2])}` answered what is not JSON: {error}") from None
        if not values:
            raise GhFailed(f"`gh {' '.join(args[:2])}` answered nothing")
        if len(values) > 1 and all(isinstance(page, list) for page in values):
            return [item for page in values for item in page]
        return values[0]

    # ── before a launch ───────────────────────────────────────────────────────────────────────────────────────

    def check_ready(self, patience: float = 10.0) -> None:
        """Raise NotReady unless gh is installed and logged in and there is a remote to push to.

        patience: seconds for gh. A dispatch loop does nothing else meanwhile, not even end.
        """
        try:
            self.command("auth", "status", timeout=patience)
        except GhFailed as error:
            raise NotReady(f"`gh` does not work: {error.message}", hint="`gh auth status` shows why") from None
        remote_of(Git(self.cwd))

    # ── issues ────────────────────────────────────────────────────────────────────────────────────────────────

    def issue(self, reference: str) -> GitHubIssue:
        """Read an issue by `#42`, `owner/repo#42` or its address. Raises NotFound."""
        repo, _, number = reference.rpartition("#")
        where = [reference] if "://" in reference else [number, *(["--repo", repo] if repo else [])]
        try:
            found = self.json("issue", "view", *where, "--json", "title,body,url")
        except GhFailed as error:
            if re.search(r"could not resolve|not found|no issue", error.message, re.IGNORECASE):
                raise NotFound(f"no issue {reference}: {error.message}") from None
            raise
        return GitHubIssue(
            str(found.get("title") or reference), str(found.get("body") or ""), str(found.get("url") or reference)
        )

    # ── pull requests ─────────────────────────────────────────────────────────────────────────────────────────

    def of_branch(self, branch: str) -> list[PullRequest]:
        """Every pull request of a branch, closed ones included, newest first."""
        found = self.json("pr", "list", "--head", branch, "--state", "all", "--limit", "20", "--json", FIELDS)
        with _expected("gh pr list"):
            return [_pull_request(row) for row in found]

    def view(self, number: int) -> PullRequest:
        found = self.json("pr", "view", str(number), "--json", FIELDS)
        with _expected("gh pr view"):
            return _pull_request(found)

    def create(self, *, branch: str, title: str, body: str, base: str | None, draft: bool) -> int | None:
        """Open a pull request. Returns its number if gh prints it; a list may not contain it yet."""
        args = ["--head", branch, "--title", title, "--body", body]
        args += ["--base", base] if base else []
        said = self.command("pr", "create", *args, *(["--draft"] if draft else []))
        found = re.search(r"/pull/(\d+)\b", said)
        return int(found[1]) if found else None

    def merge(self, number: int, head: str) -> None:
        """Squash and merge, only if its branch still ends in commit `head`."""
        self.command("pr", "merge", str(number), "--squash", "--match-head-commit", head)

    def remarks(self, number: int) -> list[Comment]:
        """The review comments at lines of the diff."""
        rows = self.json("api", f"repos/{{owner}}/{{repo}}/pulls/{number}/comments", "--paginate")
        with _expected("gh api"):
            return [_comment(row) for row in rows]

    def failed_log(self, check: CommitCheck) -> str:
        """The end of a failed run's log; empty for a check that is no run."""
        found = re.search(r"/actions/runs/(\d+)", check.url)
        return normalised(self.command("run", "view", found[1], "--log-failed")[-LOG_TAIL:]) if found else ""


@contextlib.contextmanager
def _expected(command: str) -> Iterator[None]:
    """GhFailed for JSON of another shape, such as the message of a rate limit."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise GhFailed(f"`{command}` answered JSON of another shape ({type(error).__name__}: {error})") from None


def _current(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The checks that still count. GitHub also lists runs that were repeated, or canceled by a newer one.

    A failure in another run of the same name counts: it may be the same job for another event.
    """
    dated = [row for row in rows if row.get("startedAt") and (row.get("name") or row.get("context"))]
    newer: set[object] = set()
    superseded: list[Mapping[str, Any]] = []
    for row in sorted(dated, key=lambda row: str(row["startedAt"]), reverse=True):
        name = ("context" in row, row.get("workflowName") or "", row.get("name") or row.get("context"))
        found = re.search(r"/actions/runs/(\d+)", str(row.get("detailsUrl") or ""))
        run_ = (*name, found[1] if found else "")
        if run_ in newer or (name in newer and row.get("conclusion") in GIVEN_UP):
            superseded.append(row)
        newer |= {name, run_}
    return [row for row in rows if not any(row is other for other in superseded)]


def _pull_request(row: Mapping[str, Any]) -> PullRequest:
    if row["state"] not in ("OPEN", "CLOSED", "MERGED"):
        raise ValueError(f"state {row['state']}")
    return PullRequest(
        number=int(row["number"]),
        url=str(row.get("url") or ""),
        state=row["state"],
        head=str(row.get("headRefOid") or ""),
        base=str(row.get("baseRefName") or ""),
        merge_commit=(row.get("mergeCommit") or {}).get("oid"),
        checks=tuple(_check(check) for check in _current(row.get("statusCheckRollup") or ())),
        reviews=tuple(_review(review) for review in row.get("reviews") or ()),
    )


def _check(row: Mapping[str, Any]) -> CommitCheck:
    """A check run, or a commit status, which has only a state."""
    name = str(row.get("name") or row.get("context") or "a check")
    url = str(row.get("detailsUrl") or row.get("targetUrl") or "")
    status, result = row.get("status"), row.get("conclusion") or row.get("state") or ""
    if (status is not None and status != "COMPLETED") or result in ("", "PENDING", "EXPECTED"):
        return CommitCheck(name, "pending", url)
    return CommitCheck(name, "passed" if result in GOOD else "failed", url)


def _review(row: Mapping[str, Any]) -> Review:
    return Review(
        id=str(row.get("id") or ""),
        author=str((row.get("author") or {}).get("login") or "unknown"),
        state=str(row.get("state") or ""),
        body=str(row.get("body") or ""),
    )


def _comment(row: Mapping[str, Any]) -> Comment:
    return Comment(
        id=str(row.get("id") or ""),
        author=str((row.get("user") or {}).get("login") or "unknown"),
        path=str(row["path"]),
        line=row.get("line") or row.get("original_line"),
        body=str(row["body"] or ""),
    )


ISSUE = re.compile(r"(?:[\w.-]+/[\w.-]+)?#\d+|https?://[^/\s]+/[\w.-]+/[\w.-]+/issues/\d+(?:[#?]\S*)?")
"""A reference to an issue: `#42`, `owner/repo#42`, or its address."""


# ── pushing ───────────────────────────────────────────────────────────────────────────────────────────────────────


class PushRefused(GremlinsError):
    """The remote refuses the branch until a person acts."""


def remote_of(git: Git) -> str:
    """The remote to push to: `origin`, or the only one. Raises NotReady."""
    names = git.text("remote").split()
    if "origin" in names:
        return "origin"
    if len(names) == 1:
        return names[0]
    raise NotReady(
        "the repository has no remote `origin` to push to", hint="git remote add origin git@github.com:OWNER/REPO.git"
    )


_ADVICE = re.compile(
    r"hint:|[Ww]arning:|Please make sure|and the repository exists|To |Done$|error: failed to push some refs"
)
_MAY_PASS = re.compile(
    r"\[remote failure\]|internal server error|unpacker error|unable to migrate|cannot lock ref|failed to update ref",
    re.IGNORECASE,
)
"""The remote's own trouble, in git's line about the branch."""


def _cause(lines: Sequence[str], login: Mapping[str, str]) -> str:
    """The program's own reason, which comes first: its last lines are often only advice."""
    own = [line for line in lines if line.strip() and not _ADVICE.match(line)]
    return _said(own[:3] or lines, login)


def _said(lines: Sequence[str], login: Mapping[str, str]) -> str:
    """Lines from outside as one, without secrets."""
    text = "; ".join(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
    return Redactor(login).message(normalised(text))[:300]


def push(git: Git, branch: str, login: Mapping[str, str], check: Callable[[], None]) -> None:
    """Push the gremlin's own branch, fast-forward only. `check` may end it by raising.

    login: variables with which git's credential helpers log in.

    Raises PushRefused (the remote has other commits, or its rules forbid it), GhFailed (it may work later).
    """
    ref = f"refs/heads/{branch}"
    words = ("push", "--porcelain", remote_of(git), f"{ref}:{ref}")
    try:
        done = git.attempt(*words, env=login, timeout=TIMEOUT * 5, check=check)
    except HostGitError as error:  # it took too long
        raise GhFailed(f"the push did not work: {error}") from None
    if done.returncode == 0:
        return
    lines = [line.strip() for line in done.output.splitlines() if line.strip()]
    refused = next((line for line in lines if line.startswith("!")), None)
    if refused is None or _MAY_PASS.search(refused):
        raise GhFailed(f"the push did not work: {_cause(lines, login) or 'git said nothing'}")
    if "remote rejected" in refused:
        by_remote = [line.removeprefix("remote:") for line in lines if line.startswith("remote:")]
        raise PushRefused(f"the remote refuses {branch}: {_said(by_remote, login) or _said([refused], login)}")
    raise PushRefused(
        f"the remote has commits on {branch} that the gremlin does not have; nothing was forced over them"
    )
