"""Nodes of ``data``."""

from collections.abc import Mapping

from active_learning.datasets.fashion_mnist_dataset import LabeledArray
from active_learning.imaging import UInt8Array


def unpack_images(fashion_mnist: Mapping[str, LabeledArray]) -> dict[str, UInt8Array]:
    """Name each image by its split, its class and its number in the split.

    Args:
        fashion_mnist: By split: (N, H, W) images and (N,) class names.

    Returns:
        (H, W) pixels by ``image_id``, such as ``train/Bag/00023.png``.
    """
    return {
        f"{split}/{label}/{number:05}.png": image
        for split, (images, labels) in fashion_mnist.items()
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    }
