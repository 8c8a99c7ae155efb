"""Several processes that train one model, on one node or on several."""

import atexit
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import torch.distributed
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy

from active_learning.errors import SettingsError

# Where the first process of a training listens; Lightning leaves its choice behind.
_PORT = "MASTER_PORT"
# What a cluster tells each of its nodes; the names are PyTorch's.
_MEETING = ("MASTER_ADDR", _PORT, "NODE_RANK")


class SpawnedProcesses(DDPStrategy):
    """Data parallel training in processes that end with it.

    Lightning takes the process group of CPUs down with the interpreter, whose end
    aborts the process when a thread of the group still runs. Here the group ends first.
    """

    def __init__(self, terms: int, **options: Any) -> None:
        """Take what Lightning's own takes, and what all processes must agree on."""
        super().__init__(start_method="spawn", **options)
        self._terms = terms

    def setup_distributed(self) -> None:
        """Join the group, to leave it before the process ends.

        Raises:
            SettingsError: Another node would train on something else.
        """
        super().setup_distributed()
        atexit.register(_leave)
        # The greatest and the least in one go; no object is unpickled for it.
        bounds = torch.tensor([self._terms, -self._terms], device=self.root_device)
        torch.distributed.all_reduce(bounds, torch.distributed.ReduceOp.MAX)
        if bounds.sum().item():
            raise SettingsError(
                f"Process {self.global_rank} of {self.world_size} would train on other "
                "labels or by other settings than another one. The training set was "
                "changed while the nodes were starting, or they were started with "
                "different parameters: start all of them again."
            )


def agreement(*facts: Any) -> int:
    """What decides a training as a number of 62 bits, to compare it among nodes."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return int.from_bytes(sha256(text.encode()).digest()[:8]) >> 2


def cluster() -> LightningEnvironment:
    """Where the nodes of a training meet, as Azure ML and torchrun tell it.

    Raises:
        SettingsError: Nothing tells it.
    """
    missing = [name for name in _MEETING if not os.environ.get(name)]
    if missing:
        raise SettingsError(
            f"train.hardware.nodes asks for several, and {', '.join(missing)} of "
            f"{', '.join(_MEETING)} say not where they meet: let 'kedro azure-job "
            "--nodes' start them, set the variables on each node, or set nodes to 1."
        )
    return LightningEnvironment()


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
