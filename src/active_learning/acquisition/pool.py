"""What a strategy sees of the images it may ask for."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from active_learning.errors import PredictionsError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """N scored images that nobody has labeled yet.

    Args:
        image_ids: N names, unique; they break ties, so that row order never matters.
        probabilities: (N, C) class probabilities; each row sums to 1.
        sampling_keys: (N,) uniform in [0, 1), fixed for an image and a model version.

    Raises:
        PredictionsError: The parts differ in length, or a value is not finite; the
            first such image is named.
    """

    image_ids: tuple[str, ...]
    probabilities: FloatArray
    sampling_keys: FloatArray

    def __post_init__(self) -> None:
        """Refuse what no strategy could rank."""
        n = len(self.image_ids)
        if self.probabilities.shape[:1] != (n,) or self.probabilities.ndim != 2:
            raise PredictionsError(
                f"{n} images came with probabilities of shape "
                f"{self.probabilities.shape}; expected ({n}, C)."
            )
        if self.sampling_keys.shape != (n,):
            raise PredictionsError(
                f"{n} images came with sampling keys of shape "
                f"{self.sampling_keys.shape}; expected ({n},)."
            )
        finite = np.isfinite(self.probabilities).all(axis=1)
        finite &= np.isfinite(self.sampling_keys)
        wrong = np.flatnonzero(~finite)
        if wrong.size:
            raise PredictionsError(
                f"{wrong.size} of {n} images have a NaN or infinite score; the first "
                f"is image_id={self.image_ids[wrong[0]]!r}. Score them again."
            )

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self.image_ids)
