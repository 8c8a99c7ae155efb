"""Labeled images as a folder per class."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview

from active_learning.imaging.labeled import LabeledImages, label_by_folder
from active_learning.imaging.pixels import UInt8Array
from active_learning.imaging.store import ImageStore
from active_learning.imaging.writing import ImageWriter


class ImageFolderDataset(
    AbstractDataset[Mapping[str, bytes | UInt8Array], LabeledImages]
):
    """``ImageFolderDataset`` reads and writes labeled images as a folder per class.

    The class folders lie in the root, or in its only two folders ``train/`` and
    ``test/``. Loading gives a table and a list of what was set aside, with reasons:
    empty files, text that is named ``.png``, the same image in two classes. Saving
    writes each file once and whole; what is already there is skipped, so that an
    interrupted run goes on, and the dataset exists only once all of it is there.

    Args:
        filepath: The root: a path, or a URL that fsspec knows.
        cache: A local folder for fingerprints; ``None`` keeps them in memory.
        max_pixels: An image of more is set aside, not unpacked.
        save_args: ``compress_level`` of the PNG files that arrays become, 0 to 9.
        fs_args: For the fsspec filesystem.
        credentials: For the fsspec filesystem too; never shown.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            labeled_images:
              type: active_learning.datasets.ImageFolderDataset
              filepath: data/01_raw/photos
              cache: data/02_intermediate/pixels
              max_pixels: 100000000

        In Python:

        >>> import numpy as np
        >>> from tempfile import mkdtemp
        >>> dark, light = np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)
        >>> dataset = ImageFolderDataset(
        ...     filepath=mkdtemp(), cache=None, max_pixels=10**8
        ... )
        >>> dataset.save({"night/0.png": dark, "day/0.png": light})
        >>> dataset.load().table["label"].tolist()
        ['day', 'night']
    """

    def __init__(
        self,
        *,
        filepath: str,
        cache: str | None,
        max_pixels: int,
        save_args: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        credentials: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the place; nothing is connected before it is used."""
        self._filepath = filepath
        self._cache = cache
        self._max_pixels = max_pixels
        self._save_args = save_args or {}
        self._storage_options = {**(fs_args or {}), **(credentials or {})}
        self.metadata = metadata

    def load(self) -> LabeledImages:
        """Read what lies there now.

        Raises:
            NoImagesError: There is none, and what to type.
        """
        store = self._store()
        listing = store.listing()
        return label_by_folder(listing, store.survey(listing.image_ids))

    def save(self, data: Mapping[str, bytes | UInt8Array]) -> None:
        """Write the files that are not there yet, then say that all are.

        Args:
            data: By ``image_id``: a file's bytes, or pixels for a PNG file.
        """
        writer = ImageWriter(self._filepath, self._storage_options, **self._save_args)
        writer.write(data)

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first rows, for Kedro-Viz; copies and damaged files not yet set aside."""
        listing = self._store().listing()
        rows = listing.image_ids[:nrows]
        table = pd.DataFrame(
            {"image_id": rows, "class folder": [row.rpartition("/")[0] for row in rows]}
        )
        return TablePreview(table.to_dict(orient="split"))

    def _store(self) -> ImageStore:
        return ImageStore(
            self._filepath,
            cache=self._cache,
            max_pixels=self._max_pixels,
            storage_options=self._storage_options,
        )

    def _exists(self) -> bool:
        return ImageWriter(self._filepath, self._storage_options).is_complete()

    def _describe(self) -> dict[str, Any]:
        return {
            "filepath": self._filepath,
            "cache": self._cache,
            "max_pixels": self._max_pixels,
            "save_args": self._save_args,
        }
