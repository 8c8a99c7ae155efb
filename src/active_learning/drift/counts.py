"""Counts of K classes or bins in two windows."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from active_learning.drift.shift import Shift, no_shift
from active_learning.errors import DataError

FloatArray = NDArray[np.float64]

PSEUDO_COUNT: Final = 0.5
FEW: Final = 5  # expected counts, Cochran's rule
N_TABLES: Final = 1_999


def compare_counts(reference: ArrayLike, current: ArrayLike) -> Shift:
    """Compare how often each of K classes or bins came up.

    What is empty in both windows is left out. For the index alone half a count is
    added to each class in each window, or one that came up in one window only would
    make it infinite; half a count weighs little among many rows and says little where
    there are few. Even for windows from one source the index is around
    (K - 1) (1 / n_reference + 1 / n_current), which is not small for small windows.

    Args:
        reference: (K,) whole numbers.
        current: (K,) whole numbers of the same classes in the same order.

    Returns:
        ``psi``: population stability index, the relative entropies in nats of each
        window to the other, added up. ``js``: Jensen-Shannon distance to base 2, from
        0 to 1 for windows that share nothing. ``statistic`` and ``p_value``: the
        chi-squared test of homogeneity, without Yates's correction. Where a class
        expects fewer than five counts, its distribution does not hold and gives too
        many alarms; 1,999 random tables with the same totals, always the same ones,
        stand in for it, and no p-value is below 0.0005. A window without a count and
        a single class leave nothing to compare: 0, 0, 0 and a p-value of 1.

    Raises:
        DataError: The windows differ in length, or a count is negative or no whole
            number.

    Source:
        Jeffreys, *An Invariant Form for the Prior Probability in Estimation
        Problems*, 1946; Krichevsky and Trofimov, *The Performance of Universal
        Encoding*, 1981, for the half; Yurdakul, *Statistical Properties of Population
        Stability Index*, 2018; Endres and Schindelin, *A New Metric for Probability
        Distributions*, 2003; Pearson, 1900; Cochran, *Some Methods for Strengthening
        the Common Chi-Squared Tests*, 1954.
    """
    counts = np.stack(_check_counts(reference, current))
    n_reference, n_current = (int(n) for n in counts.sum(axis=1))
    counts = counts[:, counts.any(axis=0)]
    if not n_reference or not n_current:
        return no_shift(n_reference, n_current)
    statistic, p_value = _homogeneity(counts)
    return Shift(
        psi=_stability_index(counts),
        js=_jensen_shannon(counts),
        statistic=statistic,
        p_value=p_value,
        n_reference=n_reference,
        n_current=n_current,
    )


def _check_counts(
    reference: ArrayLike, current: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    before = np.asarray(reference, dtype=np.float64)
    now = np.asarray(current, dtype=np.float64)
    if before.shape != now.shape or before.ndim != 1:
        raise DataError(
            "Two windows are compared class by class; got counts of shape "
            f"{before.shape} and {now.shape}. Count both over the same classes."
        )
    for window, counts in (("reference", before), ("current", now)):
        # Written so that a NaN, which compares false with everything, is wrong too.
        wrong = np.flatnonzero(~((counts >= 0) & (counts == np.floor(counts))))
        if wrong.size:
            raise DataError(
                f"{wrong.size} of {len(counts)} {window} counts are no whole numbers "
                f"from 0 on; the first is {counts[wrong[0]]} at place {wrong[0]}. "
                "Give counts, not shares: the test needs to know how many rows."
            )
    return before, now


def _stability_index(counts: FloatArray) -> float:
    from scipy.special import rel_entr

    smoothed = counts + PSEUDO_COUNT
    p, q = smoothed / smoothed.sum(axis=1, keepdims=True)
    return float((rel_entr(p, q) + rel_entr(q, p)).sum())


def _jensen_shannon(counts: FloatArray) -> float:
    from scipy.spatial.distance import jensenshannon

    # Shares that differ in their last bit have a divergence just below zero, whose
    # root SciPy gives as NaN.
    with np.errstate(invalid="ignore"):
        distance = jensenshannon(*counts, base=2)
    return float(np.clip(np.nan_to_num(distance, nan=0.0), 0.0, 1.0))


def _homogeneity(counts: FloatArray) -> tuple[float, float]:
    """Test statistic and p-value of (2, K) counts from one source."""
    from scipy.stats import MonteCarloMethod, chi2_contingency

    test = chi2_contingency(counts, correction=False)
    p_value = test.pvalue
    if test.expected_freq.min() < FEW:
        tables = MonteCarloMethod(n_resamples=N_TABLES, rng=np.random.default_rng(0))
        whole = counts.astype(np.int64)
        p_value = chi2_contingency(whole, correction=False, method=tables).pvalue
    return float(test.statistic), float(p_value)
