"""A trained classifier, whatever trained it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from active_learning.datasets.checkpoint_dataset import CheckpointDataset


class ChallengerDataset(CheckpointDataset):
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

    def _read(self, path: Path) -> Any:
        from active_learning.services.scoring.onnx_classifier import (
            OnnxClassifier,
            holds_onnx,
        )

        if holds_onnx(path):
            return OnnxClassifier.from_bytes(path.read_bytes(), str(self._file))
        return super()._read(path)

    def _write(self, classifier: Any, path: Path) -> None:
        from active_learning.services.scoring.onnx_classifier import OnnxClassifier

        if isinstance(classifier, OnnxClassifier):
            path.write_bytes(classifier.to_bytes())
        else:
            super()._write(classifier, path)
