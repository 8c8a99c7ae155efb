"""Strategies: which images to ask a human about. NumPy in, NumPy out.

A strategy takes a scored ``Pool`` and gives one utility per image; higher asks sooner.
``STRATEGIES`` names those that come with the package. A function of yours is used by
its dotted path and needs no change here::

    $ kedro run --pipelines select --params select.strategy=my_package.my_strategy
"""

from active_learning.acquisition.duplicates import distinct, distinct_hashes
from active_learning.acquisition.pool import Float32Array, FloatArray, IntArray, Pool
from active_learning.acquisition.sampling import sampling_keys
from active_learning.acquisition.strategies import (
    STRATEGIES,
    Strategy,
    candidate_order,
    find_strategy,
    needs_embeddings,
    rank,
)
from active_learning.acquisition.wrappers import propensities, weights

__all__ = [
    "STRATEGIES",
    "Float32Array",
    "FloatArray",
    "IntArray",
    "Pool",
    "Strategy",
    "candidate_order",
    "distinct",
    "distinct_hashes",
    "find_strategy",
    "needs_embeddings",
    "propensities",
    "rank",
    "sampling_keys",
    "weights",
]
