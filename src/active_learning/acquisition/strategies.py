"""The strategies by name; each turns a pool into one utility per image."""

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType

import numpy as np

from active_learning.acquisition import uncertainty
from active_learning.acquisition.pool import FloatArray, IntArray, Pool
from active_learning.errors import PredictionsError, UnknownNameError

Strategy = Callable[[Pool], FloatArray]


def random(pool: Pool) -> FloatArray:
    """Ask blindly: the baseline that every other strategy has to beat.

    Returns:
        (N,) the sampling keys, uniform in [0, 1).
    """
    return pool.sampling_keys


def least_confidence(pool: Pool) -> FloatArray:
    """Ask where the predicted class has the least probability.

    Returns:
        (N,) in [0, 1 - 1 / C]; see ``uncertainty.least_confidence``.
    """
    return uncertainty.least_confidence(pool.probabilities)


def margin(pool: Pool) -> FloatArray:
    """Ask where the two best classes are closest.

    Returns:
        (N,) in [0, 1]: one minus the lead; see ``uncertainty.margin``.
    """
    return 1.0 - uncertainty.margin(pool.probabilities)


def entropy(pool: Pool) -> FloatArray:
    """Ask where the whole distribution is flattest.

    Returns:
        (N,) in nats; see ``uncertainty.entropy``.
    """
    return uncertainty.entropy(pool.probabilities)


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "random": random,
        "least_confidence": least_confidence,
        "margin": margin,
        "entropy": entropy,
    }
)


def find_strategy(name: str) -> Strategy:
    """Look a strategy up by its name, or import it by its dotted path.

    Raises:
        UnknownNameError: No strategy has that name, or the path leads to nothing
            that can be called; the nearest names are given.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    module, _, function = name.rpartition(".")
    try:
        found = getattr(import_module(module), function) if module else None
    except (ImportError, AttributeError) as exc:
        raise UnknownNameError("strategy", name, STRATEGIES) from exc
    if not callable(found):
        raise UnknownNameError("strategy", name, STRATEGIES)
    strategy: Strategy = found
    return strategy


def rank(pool: Pool, strategy: Strategy) -> tuple[IntArray, FloatArray]:
    """Order a pool by what each label would teach.

    Args:
        pool: N images.
        strategy: Gives the (N,) utilities.

    Returns:
        The (N,) rows of the pool, most useful first, and their (N,) utilities in
        that order. Ties go by image_id, so equal pools give equal rankings.

    Raises:
        PredictionsError: The strategy gave another number of utilities, or one that
            is not finite; the first such image is named.
    """
    utilities = np.asarray(strategy(pool), dtype=np.float64)
    if utilities.shape != (len(pool),):
        raise PredictionsError(
            f"The strategy gave utilities of shape {utilities.shape} "
            f"for {len(pool)} images; expected ({len(pool)},)."
        )
    wrong = np.flatnonzero(~np.isfinite(utilities))
    if wrong.size:
        raise PredictionsError(
            f"{wrong.size} of {len(pool)} utilities are not finite; the first is "
            f"{utilities[wrong[0]]} for image_id={pool.image_ids[wrong[0]]!r}."
        )
    order = np.lexsort((np.array(pool.image_ids, dtype=object), -utilities))
    return order.astype(np.int64), utilities[order]
