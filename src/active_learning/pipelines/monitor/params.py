"""Parameters of ``monitor``."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from active_learning.parameters import Parameters


class Limits(Parameters):
    """From where on a shift is drift: large, and no work of chance."""

    psi: NonNegativeFloat
    js: float = Field(ge=0, le=1)
    p_value: float = Field(ge=0, le=1)
    min_rows: PositiveInt


class CompactionParams(Parameters):
    """When small parts of a table are merged."""

    at_least: int = Field(ge=2)
    target_rows: PositiveInt
    grace_s: NonNegativeInt


class MonitorParams(Parameters):
    """What is watched. No defaults here: ``conf/base`` is their one home."""

    current_days: PositiveInt
    reference_days: PositiveInt
    across_versions: bool
    activity_days: PositiveInt
    level: float = Field(gt=0, lt=1)
    limits: Limits
    compaction: CompactionParams
