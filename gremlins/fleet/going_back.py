"""A loop that is started again begins where it began: the gremlin's branch goes back, and nothing of it is lost."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gremlins.clock import Clock
from gremlins.paths import GremlinPaths
from gremlins.records.gremlin import Gremlin
from gremlins.records.journal import Journal
from gremlins.repository.folder import restore
from gremlins.repository.git import Git
from gremlins.repository.worktree import Worktree, interrupted_ref, reset_to, save_interrupted
from gremlins.stages.edits.code_change import start_ref
from gremlins.stages.spec import LoopStage, StageSpec


def go_back(record: Gremlin, stages: Iterable[StageSpec], paths: GremlinPaths, clock: Clock) -> None:
    """Set the branch to where the first loop of `stages` began. Its tip and uncommitted changes are kept as refs."""
    worktree = Worktree(Path(record.project), Path(record.worktree), record.branch, record.base)
    git, journal = Git(worktree.repo), Journal(paths.log, clock)
    refs = [start_ref(worktree, f"{spec.name}[1]") for spec in stages if isinstance(spec, LoopStage)]
    start = next((found for ref in refs if (found := git.try_commit(ref))), None)
    if start is None or (tip := worktree.tip()) == start:
        return
    restore(worktree)
    aside = interrupted_ref(worktree)
    if save_interrupted(worktree, aside) is not None:
        journal(f"what was not committed is kept as {aside}")
    kept = f"refs/gremlins/{record.id}/before/spawn-{record.spawn}/branch"
    git.update_ref(kept, tip, reason="gremlins: a loop is started again")
    journal(f"the branch goes back to {start[:12]}, where the loop began; its tip is kept as {kept}")
    reset_to(worktree, start)
