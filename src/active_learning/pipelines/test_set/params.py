"""Parameters of ``test-set``."""

from pydantic import Field, NonNegativeInt

from active_learning.parameters import Parameters


class TestSetParams(Parameters):
    """How the test set is drawn. ``conf/base`` is the one home of its values."""

    __test__ = False

    share: float = Field(gt=0, lt=1)
    seed: NonNegativeInt
