"""What several tests share: images that are there without a download."""

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec.config
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from active_learning.imaging import ImageStore

CLOUD = "AZUREML_CURRENT_CLOUD"
CLOUD_BEFORE = os.environ.get(CLOUD)


@pytest.fixture(autouse=True)
def libraries_forget() -> Iterator[None]:
    """How URLs are reached, and which cloud it is, is said anew by each test.

    A run says the first to fsspec; Azure's library writes the second into the process's
    environment, where a later client would find it.
    """
    before = dict(fsspec.config.conf)
    yield
    fsspec.config.conf.clear()
    fsspec.config.conf.update(before)
    if CLOUD_BEFORE is None:
        os.environ.pop(CLOUD, None)
    else:
        os.environ[CLOUD] = CLOUD_BEFORE


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,797 digits of 8 x 8 pixels as PNG files, a folder for each of ten classes."""
    root = tmp_path_factory.mktemp("images") / "digits"
    bunch = load_digits()
    for number, (pixels, target) in enumerate(
        zip(bunch.images, bunch.target, strict=True)
    ):
        folder = root / str(target)
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((pixels * 15).astype(np.uint8))
        image.save(folder / f"{number:04d}.png")
    return root


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    """Six gray images of 4 x 4 pixels, ``a.png`` to ``f.png``; all differ."""
    root = tmp_path / "store"
    root.mkdir()
    for number, name in enumerate("abcdef"):
        pixels = np.full((4, 4), number * 40, dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{name}.png")
    return ImageStore(str(root), cache=None, max_pixels=10_000)
