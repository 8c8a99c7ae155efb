"""Labeled pixels as a LightningDataModule."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from active_learning.acquisition import IntArray
from active_learning.imaging import PixelArray


class LabeledPixels(Dataset[tuple[Tensor, Tensor]]):
    """N decoded images with their class numbers, read a batch of rows at a time."""

    def __init__(self, pixels: PixelArray, targets: IntArray) -> None:
        """Hold (N, H, W, C) uint8 pixels and (N,) class numbers."""
        self.pixels = pixels
        self.targets = torch.from_numpy(targets)

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self.targets)

    def __getitem__(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(B, H, W, C) uint8 pixels and (B,) class numbers."""
        index = np.asarray(rows, dtype=np.int64)
        return torch.from_numpy(self.pixels.take(index)), self.targets[index]


class EpochBatches(Sampler[list[int]]):
    """Batches of rows in an order that seed and epoch decide alone.

    Each of several ranks draws the same order and takes its own share of it, so that
    training on eight devices sees each image once an epoch. The last batch is filled
    up from the epoch's start, because a batch of one has no batch statistics.

    Args:
        weights: (N,) how often a row is drawn, with replacement; ``None`` visits each
            row once.
        batch_size: Rows per batch and rank.
        seed: With the epoch's number it decides the order.
        rank: Which share is this process's.
        n_ranks: How many processes train together.
    """

    def __init__(
        self,
        *,
        n_rows: int,
        weights: Tensor | None,
        batch_size: int,
        seed: int,
        rank: int,
        n_ranks: int,
    ) -> None:
        """Describe the order; it is drawn at the start of each epoch."""
        self._n_rows = n_rows
        self._weights = weights
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._n_ranks = n_ranks
        self._epoch = 0

    def __len__(self) -> int:
        """Batches an epoch, the same for every rank."""
        return math.ceil(self._n_rows / (self._batch_size * self._n_ranks))

    def __iter__(self) -> Iterator[list[int]]:
        """Draw an epoch's order and go through this rank's share."""
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        self._epoch += 1
        if self._weights is None:
            order = torch.randperm(self._n_rows, generator=generator)
        else:
            order = torch.multinomial(
                self._weights, self._n_rows, replacement=True, generator=generator
            )
        size = self._batch_size * self._n_ranks
        full = order.repeat(math.ceil(len(self) * size / self._n_rows))
        shape = (len(self), self._n_ranks, self._batch_size)
        share = full[: len(self) * size].view(shape)[:, self._rank]
        yield from share.tolist()


class TrainingPixels(LightningDataModule):
    """What one round trains on."""

    def __init__(
        self,
        rows: LabeledPixels,
        weights: Tensor | None,
        batch_size: int,
        seed: int,
    ) -> None:
        """Hold the rows; batches are made by ``train_dataloader``."""
        super().__init__()
        self._rows = rows
        self._weights = weights
        self._batch_size = batch_size
        self._seed = seed

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches of (B, H, W, C) uint8 pixels and (B,) class numbers."""
        trainer = self.trainer
        batches = EpochBatches(
            n_rows=len(self._rows),
            weights=self._weights,
            batch_size=self._batch_size,
            seed=self._seed,
            rank=trainer.global_rank if trainer else 0,
            n_ranks=trainer.world_size if trainer else 1,
        )
        # batch_size=None: the sampler already speaks of whole batches.
        return DataLoader(self._rows, sampler=batches, batch_size=None)
