"""One round of training with Lightning."""

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning_fabric.utilities.warnings import PossibleUserWarning
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from active_learning.acquisition import IntArray
from active_learning.errors import CheckpointError
from active_learning.imaging import PixelArray, Preprocessing
from active_learning.learning.averaging import MovingAverage
from active_learning.learning.memory import keep_freed_memory
from active_learning.learning.module import FineTuning, ImageClassifier
from active_learning.learning.networks import load_weights
from active_learning.learning.pixels import LabeledPixels, TrainingPixels
from active_learning.learning.processes import (
    SpawnedProcesses,
    agreement,
    cluster,
    own_port,
)
from active_learning.learning.progress import person_watches
from active_learning.learning.protocol import Classifier
from active_learning.learning.recipe import Hardware, Initialization, Network, Recipe

logger = logging.getLogger(__name__)


def fine_tune(
    *,
    champion: Classifier | None,
    classes: Sequence[str],
    pixels: PixelArray,
    targets: IntArray,
    preprocessing: Preprocessing,
    network: Network,
    initialization: Initialization,
    recipe: Recipe,
    hardware: Hardware,
    lineage: dict[str, Any],
    seed: int,
) -> ImageClassifier:
    """Train a challenger on all labels so far.

    Args:
        champion: The model to go on from, unchanged by this; ``None`` at first.
        classes: C class names; those of the champion come first, in its order.
        pixels: (N, H, W, channels) uint8.
        targets: (N,) class numbers in [0, C).
        preprocessing: Of the challenger.
        network: Which one, and its pretrained weights.
        initialization: What its weights are before the first step.
        recipe: How it is trained, with a fresh optimizer.
        hardware: Where.
        lineage: Kept in the checkpoint; ``version`` is required.
        seed: Decides initial weights, order and augmentation; torch's own random
            state is left as it was.

    Returns:
        The challenger, on the CPU; the same one on each of several nodes.

    Raises:
        CheckpointError: The champion is another network than the one asked for, or
            was not trained by Lightning.
        SettingsError: There are several nodes, and nothing says where they meet.
    """
    if champion is not None and not isinstance(champion, ImageClassifier):
        raise CheckpointError(
            f"Lightning cannot go on from a {type(champion).__name__}: give it the "
            "checkpoint of an earlier round, or set train.init.start to 'scratch'."
        )
    keep_freed_memory()
    with isolate_rng(), without_small_talk(), own_port():
        torch.manual_seed(seed)
        blank = ImageClassifier(
            network=network.model_dump(),
            classes=classes,
            preprocessing=preprocessing.model_dump(mode="json"),
            lineage=lineage,
        )
        challenger = _initialize(blank, champion, initialization, network)
        counts = torch.bincount(torch.from_numpy(targets), minlength=len(classes))
        rarity = len(targets) / (counts * (counts > 0).sum())
        # A class without images has no say, not an infinite one.
        rarity[counts == 0] = 0
        module = FineTuning(
            challenger, recipe, rarity if recipe.balance == "class_weights" else None
        )
        batches = TrainingPixels(
            LabeledPixels(pixels, targets),
            rarity[targets] if recipe.balance == "sampler" else None,
            recipe.batch_size,
            seed,
        )
        terms = agreement(lineage, classes, targets.tolist(), seed)
        trainer = _trainer(challenger, recipe, hardware, len(targets), terms)
        trainer.fit(module, datamodule=batches)
    logger.info(
        "Trained version %d of %s on %d images: %d steps, loss %.4f",
        challenger.version,
        challenger.model_name,
        len(targets),
        int(trainer.callback_metrics["train/steps"]),
        float(trainer.callback_metrics["train/loss"]),
    )
    return challenger.cpu()


def _initialize(
    blank: ImageClassifier,
    champion: ImageClassifier | None,
    initialization: Initialization,
    network: Network,
) -> ImageClassifier:
    start = initialization.start
    if champion is None and start in ("previous", "shrink_perturb"):
        start = "scratch" if network.weights is None else "pretrained"
    if start == "pretrained":
        load_weights(blank.network, network, blank.preprocessing)
    if champion is None or start in ("scratch", "pretrained"):
        return blank
    for what in ("network", "preprocessing"):
        old, new = champion.hparams[what], blank.hparams[what]
        if old != new:
            raise CheckpointError(
                f"init.start is {start!r} but the champion's {what} is {old}, and "
                f"train asks for {new}. Set train.init.start to 'scratch' or "
                "'pretrained' to begin with another one."
            )
    chosen = champion.successor(blank.classes, blank.lineage)
    if start == "shrink_perturb":
        fresh = dict(blank.network.named_parameters())
        with torch.no_grad():
            for name, weight in chosen.network.named_parameters():
                weight.mul_(initialization.shrink)
                weight.add_(fresh[name], alpha=initialization.perturb)
    return chosen


def _trainer(
    network: nn.Module,
    recipe: Recipe,
    hardware: Hardware,
    n_images: int,
    terms: int,
) -> Trainer:
    callbacks: list[Callback] = []
    if recipe.averaging:
        callbacks.append(MovingAverage(network, recipe.averaging))
    if recipe.early_stopping is not None:
        callbacks.append(
            EarlyStopping(
                monitor="train/loss",
                patience=recipe.early_stopping.patience,
                min_delta=recipe.early_stopping.min_delta,
                check_on_train_epoch_end=True,
            )
        )
    steps_per_epoch = math.ceil(n_images / recipe.batch_size)
    build = partial(
        Trainer,
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        precision=hardware.precision,  # type: ignore[arg-type]  # a closed list there
        max_epochs=-1,
        max_steps=max(recipe.min_steps, recipe.min_epochs * steps_per_epoch),
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=person_watches(),
        use_distributed_sampler=False,
    )
    # "ddp" starts the whole command once per device; only the node shall run there.
    if hardware.strategy == "ddp" or hardware.nodes > 1:
        meeting = cluster() if hardware.nodes > 1 else None
        return build(strategy=SpawnedProcesses(terms, cluster_environment=meeting))
    trainer = build(strategy=hardware.strategy)
    if hardware.strategy == "auto" and trainer.num_devices > 1:
        return build(strategy=SpawnedProcesses(terms))
    return trainer


@contextmanager
def without_small_talk() -> Iterator[None]:
    """Keep Lightning's notes on devices and workers out of thirty rounds of log."""
    talker = logging.getLogger("pytorch_lightning")
    level = talker.level
    talker.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            warnings.filterwarnings("ignore", "GPU available but not used")
            # Lightning's own use of torch.
            warnings.filterwarnings("ignore", r".*isinstance\(treespec")
            warnings.filterwarnings("ignore", r".*\bLeafSpec\b.* is deprecated")
            yield
    finally:
        talker.setLevel(level)
