"""The folder in which labelers find what they are asked."""

from pathlib import Path
from typing import Any

import pandas as pd
from kedro.io import AbstractDataset

from active_learning.files import replacing
from active_learning.imaging import ImageStore
from active_learning.services.labeling import LabelingQueue

_COLUMNS = ["request_id", "image_id", "predicted_label", "rank"]


class LabelingQueueDataset(AbstractDataset[LabelingQueue, LabelingQueue]):
    """``LabelingQueueDataset`` copies the asked images beside a list of them.

    ``images/`` holds the files under their ``image_id`` and ``requests.csv`` one row
    for each, with the request it belongs to and the model's guess. Saving adds to
    what is there: an image that lies there is not copied again, and a request that is
    listed is not listed twice.

    Args:
        path: The folder.
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

    def __init__(self, *, path: str, metadata: dict[str, Any] | None = None) -> None:
        """Describe the folder; it is made by the first save."""
        self._path = Path(path)
        self.metadata = metadata

    def load(self) -> LabelingQueue:
        """Read the list; the images are read when somebody looks at them."""
        images = ImageStore(str(self._path / "images"), cache=None, max_pixels=1)
        return LabelingQueue(requests=self._listed(), images=images)

    def save(self, data: LabelingQueue) -> None:
        """Copy the images, then list the requests: what is listed is there."""
        for image_id in data.requests["image_id"]:
            target = self._path / "images" / image_id
            if target.exists():
                continue
            content = data.images.read(image_id)
            with replacing(target) as temporary:
                temporary.write_bytes(content)
        every = pd.concat([self._listed(), data.requests[_COLUMNS]], ignore_index=True)
        with replacing(self._path / "requests.csv") as temporary:
            every.drop_duplicates("request_id").to_csv(temporary, index=False)

    def _listed(self) -> pd.DataFrame:
        requests = self._path / "requests.csv"
        if not requests.exists():
            return pd.DataFrame(columns=_COLUMNS)
        listed = pd.read_csv(requests, dtype=str, keep_default_na=False)
        return listed.astype({"rank": int})

    def _exists(self) -> bool:
        return (self._path / "requests.csv").exists()

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path)}
