"""The verbs and their modules. Imports nothing, because every start goes through here."""

from __future__ import annotations

from typing import NamedTuple

DEFAULT_VERB = "status"
DEFAULT_WATCH = "2"
"""Seconds between looks where `--watch` names none."""


class Verb(NamedTuple):
    """A verb's module, and its line in the list of commands."""

    module: str
    help: str
    is_group: bool = False


VERBS = {
    "status": Verb("status", "The fleet: who works, who waits, who needs you. The default."),
    "launch": Verb("launch", "Start a gremlin on a task."),
    "pipelines": Verb("pipelines", "The pipelines there are: built in, and the project's own."),
    "log": Verb("log", "What happened, line by line; -f follows."),
    "show": Verb("show", "All about one gremlin: stages, calls, batches, cost, artifacts."),
    "stop": Verb("stop", "Stop gremlins; an outstanding batch is canceled."),
    "rescue": Verb("rescue", "Bring back what is dead, detached, bailed, stopped or stalled."),
    "answer": Verb("answer", "Answer what a bailed gremlin asks; the stage goes on with it."),
    "ack": Verb("ack", "Accept a bail and go on with the next stage."),
    "diff": Verb("diff", "The change of a gremlin's branch, as git shows it."),
    "revise": Verb("revise", "Send a finished gremlin back with remarks, for one more round."),
    "land": Verb("land", "Bring a finished gremlin's work onto your branch."),
    "rm": Verb("rm", "Remove gremlins and their worktrees."),
    "clean": Verb("clean", "Remove what has landed, and what is over without commits."),
    "relocate": Verb("relocate", "Tell gremlins and beads that their repository was moved here."),
    "cost": Verb("cost", "What it has cost, by gremlin, stage, model, day or bead."),
    "trust": Verb("trust", "Say yes to the settings and pipelines that a repository brings."),
    "doctor": Verb("doctor", "Look at git, credentials, settings, disk and records."),
    "bead": Verb("bead.app", "Work items: create, list, ready, show, update, close …", is_group=True),
    "dispatch": Verb("dispatch.app", "Hand ready beads to gremlins until they are done.", is_group=True),
    "worker": Verb("worker", "Work for the fleet of several hosts (extra `cluster`)."),
    "cluster": Verb("cluster.app", "The database of a fleet of several hosts (the same extra).", is_group=True),
    "demo": Verb("demo", "A whole pipeline against the simulator; no key needed."),
    "board": Verb("board", "The fleet, beads and money on a page in your browser (extra `web`)."),
    "mcp": Verb("mcp", "The verbs as tools for your own interactive agent (extra `mcp`)."),
    "schema": Verb("schema", "JSON Schema of pipeline and settings files, for your editor."),
    "simulate": Verb("simulate", "Run the simulated API by hand."),
}


GLOBALS = {
    "--version": "Show the version and leave.",
    "--install-completion": "Install completion for the current shell.",
    "--show-completion": "Show completion for the current shell, to copy it.",
    "--help": "Show this message and leave.",
    "-h": "The same.",
}
ABOUT = "Background coding agents on your own repository; every model call is a durable record."


def normalise(argv: list[str]) -> list[str]:
    """Put in the default verb, and the default interval of a bare `--watch`."""
    if not argv or (argv[0] not in VERBS and argv[0] not in GLOBALS):
        argv = [DEFAULT_VERB, *argv]
    words: list[str] = []
    for index, word in enumerate(argv):
        words.append(word)
        following = argv[index + 1] if index + 1 < len(argv) else ""
        if word == "--watch" and not _is_number(following):
            words.append(DEFAULT_WATCH)
    return ["--help" if word == "-h" else word for word in words]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
