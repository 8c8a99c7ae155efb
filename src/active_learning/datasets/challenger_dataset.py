"""A trained classifier, whatever trained it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from active_learning.datasets.checkpoint_dataset import CheckpointDataset
from active_learning.files import file_at

if TYPE_CHECKING:
    from active_learning.learning.module import ImageClassifier
    from active_learning.services.scoring.onnx_classifier import OnnxClassifier

    Challenger = ImageClassifier | OnnxClassifier


class ChallengerDataset(AbstractDataset["Challenger", "Challenger | None"]):
    """``ChallengerDataset`` keeps a classifier of any trainer in one file.

    What Lightning trained is a checkpoint, as ``CheckpointDataset`` writes it. Any
    other challenger is an archive of its ONNX model and a description. What is read
    is found out from the file, and neither can run code.

    Args:
        filepath: The file: a path, or a URL such as ``abfs://loop@account...``.
        optional: No file is no model yet, and loads as ``None``.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            challenger:
              type: active_learning.datasets.ChallengerDataset
              filepath: data/06_models/challenger.ckpt
              optional: true

        In Python:

        >>> ChallengerDataset(filepath="nowhere.ckpt", optional=True).load() is None
        True
    """

    def __init__(
        self,
        *,
        filepath: str,
        optional: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the file; nothing is read yet."""
        self._checkpoint = CheckpointDataset(filepath=filepath, optional=optional)
        self._file = file_at(filepath)
        self.metadata = metadata

    def load(self) -> Challenger | None:
        """Read the classifier onto the CPU.

        Raises:
            CheckpointError: The file is damaged, would run code, or is no classifier
                of this package.
        """
        if not self._file.exists():
            return self._checkpoint.load()
        from active_learning.services.scoring.onnx_classifier import (
            OnnxClassifier,
            holds_onnx,
        )

        with self._file.reading() as path:
            if holds_onnx(path):
                return OnnxClassifier.from_bytes(path.read_bytes(), str(self._file))
        return self._checkpoint.load()

    def save(self, data: Challenger) -> None:
        """Write the classifier whole or not at all."""
        from active_learning.services.scoring.onnx_classifier import OnnxClassifier

        if not isinstance(data, OnnxClassifier):
            self._checkpoint.save(data)
            return
        with self._file.replacing() as temporary:
            temporary.write_bytes(data.to_bytes())

    def _exists(self) -> bool:
        return self._file.exists()

    def _describe(self) -> dict[str, Any]:
        return self._checkpoint._describe()
