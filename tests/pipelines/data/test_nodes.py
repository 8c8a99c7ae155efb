import numpy as np

from active_learning.datasets.fashion_mnist_dataset import LabeledArray
from active_learning.pipelines.data.nodes import unpack_images


def split(*labels: str, start: int = 0) -> LabeledArray:
    """An image a label, its pixels all of its own number."""
    numbers = np.arange(start, start + len(labels), dtype=np.uint8)
    return LabeledArray(np.repeat(numbers, 4).reshape(-1, 2, 2), np.array(labels))


def test_each_image_is_named_by_split_class_and_number() -> None:
    images = unpack_images(
        {"train": split("Bag", "Coat", "Bag"), "test": split("Coat", start=9)}
    )

    assert {name: int(image[0, 0]) for name, image in images.items()} == {
        "train/Bag/00000.png": 0,
        "train/Coat/00001.png": 1,
        "train/Bag/00002.png": 2,
        "test/Coat/00000.png": 9,
    }
