"""Networks by name, and their heads."""

import copy
import math
import struct
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError
from torchvision import models

from active_learning.errors import CheckpointError, SettingsError, UnknownNameError
from active_learning.imaging import Preprocessing
from active_learning.learning.recipe import Network


class SmallCNN(nn.Module):
    """A strong small network for images of 28 to 64 pixels.

    Four convolutions with batch normalization. The first one alone works at full
    size, where a convolution costs most; the last is pooled to 2 x 2, which keeps
    where on the image a feature was seen.
    """

    def __init__(self, n_classes: int, in_channels: int, width: int) -> None:
        """Build the layers; ``width`` channels after the first of them."""
        super().__init__()
        self.features = nn.Sequential(
            _block(in_channels, width),
            nn.MaxPool2d(2),
            _block(width, 2 * width),
            _block(2 * width, 2 * width),
            nn.MaxPool2d(2),
            _block(2 * width, 4 * width),
            nn.AdaptiveMaxPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(16 * width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) float in, (B, n_classes) logits out."""
        logits: Tensor = self.head(self.features(x))  # (B, n_classes)
        return logits


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def build_network(
    network: Network, n_classes: int, preprocessing: Preprocessing
) -> nn.Module:
    """Build a network with random weights and a head of ``n_classes``.

    Raises:
        UnknownNameError: Neither ``small_cnn`` nor a classifier of torchvision.
        SettingsError: The network does not fit the preprocessing.
    """
    if network.name == "small_cnn":
        return SmallCNN(n_classes, preprocessing.channels, network.width)
    _check_torchvision(network, preprocessing)
    built: nn.Module = models.get_model(
        network.name, weights=None, **_options(network, preprocessing)
    )
    resize_head(built, n_classes)
    return built


def load_weights(
    module: nn.Module, network: Network, preprocessing: Preprocessing
) -> None:
    """Put the weights that ``network`` names into a network, its head excepted.

    ``DEFAULT`` takes torchvision's best published ones; a path is read as tensors
    alone, so that nothing in the file can run.

    Raises:
        CheckpointError: The file is not there, holds more than tensors, or fits
            another network.
    """
    if network.weights is None:
        raise SettingsError(
            "init.start is 'pretrained' but network.weights is null: name a file or, "
            "for a torchvision network, DEFAULT."
        )
    if network.weights == "DEFAULT":
        if network.name == "small_cnn":
            raise SettingsError(
                "small_cnn has no published weights: set train.network.weights to a "
                "file, or to null to start from scratch."
            )
        _check_torchvision(network, preprocessing)
        options = _options(network, preprocessing)
        state = models.get_model(network.name, weights="DEFAULT", **options)
        tensors = state.state_dict()
    else:
        tensors = _read_tensors(Path(network.weights))
    own = module.state_dict()
    last, _ = head(module)
    body = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(f"{last}.")
    }
    wrong = [
        name
        for name in own
        if not name.startswith(f"{last}.")
        and (name not in body or body[name].shape != own[name].shape)
    ]
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} of {len(own)} tensors of {network.name!r} are missing from "
            f"{network.weights!r} or have another shape; the first is {wrong[0]!r}."
        )
    module.load_state_dict(body, strict=False)


def resize_head(module: nn.Module, n_classes: int) -> None:
    """Give the last linear layer ``n_classes`` outputs and keep the old rows.

    The weights of the classes that were there stay as they are, in their order; the
    rows of the new ones are initialized at random.
    """
    name, old = head(module)
    if old.out_features == n_classes:
        return
    new = nn.Linear(old.in_features, n_classes)
    kept = min(old.out_features, n_classes)
    with torch.no_grad():
        new.weight[:kept] = old.weight[:kept]
        new.bias[:kept] = old.bias[:kept]
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, new)


def for_inference(module: nn.Module) -> nn.Module:
    """A copy that answers the same and cannot learn, faster.

    A batch normalization is a scale and an offset then, which the convolution before
    it takes over: one pass through memory less a layer, a third of the time on one
    core. A network that PyTorch cannot trace is copied as it is.

    Source:
        Jacob et al., *Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference*, 2018, section 3.2.
    """
    frozen = copy.deepcopy(module).eval()
    try:
        fused: nn.Module = fuse(frozen, inplace=True)
    except TraceError:
        return frozen
    return fused


def head(module: nn.Module) -> tuple[str, nn.Linear]:
    """The last linear layer and its name; what goes into it is the embedding.

    Raises:
        SettingsError: The network has none.
    """
    linear = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise SettingsError(
            f"{type(module).__name__} has no linear layer to serve as its head; "
            "choose a network that ends in one."
        )
    return linear[-1]


def _check_torchvision(network: Network, preprocessing: Preprocessing) -> None:
    known = models.list_models(module=models)
    if network.name not in known:
        raise UnknownNameError("network", network.name, ["small_cnn", *known])
    if preprocessing.channels != 3:
        raise SettingsError(
            f"{network.name!r} sees color: set train.preprocessing.channels to 3 (gray "
            "images are repeated) and give mean and std three values."
        )


def _options(network: Network, preprocessing: Preprocessing) -> dict[str, int]:
    # A vision transformer's positions belong to one image size.
    if network.name.startswith("vit_"):
        patch = int(network.name.rpartition("_")[2])
        if preprocessing.height != preprocessing.width:
            raise SettingsError(
                f"{network.name!r} takes square images, not "
                f"{preprocessing.height} x {preprocessing.width}."
            )
        if preprocessing.height % patch:
            next_side = math.ceil(preprocessing.height / patch) * patch
            raise SettingsError(
                f"{network.name!r} cuts images into squares of {patch} pixels, which "
                f"{preprocessing.height} is no multiple of: set train.preprocessing."
                f"height and width to {next_side}."
            )
        return {"image_size": preprocessing.height}
    return {}


# What PyTorch's unpickler raises on bytes that make no sense, as tried on many.
_UNREADABLE = (
    UnpicklingError,
    BadZipFile,
    EOFError,
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    struct.error,
    zlib.error,
)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read tensors and plain values; code in the file is refused, not run.

    Raises:
        CheckpointError: The file is not there, damaged, or would run code.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {str(path)!r}.")
    # Opened here, so that a missing permission is not taken for a damaged file.
    with path.open("rb") as file:
        try:
            _check_sums(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
        except _UNREADABLE as exc:
            raise CheckpointError(
                f"{str(path)!r} cannot be read as tensors and plain values "
                f"({type(exc).__name__}: {exc}); nothing in it was run. It is damaged, "
                "or was saved with code in it: save a state_dict or a checkpoint of "
                "this package."
            ) from exc
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{str(path)!r} holds a {type(content).__name__}, not a checkpoint."
        )
    return content


def _check_sums(file: BinaryIO) -> None:
    # PyTorch writes a checksum of every tensor and never looks at it again.
    if is_zipfile(file):
        damaged = ZipFile(file).testzip()
        if damaged is not None:
            raise BadZipFile(f"the checksum of {damaged!r} is another")
    file.seek(0)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    content = read_checkpoint(path)
    tensors = content.get("state_dict", content)
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor)
        for name, tensor in tensors.items()
    ):
        raise CheckpointError(
            f"{str(path)!r} holds something else than named tensors; save the "
            "network's state_dict()."
        )
    return {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
