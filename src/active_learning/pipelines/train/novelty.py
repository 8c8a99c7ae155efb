"""What labels there are that a model has not learned from."""

from base64 import b64decode, b64encode
from hashlib import blake2b
from typing import NamedTuple

import pandas as pd

_CONTENT_BYTES = 8
_LABEL_BYTES = 4


class Novelty(NamedTuple):
    """Images by what has become of their label since a model was trained."""

    added: int
    changed: int
    withdrawn: int

    @property
    def total(self) -> int:
        """How many labels are not as the model learned them."""
        return sum(self)

    def __str__(self) -> str:
        """In words, for a log."""
        return (
            f"{self.added} labels were added, {self.changed} changed and "
            f"{self.withdrawn} withdrawn"
        )


def memorize(training_set: pd.DataFrame) -> str:
    """Note what is learned from, for a model's lineage.

    Args:
        training_set: ``content`` and ``label``.

    Returns:
        Base64 text, 16 characters for each image and label; the same for any order of
        rows. It serves ``novelty`` and does not tell the labels.
    """
    return b64encode(b"".join(sorted(_pairs(training_set)))).decode("ascii")


def novelty(training_set: pd.DataFrame, memory: str) -> Novelty:
    """Count the labels that are not as a model learned them.

    Args:
        training_set: ``content`` and ``label`` of what there is now.
        memory: What ``memorize`` noted of what the model learned from.

    Returns:
        Images added, changed and withdrawn, by their content. A label that changed
        counts once.
    """
    size = _CONTENT_BYTES + _LABEL_BYTES
    noted = b64decode(memory)
    then = {noted[n : n + size] for n in range(0, len(noted), size)}
    now = _pairs(training_set)
    came = {pair[:_CONTENT_BYTES] for pair in now - then}
    went = {pair[:_CONTENT_BYTES] for pair in then - now}
    return Novelty(len(came - went), len(came & went), len(went - came))


def _pairs(training_set: pd.DataFrame) -> set[bytes]:
    return {
        _digest(content, _CONTENT_BYTES) + _digest(label, _LABEL_BYTES)
        for content, label in zip(
            training_set["content"], training_set["label"], strict=True
        )
    }


def _digest(text: str, size: int) -> bytes:
    return blake2b(text.encode(), digest_size=size).digest()
