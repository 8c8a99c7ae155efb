"""Parameters of ``simulate``."""

import re
from typing import Any, Self

from pydantic import NonNegativeInt, PositiveInt, field_validator, model_validator

from active_learning.acquisition import find_strategy
from active_learning.errors import UnknownNameError
from active_learning.parameters import Parameters

# What a variant may change: the steps of a round, and who answers in it.
VARIABLE = ("score", "select", "oracle", "label_ingest", "train")


class SimulateParams(Parameters):
    """How much is simulated. ``conf/base`` is the one home of its values.

    ``initial_labels`` and ``labels_per_round`` count answers, which are what is paid:
    with three labelers a third as many images are asked about. ``variants`` names
    changes of other sections; every strategy runs once more with each.
    """

    rounds: PositiveInt
    strategies: tuple[str, ...]
    seeds: tuple[NonNegativeInt, ...]
    pool_size: PositiveInt
    initial_labels: PositiveInt
    labels_per_round: PositiveInt
    stream_size: PositiveInt
    variants: dict[str, dict[str, dict[str, Any]]]

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

    @field_validator("variants")
    @classmethod
    def _refuse_strange_variants(
        cls, variants: dict[str, dict[str, dict[str, Any]]]
    ) -> dict[str, dict[str, dict[str, Any]]]:
        for name, changes in variants.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(
                    f"{name!r} cannot name a variant: it becomes part of a folder's "
                    "name; use small letters, digits and underscores"
                )
            strange = sorted(set(changes) - set(VARIABLE))
            if strange or not changes:
                raise ValueError(
                    f"the variant {name!r} changes {strange or 'nothing'}; it may "
                    f"change {', '.join(VARIABLE)}"
                )
        return variants

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
    """One strategy with one seed; laid out by the plan, not by hand.

    ``strategy`` is as the report calls it, with its variant.
    """

    seed: NonNegativeInt
    strategy: str
