"""The time, as an input: no node looks at a clock."""

from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError


class ClockDataset(AbstractDataset[NoReturn, datetime]):
    """``ClockDataset`` reads the present time, or the time a simulation says it is.

    Args:
        at: An ISO 8601 time with an offset; ``None`` reads the clock.
        days: Added to ``at``, so that each round of a simulation has its own day.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            now:
              type: active_learning.datasets.ClockDataset

        In Python:

        >>> ClockDataset(at="2000-01-01T00:00:00+00:00", days=2).load().isoformat()
        '2000-01-03T00:00:00+00:00'
    """

    _EPHEMERAL = True

    def __init__(
        self,
        *,
        at: str | None = None,
        days: int | str = 0,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the clock; a dataset factory gives ``days`` as text."""
        self._at = datetime.fromisoformat(at) if at else None
        self._days = int(days)
        self.metadata = metadata

    def load(self) -> datetime:
        """The time in UTC."""
        start = self._at or datetime.now(UTC)
        return start.astimezone(UTC) + timedelta(days=self._days)

    def save(self, data: NoReturn) -> None:
        """Refuse: time is not made here."""
        raise DatasetError("ClockDataset is read-only: nothing sets the time.")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"at": self._at.isoformat() if self._at else "now", "days": self._days}
