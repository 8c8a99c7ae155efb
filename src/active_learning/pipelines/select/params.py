"""Parameters of ``select``."""

from typing import Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from active_learning.acquisition import find_strategy
from active_learning.errors import UnknownNameError
from active_learning.parameters import Parameters

# The queries bring back no more, whatever is asked for.
MOST_CANDIDATES = 10_000


# The utilities that stand in the table, and which the engine can weigh.
COLUMNS = ("margin", "entropy", "least_confidence")


class NearDuplicates(Parameters):
    """Which images are too much alike to ask about both."""

    by: Literal["none", "embedding", "perceptual_hash"]
    similarity: float = Field(gt=0, le=1)
    distance: int = Field(ge=0, le=64)


class Plateau(Parameters):
    """When the audited accuracy has stopped rising; off without ``min_gain``."""

    versions: PositiveInt
    min_gain: float | None = Field(gt=0, lt=1)


class Stability(Parameters):
    """When versions have stopped changing their answers; off without ``kappa``."""

    # The query brings back ten pairs of versions.
    pairs: int = Field(ge=1, le=10)
    min_images: PositiveInt
    kappa: float | None = Field(gt=0, le=1)


class Uncertainty(Parameters):
    """When the champion has little doubt left; off without ``at_most``."""

    over: Literal["mean", "max"]
    at_most: NonNegativeFloat | None


class Stopping(Parameters):
    """When the advice is to stop asking for labels, and what a label costs."""

    act: bool
    combine: Literal["any", "all"]
    max_labels: PositiveInt | None
    max_cost: PositiveFloat | None
    cost_per_label: PositiveFloat | None
    currency: str
    level: float = Field(gt=0, lt=1)
    window_days: PositiveInt
    plateau: Plateau
    stability: Stability
    uncertainty: Uncertainty

    @model_validator(mode="after")
    def _refuse_a_bound_without_a_price(self) -> Self:
        if self.max_cost is not None and self.cost_per_label is None:
            raise ValueError(
                f"select.stopping.max_cost is {self.max_cost:g} {self.currency}, and "
                "cost_per_label does not say what a label costs"
            )
        return self


class SelectParams(Parameters):
    """How a batch is chosen. No defaults here: ``conf/base`` is their one home."""

    strategy: str
    over: str
    exponent: NonNegativeFloat
    budget: PositiveInt
    audit: NonNegativeInt
    window_days: PositiveInt
    expire_after_days: PositiveInt
    near_duplicates: NearDuplicates
    max_class_share: float | None = Field(gt=0, le=1)
    second_opinions: float = Field(ge=0, le=1)
    stopping: Stopping

    @field_validator("strategy")
    @classmethod
    def _refuse_the_unknown(cls, name: str) -> str:
        try:
            find_strategy(name)
        except UnknownNameError as exc:
            raise ValueError(str(exc)) from exc
        return name

    @field_validator("over")
    @classmethod
    def _refuse_what_cannot_be_wrapped(cls, name: str) -> str:
        try:
            find_strategy("class_balanced", name)
        except UnknownNameError as exc:
            raise ValueError(str(exc)) from exc
        return name

    @model_validator(mode="after")
    def _refuse_what_does_not_fit(self) -> Self:
        if self.strategy == "power" and self.over not in COLUMNS:
            raise ValueError(
                f"select.over is {self.over!r}; power draws from the whole pool inside "
                f"the engine, which knows {', '.join(COLUMNS)}"
            )
        if max(self.budget, self.audit) > MOST_CANDIDATES:
            raise ValueError(
                f"select.budget is {self.budget} and select.audit {self.audit}; a "
                f"query brings back {MOST_CANDIDATES:,} at most"
            )
        return self
