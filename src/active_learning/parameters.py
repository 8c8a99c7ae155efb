"""What every pipeline's parameters have in common."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from active_learning.errors import SettingsError

_announced: Mapping[str, Any] = {}


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


def announce_parameters(parameters: Mapping[str, Any]) -> None:
    """Let the catalog read the parameters of this run: a query's are a pipeline's."""
    global _announced  # noqa: PLW0603  # a configuration resolver has no other access
    _announced = parameters


def announced(path: str) -> Any:
    """A parameter of this run, for the catalog.

    Args:
        path: Its dotted name, such as ``select.budget``.

    Raises:
        SettingsError: There is none of that name.
    """
    value: Any = _announced
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise SettingsError(
                f"The catalog asks for the parameter {path!r}, which is not there: "
                f"{part!r} is none of "
                f"{sorted(value) if isinstance(value, Mapping) else value!r}."
            )
        value = value[part]
    return value
