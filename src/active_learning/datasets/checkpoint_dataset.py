"""A trained classifier as a Lightning checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError

from active_learning.files import replacing

if TYPE_CHECKING:
    from active_learning.learning.module import ImageClassifier


class CheckpointDataset(AbstractDataset["ImageClassifier", "ImageClassifier | None"]):
    """``CheckpointDataset`` keeps a classifier to go on from.

    The file is a Lightning checkpoint with the weights, the classes, the preprocessing
    and the lineage as plain values. It is read as such: code in it is refused.

    Args:
        filepath: The file.
        optional: No file is no model yet, and loads as ``None``: before the first
            round there is no champion.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            challenger:
              type: active_learning.datasets.CheckpointDataset
              filepath: data/06_models/challenger.ckpt

        In Python:

        >>> CheckpointDataset(filepath="nowhere.ckpt", optional=True).load() is None
        True
    """

    def __init__(
        self,
        *,
        filepath: str,
        optional: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the file; torch is imported by the first load or save."""
        self._filepath = Path(filepath)
        self._optional = optional
        self.metadata = metadata

    def load(self) -> ImageClassifier | None:
        """Read the classifier onto the CPU.

        Raises:
            CheckpointError: The file is damaged, would run code, or is no checkpoint
                of this package.
        """
        if not self._filepath.exists():
            if self._optional:
                return None
            raise DatasetError(
                f"There is no model at {self._filepath}. "
                "'kedro run --pipelines train' makes one from the training set."
            )
        from active_learning.learning.checkpoint import load_classifier

        return load_classifier(self._filepath)

    def save(self, data: ImageClassifier) -> None:
        """Write the classifier whole or not at all."""
        from active_learning.learning.checkpoint import save_classifier

        with replacing(self._filepath) as temporary:
            save_classifier(data, temporary)

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "optional": self._optional}
