"""The folder in which labelers find what they are asked."""

from typing import Any

from kedro.io import AbstractDataset

from active_learning.imaging import ImageStore
from active_learning.imaging.places import Place, place_at
from active_learning.services.labeling import LabelingQueue
from active_learning.services.labeling.queue import (
    IMAGES,
    REQUESTS,
    open_queue,
    stage,
)


class LabelingQueueDataset(AbstractDataset[LabelingQueue, LabelingQueue]):
    """``LabelingQueueDataset`` copies the asked images beside a list of them.

    ``images/`` holds the files under their ``image_id`` and nothing else, so it can be
    the folder that an Azure Machine Learning labeling project with incremental refresh
    watches. ``requests.csv`` has one row for each request with the model's guess,
    ``tasks.json`` the same as tasks for Label Studio, and ``rounds/`` both for
    each round alone, with a form to fill in. Saving adds to what is there: an image
    that lies there is not copied again, and a request that is listed is not listed
    twice.

    Args:
        path: The folder: a path, or a URL such as ``abfs://queue@account...``.
        fs_args: For the fsspec filesystem.
        credentials: For the fsspec filesystem too; never shown.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            labeling_queue:
              type: active_learning.datasets.LabelingQueueDataset
              path: data/03_primary/labeling_queue

        In Python:

        >>> LabelingQueueDataset(path="nowhere").exists()
        False
    """

    def __init__(
        self,
        *,
        path: str,
        fs_args: dict[str, Any] | None = None,
        credentials: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the folder; it is made by the first save."""
        self._path = path.rstrip("/")
        self._storage_options = {**(fs_args or {}), **(credentials or {})}
        self.metadata = metadata

    def load(self) -> LabelingQueue:
        """Read the list; the images are read when somebody looks at them."""
        images = ImageStore(
            f"{self._path}/{IMAGES}",
            cache=None,
            max_pixels=1,
            storage_options=self._storage_options,
        )
        return open_queue(self._place(), images)

    def save(self, data: LabelingQueue) -> None:
        """Copy the images, then list the requests: what is listed is there."""
        stage(self._place(), data)

    def _place(self) -> Place:
        return place_at(self._path, self._storage_options)

    def _exists(self) -> bool:
        return self._place().size(REQUESTS) is not None

    def _describe(self) -> dict[str, Any]:
        return {"path": self._path}
