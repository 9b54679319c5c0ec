"""The rules of the house that a machine can hold: imports point down, doors stay quick, time comes from the clock."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import gremlins

PACKAGE = Path(gremlins.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}

LAYERS = [
    {"errors", "clock", "outcome"},
    {"files", "masking", "paths", "redaction", "text", "toml_lines", "yaml_lines"},
    {"config", "retry"},
    {"processes"},
    {"repository", "records"},
    {"clients", "simulator"},
    {"stages"},
    {"pipeline"},
    {"cluster"},
    {"runner", "launcher"},
    {"fleet", "fork_server"},
    {"worker"},
    {"cli", "web"},
    {"__main__", "__init__"},
]
"""Lowest first. A module imports from its own layer and those below."""

LAYER_OF = {name: height for height, names in enumerate(LAYERS) for name in names}


INSIDE: dict[str, list[set[str]]] = {
    "processes": [{"children", "interrupt", "locks"},
                  {"credentials", "ending", "limited", "notify", "output", "sandbox"}, {"spawn"}],
    "repository": [{"git", "protected"}, {"enclosed", "github", "inclusion", "lfs", "merging", "persons_tree",
                    "submodules"},
                   {"landing", "worktree"},
                   {"catching_up", "folder", "interrupted", "project", "sparse"}, {"remote_work", "trust"}],
    "records": [{"claims", "format", "journal", "prices"}, {"gremlin", "stop_request", "wait"},
                {"calls", "ending_event", "liveness", "persons_words"}, {"spend"}, {"totals"}, {"caps"}, {"books"}],
    "clients": [{"route"}, {"account", "agent_env", "base", "exchange"}, {"transport"}, {"key_proof", "next_step"},
                {"batch"}, {"live"}, {"claude", "copilot"}, {"providers"}, {"registry"}],
    "clients.batch": [{"api", "booking", "results", "waiter"}, {"lost", "shared_poll"}, {"engine", "become_waiter"},
                      {"client"}, {"stopping"}],
    "stages": [{"spec", "wants"}, {"base", "revision"}, {"asking", "secrecy", "tags", "text_files"},
               {"commands", "edits"}, {"plan_tasks", "readiness"}, {"base_check", "branches", "context",
                "pull_request"},
               {"exec_", "handoff", "implement", "open_pr", "parallel", "plan", "review_code", "verify",
                "wait_ci", "wait_review"}, {"address_code", "agent", "loop"}, {"table"}],
    "stages.edits": [{"answer", "indentation", "placeholders"}, {"matching"}, {"places"}, {"checking"},
                     {"code_change"}],
    "clients.live": [{"interruptible", "process", "records"}, {"engine"}, {"agents"}, {"process_agent"},
                     {"claude_stream", "copilot_stream"}, {"claude_code"}],
    "clients.providers": [{"searching"}, {"anthropic_tools", "anthropic_turns", "kilo_run", "kilo_server", "scripted"},
                          {"anthropic", "kilo", "openai"}],
    "pipeline": [{"file"}, {"freezing", "schema"}],
    "cluster": [{"schema"}, {"database"}, {"documents", "jobs", "needs"}, {"rows", "ticks"}, {"host_copy"},
                {"overview"}, {"books", "hands"}],
    "worker": [{"dispatching", "engine", "polling", "readiness", "step"}, {"tasks"}],
    "fleet": [{"advice", "going_back", "times", "observe", "start_point"}, {"status"}, {"beads"}, {"stop"},
              {"going_on"}, {"adopt", "rescue", "ack", "land", "remove", "history", "doctor"},
              {"answer", "catch_up", "revise", "diff", "sweep"}, {"dispatch"}, {"relocate"}],
    "fleet.beads": [{"bead"}, {"attempts"}, {"store"}, {"interchange", "edit"}],
    "fleet.beads.store": [{"interface", "schema"}, {"database"},
                          {"blocking", "sqlite_database", "postgres_database"}, {"reads"}, {"writes"}, {"transfer"},
                          {"sqlite", "postgres"}, {"opened"}],
    "fleet.dispatch": [{"policy", "locks"}, {"spending"}, {"observation"}, {"judge"}, {"breaker"}, {"world"},
                       {"admit"}, {"plan"}, {"observer"}, {"cluster_observer"}, {"preflight", "ownership"},
                       {"local_fleet"}, {"cluster_fleet", "tick"},
                       {"cluster_tick", "handing_over"},
                       {"loop", "view"}],
    "cli": [{"completion", "current_project", "out", "persons_text", "screen", "verbs"}, {"named", "trust"},
            {"fleet_table", "show_page", "watch"}, {"fleet_view"}, {"bead"}, {"cluster", "dispatch"},
            {"ack", "answer", "board", "clean", "cost", "demo", "diff", "doctor", "land", "launch", "log", "mcp",
             "pipelines", "relocate", "rescue", "revise", "rm", "schema", "show", "simulate", "status", "stop",
             "worker"},
            {"app", "quick"}, {"main"}],
    "web": [{"actions", "change", "gate", "pictures", "watch"}, {"views"}, {"app"}, {"server"}],
    "simulator": [{"api"}, {"faults", "messages", "reading"}, {"model", "options"}, {"catalogue", "rules"},
                  {"checks", "demo_repository", "example"}, {"batches", "scripts"}, {"routes"}, {"server"},
                  {"simulator"}],
}  # fmt: skip
"""Rooms, and the order of what is in each, lowest first. A group's modules may import each other."""


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports_of(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports, wherever in it."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(module: str) -> str:
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


@cache
def ours(path: Path) -> frozenset[str]:
    return frozenset(name for name in imports_of(path) if name in MODULES and name != "gremlins")


def test_every_module_has_a_layer() -> None:
    assert {part(name) for name in MODULES} <= set(LAYER_OF)


def test_imports_point_down() -> None:
    upward = {
        (module, name)
        for module, path in MODULES.items()
        for name in ours(path)
        if LAYER_OF[part(name)] > LAYER_OF[part(module)]
    }
    assert not upward


@pytest.mark.parametrize("room", INSIDE)
def test_imports_inside_a_room_point_down(room: str) -> None:
    height_of = {name: height for height, names in enumerate(INSIDE[room]) for name in names}
    inside = f"gremlins.{room}."

    def height(module: str) -> int:
        name = module.removeprefix(inside).partition(".")[0]
        assert name in height_of, f"{room}: {name} has no place in the order"
        return height_of[name]

    upward = {
        (module, name)
        for module, path in MODULES.items()
        for name in ours(path)
        if module.startswith(inside) and name.startswith(inside) and height(name) > height(module)
    }
    assert not upward


def test_there_is_no_import_cycle() -> None:
    graph = {module: ours(path) - {module} for module, path in MODULES.items()}
    while leaves := {module for module, targets in graph.items() if not targets & graph.keys()}:
        graph = {module: targets for module, targets in graph.items() if module not in leaves}
    assert not graph, f"a cycle among {sorted(graph)}"


def test_time_and_sleep_come_from_the_clock() -> None:
    banned = {("time", "sleep"), ("time", "time"), ("datetime", "now"), ("datetime", "utcnow")}
    for module in MODULES.keys() - TIMELESS:
        for node in ast.walk(tree_of(MODULES[module])):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                assert not (isinstance(owner, ast.Name) and (owner.id, node.func.attr) in banned), (module, node.lineno)


TIMELESS = {
    "gremlins.clock",
    "gremlins.clients.batch.waiter",  # runs without our package, on the standard library alone
}


def test_every_module_says_what_it_owns() -> None:
    trees = {module: tree_of(path) for module, path in MODULES.items()}
    assert not [module for module, tree in trees.items() if tree.body and not ast.get_docstring(tree)]


def test_no_function_is_long() -> None:
    lengths = sorted(
        (node.end_lineno - node.lineno + 1, f"{module}:{node.name}")
        for module, path in MODULES.items()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    )
    assert lengths[-1][0] <= 70, lengths[-3:]
    assert lengths[len(lengths) * 95 // 100][0] <= 40


@pytest.mark.parametrize("words", [["status"], ["--help"], ["status", "--json"], ["stop", "--help"]])
def test_a_quick_verb_imports_no_sdk(words: list[str], tmp_path: Path) -> None:
    script = (
        "import sys; from gremlins.cli.main import run; run(sys.argv[1:]);"
        "bad = {'anthropic', 'genai_prices', 'httpx2'} & sys.modules.keys();"
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env={"GREMLINS_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_no_test_patches_our_own_modules() -> None:
    here = Path(__file__).parent
    patched = [
        str(path.relative_to(here))
        for path in here.rglob("*.py")
        if path != Path(__file__) and ('setattr("gremlins' in path.read_text() or 'patch("gremlins' in path.read_text())
    ]
    assert not patched


def test_no_test_sleeps() -> None:
    """A test waits for an event with `wait_until`: the time that something takes depends on the machine."""
    here = Path(__file__).parent
    sleeping = [
        str(path.relative_to(here))
        for path in here.rglob("*.py")
        if path.name != "time_limit.py"
        and any(
            ast.unparse(node.func) == "time.sleep" for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)
        )
    ]
    assert not sleeping


def test_a_public_class_name_stands_for_one_thing() -> None:
    owners: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                owners.setdefault(node.name, []).append(module)
    assert not {name: modules for name, modules in owners.items() if len(modules) > 1}
