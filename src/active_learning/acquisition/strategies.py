"""The strategies by name; each turns a pool into one utility per image."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from types import MappingProxyType

import numpy as np

from active_learning.acquisition import diversity, uncertainty, wrappers
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
        "cluster_margin": diversity.cluster_margin,
        "typiclust": diversity.typiclust,
        "coreset": diversity.coreset,
        "badge": diversity.badge,
        "power": partial(wrappers.power, base=margin),
        "class_balanced": partial(wrappers.class_balanced, base=margin),
    }
)

_WRAPPERS = frozenset({"power", "class_balanced"})
_NEED_EMBEDDINGS = frozenset({"cluster_margin", "typiclust", "coreset", "badge"})

# By what a database that knows columns, and no embeddings, can order images.
_ORDERS: Mapping[str, str] = MappingProxyType(
    {
        "margin": "margin",
        "entropy": "entropy",
        "least_confidence": "least_confidence",
        "cluster_margin": "margin",
        "power": "power",
    }
)


def find_strategy(name: str, over: str = "margin", exponent: float = 1.0) -> Strategy:
    """Look a strategy up by its name, or import it by its dotted path.

    Args:
        name: Of a strategy.
        over: The name or path of what ``power`` and ``class_balanced`` wrap; no
            wrapper itself. Others have no use for it.
        exponent: Of ``power``.

    Raises:
        UnknownNameError: No strategy has that name, or the path leads to nothing
            that can be called; the nearest names are given.
    """
    if name == "power":
        return partial(wrappers.power, base=_find_base(over), exponent=exponent)
    if name == "class_balanced":
        return partial(wrappers.class_balanced, base=_find_base(over))
    return _find("strategy", name, STRATEGIES)


def needs_embeddings(name: str, over: str = "margin") -> bool:
    """Whether a strategy, or the one it wraps, compares embeddings.

    A function of yours is given them when they are there and decides for itself.
    """
    return (over if name in _WRAPPERS else name) in _NEED_EMBEDDINGS


def candidate_order(name: str, over: str = "margin") -> str:
    """By what to choose candidates where the whole pool is too much to rank.

    Returns:
        ``margin``, ``entropy`` or ``least_confidence``; ``power`` for its draw by the
        strategy it wraps; else ``random``, which favors no image.
    """
    return _ORDERS.get(over if name == "class_balanced" else name, "random")


def _find_base(name: str) -> Strategy:
    plain = {key: STRATEGIES[key] for key in STRATEGIES if key not in _WRAPPERS}
    return _find("strategy to wrap", name, plain)


def _find(kind: str, name: str, known: Mapping[str, Strategy]) -> Strategy:
    if name in known:
        return known[name]
    module, _, function = name.rpartition(".")
    try:
        found = getattr(import_module(module), function) if module else None
    except (ImportError, AttributeError) as exc:
        raise UnknownNameError(kind, name, known) from exc
    if not callable(found):
        raise UnknownNameError(kind, name, known)
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
