"""Answers of labelers who know every class."""

import logging
from typing import Any, NoReturn

import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from active_learning.datasets.table_dataset import TableDataset
from active_learning.imaging.labeled import class_folders_of
from active_learning.imaging.store import ImageStore
from active_learning.services.labeling.oracle import OracleParams, answer

logger = logging.getLogger(__name__)


class OracleDataset(AbstractDataset[NoReturn, dict[str, pd.DataFrame]]):
    """``OracleDataset`` answers every label request by the folder its image lies in.

    It takes the place of labelers' exports where the labels are known: one export for
    each round, the same at every look. An image that lies in no class folder is left
    unanswered; who is asked about an image again is another labeler than before.

    Args:
        filepath: The root of the labeled images: a folder per class, or ``train/`` and
            ``test/`` of those.
        requests: The folder of the table ``label_requests``.
        noise: The share of wrong classes among those given, each any other alike.
        labelers: How many answer each request, each with errors of their own.
        abstain: The share of answers that are skipped or unclear.
        seed: Another one errs elsewhere.
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
        noise: float = 0.0,
        labelers: int = 1,
        abstain: float = 0.0,
        seed: int = 0,
        fs_args: dict[str, Any] | None = None,
        credentials: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the places; they are read by ``load``.

        Raises:
            pydantic.ValidationError: A share or a number is out of its bounds.
        """
        self._filepath = filepath
        self._requests = requests
        self._params = OracleParams(
            noise=noise, labelers=labelers, abstain=abstain, seed=seed
        )
        self._storage_options = {**(fs_args or {}), **(credentials or {})}
        self.metadata = metadata

    def load(self) -> dict[str, pd.DataFrame]:
        """Answer what was asked so far.

        Returns:
            An export in the columns of ``schemas.ANSWERS`` by the name of each round.

        Raises:
            DatasetError: There is noise, and one class folder alone.
        """
        asked = TableDataset(table="label_requests", path=self._requests).load()
        if asked.empty:
            return {}
        store = ImageStore(
            self._filepath,
            cache=None,
            max_pixels=1,
            storage_options=self._storage_options,
        )
        listing = store.listing()
        requests = asked.sort_values("round", kind="stable", ignore_index=True)
        requests = requests.assign(
            label=class_folders_of(requests["image_id"].tolist(), listing),
            labeled_at=requests["requested_at"],
            n_before=self._params.labelers * requests.groupby("image_id").cumcount(),
        )
        homeless = requests.loc[requests["label"] == "", "image_id"]
        if len(homeless):
            logger.warning(
                "The oracle leaves %d of %d requests unanswered: the images lie in no "
                "class folder; the first is %r",
                len(homeless),
                len(asked),
                homeless.iloc[0],
            )
            requests = requests.drop(index=homeless.index)
        classes = sorted(set(class_folders_of(listing.image_ids, listing)) - {""})
        return {
            f"oracle-{number:04d}": answer(rows, classes, self._params)
            for number, rows in requests.groupby("round")
        }

    def save(self, data: NoReturn) -> None:
        """Refuse: an oracle is not told anything."""
        raise DatasetError("OracleDataset is read-only: it answers label requests.")

    def _describe(self) -> dict[str, Any]:
        return {
            "filepath": self._filepath,
            "requests": self._requests,
            **self._params.model_dump(),
        }
