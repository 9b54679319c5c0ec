"""A fake of GitHub's command `gh`. It answers the calls that gremlins makes, from a folder of JSON files, as `gh` does:

- `gh auth status`: exit 0, or 1 with "You are not logged into any GitHub hosts" while `logged-out` exists; everything
  else then ends with 4.
- `gh issue view N|URL [--repo O/R] --json …`: the object in `issue.json`, or exit 1 "Could not resolve to an Issue".
- `gh pr create --head B --title T --body X [--base M] [--draft]`: needs the branch on the remote (a bare repository
  whose path is in `remote`), else exit 1 "No commits between"; refuses a second one for the same branch; writes
  `pr.json` as #7, prints its address.
- `gh pr list --head B --state all … --json …`: an array with that pull request, or `[]`, as long as `slow-list` exists.
- `gh pr view 7 --json …`: the object. `headRefOid` is always the remote's own tip of the branch. `statusCheckRollup`
  holds the checks of that commit: `checks.json` maps a commit (or `*`) to a list; a commit without any has none.
- `gh pr merge 7 --squash --match-head-commit SHA`: exit 1 where the head is another; else state MERGED, and the
  remote's base branch moves to a commit of the head's tree (`mergeCommit`). While `queue` exists it stays OPEN. While
  `lost` exists it ends with 1 all the same.
- `gh api repos/{owner}/{repo}/pulls/7/comments --paginate`: `remarks.json`, or `[]`.
- `gh run view ID --log-failed`: `run-ID.log`, or exit 1.
- Exit 1 "HTTP 502" for everything but `auth` while `down` exists. Anything else: exit 2, so that a test fails.

Every call is appended to `calls`. The folder is in FAKE_GH.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(os.environ["FAKE_GH"])


def fail(text: str, code: int = 1) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(code)


def read(name: str, default: Any) -> Any:
    path = HERE / name
    return json.loads(path.read_text()) if path.exists() else default


def remote(*args: str) -> str | None:
    path = (HERE / "remote").read_text().strip()
    done = subprocess.run(["git", "-C", path, *args], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def option(args: list[str], name: str) -> str:
    return args[args.index(name) + 1] if name in args else ""


def shown() -> dict[str, Any] | None:
    pull = read("pr.json", None)
    if pull is None:
        return None
    if pull["state"] == "OPEN":
        pull["headRefOid"] = remote("rev-parse", f"refs/heads/{pull['headRefName']}") or ""
    checks = read("checks.json", {})
    pull["statusCheckRollup"] = checks.get(pull["headRefOid"], checks.get("*", []))
    pull["reviews"] = read("reviews.json", [])
    return dict(pull)


def create(args: list[str]) -> None:
    branch = option(args, "--head")
    if read("pr.json", None) is not None:
        fail(f'a pull request for branch "{branch}" into branch "main" already exists')
    if remote("rev-parse", f"refs/heads/{branch}") is None:
        fail("pull request create failed: GraphQL: No commits between main and " + branch)
    pull = {
        "number": 7,
        "url": "https://github.example/o/r/pull/7",
        "state": "OPEN",
        "isDraft": "--draft" in args,
        "headRefName": branch,
        "baseRefName": option(args, "--base") or "main",
        "mergeCommit": None,
        "comments": [],
        "title": option(args, "--title"),
        "body": option(args, "--body"),
    }
    (HERE / "pr.json").write_text(json.dumps(pull))
    print(pull["url"])


def merge(args: list[str]) -> None:
    pull = shown()
    if pull is None or pull["state"] != "OPEN":
        fail("the pull request is not open")
    if option(args, "--match-head-commit") != pull["headRefOid"]:
        fail("GraphQL: Head branch was modified. Review and try the merge again.")
    if (HERE / "queue").exists():
        return
    base = f"refs/heads/{pull['baseRefName']}"
    old = remote("rev-parse", base) or ""
    who = ["-c", "user.name=GitHub", "-c", "user.email=noreply@github.example"]
    new = remote(*who, "commit-tree", f"{pull['headRefOid']}^{{tree}}", "-p", old, "-m", pull["title"])
    remote("update-ref", base, new or "")
    pull.update(state="MERGED", mergeCommit={"oid": new})
    (HERE / "pr.json").write_text(json.dumps(pull))
    if (HERE / "lost").exists():
        fail("HTTP 502: Bad Gateway")


def main(args: list[str]) -> None:
    with (HERE / "calls").open("a") as file:
        file.write(" ".join(args[:3]) + "\n")
    if args[:2] == ["auth", "status"]:
        if (HERE / "logged-out").exists():
            fail("You are not logged into any GitHub hosts. To log in, run: gh auth login")
        return
    if (HERE / "logged-out").exists():
        fail("To get started with GitHub CLI, please run:  gh auth login", 4)
    if (HERE / "down").exists():
        fail("HTTP 502: Bad Gateway (https://api.github.example/graphql)")
    match args:
        case ["issue", "view", *_]:
            print((HERE / "issue.json").read_text()) if (HERE / "issue.json").exists() else fail(
                "GraphQL: Could not resolve to an Issue with the number of 42."
            )
        case ["pr", "create", *_]:
            create(args)
        case ["pr", "list", *_]:
            pull = None if (HERE / "slow-list").exists() else shown()
            print(json.dumps([pull] if pull and pull["headRefName"] == option(args, "--head") else []))
        case ["pr", "view", "7", *_]:
            print(json.dumps(shown())) if shown() else fail("no pull requests found")
        case ["pr", "merge", "7", "--squash", *_]:
            merge(args)
        case ["api", "repos/{owner}/{repo}/pulls/7/comments", "--paginate"]:
            print(json.dumps(read("remarks.json", [])))
        case ["run", "view", number, "--log-failed"]:
            path = HERE / f"run-{number}.log"
            print(path.read_text()) if path.exists() else fail("run not found")
        case _:
            fail(f"the fake does not know: gh {' '.join(args)}", 2)


main(sys.argv[1:])
