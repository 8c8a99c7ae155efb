"""Parameters of ``train``."""

from pydantic import NonNegativeInt, PositiveInt

from active_learning.services.training.settings import TrainingSettings


class TrainParams(TrainingSettings):
    """What is trained, how and where. ``conf/base`` is the one home of its values."""

    evaluation_batch_size: PositiveInt
    min_new_labels: NonNegativeInt
