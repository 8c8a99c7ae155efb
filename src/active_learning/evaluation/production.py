"""Accuracy in production: what a few audited labels say of all predictions."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from active_learning.errors import DataError

FloatArray = NDArray[np.float64]


class Estimate(NamedTuple):
    """An accuracy, the interval around it and how many labels it rests on."""

    accuracy: float
    low: float
    high: float
    n: int


def wilson(n_right: int, n: int, level: float) -> tuple[float, float]:
    """Bound an accuracy from labels of images that were drawn blindly.

    Args:
        n_right: How many of them the model got right.
        n: How many there are.
        level: Part of such intervals that hold the truth, as 0.95.

    Returns:
        Low and high, both in [0, 1]; everything from 0 to 1 where there is no label.

    Raises:
        DataError: More are right than there are.

    Source:
        Wilson, *Probable Inference, the Law of Succession, and Statistical
        Inference*, 1927.
    """
    from scipy.stats import binomtest

    if not 0 <= n_right <= n:
        raise DataError(f"{n_right} of {n} labels cannot be right.")
    if n == 0:
        return 0.0, 1.0
    interval = binomtest(n_right, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def lure(correct: ArrayLike, q: ArrayLike, population: int, level: float) -> Estimate:
    """Estimate an accuracy from labels that were not drawn blindly.

    Each wrong answer is weighted by how unlikely its image was to be drawn, with
    Farquhar's levelled weights::

        v_m = 1 + (N - M) / (N - m) * (1 / ((N - m + 1) q_m) - 1)

    and the accuracy is one minus the mean of v_m where the model was wrong. Weighting
    the right answers instead has the same expectation, but puts the large weights on
    the many: three times the spread where doubt chose the images, and accuracies
    above one.

    The interval is Wilson's with as many labels as would, drawn blindly, have the
    variance of the weighted terms, and never more than M; where all answers are alike
    and have no variance, Kish's effective number. With equal weights it is ``wilson``.
    It does not cover what the weights cannot know: draws that depend on each other
    beyond their order, labels that are wrong or never came, and, where images that the
    model gets wrong are the least likely to be drawn, errors not met yet; there it
    holds the truth less often than its level. That M of N are known for certain is
    not counted in its favor.

    Args:
        correct: (M,) in the order of the draw, true where the model was right.
        q: (M,) probability of each image to be drawn next, among those that were
            still there: 1 / (N - m + 1) in a blind draw, whatever M is.
        population: N, the images that could have been drawn, M of which were.
        level: As for ``wilson``.

    Returns:
        An accuracy that is unbiased, at most 1, and below 0 only by bad luck with
        few labels; an interval in [0, 1]; M.

    Raises:
        DataError: There is no draw, or more draws than images, or the arrays differ in
            length, or a q is no probability; or an image was certain to be drawn
            while others were left, as at the top of a ranking: no weight corrects that.

    Source:
        Farquhar, Gal and Rainforth, *On Statistical Bias in Active Learning: How and
        When to Fix It*, 2021; Kossen et al., *Active Testing*, 2021; Franco et al.,
        *Comparative Study of Confidence Intervals for Proportions in Complex Sample
        Surveys*, 2019, for the interval.
    """
    wrong = 1.0 - np.asarray(correct, dtype=np.float64)
    chances = np.asarray(q, dtype=np.float64)
    _check_draw(wrong, chances, population)
    n = len(wrong)
    left = population - np.arange(n)  # N - m + 1
    # With all N drawn, the last step's 0 / 0 stands for a weight of one.
    share = (population - n) / np.maximum(left - 1, 1)
    weights = 1.0 + share * (1.0 / (left * chances) - 1.0)
    accuracy = float(1.0 - (weights * wrong).mean())
    n_effective = _effective_number(accuracy, weights, wrong)
    low, high = _wilson_bounds(min(max(accuracy, 0.0), 1.0), n_effective, level)
    return Estimate(accuracy, low, high, n)


def _check_draw(wrong: FloatArray, q: FloatArray, population: int) -> None:
    if wrong.ndim != 1 or wrong.shape != q.shape or not 0 < len(wrong) <= population:
        raise DataError(
            f"{population} images cannot have given draws of shape {wrong.shape} with "
            f"probabilities of shape {q.shape}; expected (M,) twice, M from 1 to "
            f"{population}."
        )
    # Written so that a NaN, which compares false with everything, is wrong too.
    strange = np.flatnonzero(~((q > 0) & (q <= 1)))
    if strange.size:
        raise DataError(
            f"{strange.size} of {len(q)} draws have no probability in (0, 1]; the "
            f"first is {q[strange[0]]} at draw {strange[0] + 1}."
        )
    certain = np.flatnonzero((q == 1) & (population - np.arange(len(q)) > 1))
    if certain.size:
        raise DataError(
            f"{certain.size} of {len(q)} draws were certain while other images were "
            f"left; the first is draw {certain[0] + 1}. What a ranking put on top "
            "says nothing of the rest: estimate from the audit sample instead."
        )


def _effective_number(accuracy: float, weights: FloatArray, wrong: FloatArray) -> float:
    """Count the blind labels that would say as much."""
    variance = float((weights * wrong).var()) / len(wrong)
    if variance == 0 or not 0 < accuracy < 1:
        return float(weights.sum() ** 2 / (weights**2).sum())
    return min(accuracy * (1 - accuracy) / variance, float(len(wrong)))


def _wilson_bounds(share: float, n: float, level: float) -> tuple[float, float]:
    """Wilson's interval for a number of labels that need not be whole."""
    from scipy.special import ndtri

    z_squared = float(ndtri((1 + level) / 2)) ** 2
    center = (share + z_squared / (2 * n)) / (1 + z_squared / n)
    half = np.sqrt(share * (1 - share) * z_squared / n + (z_squared / (2 * n)) ** 2) / (
        1 + z_squared / n
    )
    return max(0.0, float(center - half)), min(1.0, float(center + half))
