"""When to stop asking for labels, and what the next point of accuracy costs.

A criterion is met, not met or, as ``None``, not known yet: too little was measured to
tell. What is not known is never a reason to stop.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from active_learning.errors import DataError
from active_learning.evaluation.production import wilson

FloatArray = NDArray[np.float64]

# Learning curves of classifiers fall between these; beyond, a fit chases noise.
EXPONENTS: Final = np.geomspace(0.05, 2.0, 121)
FEWEST_POINTS: Final = 4  # three parameters, and one point that can speak against them
N_SAMPLES: Final = 500
# A curve must beat a level line at 5%, and is refused where it fits worse than 1%.
RISES_AT: Final = 0.05
FITS_AT: Final = 0.01
# More labels than anybody gives: what needs them is out of reach.
OUT_OF_REACH: Final = 1e9


class Gain(NamedTuple):
    """A difference of two accuracies and the interval around it, newer minus older."""

    gain: float
    low: float
    high: float


class LearningCurve(NamedTuple):
    """``accuracy = ceiling - drop * (n_labels / scale) ** -exponent``, and its spread.

    Attributes:
        ceiling: The accuracy that no number of labels exceeds.
        drop: What is missing to it at ``scale`` labels.
        exponent: How fast that falls.
        scale: A number of labels among those that were fitted.
        samples: (S, 3) ceilings, drops and exponents of as many curves as might have
            been fitted, had other images been audited.
    """

    ceiling: float
    drop: float
    exponent: float
    scale: float
    samples: FloatArray


class Interval(NamedTuple):
    """A value and where it may be instead; infinite where it is out of reach."""

    value: float
    low: float
    high: float


def kappa(counts: ArrayLike) -> float:
    """Cohen's kappa: how far two versions agree beyond what chance explains.

    Args:
        counts: (C, C) images by what the older version said of them and what the newer.

    Returns:
        ``(A_o - A_e) / (1 - A_e)``: 1 for two that always agree, 0 for chance. NaN
        where there is no image, or both name one class and no other, so that nothing
        tells agreement from chance.

    Source:
        Cohen, *A Coefficient of Agreement for Nominal Scales*, 1960.
    """
    table = np.asarray(counts, dtype=np.float64)
    total = table.sum()
    if total == 0:
        return float("nan")
    observed = np.trace(table) / total
    expected = float(table.sum(axis=1) @ table.sum(axis=0)) / total**2
    if expected == 1:
        return float("nan")
    return float((observed - expected) / (1 - expected))


def is_stable(kappas: Sequence[float], pairs: int, at_least: float) -> bool | None:
    """Whether successive versions have stopped changing their answers.

    Args:
        kappas: Of successive versions, the latest pair last; NaN where it is unknown.
        pairs: So many of the latest are averaged; the paper takes 3.
        at_least: For their mean; the paper takes 0.99.

    Returns:
        ``None`` where there are fewer pairs, or one of them is unknown.

    Source:
        Bloodgood and Vijay-Shanker, *A Method for Stopping Active Learning Based on
        Stabilizing Predictions and the Need for User-Adjustable Stopping*, 2009.
    """
    latest = np.asarray(kappas[-pairs:], dtype=np.float64)
    if len(latest) < pairs or np.isnan(latest).any():
        return None
    return bool(latest.mean() >= at_least)


def gain(older: tuple[int, int], newer: tuple[int, int], level: float) -> Gain:
    """How much more often the newer of two versions is right.

    Args:
        older: How many audited images it got right, and how many there are.
        newer: Likewise, on images of its own.
        level: Part of such intervals that hold the truth, as 0.95.

    Returns:
        The difference with Newcombe's interval from the two of Wilson.

    Raises:
        DataError: One was not audited, or more images are right than there are.

    Source:
        Newcombe, *Interval Estimation for the Difference Between Independent
        Proportions: Comparison of Eleven Methods*, 1998, method 10.
    """
    if not older[1] or not newer[1]:
        raise DataError(
            f"A gain needs audited images of both versions; there are {older[1]} and "
            f"{newer[1]}."
        )
    was, now = older[0] / older[1], newer[0] / newer[1]
    was_low, was_high = wilson(*older, level)
    now_low, now_high = wilson(*newer, level)
    difference = now - was
    return Gain(
        difference,
        difference - float(np.hypot(now - now_low, was_high - was)),
        difference + float(np.hypot(now_high - now, was - was_low)),
    )


def has_plateaued(gained: Gain, min_gain: float) -> bool | None:
    """Whether a gain is too small to go on for, whatever chance did to its audits.

    Args:
        gained: Over the versions that are looked at.
        min_gain: In parts of one: a smaller gain is a plateau.

    Returns:
        True where the whole interval is below ``min_gain``, False where it is above;
        ``None`` in between, as it is with few audits.
    """
    if gained.high < min_gain:
        return True
    return False if gained.low >= min_gain else None


def audits_to_tell(accuracy: float, min_gain: float, level: float) -> int:
    """How many audited images of each version tell a plateau from a gain.

    Args:
        accuracy: About that of both.
        min_gain: The gain that an interval around no gain must exclude.
        level: Of the interval.

    Returns:
        By the normal approximation, with an accuracy no nearer to 0 or 1 than 1%.
    """
    from scipy.special import ndtri

    part = min(max(accuracy, 0.01), 0.99)
    z_squared = float(ndtri((1 + level) / 2)) ** 2
    return int(np.ceil(2 * z_squared * part * (1 - part) / min_gain**2))


def is_certain(uncertainty: float, at_most: float) -> bool | None:
    """Whether a model doubts little enough over the images that have no label.

    Args:
        uncertainty: Mean entropy over them (overall uncertainty), or the largest
            (maximum uncertainty), in nats; NaN where there are none.
        at_most: In nats.

    Returns:
        ``None`` where there is no image.

    Source:
        Zhu, Wang and Hovy, *Multi-Criteria-Based Strategy to Stop Active Learning for
        Data Annotation*, 2008; Zhu, Wang, Hovy and Ma, *Confidence-Based Stopping
        Criteria for Active Learning for Data Annotation*, 2010.
    """
    return None if np.isnan(uncertainty) else uncertainty <= at_most


def should_stop(met: Sequence[bool | None], combine: Literal["any", "all"]) -> bool:
    """Put criteria together.

    Args:
        met: One for each criterion that is on; ``None`` where it is not known yet.
        combine: ``any`` stops for one that is met and passes over what is unknown;
            ``all`` needs every one, so that an unknown one does not stop.

    Returns:
        False where there is no criterion.
    """
    known = [bool(one) for one in met]
    return any(known) if combine == "any" else bool(known) and all(known)


def fit_learning_curve(
    n_labels: ArrayLike, n_right: ArrayLike, n_audited: ArrayLike
) -> LearningCurve:
    """Fit a power law to the audited accuracy of each version.

    Least squares, each point weighted by the inverse of its binomial variance. For an
    exponent the other two parameters are a linear problem, solved as such for each
    exponent of a grid; the ceiling is at most 1, and the curve does not fall. The
    spread is that of a parametric bootstrap, which draws new audits from the fitted
    curve; equal points give equal samples.

    Args:
        n_labels: (K,) labels that each version learned from.
        n_right: (K,) audited images that it got right.
        n_audited: (K,) audited images.

    Raises:
        DataError: Why there is no curve: too few points, no rise that chance does not
            explain, or points that no power law describes.

    Source:
        Figueroa et al., *Predicting Sample Size Required for Classification
        Performance*, 2012, for the weighted inverse power law; Golub and Pereyra,
        *The Differentiation of Pseudo-Inverses and Nonlinear Least Squares Problems
        Whose Variables Separate*, 1973, for how it is solved.
    """
    from scipy.special import chdtrc

    given = (n_labels, n_right, n_audited)
    labels, right, audited = (np.asarray(one, dtype=np.float64) for one in given)
    seen = (labels > 0) & (audited > 0)
    labels, right, audited = labels[seen], right[seen], audited[seen]
    n_counts = len(np.unique(labels))
    if n_counts < FEWEST_POINTS:
        raise DataError(
            f"Audited accuracies at {n_counts} different numbers of labels are too few "
            f"for a learning curve; it needs {FEWEST_POINTS}."
        )
    scale = float(np.exp(np.log(labels).mean()))
    # One success and one failure more: an audit without an error is not certain.
    part = (right + 1) / (audited + 2)
    weights = audited / (part * (1 - part))
    accuracy = right / audited
    (fitted,), (loss,) = _power_laws(accuracy[None], labels / scale, weights)
    mean = np.average(accuracy, weights=weights)
    level_loss = float(weights @ (accuracy - mean) ** 2)
    if chdtrc(2, max(level_loss - loss, 0.0)) > RISES_AT:
        raise DataError(
            f"The accuracies of {len(labels)} versions do not rise with their labels "
            "by more than chance explains: there is no learning curve to follow."
        )
    if chdtrc(len(labels) - 3, loss) < FITS_AT:
        raise DataError(
            f"No power law describes the accuracies of {len(labels)} versions: they "
            "differ from any by more than chance explains."
        )
    ceiling, drop, exponent = (float(value) for value in fitted)
    curve = ceiling - drop * (labels / scale) ** -exponent
    rng = np.random.default_rng(0)
    drawn = rng.binomial(
        audited.astype(np.int64), curve.clip(0, 1), (N_SAMPLES, len(labels))
    )
    samples, _ = _power_laws(drawn / audited, labels / scale, weights)
    return LearningCurve(ceiling, drop, exponent, scale, samples)


def accuracies_on(curve: LearningCurve, n_labels: ArrayLike) -> FloatArray:
    """What a curve says of numbers of labels, (N,), before and beyond its points."""
    counts = np.asarray(n_labels, dtype=np.float64)
    return np.asarray(
        curve.ceiling - curve.drop * (counts / curve.scale) ** -curve.exponent
    )


def ceiling_of(curve: LearningCurve, level: float) -> Interval:
    """The accuracy that more labels do not exceed, with its bootstrap interval."""
    low, high = np.quantile(curve.samples[:, 0], [(1 - level) / 2, (1 + level) / 2])
    return Interval(curve.ceiling, float(low), float(high))


def labels_to_gain(
    curve: LearningCurve, n_labels: int, points: float, level: float
) -> Interval:
    """How many more labels the curve asks for some points of accuracy.

    Args:
        curve: As fitted.
        n_labels: That there are now.
        points: Of accuracy, in parts of one: 0.01 is the next point.
        level: Of the bootstrap interval.

    Returns:
        Labels beyond ``n_labels``; infinite where the gain is above the ceiling.
    """
    fitted = np.array([[curve.ceiling, curve.drop, curve.exponent]])
    value = _labels_to_gain(fitted, curve.scale, n_labels, points)[0]
    sampled = _labels_to_gain(curve.samples, curve.scale, n_labels, points)
    # Between a finite value and an infinite one there is nothing to interpolate.
    low = np.quantile(sampled, (1 - level) / 2, method="lower")
    high = np.quantile(sampled, (1 + level) / 2, method="higher")
    return Interval(float(value), float(low), float(high))


def _labels_to_gain(
    laws: FloatArray, scale: float, n_labels: int, points: float
) -> FloatArray:
    _, drop, exponent = laws.T
    missing = drop * (n_labels / scale) ** -exponent
    left = missing - points
    reachable = (left > 0) & (drop > 0)
    ratio = np.where(reachable, left, 1.0) / np.where(reachable, drop, 1.0)
    logarithm = np.log(scale) - np.log(ratio) / exponent
    within = reachable & (logarithm < np.log(OUT_OF_REACH))
    more = np.exp(np.where(within, logarithm, 0.0)) - n_labels
    return np.where(within, more, np.inf)


def _power_laws(
    accuracies: FloatArray, ratios: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Fit (S, K) accuracies at (K,) ratios of labels: (S, 3) laws, (S,) losses."""
    powers = ratios ** -EXPONENTS[:, None]  # (G, K)
    total = weights.sum()
    s_x, s_xx = powers @ weights, powers**2 @ weights  # (G,)
    s_y = (accuracies @ weights)[:, None]  # (S, 1)
    s_yy = (accuracies**2 @ weights)[:, None]
    s_xy = (accuracies * weights) @ powers.T  # (S, G)
    slope = (total * s_xy - s_x * s_y) / (total * s_xx - s_x**2)
    free = ((s_y - slope * s_x) / total, -slope)
    level = (np.broadcast_to(s_y / total, slope.shape), np.zeros_like(slope))
    full = (np.ones_like(slope), np.maximum(0.0, (s_x - s_xy) / s_xx))
    losses = []
    for ceiling, drop in (free, level, full):
        loss = (
            s_yy
            + ceiling * (ceiling * total - 2 * s_y)
            + drop * (drop * s_xx + 2 * s_xy - 2 * ceiling * s_x)
        )
        fits = (ceiling <= 1) & (drop >= 0)
        losses.append(np.where(fits, np.maximum(loss, 0.0), np.inf))
    found = np.stack(losses)  # (3, S, G)
    flat = found.transpose(1, 0, 2).reshape(len(accuracies), -1)
    best = flat.argmin(axis=1)
    case, place = np.divmod(best, len(EXPONENTS))
    rows = np.arange(len(accuracies))
    ceilings = np.stack([free[0], level[0], full[0]])[case, rows, place]
    drops = np.stack([free[1], level[1], full[1]])[case, rows, place]
    return np.stack([ceilings, drops, EXPONENTS[place]], axis=1), flat[rows, best]
