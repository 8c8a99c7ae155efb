"""Images by ``image_id``, wherever they lie."""

from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from active_learning.imaging.store import ImageStore


class ImageStoreDataset(AbstractDataset[NoReturn, ImageStore]):
    """``ImageStoreDataset`` gives the images of one place, addressed by ``image_id``.

    The place is a folder, or any other that fsspec knows: a blob container, a bucket.
    An ``image_id`` is a path relative to it. Loading reads no image; the store does,
    when it is asked, and keeps what it decoded.

    Args:
        filepath: The root: a path, or a URL such as ``abfs://images@account...``.
        cache: A local folder for fingerprints and decoded pixels, which other
            processes may share; ``None`` keeps them in memory.
        max_pixels: An image of more is set aside, not unpacked.
        fs_args: For the fsspec filesystem.
        credentials: For the fsspec filesystem too; never shown.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            images:
              type: active_learning.datasets.ImageStoreDataset
              filepath: data/01_raw/photos
              cache: data/02_intermediate/pixels
              max_pixels: 100000000

        In Python:

        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> from PIL import Image
        >>> photos = mkdtemp()
        >>> Image.new("RGB", (8, 8), "red").save(Path(photos, "red.png"))
        >>> dataset = ImageStoreDataset(filepath=photos, cache=None, max_pixels=10**8)
        >>> dataset.load().image_ids()
        ['red.png']
    """

    def __init__(
        self,
        *,
        filepath: str,
        cache: str | None,
        max_pixels: int,
        fs_args: dict[str, Any] | None = None,
        credentials: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the place; nothing is connected before it is used."""
        self._filepath = filepath
        self._cache = cache
        self._max_pixels = max_pixels
        self._store: ImageStore | None = None
        self._storage_options = {**(fs_args or {}), **(credentials or {})}
        self.metadata = metadata

    def load(self) -> ImageStore:
        """Give the store, the same one each time within a process."""
        if self._store is None:
            self._store = ImageStore(
                self._filepath,
                cache=self._cache,
                max_pixels=self._max_pixels,
                storage_options=self._storage_options,
            )
        return self._store

    def save(self, data: NoReturn) -> None:
        """Refuse: images come from elsewhere."""
        raise DatasetError(
            f"{type(self).__name__} is read-only: images come from a camera or a disk, "
            f"not from a node. Copy the files into {self._filepath!r}, or declare an "
            "ImageFolderDataset to write labeled ones."
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the store behind: another process makes its own."""
        return {**self.__dict__, "_store": None}

    def _release(self) -> None:
        self._store = None

    def _exists(self) -> bool:
        return self.load().exists()

    def _describe(self) -> dict[str, Any]:
        return {
            "filepath": self._filepath,
            "cache": self._cache,
            "max_pixels": self._max_pixels,
        }
