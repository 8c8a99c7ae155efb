"""The names of the images in a store."""

from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
from kedro.io import AbstractDataset, DatasetError

from active_learning.acquisition import sampling_keys
from active_learning.imaging import ImageStore


class ImageListDataset(AbstractDataset[NoReturn, pd.DataFrame]):
    """``ImageListDataset`` lists what may be scored.

    Args:
        filepath: The root of the image store.
        under: A folder below it; all of it by default.
        at_most: Stand in for a stream: so many of them, drawn by the hashes of their
            names, the same at every look; all of them by default.
        fs_args: For the file system, as fsspec takes them.
        credentials: For the file system.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            incoming_images:
              type: active_learning.datasets.ImageListDataset
              filepath: data/01_raw/photos

        In Python:

        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp())
        >>> _ = (folder / "a.png").write_bytes(b"not read yet")
        >>> ImageListDataset(filepath=str(folder)).load()["image_id"].tolist()
        ['a.png']
    """

    def __init__(
        self,
        *,
        filepath: str,
        under: str = "",
        at_most: int | None = None,
        fs_args: dict[str, Any] | None = None,
        credentials: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the store; it is listed by ``load``."""
        self._filepath = filepath
        self._under = under
        self._at_most = at_most
        self._storage_options = {**(fs_args or {}), **(credentials or {})}
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """One row per image: ``image_id``, sorted."""
        store = ImageStore(
            self._filepath,
            cache=None,
            max_pixels=1,
            storage_options=self._storage_options,
        )
        names = store.image_ids(self._under)
        if self._at_most is not None and self._at_most < len(names):
            order = np.argsort(sampling_keys(names, 0), kind="stable")
            names = sorted(names[row] for row in order[: self._at_most])
        # A Python text for each takes five times the memory.
        return pd.DataFrame({"image_id": names}, dtype=pd.ArrowDtype(pa.string()))

    def save(self, data: NoReturn) -> None:
        """Refuse: images come from elsewhere."""
        raise DatasetError(
            "ImageListDataset is read-only: put image files into "
            f"{self._filepath} and they are listed."
        )

    def _describe(self) -> dict[str, Any]:
        return {
            "filepath": self._filepath,
            "under": self._under,
            "at_most": self._at_most,
        }
