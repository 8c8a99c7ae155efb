"""Learning curves: what each strategy reached with how many labels.

A curves frame holds one row per seed, strategy and round, in any order, with exactly
``CURVE_COLUMNS``: accuracies as parts of one, times in seconds. Round 0 is the first
model, the same for all strategies of a seed; no stream was scored for it yet, so its
``stream_accuracy``, ``score_s`` and ``select_s`` are empty.
"""

from itertools import product
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit  # SciPy has no types

from active_learning.errors import DataError, SchemaError, SettingsError

FloatArray = NDArray[np.float64]

CURVE_COLUMNS: Final = (
    "seed",
    "strategy",
    "round",
    "n_labels",
    "test_accuracy",
    "test_macro_f1",
    "stream_accuracy",
    "train_s",
    "score_s",
    "select_s",
)
RANDOM: Final = "random"
LAST_ROUNDS: Final = 3
CONFIDENCE: Final = 0.95


class Spread(NamedTuple):
    """A mean over seeds and how far it can be trusted; NaN where one seed says nothing.

    ``std`` is the sample standard deviation (n - 1); ``low`` and ``high`` bound
    Student's t-interval of the mean at ``CONFIDENCE``.
    """

    mean: FloatArray
    std: FloatArray
    low: FloatArray
    high: FloatArray


def spread_over_seeds(values: ArrayLike) -> Spread:
    """Average over the first axis.

    Args:
        values: (S,) or (S, N), one row per seed.

    Returns:
        Four arrays of shape () or (N,).
    """
    samples = np.asarray(values, dtype=np.float64)
    n_seeds = len(samples)
    mean = np.asarray(samples.mean(axis=0))
    if n_seeds < 2:
        unknown = np.full_like(mean, np.nan)
        return Spread(mean, unknown, unknown, unknown)
    std = np.asarray(samples.std(axis=0, ddof=1))
    half = stdtrit(n_seeds - 1, (1 + CONFIDENCE) / 2) * std / np.sqrt(n_seeds)
    return Spread(mean, std, mean - half, mean + half)


def area_under_budget_curve(n_labels: ArrayLike, accuracy: ArrayLike) -> float:
    """Average accuracy over the whole budget.

    Args:
        n_labels: (R,) at least two counts, growing; the gaps may differ.
        accuracy: (R,) in the same order.

    Returns:
        The trapezoid area divided by the range of labels, in units of accuracy: a
        flat curve at 0.8 has 0.8.
    """
    counts = np.asarray(n_labels, dtype=np.float64)
    heights = np.asarray(accuracy, dtype=np.float64)
    if counts.shape != heights.shape or counts.ndim != 1 or len(counts) < 2:
        raise DataError(
            "An area needs two arrays of one dimension and length, of two points or "
            f"more; got label counts of shape {counts.shape} and accuracies of shape "
            f"{heights.shape}."
        )
    if (np.diff(counts) <= 0).any():
        first = int(np.flatnonzero(np.diff(counts) <= 0)[0])
        raise DataError(
            f"Label counts must grow from point to point; {counts[first]:.0f} is "
            f"followed by {counts[first + 1]:.0f}. Sort the curve by round first."
        )
    return float(np.trapezoid(heights, counts) / (counts[-1] - counts[0]))


def check_curves(curves: pd.DataFrame) -> None:
    """Refuse curves that could only be compared by guessing.

    Raises:
        SchemaError: Columns are missing or unknown, there is no row, a row comes twice,
            an accuracy is no number from 0 to 1, or a seed's labels do not grow.
        DataError: A seed lacks rounds that another has, as while a run goes on, or
            there is round 0 alone.
    """
    if set(curves.columns) != set(CURVE_COLUMNS):
        missing = [name for name in CURVE_COLUMNS if name not in curves]
        unknown = [name for name in curves if name not in CURVE_COLUMNS]
        raise SchemaError(
            f"Learning curves have {len(CURVE_COLUMNS)} columns; "
            f"missing: {missing or 'none'}, unknown: {unknown or 'none'}."
        )
    if curves.empty:
        raise SchemaError("The learning curves hold no row: no round has been run yet.")
    _check_rows(curves)
    _check_complete(curves)


def _check_rows(curves: pd.DataFrame) -> None:
    """Look at each row, and at each beside the one before it."""
    keys = ["seed", "strategy", "round"]
    ordered = curves.sort_values(keys)
    steps = ordered.groupby(["seed", "strategy"])["n_labels"].diff()
    problems = {
        "come twice": ordered.duplicated(keys),
        "have no test_accuracy from 0 to 1": ~ordered["test_accuracy"].between(0, 1),
        "have no more labels than the round before": steps <= 0,
    }
    for problem, wrong in problems.items():
        if wrong.any():
            row = ordered[wrong].iloc[0]
            raise SchemaError(
                f"{wrong.sum()} of {len(curves)} rows of the learning curves "
                f"{problem}; the first is seed {row['seed']}, strategy "
                f"{row['strategy']!r}, round {row['round']} with "
                f"n_labels={row['n_labels']} and "
                f"test_accuracy={row['test_accuracy']}."
            )


def _check_complete(curves: pd.DataFrame) -> None:
    """Ask that every strategy ran every round on every seed."""
    last = int(curves["round"].max())
    if last < 1:
        raise DataError(
            "The learning curves hold round 0 alone, before any strategy chose. "
            "Run at least one round: simulate.rounds >= 1."
        )
    seeds = sorted(curves["seed"].unique())
    strategies = sorted(curves["strategy"].unique())
    wanted = list(product(seeds, strategies, range(last + 1)))
    there = set(
        zip(
            curves["seed"], curves["strategy"], curves["round"].astype(int), strict=True
        )
    )
    lacking = [key for key in wanted if key not in there]
    if lacking:
        seed, strategy, number = lacking[0]
        raise DataError(
            f"{len(lacking)} of {len(wanted)} rounds are missing from the learning "
            f"curves; the first is seed {seed}, strategy {strategy!r}, round {number}. "
            "Finish the run first: "
            "kedro run --pipelines simulate --only-missing-outputs"
        )


def mean_curve(curves: pd.DataFrame, strategy: str) -> pd.DataFrame:
    """Average one strategy's curves over its seeds.

    Seeds with other label counts meet on all counts that any of them has, as far as
    all of them reach; between its own counts a seed's curve is a straight line, as it
    is for the area. Where all seeds have the same counts nothing is interpolated.

    Args:
        curves: Complete; other strategies may be among them.
        strategy: Whose curve.

    Returns:
        One row per count, ascending: ``n_labels`` (int), ``n_seeds`` (int),
        ``accuracy_mean``, ``accuracy_std``, ``accuracy_min``, ``accuracy_max``, and
        ``ci_low`` and ``ci_high``, the t-interval of the mean. With one seed the
        deviation and the interval are NaN.
    """
    check_curves(curves)
    seeds = _seed_curves(curves, strategy)
    counts = np.unique(np.concatenate([n_labels for n_labels, _ in seeds]))
    counts = counts[
        (counts >= max(n_labels[0] for n_labels, _ in seeds))
        & (counts <= min(n_labels[-1] for n_labels, _ in seeds))
    ]
    heights = np.stack([np.interp(counts, *seed_curve) for seed_curve in seeds])
    spread = spread_over_seeds(heights)
    return pd.DataFrame(
        {
            "n_labels": counts.astype(np.int64),
            "n_seeds": len(seeds),
            "accuracy_mean": spread.mean,
            "accuracy_std": spread.std,
            "accuracy_min": heights.min(axis=0),
            "accuracy_max": heights.max(axis=0),
            "ci_low": spread.low,
            "ci_high": spread.high,
        }
    )


def _seed_curves(
    curves: pd.DataFrame, strategy: str
) -> list[tuple[FloatArray, FloatArray]]:
    """Give label counts and accuracies by round, per seed in ascending order."""
    mine = curves[curves["strategy"] == strategy].sort_values(["seed", "round"])
    if mine.empty:
        there = ", ".join(sorted(curves["strategy"].unique()))
        raise SettingsError(
            f"No learning curve belongs to strategy {strategy!r}; there are: {there}."
        )
    return [
        (
            rows["n_labels"].to_numpy(dtype=np.float64),
            rows["test_accuracy"].to_numpy(dtype=np.float64),
        )
        for _, rows in mine.groupby("seed")
    ]


def labels_to_target(curve: pd.DataFrame, target: float) -> int | None:
    """Fewest labels from which on the curve never falls below the target again.

    Args:
        curve: As ``mean_curve`` gives it.
        target: An accuracy; reaching it exactly counts.

    Returns:
        A count the curve has, without interpolation; None when its last point is
        below the target.
    """
    # The mean of three equal floats can exceed them by a rounding error.
    below = curve["accuracy_mean"].to_numpy(dtype=np.float64) < target - 1e-12
    if below[-1]:
        return None
    start = int(np.flatnonzero(below)[-1]) + 1 if below.any() else 0
    return int(curve["n_labels"].iloc[start])


def final_accuracy(curves: pd.DataFrame, strategy: str) -> float:
    """Where a strategy ended: the mean of its last three rounds, over all seeds.

    With fewer than three rounds, the mean of all but round 0, in which no strategy
    had chosen anything yet.
    """
    check_curves(curves)
    first = max(1, int(curves["round"].max()) - LAST_ROUNDS + 1)
    ends = [accuracy[first:].mean() for _, accuracy in _seed_curves(curves, strategy)]
    return float(np.mean(ends))


def summarize(curves: pd.DataFrame) -> pd.DataFrame:
    """Say of each strategy what it reached and what it saved against random sampling.

    The target is random's final accuracy (``final_accuracy``). What is saved is counted
    against all the labels that random got, though random may itself have reached the
    target before its end: its own row tells how long before.

    Returns:
        One row per strategy, the largest area first, ties by name: ``strategy``,
        ``n_seeds``, ``aubc_mean``, ``aubc_std`` (NaN with one seed),
        ``final_accuracy_mean``, ``labels_to_random_final`` (Int64) and
        ``labels_saved_pct``, both empty when the target is never reached for good.

    Raises:
        SettingsError: Random sampling is not among the strategies.
    """
    check_curves(curves)
    _check_baseline(curves)
    target = final_accuracy(curves, RANDOM)
    total = int(mean_curve(curves, RANDOM)["n_labels"].iloc[-1])
    strategies = sorted(curves["strategy"].unique())
    areas = [spread_over_seeds(_areas(curves, strategy)) for strategy in strategies]
    reached = pd.array(
        [labels_to_target(mean_curve(curves, name), target) for name in strategies],
        dtype="Int64",
    )
    summary = pd.DataFrame(
        {
            "strategy": strategies,
            "n_seeds": curves["seed"].nunique(),
            "aubc_mean": [float(area.mean) for area in areas],
            "aubc_std": [float(area.std) for area in areas],
            "final_accuracy_mean": [final_accuracy(curves, s) for s in strategies],
            "labels_to_random_final": reached,
            "labels_saved_pct": 100
            * (1 - reached.to_numpy(float, na_value=np.nan) / total),
        }
    )
    return summary.sort_values(
        ["aubc_mean", "strategy"], ascending=[False, True], ignore_index=True
    )


def compare_with_random(curves: pd.DataFrame) -> pd.DataFrame:
    """Pair each strategy with random sampling, seed by seed.

    All strategies of a seed share their first labels, first model and stream, so the
    difference within a seed is free of what differs between seeds.

    Returns:
        One row per strategy but random, by name: ``strategy``, ``n_seeds``,
        ``gain_points`` (mean over seeds of the difference in area, in percentage
        points; above 0 is better than random), ``gain_low`` and ``gain_high`` (its
        t-interval, NaN with one seed) and ``seeds_won`` (seeds above 0).

    Raises:
        SettingsError: Random sampling is not among the strategies.
    """
    check_curves(curves)
    _check_baseline(curves)
    baseline = _areas(curves, RANDOM)
    strategies = sorted(set(curves["strategy"]) - {RANDOM})
    gains = [100 * (_areas(curves, strategy) - baseline) for strategy in strategies]
    spreads = [spread_over_seeds(gain) for gain in gains]
    return pd.DataFrame(
        {
            "strategy": strategies,
            "n_seeds": len(baseline),
            "gain_points": [float(spread.mean) for spread in spreads],
            "gain_low": [float(spread.low) for spread in spreads],
            "gain_high": [float(spread.high) for spread in spreads],
            "seeds_won": [int((gain > 0).sum()) for gain in gains],
        }
    )


def _areas(curves: pd.DataFrame, strategy: str) -> FloatArray:
    """Area of each seed's curve, by seed."""
    areas = [area_under_budget_curve(*c) for c in _seed_curves(curves, strategy)]
    return np.array(areas, dtype=np.float64)


def _check_baseline(curves: pd.DataFrame) -> None:
    if RANDOM not in set(curves["strategy"]):
        there = ", ".join(sorted(curves["strategy"].unique()))
        raise SettingsError(
            f"{RANDOM!r} is not among the strategies ({there}), so nothing can be said "
            "to be saved. Random sampling always runs beside: add it to "
            "simulate.strategies."
        )
