"""What came back from the labelers."""

from typing import Any, NoReturn

import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from active_learning.imaging.places import Place, place_at
from active_learning.services.labeling.exports import read_folder


class LabelExportsDataset(AbstractDataset[NoReturn, dict[str, pd.DataFrame]]):
    r"""``LabelExportsDataset`` reads the exports that labelers leave in a folder.

    A file is recognized by what it holds: Azure ML's JSON Lines (alone or behind an
    MLTable), COCO and CSV; Label Studio's JSON, JSON_MIN and CSV; a CSV file with
    ``image_id`` and ``label``, and ``labeler``, ``labeled_at`` (ISO 8601, UTC where it
    does not say), ``request_id`` and ``answer`` where they are known. Images sorted
    into ``<export>/<class>/`` are an export too. What fits none of these, or two, is
    one row with the reason.

    A label ``skipped`` or ``skip`` is the answer ``skipped``; ``unclear``, ``unsure``,
    ``not sure`` or ``can't tell`` is ``unclear``. In a CSV file, ``answer`` says
    ``label`` where a class is really called so.

    Args:
        path: The folder: a path, or a URL that fsspec knows. None is no answer yet.
        settle_s: Seconds for which a file must have been left alone; a younger one is
            waited for once, one that still changes is left for the next run.
        shared: Others keep files in the folder too, as Azure ML does in ``Labeling/``:
            what is no ``.json``, ``.jsonl``, ``.csv`` or ``MLTable``, or is of no known
            format and lies outside of ``export/``, is passed over.
        fs_args: For the fsspec filesystem.
        credentials: For the fsspec filesystem too; never shown.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            label_exports:
              type: active_learning.datasets.LabelExportsDataset
              path: data/01_raw/label_exports
              settle_s: 2

        In Python:

        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp())
        >>> _ = (folder / "monday.csv").write_text("image_id,label\na.png,cat\n")
        >>> answers = LabelExportsDataset(path=str(folder)).load()["monday.csv"]
        >>> answers[["reference", "label", "line"]].values.tolist()
        [['a.png', 'cat', 2]]
    """

    def __init__(
        self,
        *,
        path: str,
        settle_s: float = 0.0,
        shared: bool = False,
        fs_args: dict[str, Any] | None = None,
        credentials: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the folder; it is read by ``load``."""
        self._path = path
        self._settle_s = settle_s
        self._shared = shared
        self._storage_options = {**(fs_args or {}), **(credentials or {})}
        self.metadata = metadata

    def load(self) -> dict[str, pd.DataFrame]:
        """Read every export; the answers by its place below the folder."""
        return read_folder(self._place(), self._settle_s, shared=self._shared)

    def save(self, data: NoReturn) -> None:
        """Refuse: answers come from labelers."""
        raise DatasetError(
            f"{type(self).__name__} is read-only: answers come from labelers. Put an "
            f"export of the labeling tool, or a CSV file, into {self._path!r}."
        )

    def _place(self) -> Place:
        return place_at(self._path, self._storage_options)

    def _exists(self) -> bool:
        place = self._place()
        if not place.exists():
            return False
        return next(place.names(""), None) is not None

    def _describe(self) -> dict[str, Any]:
        return {
            "path": self._path,
            "settle_s": self._settle_s,
            "shared": self._shared,
        }
