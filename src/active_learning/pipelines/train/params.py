"""Parameters of ``train``."""

from typing import Self

from pydantic import NonNegativeInt, PositiveInt, model_validator

from active_learning.imaging import Preprocessing
from active_learning.learning.recipe import Hardware, Initialization, Network, Recipe
from active_learning.parameters import Parameters


class TrainParams(Parameters):
    """What is trained, how and where. ``conf/base`` is the one home of its values."""

    network: Network
    preprocessing: Preprocessing
    init: Initialization
    recipe: Recipe
    hardware: Hardware
    evaluation_batch_size: PositiveInt
    seed: NonNegativeInt

    @model_validator(mode="after")
    def _refuse_missing_weights(self) -> Self:
        if self.init.start == "pretrained" and self.network.weights is None:
            raise ValueError(
                "init.start is 'pretrained' but network.weights is null: name a file "
                "or, for a torchvision network, DEFAULT"
            )
        return self
