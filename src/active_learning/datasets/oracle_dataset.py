"""Answers of one who knows every label."""

import logging
from typing import Any, NoReturn

import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from active_learning.datasets.table_dataset import TableDataset
from active_learning.imaging.labeled import class_folders_of
from active_learning.imaging.store import ImageStore

_COLUMNS = ["image_id", "label", "labeler", "labeled_at", "source", "request_id"]

logger = logging.getLogger(__name__)


class OracleDataset(AbstractDataset[NoReturn, dict[str, pd.DataFrame]]):
    """``OracleDataset`` answers every label request by the folder its image lies in.

    It takes the place of a labeler's exports where the labels are known: one export
    for each round, the same at every look. An image that lies in no class folder is
    left unanswered.

    Args:
        filepath: The root of the labeled images: a folder per class, or ``train/`` and
            ``test/`` of those.
        requests: The folder of the table ``label_requests``.
        fs_args: For the fsspec filesystem.
        credentials: For the fsspec filesystem too; never shown.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            label_exports:
              type: active_learning.datasets.OracleDataset
              filepath: data/01_raw/fashion-mnist
              requests: data/03_primary/label_requests

        In Python:

        >>> from tempfile import mkdtemp
        >>> oracle = OracleDataset(filepath=mkdtemp(), requests=mkdtemp())
        >>> oracle.load()  # nobody has asked yet
        {}
    """

    def __init__(
        self,
        *,
        filepath: str,
        requests: str,
        fs_args: dict[str, Any] | None = None,
        credentials: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the places; they are read by ``load``."""
        self._filepath = filepath
        self._requests = requests
        self._storage_options = {**(fs_args or {}), **(credentials or {})}
        self.metadata = metadata

    def load(self) -> dict[str, pd.DataFrame]:
        """Answer what was asked so far; an export by the name of its round."""
        asked = TableDataset(table="label_requests", path=self._requests).load()
        if asked.empty:
            return {}
        store = ImageStore(
            self._filepath,
            cache=None,
            max_pixels=1,
            storage_options=self._storage_options,
        )
        answers = asked.assign(
            label=class_folders_of(asked["image_id"].tolist(), store.listing()),
            labeler="oracle",
            source="oracle",
            labeled_at=asked["requested_at"],
        )
        homeless = answers.loc[answers["label"] == "", "image_id"]
        if len(homeless):
            logger.warning(
                "The oracle leaves %d of %d requests unanswered: the images lie in no "
                "class folder; the first is %r",
                len(homeless),
                len(asked),
                homeless.iloc[0],
            )
            answers = answers.drop(index=homeless.index)
        return {
            f"oracle-{number:04d}": rows[_COLUMNS].reset_index(drop=True)
            for number, rows in answers.groupby("round")
        }

    def save(self, data: NoReturn) -> None:
        """Refuse: an oracle is not told anything."""
        raise DatasetError("OracleDataset is read-only: it answers label requests.")

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "requests": self._requests}
