"""What tests of ``learning`` are made of: conf/base made quick, and small images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import ArrayLike
from pytorch_lightning.utilities.seed import isolate_rng
from sklearn.datasets import load_digits

from active_learning.imaging.pixels import IntArray, PixelArray, Shard, UInt8Array
from active_learning.learning.module import ImageClassifier
from active_learning.learning.training import fine_tune
from active_learning.pipelines.train.params import TrainParams

PARAMETERS = Path(__file__).parents[2] / "conf/base/train/parameters.yml"
QUICK: dict[str, Any] = {
    "network": {"width": 8},
    "recipe": {"min_steps": 4, "min_epochs": 1, "batch_size": 16},
    "hardware": {"accelerator": "cpu", "devices": 1},
    "seed": 0,
}
# The colors of a photograph, for the networks that want three.
COLOR: dict[str, Any] = {
    "channels": 3,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
}
# So small that no weight moves: what is left is what training started from.
STILL = {"learning_rate": 1e-12}
# A mirrored 2 is no 2.
UNMIRRORED = {"flip": False}


def settings(**changes: Any) -> TrainParams:
    """What conf/base says, made quick; ``recipe={"batch_size": 4}`` changes a leaf."""
    values = yaml.safe_load(PARAMETERS.read_text(encoding="utf-8"))["train"]
    return TrainParams.model_validate(_merged(_merged(values, QUICK), changes))


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    inner = {
        key: _merged(values[key], change)
        if isinstance(change, dict) and isinstance(values[key], dict)
        else change
        for key, change in changes.items()
    }
    return {**values, **inner}


def pixels(images: ArrayLike) -> PixelArray:
    """(N, H, W) or (N, H, W, C) numbers as images in memory."""
    array = np.asarray(images, dtype=np.uint8)
    array = array if array.ndim == 4 else array[..., None]
    _, height, width, channels = array.shape
    shards = [Shard(array, None)]
    return PixelArray(shards, np.arange(len(array)), (height, width, channels))


def noise(n: int, side: int = 28, channels: int = 1) -> UInt8Array:
    """(n, side, side, channels), always the same."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (n, side, side, channels), dtype=np.uint8)


def digits(first: int, last: int) -> tuple[PixelArray, IntArray]:
    """Some of scikit-learn's handwritten digits as 28 x 28 images, and which they are.

    Each of their 8 x 8 pixels becomes 3 x 3, with a border of 2.
    """
    images, targets = load_digits(return_X_y=True)
    chosen = images[first:last].reshape(-1, 8, 8) * 15
    large = chosen.repeat(3, axis=1).repeat(3, axis=2)
    framed = np.pad(large, ((0, 0), (2, 2), (2, 2)))
    return pixels(framed), targets[first:last].astype(np.int64)


def untrained(
    classes: Sequence[str] = ("a", "b", "c"),
    lineage: dict[str, Any] | None = None,
    **changes: Any,
) -> ImageClassifier:
    """A classifier with random weights, always the same ones."""
    params = settings(**changes)
    with isolate_rng():
        torch.manual_seed(0)
        return ImageClassifier(
            network=params.network.model_dump(),
            classes=classes,
            preprocessing=params.preprocessing.model_dump(mode="json"),
            lineage=lineage or {"version": 1},
        )


def train(
    images: PixelArray,
    targets: IntArray | Sequence[int],
    champion: Any = None,
    classes: Sequence[str] = ("a", "b", "c"),
    seed: int = 0,
    **changes: Any,
) -> ImageClassifier:
    """One round of training."""
    params = settings(**changes)
    return fine_tune(
        champion=champion,
        classes=classes,
        pixels=images,
        targets=np.asarray(targets, dtype=np.int64),
        preprocessing=params.preprocessing,
        network=params.network,
        initialization=params.init,
        recipe=params.recipe,
        hardware=params.hardware,
        lineage={"version": champion.version + 1 if champion else 1},
        seed=seed,
    )


def weights(classifier: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all that training may change."""
    return {name: value.clone() for name, value in classifier.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal, bit for bit."""
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
