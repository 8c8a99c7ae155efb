"""Two models on the same images: how much more often the one is right."""

from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from active_learning.errors import DataError

# Where all images are alike the score has no variance, and no sign to start from.
_ASIDE = 1e-12


class Difference(NamedTuple):
    """How much more often the first of two models is right.

    Attributes:
        n: Images that both were asked about.
        first: Part of them that the first got right.
        second: Part of them that the second got right.
        only_first: Images that the first alone got right.
        only_second: Images that the second alone got right.
        low: Lower end of the interval around ``difference``.
        high: Its upper end.
    """

    n: int
    first: float
    second: float
    only_first: int
    only_second: int
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Positive where the first is right more often."""
        return (self.only_first - self.only_second) / self.n


def compare(first: ArrayLike, second: ArrayLike, level: float) -> Difference:
    """Compare two models image by image.

    Args:
        first: (N,) true where the first model is right.
        second: (N,) the same of the second, for the same images in the same order.
        level: Part of such intervals that hold the truth, as 0.95.

    Raises:
        DataError: There is no image, or not the same number of answers.
    """
    one = np.asarray(first, dtype=bool)
    other = np.asarray(second, dtype=bool)
    if one.ndim != 1 or one.shape != other.shape or not one.size:
        raise DataError(
            f"Answers of shapes {one.shape} and {other.shape} cannot be compared image "
            "by image; expected (N,) twice, N at least 1."
        )
    only_first = int((one & ~other).sum())
    only_second = int((other & ~one).sum())
    low, high = tango(only_first, only_second, one.size, level)
    return Difference(
        n=one.size,
        first=float(one.mean()),
        second=float(other.mean()),
        only_first=only_first,
        only_second=only_second,
        low=low,
        high=high,
    )


def tango(b: int, c: int, n: int, level: float) -> tuple[float, float]:
    """Bound the difference (b - c) / n of two paired proportions by their score.

    Args:
        b: Pairs of which the first alone succeeded.
        c: Pairs of which the second alone succeeded.
        n: All pairs.
        level: Part of such intervals that hold the truth, as 0.95.

    Returns:
        Low and high, both in [-1, 1]. Never a single point, however alike the two are.

    Raises:
        DataError: The counts cannot be, or there is no pair.

    Source:
        Tango, *Equivalence Test and Confidence Interval for the Difference in
        Proportions for the Paired-Sample Design*, 1998; recommended by Fagerland,
        Lydersen and Laake, *Recommended Tests and Confidence Intervals for Paired
        Binomial Proportions*, 2014.
    """
    from scipy.optimize import brentq

    if min(b, c) < 0 or b + c > n or n < 1:
        raise DataError(f"{b} and {c} of {n} pairs cannot differ; give n of 1 or more.")
    z = _z(level)
    middle = (b - c) / n

    def excess(delta: float, z: float) -> float:
        spread = np.sqrt(_variance(b / n, c / n, delta) / n)
        return float(middle - delta - z * spread)

    low, high = -1.0, 1.0
    if c < n:
        low = brentq(excess, -1.0, middle - _ASIDE, args=(z,))
    if b < n:
        high = brentq(excess, middle + _ASIDE, 1.0, args=(-z,))
    return float(low), float(high)


def images_needed(differing: float, margin: float, level: float) -> int:
    """Images with which two equally good models are shown to be so.

    Args:
        differing: Part of the images that one of the two alone gets right.
        margin: Wanted distance of the interval's ends from 0.
        level: Of the interval, as for ``tango``.

    Returns:
        The smallest N whose interval stays within the margin when both alone are
        right equally often.
    """
    half = differing / 2
    variance = _variance(half, half, -margin)
    return ceil(variance * (_z(level) / margin) ** 2)


def _z(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))


def _variance(b: float, c: float, delta: float) -> float:
    """N times the variance of the difference where it is ``delta``.

    ``b`` and ``c`` are parts of 1. The chance of the second alone is the most likely
    one of those that leave the difference at ``delta``.
    """
    linear = -b - c + (2 - b + c) * delta
    constant = -c * delta * (1 - delta)
    root = np.sqrt(max(linear**2 - 8 * constant, 0.0))
    second_alone = (root - linear) / 4
    return max(float(2 * second_alone + delta * (1 - delta)), 0.0)
