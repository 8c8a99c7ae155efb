"""Predictions that a scoring service answered and has not delivered."""

from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from active_learning.imaging.archive import ImageArchive
from active_learning.imaging.waiting import archive_images
from active_learning.schemas import PREDICTIONS, empty_frame
from active_learning.services.telemetry.queue import Claim
from active_learning.services.telemetry.spool import Spool


class SpoolDataset(AbstractDataset[NoReturn, pd.DataFrame]):
    """``SpoolDataset`` takes what waits in a spool.

    What was loaded is forgotten by the spool when a node that ``confirms`` this dataset
    has saved its outputs, and not before. Images that came with the rows are archived
    first, where their service wants them. A row that fits no table moves to the spool's
    own list of rejected rows, with the reason.

    Args:
        filepath: The spool's SQLite file; none is an empty spool.
        limit: So many rows at most are loaded.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            spooled_predictions:
              type: active_learning.datasets.SpoolDataset
              filepath: data/02_intermediate/spool.sqlite
              limit: 1000000

        In Python:

        >>> len(SpoolDataset(filepath="nowhere.sqlite", limit=10).load())
        0
    """

    def __init__(
        self, *, filepath: str, limit: int, metadata: dict[str, Any] | None = None
    ) -> None:
        """Describe the file; it is not made here."""
        self._filepath = Path(filepath)
        self._limit = limit
        self._claimed: tuple[Spool, Claim, dict[int, str]] | None = None
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Take the oldest rows; none while a service is delivering them itself.

        Raises:
            OSError: The store of their images is away; the rows go on waiting.
        """
        if not self._filepath.exists():
            return empty_frame(PREDICTIONS)
        # Nothing is put here, so the spool's own bound does not matter.
        spool = Spool(self._filepath, max_rows=0)
        claim = spool.claim(self._limit)
        if claim is None:
            return empty_frame(PREDICTIONS)
        from active_learning.services.telemetry.collector import parse_rows

        try:
            spool.archive_images(partial(archive_images, archive_at=ImageArchive))
            rows, _, rejected = parse_rows(claim.rows)
        except BaseException:
            spool.close()
            raise
        self._claimed = (spool, claim, rejected)
        frame: pd.DataFrame = rows.to_pandas()
        return frame

    def save(self, data: NoReturn) -> None:
        """Refuse: a collector fills a spool."""
        raise DatasetError(
            "SpoolDataset is read-only: a Collector puts predictions into the spool."
        )

    def confirm(self) -> None:
        """Let the spool forget what was loaded."""
        if self._claimed is not None:
            spool, claim, rejected = self._claimed
            spool.done(claim, rejected)
            spool.close()
            self._claimed = None

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "limit": self._limit}
