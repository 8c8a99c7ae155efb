"""A trained classifier as a Lightning checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError

from active_learning.errors import CheckpointError
from active_learning.files import file_at

if TYPE_CHECKING:
    from active_learning.learning.module import ImageClassifier


class CheckpointDataset(AbstractDataset["ImageClassifier", "ImageClassifier | None"]):
    """``CheckpointDataset`` keeps a classifier to go on from.

    The file is a Lightning checkpoint with the weights, the classes, the preprocessing
    and the lineage as plain values. It is read as such: code in it is refused.

    Args:
        filepath: The file: a path, or a URL such as ``abfs://loop@account...``.
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
        self._file = file_at(filepath)
        self._optional = optional
        self.metadata = metadata

    def load(self) -> ImageClassifier | None:
        """Read the classifier onto the CPU.

        Raises:
            CheckpointError: The file is damaged, would run code, or is no checkpoint
                of this package.
        """
        if not self._file.exists():
            if self._optional:
                return None
            raise DatasetError(
                f"There is no model at {self._file}. "
                "'kedro run --pipelines train' makes one from the training set."
            )
        with self._file.reading() as path:
            try:
                classifier: ImageClassifier = self._read(path)
            except CheckpointError as exc:
                # A remote file was read from a copy.
                said = str(exc).replace(str(path), str(self._file))
                raise CheckpointError(said) from exc
        return classifier

    def save(self, data: ImageClassifier) -> None:
        """Write the classifier whole or not at all."""
        with self._file.replacing() as temporary:
            self._write(data, temporary)

    def _read(self, path: Path) -> Any:
        from active_learning.learning.checkpoint import load_classifier

        return load_classifier(path)

    def _write(self, classifier: Any, path: Path) -> None:
        from active_learning.learning.checkpoint import save_classifier

        save_classifier(classifier, path)

    def _exists(self) -> bool:
        return self._file.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._file), "optional": self._optional}
