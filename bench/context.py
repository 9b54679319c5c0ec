"""Measures the context pack on real issues: `python -m bench.context --instances FILE --mirrors DIR --trees DIR --out FILE`.

FILE holds one JSON object a line (`id lang repo base issue patch gold`), plain or gzipped; the mirrors hold a git directory
for each repository, below a folder named `owner+name`. Neither is part of this repository. For each instance the base
commit is checked out, the pack built for the issue's text, and judged by the real fix:

- `file`: every source file that the fix edits is shown, whole or in part;
- `b`: every line that it removes, and the context lines of all its hunks, are visible.

`named` appends the paths of those files to the issue, as a plan does that names them. `asked` is what a model has seen
that was shown the pack of the issue alone and then asked for those files. `bm25` shows whole code files by plain BM25, as
a floor. What is in --out is not done again; `--table` prints it.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import math
import os
import re
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import unescape

from gremlins.stages.context.kinds import is_code
from gremlins.stages.context.pack import Subject, build_pack
from gremlins.stages.context.reading import Files
from gremlins.stages.context.showing import whole
from gremlins.stages.context.supply import supply
from gremlins.stages.wants import Need, Want

_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_FILE = re.compile(r'^<file(-[0-9a-f]{8})? path=("[^"\n]*"|\'[^\'\n]*\')(?: lines="([^"]*)")?[^>\n]*>\n', re.M)
_QUIET = ("-c", "advice.detachedHead=false", "-c", "core.autocrlf=false", "-c", "filter.lfs.smudge=")


def git(*args: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *args], cwd=cwd, check=check, capture_output=True, text=True, errors="replace")


def objects_of(mirrors: Path, repo: str) -> Path | None:
    """The objects of a repository's mirror."""
    wanted = repo.replace("/", "+").lower()
    for folder in mirrors.iterdir():
        if folder.name.lower() == wanted:
            return next(
                (Path(at, "objects") for at, below, _ in os.walk(folder) if {"objects", "refs"} <= {*below}), None
            )
    return None


def check_out(objects: Path, trees: Path, repo: str, commit: str) -> Path:
    tree = trees / repo.replace("/", "+")
    if not tree.exists():
        git("init", "-q", str(tree))
        alternates = tree / ".git/objects/info/alternates"
        alternates.parent.mkdir(parents=True, exist_ok=True)
        alternates.write_text(f"{objects}\n")
    if git(*_QUIET, "checkout", "-q", "-f", "--detach", commit, cwd=tree, check=False).returncode:
        git("read-tree", "--reset", commit, cwd=tree)  # a mirror may lack the largest files
        git(*_QUIET, "checkout-index", "-a", "-f", "-q", cwd=tree, check=False)
    git("clean", "-q", "-f", "-d", "-x", cwd=tree)
    return tree


def old_lines(patch: str) -> Iterator[tuple[str, set[int]]]:
    """Path and old lines, removed and context, of each hunk."""
    path, lines, number, old, new = "", set[int](), 0, 0, 0
    for line in patch.split("\n"):
        if found := re.match(r"diff --git a/(.*) b/(.*)$", line):
            path, old, new = found[1], 0, 0
        elif old <= 0 and new <= 0 and (found := _HUNK.match(line)):
            number, old, new = int(found[1]), int(found[2] or 1), int(found[3] or 1)
            lines = set()
        elif (old > 0 or new > 0) and line[:1] in ("-", "+", " "):
            if line[0] != "+":
                lines.add(number)
                number, old = number + 1, old - 1
            new -= line[0] != "-"
            if old <= 0 and new <= 0:
                yield path, lines


def visible(text: str) -> dict[str, set[int] | None]:
    """The lines of each file that a prompt shows; None: all of them."""
    shown: dict[str, set[int] | None] = {}
    for found in _FILE.finditer(text):
        lines = None
        if found[3]:
            spans = (part.split("-") for part in found[3].split(" of ")[0].split(", "))
            lines = {number for span in spans for number in range(int(span[0]), int(span[-1]) + 1)}
        path = unescape(found[2][1:-1], {"&quot;": '"'})
        before = shown.get(path, set[int]())
        shown[path] = None if lines is None or before is None else before | lines
    return shown


def judge(instance: dict[str, Any], text: str) -> dict[str, bool]:
    shown, gold = visible(text), set(instance["gold"])
    hunks = [(path, lines) for path, lines in old_lines(instance["patch"]) if path in gold]
    seen = [path in shown and ((lines := shown[path]) is None or old <= lines) for path, old in hunks]
    return {"file": gold <= shown.keys(), "b": all(seen)}


def bm25(root: Path, task: str, budget: int) -> str:
    """Whole code files by plain BM25 over words, the best first, as long as they fit."""
    sources = {path: source for path, source in Files(root).corpus.sources.items() if is_code(path)}
    words = set(re.findall(r"[A-Za-z_]\w+", task))
    count, average = len(sources), sum(source.size for source in sources.values()) / max(1, len(sources)) or 1
    holding = {word: sum(word in source.counts for source in sources.values()) for word in words}
    scores = {
        path: sum(
            math.log(1 + (count - holding[word] + 0.5) / (holding[word] + 0.5))
            * (often * 2.2 / (often + 1.2 * (0.25 + 0.75 * source.size / average)))
            for word in words
            if (often := source.counts.get(word, 0))
        )
        for path, source in sources.items()
    }
    parts = []
    for path in sorted(scores, key=lambda path: (-scores[path], path)):
        shown = whole(sources[path], "")
        if shown.tokens <= budget and scores[path]:
            parts.append(shown.text)
            budget -= shown.tokens
    return "".join(parts)


def pack(root: Path, instance: dict[str, Any], what: str, budget: int) -> str:
    task = instance["issue"]
    if what == "bm25":
        return bm25(root, task, budget)
    if what == "named":
        task += "\n\nFiles to change:\n" + "".join(f"- `{path}`\n" for path in instance["gold"])
    shown = build_pack(root, Subject(task), budget=budget).text
    if what == "asked":
        shown += supply(root, Need(tuple(map(Want, instance["gold"]))), shown, budget=budget).text
    return shown


def measured(root: Path, instance: dict[str, Any], what: str, budget: int) -> dict[str, Any]:
    """One pack, built in a process of its own for its peak memory."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        found: dict[str, Any] = judge(instance, pack(root, instance, what, budget))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        found |= {"seconds": round(usage.ru_utime + usage.ru_stime, 2), "mb": usage.ru_maxrss // 1024}
        os.write(writer, json.dumps(found).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(said) if said else {}


def table(out: Path) -> str:
    """What was measured, by language: the share of instances in per cent, the worst processor time and memory."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = collections.defaultdict(list)
    for line in out.read_text().splitlines():
        row = json.loads(line)
        rows[row["lang"], row["what"]].append(row)
    lines = ["| language | n | what | file | b | worst s | worst MB |", "|---|--:|---|--:|--:|--:|--:|"]
    for (language, what), found in sorted(rows.items()):
        shares = " | ".join(f"{100 * sum(row[key] for row in found) / len(found):.0f}" for key in ("file", "b"))
        worst = f"{max(row['seconds'] for row in found):.1f} | {max(row['mb'] for row in found)}"
        lines.append(f"| {language} | {len(found)} | {what} | {shares} | {worst} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.context", description="The context pack on real issues.")
    for option in ("instances", "mirrors", "trees", "out"):
        parser.add_argument(f"--{option}", type=Path, required=option == "out")
    parser.add_argument("--what", default="pack,named,asked,bm25")
    parser.add_argument("--budget", type=int, default=60_000)
    parser.add_argument("--table", action="store_true", help="print what --out holds")
    options = parser.parse_args()
    if not options.table:
        _measure(options)
    print(table(options.out))


def _measure(options: argparse.Namespace) -> None:
    opener = gzip.open if options.instances.suffix == ".gz" else open
    with opener(options.instances, "rt", encoding="utf-8") as lines:
        instances = sorted(map(json.loads, lines), key=lambda one: (one["repo"], one["base"]))
    done = set()
    if options.out.exists():
        done = {(row["id"], row["what"]) for row in map(json.loads, options.out.read_text().splitlines())}
    options.trees.mkdir(parents=True, exist_ok=True)
    with options.out.open("a", encoding="utf-8") as sink:
        for instance in instances:
            wanted = [what for what in options.what.split(",") if (instance["id"], what) not in done]
            objects = objects_of(options.mirrors, instance["repo"]) if wanted else None
            if objects is None:
                continue
            root = check_out(objects, options.trees, instance["repo"], instance["base"])
            for what in wanted:
                if found := measured(root, instance, what, options.budget):
                    names = {key: instance[key] for key in ("id", "lang", "repo")}
                    sink.write(json.dumps({**names, "what": what, **found}) + "\n")
                    sink.flush()


if __name__ == "__main__":
    # Seconds are the processor's: other load on the machine does not count.
    begun = time.perf_counter()
    main()
    print(f"in {time.perf_counter() - begun:.0f} s")
