"""Strategies: which images to ask a human about. NumPy in, NumPy out.

A strategy takes a scored ``Pool`` and gives one utility per image; higher asks sooner.
``STRATEGIES`` names those that come with the package. A function of yours is used by
its dotted path and needs no change here::

    $ kedro run --pipelines select --params select.strategy=my_package.my_strategy
"""

from active_learning.acquisition.pool import FloatArray, IntArray, Pool
from active_learning.acquisition.sampling import sampling_keys
from active_learning.acquisition.strategies import (
    STRATEGIES,
    Strategy,
    find_strategy,
    rank,
)

__all__ = [
    "STRATEGIES",
    "FloatArray",
    "IntArray",
    "Pool",
    "Strategy",
    "find_strategy",
    "rank",
    "sampling_keys",
]
