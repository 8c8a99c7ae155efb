"""Parameters of ``select``."""

from pydantic import PositiveInt, field_validator

from active_learning.acquisition import find_strategy
from active_learning.errors import UnknownNameError
from active_learning.parameters import Parameters


class SelectParams(Parameters):
    """How a batch is chosen. No defaults here: ``conf/base`` is their one home."""

    strategy: str
    budget: PositiveInt

    @field_validator("strategy")
    @classmethod
    def _refuse_the_unknown(cls, name: str) -> str:
        try:
            find_strategy(name)
        except UnknownNameError as exc:
            raise ValueError(str(exc)) from exc
        return name
