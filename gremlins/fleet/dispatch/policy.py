"""The settings that the loop decides by."""

from __future__ import annotations

from dataclasses import dataclass

from gremlins.config import Settings


@dataclass(frozen=True)
class Policy:
    """Seconds, dollars and counts. See the settings `dispatch.*` and `spend.*`."""

    pipeline: str = "local"
    mode: str | None = None
    land: bool = False
    retry_cap: int = 5
    spawn_cap: int = 15
    host_cap: int = 10
    """Failures of class host after which a bead is held; they are not charged."""
    backoff_initial: float = 30.0
    backoff_max: float = 1800.0
    max_running: int = 3
    max_parked: int = 200
    interval: float = 5.0
    start_window: float = 20.0
    deadline: float = 14_400.0
    kill_after: float = 30.0
    """Seconds between SIGTERM and SIGKILL of hung work."""
    notify: tuple[str, ...] | str | None = None
    per_attempt: float | None = None
    per_bead: float | None = None
    per_day: float | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        pipeline: str | None = None,
        mode: str | None = None,
        land: bool = False,
        max_running: int | None = None,
        retry_cap: int | None = None,
    ) -> Policy:
        """Settings, overridden by the command line."""
        dispatch, spend = settings.dispatch, settings.spend
        return cls(
            pipeline=pipeline or dispatch.pipeline,
            mode=mode,
            land=land,
            retry_cap=retry_cap or dispatch.retry_cap,
            spawn_cap=dispatch.spawn_cap,
            backoff_initial=dispatch.backoff_initial,
            backoff_max=dispatch.backoff_max,
            max_running=max_running or dispatch.max_running,
            max_parked=dispatch.max_parked,
            interval=dispatch.interval,
            start_window=dispatch.start_window,
            deadline=dispatch.deadline,
            notify=settings.notify,
            per_attempt=spend.per_attempt,
            per_bead=spend.per_bead,
            per_day=spend.per_day,
        )
