"""What a model is fed: the size, the channels and the scale of its input."""

from typing import Literal, Self

from pydantic import PositiveInt, model_validator

from active_learning.parameters import Parameters

# Raise it when `decode` gives other pixels than before: cached ones are then left
# behind and not mixed with new ones.
DECODE_VERSION = 1
RESAMPLING = "bilinear"


class Preprocessing(Parameters):
    """How an image file becomes a model's input.

    The whole image is scaled to ``height`` x ``width``, its sides stretched where the
    proportions differ, so that nothing at an edge is lost. ``mean`` and ``std`` apply
    to pixel / 255, one value per channel.
    """

    height: PositiveInt
    width: PositiveInt
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _one_value_per_channel(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ValueError(
                    f"{name} has {len(values)} values for {self.channels} channels; "
                    "give one per channel"
                )
        if min(self.std) <= 0:
            raise ValueError(
                f"std must be positive, but its smallest value is {min(self.std)}"
            )
        return self

    @property
    def decode_key(self) -> str:
        """Names the uint8 pixels; the same whatever ``mean`` and ``std`` are."""
        size = f"{self.height}x{self.width}x{self.channels}"
        return f"{size}-{RESAMPLING}-v{DECODE_VERSION}"
