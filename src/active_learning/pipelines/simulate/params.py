"""Parameters of ``simulate``."""

from typing import Any, Self

from pydantic import NonNegativeInt, PositiveInt, field_validator, model_validator

from active_learning.acquisition import find_strategy
from active_learning.errors import UnknownNameError
from active_learning.parameters import Parameters


class SimulateParams(Parameters):
    """How much is simulated. ``conf/base`` is the one home of its values."""

    rounds: PositiveInt
    strategies: tuple[str, ...]
    seeds: tuple[NonNegativeInt, ...]
    pool_size: PositiveInt
    initial_labels: PositiveInt
    labels_per_round: PositiveInt
    stream_size: PositiveInt

    @field_validator("strategies", "seeds", mode="before")
    @classmethod
    def _split_what_was_typed(cls, values: Any) -> Any:
        # A comma in --params ends the parameter, so several are typed as a+b.
        if isinstance(values, str):
            return tuple(values.split("+"))
        return (values,) if isinstance(values, int) else values

    @field_validator("strategies")
    @classmethod
    def _refuse_the_unknown(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            try:
                find_strategy(name)
            except UnknownNameError as exc:
                raise ValueError(str(exc)) from exc
        if "random" not in names:
            raise ValueError(
                f"{list(names)} lacks 'random': without a baseline beside it no "
                "strategy can be said to save labels"
            )
        return names

    @field_validator("strategies", "seeds")
    @classmethod
    def _refuse_repeats(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        if not values or len(set(values)) != len(values):
            raise ValueError(f"{list(values)} must name one or more, each once")
        return values

    @model_validator(mode="after")
    def _refuse_what_does_not_fit(self) -> Self:
        if self.rounds * self.stream_size > self.pool_size:
            raise ValueError(
                f"{self.rounds} rounds of {self.stream_size} fresh images need a pool "
                f"of {self.rounds * self.stream_size}, not {self.pool_size}"
            )
        if self.labels_per_round > self.stream_size:
            raise ValueError(
                f"{self.labels_per_round} labels a round cannot be chosen out of "
                f"{self.stream_size} images"
            )
        return self


class BranchParams(Parameters):
    """One strategy with one seed; laid out by the plan, not by hand."""

    seed: NonNegativeInt
    strategy: str
