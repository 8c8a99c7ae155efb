"""Strategies over another strategy: they keep its taste and change who is asked."""

from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING

import numpy as np

from active_learning.acquisition.pool import FloatArray, IntArray, Pool, picked_first
from active_learning.errors import PredictionsError

if TYPE_CHECKING:
    from active_learning.acquisition.strategies import Strategy

# A utility of zero would never be drawn, and what is never drawn cannot be corrected.
FLOOR = 1e-9

# Half of the smallest step between two values of the second uniform number.
_HALF_STEP = 2.0**-28


def power(pool: Pool, base: "Strategy", exponent: float = 1.0) -> FloatArray:
    """Draw a batch at random, in proportion to a power of the utility.

    The k largest of ``ln w + Gumbel noise`` are k draws without replacement with
    probabilities proportional to the weights w.

    Args:
        pool: N images.
        base: Gives the (N,) utilities, none below 0.
        exponent: 0 draws blindly; the larger, the closer to taking the best.

    Returns:
        (N,) ``exponent * ln(max(u, FLOOR)) + gumbel(sampling_keys)``.

    Source:
        Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron and Gal, *Stochastic
        Batch Acquisition: A Simple Baseline for Deep Active Learning*, 2023 ("power
        acquisition"). It differs in that the noise is no stream of random numbers but
        belongs to an image and a model version, and in the floor.
    """
    utilities = np.maximum(np.asarray(base(pool), dtype=np.float64), FLOOR)
    drawn: FloatArray = exponent * np.log(utilities) + gumbel(pool.sampling_keys)
    return drawn


def gumbel(sampling_keys: FloatArray) -> FloatArray:
    """Noise whose largest values are a fair draw, from keys instead of a generator.

    Args:
        sampling_keys: (N,) uniform in [0, 1), of 53 bits.

    Returns:
        (N,) standard Gumbel: ``-ln(-ln v)`` of a second uniform number v, the lower 27
        bits of the key, kept off 0 and 1 by 2**-28. The upper bits, which a blind draw
        goes by, say nothing of it.
    """
    scaled = sampling_keys * 2.0**26
    second = np.clip(scaled - np.floor(scaled), _HALF_STEP, 1.0 - _HALF_STEP)
    noise: FloatArray = -np.log(-np.log(second))
    return noise


def weights(utilities: FloatArray, exponent: float) -> FloatArray:
    """What ``power`` draws in proportion to: ``max(u, FLOOR) ** exponent``."""
    raised: FloatArray = np.maximum(utilities, FLOOR) ** exponent
    return raised


def propensities(weights_in_order_of_draw: FloatArray, mass: float) -> FloatArray:
    """How likely each draw was, given those before it.

    Args:
        weights_in_order_of_draw: (M,) ``weights`` of what was drawn, first draw first.
        mass: The sum of the weights over the whole population that was drawn from,
            which may be larger than the pool at hand.

    Returns:
        (M,) q_m = w_m / (mass - w_1 - ... - w_(m-1)), in (0, 1].

    Raises:
        PredictionsError: What was drawn weighs more than the population.

    Source:
        Farquhar, Gal and Rainforth, *On Statistical Bias in Active Learning: How and
        When to Fix It*, 2021, whose estimator takes these.
    """
    total = float(weights_in_order_of_draw.sum())
    if total > mass * (1 + 1e-9):
        raise PredictionsError(
            f"The {len(weights_in_order_of_draw)} images drawn weigh {total:.6g}, but "
            f"the population they were drawn from only {mass:.6g}. Sum the weights "
            "over every image that could have been drawn."
        )
    # What is left is summed from the end: a difference of large sums would lose digits.
    drawn_later = np.cumsum(weights_in_order_of_draw[::-1])[::-1]
    likely: FloatArray = weights_in_order_of_draw / (
        max(mass - total, 0.0) + drawn_later
    )
    return likely


def class_balanced(pool: Pool, base: "Strategy") -> FloatArray:
    """Ask next for the class that has the fewest labels so far.

    The next image is the best one, to the base, of the predicted class with the fewest
    labels and picks so far. Of several such classes the one with the better image is
    served; a class without images is passed over.

    Args:
        pool: N images; uses ``labeled_counts``.
        base: Gives the (N,) utilities.

    Returns:
        (N,) N for the first pick down to 1 for the last.

    Source:
        Bengar, van de Weijer, Fuentes and Raducanu, *Class-Balanced Active Learning for
        Image Classification*, 2022. It differs in that they solve a 0-1 program over
        expected counts, and this goes greedily by the predicted class.
    """
    n_classes = pool.probabilities.shape[1]
    counts = np.zeros(n_classes) if pool.labeled_counts is None else pool.labeled_counts
    utilities = np.asarray(base(pool), dtype=np.float64)[pool.order]
    predicted = pool.probabilities[pool.order].argmax(axis=1) if len(pool) else ()
    best_first: list[list[int]] = [[] for _ in range(n_classes)]
    # The worst come first, so that the best is popped from the end; ties go by place.
    for place in np.argsort(-utilities, kind="stable")[::-1].tolist():
        best_first[predicted[place]].append(place)
    heap = [
        (int(counts[c]), -utilities[places[-1]], places[-1], c)
        for c, places in enumerate(best_first)
        if places
    ]
    heapify(heap)
    picks = []
    while heap:
        count, _, place, c = heap[0]
        picks.append(best_first[c].pop())
        if best_first[c]:
            place = best_first[c][-1]
            heapreplace(heap, (count + 1, -utilities[place], place, c))
        else:
            heappop(heap)
    ordered: IntArray = pool.order[np.array(picks, dtype=np.int64)]
    return picked_first(ordered, np.zeros(len(pool)))
