"""Parameters of ``score``."""

from typing import Literal

from pydantic import PositiveInt

from active_learning.parameters import Parameters


class ScoreParams(Parameters):
    """How images are scored. No defaults here: ``conf/base`` is their one home."""

    batch_size: PositiveInt
    chunk_size: PositiveInt
    accelerator: Literal["auto", "cpu", "gpu"]
    embeddings: bool
    source: Literal["batch", "simulation"]

    def rows_at_once(self, n: int) -> int:
        """Of ``n`` images; a round of a simulation is written once, and so as one."""
        return self.chunk_size if self.source == "batch" else max(n, 1)
