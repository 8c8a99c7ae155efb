"""A place where exports come in, and a day on which time passes when told to."""

import os
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from active_learning.services.triggers.exports import Export, ExportsPlace
from active_learning.services.triggers.settings import WatchSettings
from active_learning.services.triggers.watcher import Watcher

# Two writes within one tick of a disk's clock would look like one.
_ticks = count(1_700_000_000)


def put(root: Path, name: str, content: str = "image_id,label\n") -> Path:
    """Write a file later than every one before."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return touch(path)


def touch(path: Path) -> Path:
    tick = next(_ticks)
    os.utime(path, (tick, tick))
    return path


def settings(**changes: Any) -> WatchSettings:
    return WatchSettings.model_validate(
        {
            "ledger": "unused",
            "pipelines": "label-ingest,train,deploy",
            "poll_s": 1,
            "poll_max_s": 4,
            "settle_s": 3,
            "settle_max_s": 20,
            "attempts": 3,
            "retry_s": 10,
            "retry_max_s": 15,
            **changes,
        }
    )


class Day:
    """A clock, the signals that end it, and runs that are told how to end.

    Args:
        place: The folder of the exports.
        ledger: The watcher's.
        happens: What happens at which second.
        codes: How the runs end, one after the other; later ones end well.
    """

    def __init__(
        self,
        place: Path | str,
        ledger: Path,
        happens: Mapping[float, Callable[[], object]] | None = None,
        codes: tuple[int | None, ...] = (),
        **changes: Any,
    ) -> None:
        self.now = 0.0
        self.runs: list[float] = []
        self.looks: list[float] = []
        self.during: Callable[[], object] = lambda: None
        self.reading: Callable[[], object] = lambda: None
        self._happens = dict(happens or {})
        self._codes = list(codes)
        self._end = 0.0
        self._place = Looked(str(place), self)
        self.watcher = Watcher(
            self._place,
            ledger,
            self._run,
            settings(**changes),
            self,
            clock=lambda: self.now,
        )

    def until(self, end: float) -> list[float]:
        """Watch up to this second; the seconds at which runs began."""
        self._end = end
        self._pass()
        self.watcher.watch()
        return self.runs

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self._pass()
        return self.now >= self._end

    def _pass(self) -> None:
        for second in [s for s in sorted(self._happens) if s <= self.now]:
            self._happens.pop(second)()

    def _run(self) -> int | None:
        self.runs.append(self.now)
        self.during()
        code = self._codes.pop(0) if self._codes else 0
        if code is None:
            self._end = self.now
        return code


class Looked(ExportsPlace):
    """A place that notes when it was looked at, and in which things happen."""

    def __init__(self, root: str, day: Day) -> None:
        super().__init__(root)
        self._day = day

    def look(self) -> dict[str, Any]:
        self._day.looks.append(self._day.now)
        return super().look()

    def digest(self, export: Export) -> str | None:
        self._day.reading()
        return super().digest(export)
