"""Several processes that train one model."""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed
from pytorch_lightning.strategies import DDPStrategy

# Where the first process of a training listens; Lightning leaves its choice behind.
_PORT = "MASTER_PORT"


class SpawnedProcesses(DDPStrategy):
    """Data parallel training in processes that end with it.

    Lightning takes the process group of CPUs down with the interpreter, whose end
    aborts the process when a thread of the group still runs. Here the group ends first.
    """

    def __init__(self, **options: Any) -> None:
        """Take what Lightning's own takes."""
        super().__init__(start_method="spawn", **options)

    def setup_distributed(self) -> None:
        """Join the group, to leave it before the process ends."""
        super().setup_distributed()
        atexit.register(_leave)


@contextmanager
def own_port() -> Iterator[None]:
    """Forget the port of a training, which the next one may find taken."""
    before = os.environ.get(_PORT)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_PORT, None)


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
