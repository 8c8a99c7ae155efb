"""A trained classifier as a release: what serves, and what training goes on from."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from active_learning.errors import CheckpointError, ExportError
from active_learning.imaging.pixels import PixelArray, Shard
from active_learning.services.scoring.model import (
    CARD,
    CHECKPOINT,
    FORMAT,
    INPUT,
    NETWORK,
    OUTPUTS,
    TOLERANCE,
    InferenceModel,
    ModelCard,
    Network,
    Parity,
)
from active_learning.services.scoring.onnx_classifier import (
    EXPORTED_FROM,
    ITSELF,
    OnnxClassifier,
)

if TYPE_CHECKING:
    from torch import nn

    from active_learning.imaging import UInt8Array
    from active_learning.learning.module import ImageClassifier

__all__ = ["Parity", "export", "origin"]

_BATCH = 128
# Of the largest value of an embedding.
_EMBEDDING_TOLERANCE = 1e-3
_TALKERS = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")


def export(
    classifier: ImageClassifier | OnnxClassifier,
    examples: PixelArray | UInt8Array,
    folder: Path,
) -> Parity:
    """Write a release, whole or not at all.

    The network with its normalization becomes ONNX; the result is loaded as it will
    be in production and asked about the examples beside the classifier itself.

    Args:
        classifier: Stays as it is.
        examples: (N, H, W, C) uint8, real images decoded by its preprocessing.
        folder: A new one; its parents are made.

    Returns:
        How the two answered.

    Raises:
        ExportError: The network has no ONNX form, or the exported model answers
            otherwise; nothing is left behind.
        FileExistsError: The folder is there: a release is written once.
    """
    if folder.exists():
        raise FileExistsError(f"{str(folder)!r} is there; a release is written once.")
    images = _as_images(examples)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex}.tmp")
    temporary.mkdir()
    try:
        if isinstance(classifier, OnnxClassifier):
            content = classifier.content
            # There is no other model to compare it with; its card says so.
            parity = _compare(classifier, content, images)
            card = classifier.card(parity)
        else:
            content = _onnx(classifier)
            parity = _compare(classifier, content, images)
            card = _card(classifier, content, parity)
            _save_checkpoint(classifier, temporary)
        (temporary / NETWORK).write_bytes(content)
        text = card.model_dump_json(indent=2)
        (temporary / CARD).write_text(text, encoding="utf-8")
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return parity


def origin(folder: Path) -> ImageClassifier | OnnxClassifier:
    """What a release was made from, to train on from.

    Args:
        folder: The release's.

    Raises:
        CheckpointError: It is damaged, or its checkpoint is not there.
    """
    from active_learning.learning.checkpoint import load_classifier

    if (folder / CHECKPOINT).is_file():
        return load_classifier(folder / CHECKPOINT)
    model = InferenceModel.load(folder)
    if model.lineage.get(EXPORTED_FROM) != ITSELF:
        # Its checkpoint is missing: the error says so.
        return load_classifier(folder / CHECKPOINT)
    return OnnxClassifier(
        (folder / NETWORK).read_bytes(),
        model_name=model.model_name,
        classes=model.classes,
        preprocessing=model.preprocessing,
        lineage=model.lineage,
    )


def _card(classifier: ImageClassifier, content: bytes, parity: Parity) -> ModelCard:
    return ModelCard(
        format=FORMAT,
        model_name=classifier.model_name,
        version=classifier.version,
        classes=classifier.classes,
        preprocessing=classifier.preprocessing,
        lineage=classifier.lineage,
        fingerprint=sha256(content).hexdigest(),
        parity=parity,
    )


def _save_checkpoint(classifier: ImageClassifier, folder: Path) -> None:
    from active_learning.learning.checkpoint import save_classifier

    save_classifier(classifier, folder / CHECKPOINT)


def _onnx(classifier: ImageClassifier) -> bytes:
    import torch
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    wanted = classifier.preprocessing
    # Two: a batch of one would become a constant of the graph.
    shape = (2, wanted.height, wanted.width, wanted.channels)
    with _without_small_talk():
        try:
            program = torch.onnx.export(
                _serving(classifier),
                (torch.zeros(shape, dtype=torch.uint8),),
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes={INPUT: {0: torch.export.Dim("n")}},
                dynamo=True,
                verbose=False,
                external_data=False,
            )
        except torch.onnx.OnnxExporterError as exc:
            # Below its first line follow pages of advice to the exporter's authors.
            why, _, _ = str(exc.__cause__ or exc).partition("\n")
            raise ExportError(
                f"{classifier.model_name!r} has no form in ONNX: {why} Choose another "
                "train.network.name."
            ) from exc
        if program is None:
            raise ExportError(f"{classifier.model_name!r} gave no ONNX program.")
        # Where in whose files an operation was traced from is nobody's business, and
        # would make the same weights another model elsewhere.
        ClearMetadataAndDocStringPass()(program.model)
        return bytes(program.model_proto.SerializeToString(deterministic=True))


def _serving(classifier: ImageClassifier) -> nn.Module:
    """The classifier with its normalization, and the embedding beside the logits."""
    import torch
    from torch import Tensor, nn

    from active_learning.learning.networks import for_inference, head
    from active_learning.learning.transforms import normalize

    class FixedMaxPool(nn.Module):
        """Adaptive max pooling, which ONNX lacks, of the one image size there is."""

        def __init__(self, size: tuple[int, int]) -> None:
            super().__init__()
            self.size = size

        def forward(self, x: Tensor) -> Tensor:
            sides = [
                _window(int(n), out)
                for n, out in zip(x.shape[2:], self.size, strict=True)
            ]
            kernel, stride = zip(*sides, strict=True)
            return nn.functional.max_pool2d(x, kernel, stride)

    class Serving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Channels-last is a matter of torch's memory, not of the graph.
            self.network = for_inference(classifier.network).cpu()
            self.network.to(memory_format=torch.contiguous_format)
            for name, module in list(self.network.named_modules()):
                if isinstance(module, nn.AdaptiveMaxPool2d):
                    self.network.set_submodule(
                        name, FixedMaxPool(_pair(module.output_size))
                    )
            self._seen: list[Tensor] = []
            layer = head(self.network)[1]
            layer.register_forward_pre_hook(lambda _, x: self._seen.append(x[0]))

        def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            self._seen.clear()
            logits = self.network(normalize(pixels, classifier.preprocessing))
            return logits, self._seen.pop().flatten(1)

    return Serving().eval()


def _window(n: int, out: int) -> tuple[int, int]:
    """Size and stride of the windows by which adaptive pooling halves, or thirds."""
    starts = [i * n // out for i in range(out)]
    sizes = {-(-(i + 1) * n // out) - start for i, start in enumerate(starts)}
    strides = {b - a for a, b in pairwise(starts)} or {1}
    if len(sizes) > 1 or len(strides) > 1:
        raise ExportError(
            f"Adaptive pooling of {n} to {out} has windows of several sizes, which "
            f"ONNX does not know; choose an image size that {out} divides."
        )
    return sizes.pop(), strides.pop()


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _compare(
    classifier: ImageClassifier | OnnxClassifier, content: bytes, images: PixelArray
) -> Parity:
    """Ask both about the same images.

    Raises:
        ExportError: They answer otherwise, or there are no images to ask about.
    """
    name = f"the export of {classifier.model_name} version {classifier.version}"
    n_classes = len(classifier.classes)
    try:
        network = Network(content, name, classifier.preprocessing, n_classes, 0)
    except CheckpointError as exc:
        raise ExportError(str(exc)) from exc
    expected, features = classifier.look(images, _BATCH, "cpu", "")
    parts = [
        network.look(images.take(np.arange(n, min(n + _BATCH, len(images)))))
        for n in range(0, len(images), _BATCH)
    ]
    if not parts:
        raise ExportError(f"There is no image to try {name} on; give it some.")
    said = np.concatenate([part[0] for part in parts])
    seen = np.concatenate([part[1] for part in parts])
    rows = np.arange(len(images))
    lead = expected.max(axis=1) - expected[rows, said.argmax(axis=1)]
    difference = np.abs(said - expected)
    parity = Parity(
        len(images), float(difference.max()), bool((lead <= TOLERANCE).all())
    )
    if not parity.passed:
        wrong = ~((difference <= TOLERANCE).all(axis=1) & (lead <= TOLERANCE))
        first = int(wrong.argmax())
        raise ExportError(
            f"{name} answers otherwise than its checkpoint for {int(wrong.sum())} of "
            f"{len(images)} images; the first is number {first}, with "
            f"{said[first].round(5).tolist()} instead of "
            f"{expected[first].round(5).tolist()}. Probabilities may differ by "
            f"{TOLERANCE}. Export again with another version of onnxscript or torch, "
            "or choose another network."
        )
    scale = float(np.abs(features).max(initial=1.0))
    if not np.allclose(seen, features, rtol=0, atol=_EMBEDDING_TOLERANCE * scale):
        raise ExportError(
            f"{name} gives other embeddings than its checkpoint: they differ by up to "
            f"{float(np.abs(seen - features).max()):.3g}."
        )
    return parity


def _as_images(examples: PixelArray | UInt8Array) -> PixelArray:
    if isinstance(examples, PixelArray):
        return examples
    n, height, width, channels = examples.shape
    shards = [Shard(examples, None)]
    return PixelArray(shards, np.arange(n), (height, width, channels))


@contextmanager
def _without_small_talk() -> Iterator[Any]:
    """Keep the exporter's notes on its own progress out of the log."""
    talkers = [logging.getLogger(name) for name in _TALKERS]
    levels = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for talker, level in zip(talkers, levels, strict=True):
            talker.setLevel(level)
