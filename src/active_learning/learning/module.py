"""The image classifier as a LightningModule."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torchmetrics import MeanMetric
from tqdm.auto import tqdm

from active_learning.acquisition import Float32Array, FloatArray
from active_learning.errors import CheckpointError, SettingsError
from active_learning.imaging import PixelArray, Preprocessing
from active_learning.learning.memory import keep_freed_memory
from active_learning.learning.networks import (
    build_network,
    for_inference,
    head,
    resize_head,
)
from active_learning.learning.progress import person_watches
from active_learning.learning.recipe import Network, Recipe
from active_learning.learning.transforms import augment, normalize


class ImageClassifier(LightningModule):
    """A network with its classes, its preprocessing and where it came from.

    All of that is in the Lightning checkpoint as plain values, so that a file is read
    without running code from it.

    Args:
        network: Fields of ``Network``.
        classes: C class names, in the order of the logits.
        preprocessing: Fields of ``Preprocessing``.
        lineage: ``version`` and what the model was made from.
    """

    def __init__(
        self,
        *,
        network: dict[str, Any],
        classes: Sequence[str],
        preprocessing: dict[str, Any],
        lineage: dict[str, Any],
    ) -> None:
        """Build the network with random weights; no file is read."""
        super().__init__()
        # A NumPy string is no plain value: the checkpoint could not be read again.
        classes = [str(name) for name in classes]
        self.save_hyperparameters()
        self.preprocessing = Preprocessing.model_validate(preprocessing)
        self.network = build_network(
            Network.model_validate(network), len(classes), self.preprocessing
        ).to(memory_format=torch.channels_last)

    @property
    def model_name(self) -> str:
        """The network's name."""
        return str(self.hparams["network"]["name"])

    @property
    def version(self) -> int:
        """1 for the first model; a challenger is one more than its champion."""
        return int(self.hparams["lineage"]["version"])

    @property
    def classes(self) -> tuple[str, ...]:
        """C class names, in the order of the logits."""
        return tuple(self.hparams["classes"])

    @property
    def lineage(self) -> dict[str, Any]:
        """Where it came from: parent version, training set, number of labels."""
        return dict(self.hparams["lineage"])

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, H, W, C) uint8 pixels in, (B, n_classes) logits out."""
        logits: Tensor = self.network(normalize(pixels, self.preprocessing))
        return logits  # (B, n_classes)

    def successor(self, classes: Sequence[str], lineage: dict[str, Any]) -> Self:
        """A copy that goes on from these weights and knows more classes.

        Raises:
            CheckpointError: A class of this model is not among the first of those.
        """
        if tuple(classes[: len(self.classes)]) != self.classes:
            raise CheckpointError(
                f"A model keeps its classes in order; {self.classes} do not begin "
                f"{tuple(classes)}."
            )
        copy = type(self)(
            network=dict(self.hparams["network"]),
            classes=self.classes,
            preprocessing=dict(self.hparams["preprocessing"]),
            lineage=lineage,
        )
        copy.load_state_dict(self.state_dict())
        resize_head(copy.network, len(classes))
        copy.hparams["classes"] = [str(name) for name in classes]
        return copy

    def look(
        self, pixels: PixelArray, batch_size: int, accelerator: str, title: str
    ) -> tuple[FloatArray, Float32Array]:
        """Class probabilities and embeddings; see ``protocol.Classifier``."""
        network = for_inference(self.network).to(_device(accelerator))
        layer = head(network)[1]
        seen = [np.empty((0, layer.in_features), dtype=np.float32)]

        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.append(inputs[0].flatten(1).float().cpu().numpy())

        layer.register_forward_pre_hook(keep)
        said = self._ask(network, pixels, batch_size, title)
        return said, np.concatenate(seen)

    def probabilities(
        self, pixels: PixelArray, batch_size: int, accelerator: str, title: str
    ) -> FloatArray:
        """Class probabilities, (N, C) float64; see ``protocol.Classifier``."""
        network = for_inference(self.network).to(_device(accelerator))
        return self._ask(network, pixels, batch_size, title)

    @torch.inference_mode()
    def _ask(
        self, network: nn.Module, pixels: PixelArray, batch_size: int, title: str
    ) -> FloatArray:
        keep_freed_memory()
        device = next(network.parameters()).device
        parts = [np.empty((0, len(self.classes)))]
        starts = range(0, len(pixels), batch_size)
        hidden = not person_watches()
        for start in tqdm(starts, title, unit="batch", disable=hidden, leave=False):
            rows = np.arange(start, min(start + batch_size, len(pixels)))
            batch = torch.from_numpy(pixels.take(rows)).to(device)
            logits = network(normalize(batch, self.preprocessing))
            parts.append(logits.double().softmax(dim=1).cpu().numpy())
        return np.concatenate(parts)


class FineTuning(LightningModule):
    """One round of training of a classifier; what is only needed meanwhile."""

    blank: Tensor

    def __init__(
        self, classifier: ImageClassifier, recipe: Recipe, class_weights: Tensor | None
    ) -> None:
        """Hold the classifier, whose weights change, and the recipe, which does not."""
        super().__init__()
        self.classifier = classifier
        self.recipe = recipe
        self.loss = nn.CrossEntropyLoss(
            weight=class_weights, label_smoothing=recipe.label_smoothing
        )
        self.train_loss = MeanMetric()
        mean = torch.tensor(classifier.preprocessing.mean)
        self.register_buffer("blank", (mean * 255).round().to(torch.uint8))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Loss of (B, H, W, C) uint8 pixels against (B,) class numbers."""
        pixels, targets = batch
        seen = augment(pixels, self.recipe.augmentation, self.blank)
        logits = self.classifier(seen)
        loss: Tensor = self.loss(logits, targets)
        self.train_loss.update(loss.detach(), len(targets))
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss, which early stopping looks at."""
        self.log("train/loss", self.train_loss.compute(), prog_bar=True)
        self.log("train/steps", float(self.global_step))
        self.train_loss.reset()

    def configure_optimizers(self) -> Any:
        """A fresh AdamW with one learning rate cycle over the whole round.

        Source:
            Smith and Topin, *Super-Convergence*, 2018.
        """
        # Biases and normalizations have no scale that decay could keep small.
        groups: list[dict[str, Any]] = [
            {"params": [], "weight_decay": self.recipe.weight_decay},
            {"params": [], "weight_decay": 0.0},
        ]
        for weight in self.classifier.parameters():
            groups[weight.ndim <= 1]["params"].append(weight)
        optimizer = AdamW(groups, lr=self.recipe.learning_rate, fused=True)
        cycle = OneCycleLR(
            optimizer,
            max_lr=self.recipe.learning_rate,
            total_steps=int(self.trainer.estimated_stepping_batches),
            cycle_momentum=False,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": cycle, "interval": "step"},
        }


def _device(accelerator: str) -> torch.device:
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("gpu", "cuda") and not torch.accelerator.is_available():
        raise SettingsError(
            f"accelerator is {accelerator!r} but PyTorch finds none here; set it to "
            "'auto' or 'cpu' to compute on the CPU."
        )
    return torch.device("cpu")
