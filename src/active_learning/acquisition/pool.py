"""What a strategy sees of the images it may ask for."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from active_learning.errors import PredictionsError, SettingsError

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """N scored images that nobody has labeled yet.

    Args:
        image_ids: N names, unique; they break ties, so that row order never matters.
        probabilities: (N, C) class probabilities; each row sums to 1.
        sampling_keys: (N,) uniform in [0, 1), fixed for an image and a model version.
        embeddings: (N, D), or ``None`` where the network's features were not kept.
        labeled_embeddings: (L, D) of the images that have a label; ``None`` is none.
        labeled_counts: (C,) labels so far, in the order of the probabilities'
            columns; ``None`` is none of any class.
        budget: How many images will be asked for; 0 is all N.

    Raises:
        PredictionsError: The parts differ in length, or a value is not finite; the
            first such image is named.
        SettingsError: The budget is negative.
    """

    image_ids: tuple[str, ...]
    probabilities: FloatArray
    sampling_keys: FloatArray
    embeddings: Float32Array | None = None
    labeled_embeddings: Float32Array | None = None
    labeled_counts: IntArray | None = None
    budget: int = 0

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
        self._check_embeddings()
        self._check_labeled()
        if self.budget < 0:
            raise SettingsError(
                f"The budget is {self.budget} images; expected 0, for all, or more."
            )

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self.image_ids)

    @property
    def n_asked(self) -> int:
        """How many images a batch can hold: the budget, but no more than N."""
        return min(self.budget or len(self), len(self))

    @cached_property
    def order(self) -> IntArray:
        """(N,) rows by image_id: what is computed in this order forgets row order."""
        rows = sorted(range(len(self)), key=self.image_ids.__getitem__)
        return np.array(rows, dtype=np.int64)

    @property
    def seed(self) -> int:
        """32 bits that belong to these images and this model version, in any order."""
        keys = np.sort(self.sampling_keys).astype("<f8").tobytes()
        return int.from_bytes(blake2b(keys, digest_size=4).digest(), "big")

    def features(self, strategy: str) -> Float32Array:
        """The embeddings, for a strategy that cannot do without.

        Raises:
            PredictionsError: There are none; the message says how to get some.
        """
        if self.embeddings is None:
            raise PredictionsError(
                f"Strategy {strategy!r} compares embeddings, and these {len(self)} "
                "images came without any: set score.embeddings to true and score "
                "again."
            )
        return self.embeddings

    def _check_embeddings(self) -> None:
        if self.embeddings is None:
            return
        n = len(self)
        if self.embeddings.ndim != 2 or len(self.embeddings) != n:
            raise PredictionsError(
                f"{n} images came with embeddings of shape {self.embeddings.shape}; "
                f"expected ({n}, D)."
            )
        wrong = _not_finite(self.embeddings)
        if wrong.size:
            raise PredictionsError(
                f"{wrong.size} of {n} images have a NaN or infinite embedding; the "
                f"first is image_id={self.image_ids[wrong[0]]!r}. Score them again."
            )

    def _check_labeled(self) -> None:
        labeled, counts = self.labeled_embeddings, self.labeled_counts
        if labeled is not None:
            d = "D" if self.embeddings is None else self.embeddings.shape[1]
            if labeled.ndim != 2 or d not in ("D", labeled.shape[1]):
                raise PredictionsError(
                    "The labeled images came with embeddings of shape "
                    f"{labeled.shape}; expected (L, {d}), as the pool's."
                )
            wrong = _not_finite(labeled)
            if wrong.size:
                raise PredictionsError(
                    f"{wrong.size} of {len(labeled)} labeled images have a NaN or "
                    f"infinite embedding; the first is in row {wrong[0]}. Score them "
                    "again."
                )
        n_classes = self.probabilities.shape[1]
        if counts is not None and counts.shape != (n_classes,):
            raise PredictionsError(
                f"{n_classes} classes came with label counts of shape "
                f"{counts.shape}; expected ({n_classes},)."
            )


def picked_first(picks: IntArray, rest: FloatArray) -> FloatArray:
    """Utilities that rank a batch in the order in which it was picked.

    Args:
        picks: Rows of the pool, the first pick first.
        rest: (N,) finite scores of all rows; higher asks sooner.

    Returns:
        (N,): whole numbers down to 1 for the picks; below 1, for the others, the place
        of their score among all scores. Equal scores stay equal.
    """
    scores, places = np.unique(rest, return_inverse=True)
    utilities: FloatArray = places / (len(scores) + 1.0)
    utilities[picks] = np.arange(len(picks), 0, -1)
    return utilities


def _not_finite(vectors: Float32Array) -> IntArray:
    # The sum of a row is finite just if all of it is, and needs no copy of the rows.
    return np.flatnonzero(~np.isfinite(vectors.sum(axis=1, dtype=np.float64)))
