"""How a network is built and trained: typed parameters, no torch."""

from typing import Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from active_learning.parameters import Parameters

PositiveShare = Field(gt=0, le=1)


class Network(Parameters):
    """Which network, and which weights it has before the first label."""

    name: str
    weights: str | None
    width: PositiveInt


class Initialization(Parameters):
    """What a round's training starts from.

    Source:
        ``shrink_perturb``: Ash and Adams, *On Warm-Starting Neural Network
        Training*, 2020.
    """

    start: Literal["previous", "scratch", "pretrained", "shrink_perturb"]
    shrink: float = Field(ge=0, le=1)
    perturb: NonNegativeFloat


class Augmentation(Parameters):
    """Random changes that leave the class as it is, drawn anew for each image."""

    flip: bool
    crop: NonNegativeInt
    erase: NonNegativeInt


class EarlyStopping(Parameters):
    """When the training loss no longer falls. The test set is never looked at."""

    patience: PositiveInt
    min_delta: NonNegativeFloat


class Recipe(Parameters):
    """One round of training, with a fresh optimizer."""

    min_steps: PositiveInt
    min_epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: float = Field(gt=0)
    weight_decay: NonNegativeFloat
    label_smoothing: float = Field(ge=0, lt=1)
    averaging: float = Field(ge=0, lt=1)
    balance: Literal["none", "class_weights", "sampler"]
    augmentation: Augmentation
    early_stopping: EarlyStopping | None


class Hardware(Parameters):
    """Where Lightning trains; the words are those of its ``Trainer``.

    ``nodes`` is its ``num_nodes``: machines that train one model, each with
    ``devices``.
    """

    accelerator: str
    devices: int | str
    nodes: PositiveInt
    precision: str
    strategy: str

    @model_validator(mode="after")
    def _refuse_no_device(self) -> Self:
        if isinstance(self.devices, int) and self.devices < 1 and self.devices != -1:
            raise ValueError(f"devices is {self.devices}; use 1 or more, -1 or 'auto'")
        return self
