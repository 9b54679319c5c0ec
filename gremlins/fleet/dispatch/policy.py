"""The settings that the loop decides by, read again when their files change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gremlins.config import LoadedSettings, Settings
from gremlins.errors import ConfigError


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
    start_from: str = "branch"
    deadline: float = 14_400.0
    kill_after: float = 30.0
    """Seconds between SIGTERM and SIGKILL of hung work."""
    notify: tuple[str, ...] | str | None = None
    per_attempt: float | None = None
    per_bead: float | None = None
    per_day: float | None = None

    @classmethod
    def of(cls, settings: Settings, **options: Any) -> Policy:
        """Settings, overridden by the options of the command line that are not None."""
        known = {field.name for field in fields(cls)}
        values = {**dict(settings.dispatch), **dict(settings.spend), "notify": settings.notify}
        values |= {name: value for name, value in options.items() if value is not None}
        return cls(**{name: value for name, value in values.items() if name in known})


@dataclass
class CurrentSettings:
    """The current settings, read again when one of their files has changed."""

    files: tuple[Path, ...]
    load: Callable[[], LoadedSettings]
    complain: Callable[[str], None] = lambda text: None
    _mark: tuple[object, ...] | None = None
    _kept: LoadedSettings | None = None
    _error: ConfigError | None = None

    def __call__(self) -> LoadedSettings:
        """The latest valid settings. Raises ConfigError if there were none."""
        mark = tuple(file_mark(file) for file in self.files)
        if self._kept is None or mark != self._mark:
            self._mark, self._error = mark, None
            try:
                self._kept = self.load()
            except ConfigError as error:
                if self._kept is None:
                    raise
                self._error = error
                self.complain(f"the settings are wrong, the ones before stay: {error.message}")
        return self._kept

    def checked(self) -> LoadedSettings:
        """The settings as the files are now. Raises ConfigError if a file is wrong."""
        settings = self()
        if self._error is not None:
            raise self._error
        return settings


def file_mark(file: Path) -> object:
    """Changes whenever the file does."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)
