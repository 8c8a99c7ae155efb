"""Averages of the weights over the steps of a round."""

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn


class MovingAverage(Callback):
    """Gives a network, when training ends, the moving average of its weights.

    Lightning's own ``WeightAveraging`` walks through the modules at every step, which
    costs a small network a tenth of its training; here their tensors are listed once.

    Args:
        network: Whose weights and buffers are averaged.
        decay: Of the average, in (0, 1).

    Source:
        Polyak averaging with the warm-up of TensorFlow's ExponentialMovingAverage:
        the decay of step n is at most (1 + n) / (10 + n).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Nothing is averaged yet."""
        self._network = network
        self._decay = decay
        self._n = 0
        self._counters: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._weights: tuple[list[Tensor], list[Tensor]] = ([], [])

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """List what is averaged, where the trainer has moved it."""
        tensors = [*self._network.parameters(), *self._network.buffers()]
        current = [tensor.detach() for tensor in tensors]
        real = [tensor for tensor in current if tensor.is_floating_point()]
        whole = [tensor for tensor in current if not tensor.is_floating_point()]
        self._weights = ([tensor.clone() for tensor in real], real)
        self._counters = ([tensor.clone() for tensor in whole], whole)
        self._n = 0

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: object,
        batch: object,
        batch_index: int,
    ) -> None:
        """Move the average towards the current weights, faster at first."""
        if trainer.global_step <= self._n:
            return  # gradients are still being gathered
        n, self._n = self._n, trainer.global_step
        slowed = min(self._decay, (1 + n) / (10 + n)) if n else 0.0
        averages, current = self._weights
        torch._foreach_lerp_(averages, current, 1 - slowed)
        if self._counters[0]:
            torch._foreach_copy_(*self._counters)

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Put the average in the weights' place."""
        for averages, current in (self._weights, self._counters):
            if averages:
                torch._foreach_copy_(current, averages)
