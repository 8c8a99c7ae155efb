"""What the pipelines ask of a model, whichever library it was trained with."""

from typing import Protocol

from active_learning.acquisition import Float32Array, FloatArray
from active_learning.imaging import PixelArray, Preprocessing


class Classifier(Protocol):
    """A trained image classifier."""

    @property
    def model_name(self) -> str:
        """The network's name."""

    @property
    def version(self) -> int:
        """1 for the first model; a challenger is one more than its champion."""

    @property
    def classes(self) -> tuple[str, ...]:
        """C class names, in the order of the probabilities."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the network's input."""

    @property
    def lineage(self) -> dict[str, object]:
        """Where it came from: parent version, training set, number of labels."""

    def probabilities(
        self, pixels: PixelArray, batch_size: int, accelerator: str, title: str
    ) -> FloatArray:
        """Class probabilities.

        Args:
            pixels: (N, H, W, C) uint8, decoded by this classifier's preprocessing.
            batch_size: Images that are in memory at once.
            accelerator: ``cpu``, ``gpu`` or ``auto``.
            title: What the progress bar says.

        Returns:
            (N, C) float64; each row sums to 1.
        """

    def look(
        self, pixels: PixelArray, batch_size: int, accelerator: str, title: str
    ) -> tuple[FloatArray, Float32Array]:
        """Class probabilities, and what the last layer made them of.

        It takes what ``probabilities`` takes.

        Returns:
            (N, C) float64 and the (N, D) embeddings, which are the last layer's input.
        """
