"""Samples of vectors in two windows: embeddings, or one score per row."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from active_learning.drift.counts import compare_counts
from active_learning.drift.shift import Shift, no_shift
from active_learning.errors import DataError

FloatArray = NDArray[np.float64]

MAX_COMPONENTS: Final = 8
MAX_FITTED_ROWS: Final = 2_000


def compare_samples(reference: ArrayLike, current: ArrayLike) -> Shift:
    """Compare where two samples lie along the reference's principal components.

    The components, eight at most, are found on every k-th row of the reference, half
    of its rows and 2,000 at most, and the other rows are compared: on the rows they
    were fitted to, components look wider than they are, and every new window would
    seem to have drifted. One column alone needs no component and is compared whole.
    What moves outside these components goes unseen.

    Args:
        reference: (R, D) one vector per row.
        current: (Q, D) of the same model: another's space has other axes.

    Returns:
        ``statistic``: the largest Kolmogorov-Smirnov statistic of all components.
        ``p_value``: its p-value (asymptotic, so slightly large in small windows)
        times the number of components, 1 at most. ``psi`` and ``js``: as for counts,
        on the reference's deciles along that component. ``n_reference`` and
        ``n_current`` are R and Q. An empty window, and a reference whose rows are all
        equal, leave nothing to compare: 0, 0, 0 and a p-value of 1.

    Raises:
        DataError: The samples are no tables of one width, or a value is not finite.

    Source:
        Rabanser, Günnemann and Lipton, *Failing Loudly: An Empirical Study of Methods
        for Detecting Dataset Shift*, 2019: PCA, a univariate test on each component,
        Bonferroni's correction.
    """
    from scipy.stats import ks_2samp

    before, now = _check_samples(reference, current)
    n_reference, n_current = len(before), len(now)
    compared, components = _components(before)
    if not len(compared) or not n_current or not components.shape[1]:
        return no_shift(n_reference, n_current)
    before, now = (compared @ components).T, (now @ components).T
    tests = [ks_2samp(b, n, method="asymp") for b, n in zip(before, now, strict=True)]
    moved = int(np.argmax([test.statistic for test in tests]))
    deciles = compare_counts(*_count_by_deciles(before[moved], now[moved]))
    return Shift(
        psi=deciles.psi,
        js=deciles.js,
        statistic=float(tests[moved].statistic),
        p_value=min(1.0, len(tests) * float(tests[moved].pvalue)),
        n_reference=n_reference,
        n_current=n_current,
    )


def _check_samples(
    reference: ArrayLike, current: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    before = np.asarray(reference, dtype=np.float64)
    now = np.asarray(current, dtype=np.float64)
    if before.ndim != 2 or now.ndim != 2 or before.shape[1] != now.shape[1]:
        raise DataError(
            f"Samples of shape {before.shape} and {now.shape} cannot be compared; "
            "expected (R, D) and (Q, D), vectors of one model."
        )
    for window, rows in (("reference", before), ("current", now)):
        wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if wrong.size:
            raise DataError(
                f"{wrong.size} of {len(rows)} {window} rows hold a NaN or an infinite "
                f"value; the first is row {wrong[0]}. Score these images again."
            )
    return before, now


def _components(reference: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fit components on some rows of the reference.

    Returns:
        The rows that were not fitted, and (D, P) orthonormal columns; P is 0 where the
        fitted rows are all equal.
    """
    if reference.shape[1] == 1:
        return reference, np.eye(1)
    step = max(2, -(-len(reference) // MAX_FITTED_ROWS))
    fitted = np.zeros(len(reference), dtype=bool)
    fitted[::step] = True
    if not fitted.any():
        return reference, np.empty((reference.shape[1], 0))
    rows = reference[fitted]
    _, spread, axes = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    # What is left along an axis without spread is rounding, and rounding differs
    # from batch to batch.
    rounding = max(rows.shape) * np.finfo(np.float64).eps * np.abs(rows).max()
    kept = axes[:MAX_COMPONENTS][spread[:MAX_COMPONENTS] > rounding]
    return reference[~fitted], kept.T


def _count_by_deciles(
    reference: FloatArray, current: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Count (R,) and (Q,) values between the deciles of the first."""
    edges = np.unique(np.quantile(reference, np.arange(1, 10) / 10))
    before, now = (
        np.bincount(np.searchsorted(edges, values, side="right"), minlength=10)
        for values in (reference, current)
    )
    return before.astype(np.float64), now.astype(np.float64)
