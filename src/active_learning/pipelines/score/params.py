"""Parameters of ``score``."""

from typing import Literal

from pydantic import PositiveInt

from active_learning.parameters import Parameters


class ScoreParams(Parameters):
    """How images are scored. No defaults here: ``conf/base`` is their one home."""

    batch_size: PositiveInt
    accelerator: Literal["auto", "cpu", "gpu"]
    embeddings: bool
    source: Literal["batch", "simulation"]
