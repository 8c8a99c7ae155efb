"""Parameters of ``deploy``."""

from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from active_learning.parameters import Parameters


def _typed_list(value: Any) -> Any:
    """A comma ends a parameter on the command line, so a list is typed with pluses."""
    if isinstance(value, str):
        return value.split("+")
    return [value] if isinstance(value, int) else value


class DeployParams(Parameters):
    """When a challenger takes over, and how. ``conf/base`` is the values' one home."""

    rollback: bool
    level: float = Field(gt=0, lt=1)
    tolerance: float = Field(gt=0, lt=1)
    max_recall_drop: float = Field(ge=0, le=1)
    batch_size: PositiveInt
    parity_images: PositiveInt
    smoke_images: PositiveInt
    traffic_steps: Annotated[tuple[PositiveInt, ...], BeforeValidator(_typed_list)]
    step_s: NonNegativeFloat
    service_url: str = Field(pattern="^https?://")
    load_timeout_s: PositiveFloat
    keep_releases: PositiveInt
    registered_model: str = Field(pattern=r"^[A-Za-z0-9._ -]+$")

    @model_validator(mode="after")
    def _steps_rise_to_all(self) -> Self:
        steps = self.traffic_steps
        rising = all(one < other for one, other in pairwise(steps))
        if not steps or steps[-1] != 100 or not rising:
            raise ValueError(
                f"traffic_steps {list(steps)} must rise and end with 100, such as "
                "[10, 50, 100] or [100]"
            )
        return self
