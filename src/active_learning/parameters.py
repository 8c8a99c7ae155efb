"""What every pipeline's parameters have in common."""

from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Parameters(BaseModel):
    """Typed parameters: immutable, complete, and no stranger among their keys.

    A subclass gives no defaults: ``conf/base`` is their one home.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest(cls, values: Any) -> Any:
        # Pydantic refuses a stranger too, but cannot say what was probably meant.
        if not isinstance(values, dict):
            return values
        known = sorted(cls.model_fields)
        for key in values:
            if key not in cls.model_fields:
                near = get_close_matches(str(key), known, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(f"{key!r} is no parameter: {hint}there are {known}")
        return values
