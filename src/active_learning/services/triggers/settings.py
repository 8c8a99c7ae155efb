"""What a watcher is told."""

from typing import Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from active_learning.parameters import Parameters


class WatchSettings(Parameters):
    """When a run is started. No defaults here: ``conf/base`` is their one home.

    Exports are looked for every ``poll_s``, and ever later up to ``poll_max_s`` while
    nothing comes. One that has not changed for ``settle_s`` is whole; the others wait
    for one that still changes up to ``settle_max_s``. Then ``pipelines`` are run. What
    fails is tried again after ``retry_s``, then ever later up to ``retry_max_s``, and
    set aside after ``attempts`` runs. ``ledger`` is the file of what was taken in.
    """

    ledger: str
    pipelines: str = Field(min_length=1)
    poll_s: PositiveFloat
    poll_max_s: PositiveFloat
    settle_s: float = Field(ge=0)
    settle_max_s: float = Field(ge=0)
    attempts: PositiveInt
    retry_s: PositiveFloat
    retry_max_s: PositiveFloat

    @model_validator(mode="after")
    def _bounds_are_bounds(self) -> Self:
        for name in ("poll", "settle", "retry"):
            least = getattr(self, f"{name}_s")
            most = getattr(self, f"{name}_max_s")
            if most < least:
                raise ValueError(
                    f"{name}_max_s {most:g} must not be below {name}_s {least:g}"
                )
        return self
