"""Files that a sparse checkout leaves out of a worktree. They are tracked all the same, and are read from the index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gremlins.repository.git import Git, Sha

MOST_BYTES = 64 * 1024 * 1024


def left_out(git: Git) -> dict[str, Sha]:
    """The blobs of the regular files that are tracked and not in the worktree, by path."""
    if git.answer("config", "--get", "--type=bool", "core.sparseCheckout") != "true":
        return {}
    entries = (line[2:].partition("\t") for line in git.names("ls-files", "-t", "--stage", "-z") if line[:2] == "S ")
    return {path: Sha(meta.split()[1]) for meta, _, path in entries if meta.startswith("100")}


def read_left_out(git: Git, largest: int) -> dict[str, bytes]:
    """Their contents, of files up to `largest` bytes and MOST_BYTES in all.

    None in a partial clone: git would fetch every one of them from the network.
    """
    files = left_out(git)
    if not files or git.answer("config", "--get-regexp", r"^(extensions\.partialclone|remote\..*\.promisor)$"):
        return {}
    wanted = dict(_wanted(git, files, largest))
    raw = git.raw("cat-file", "--batch", input="".join(f"{sha}\n" for sha in wanted.values()))
    found, at = {}, 0
    for path in wanted:
        header, _, _ = raw[at : at + 200].partition(b"\n")
        begin = at + len(header) + 1
        at = begin + int(header.split()[2]) + 1
        found[path] = raw[begin : at - 1]
    return found


def _wanted(git: Git, files: Mapping[str, Sha], largest: int) -> Iterator[tuple[str, Sha]]:
    asked = "".join(f"{sha}\n" for sha in files.values())
    shown = git.text("cat-file", "--batch-check=%(objecttype) %(objectsize)", input=asked).splitlines()
    left = MOST_BYTES
    for (path, sha), (kind, _, size) in zip(files.items(), (line.partition(" ") for line in shown), strict=True):
        if kind == "blob" and int(size) <= min(largest, left):
            left -= int(size)
            yield path, sha


def read_one(git: Git, path: str, sha: Sha) -> bytes:
    """The content of one of them as it would be in the worktree."""
    return git.raw("cat-file", "--filters", f"--path={path}", sha)
