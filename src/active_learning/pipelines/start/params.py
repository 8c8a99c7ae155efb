"""Parameters of ``start``."""

from pydantic import NonNegativeInt, PositiveInt

from active_learning.parameters import Parameters


class StartParams(Parameters):
    """How a project begins. ``conf/base`` is the one home of its values."""

    labels: PositiveInt
    seed: NonNegativeInt
