"""Parameters of ``train``."""

from typing import Self

from pydantic import NonNegativeInt, PositiveInt, model_validator

from active_learning.imaging import Preprocessing
from active_learning.learning.recipe import Hardware, Initialization, Network, Recipe
from active_learning.parameters import Parameters
from active_learning.schemas import row_id


class TrainParams(Parameters):
    """What is trained, how and where. ``conf/base`` is the one home of its values."""

    network: Network
    preprocessing: Preprocessing
    init: Initialization
    recipe: Recipe
    hardware: Hardware
    evaluation_batch_size: PositiveInt
    min_new_labels: NonNegativeInt
    seed: NonNegativeInt

    @property
    def fingerprint(self) -> str:
        """A hash of what decides a model's weights, the labels apart."""
        beside = {"evaluation_batch_size", "min_new_labels"}
        return row_id(self.model_dump_json(exclude=beside))

    @model_validator(mode="after")
    def _refuse_missing_weights(self) -> Self:
        if self.init.start == "pretrained" and self.network.weights is None:
            raise ValueError(
                "init.start is 'pretrained' but network.weights is null: name a file "
                "or, for a torchvision network, DEFAULT"
            )
        return self
