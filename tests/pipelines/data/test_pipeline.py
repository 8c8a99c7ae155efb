import struct
from pathlib import Path

import pytest
from kedro.io import DataCatalog
from kedro.runner import SequentialRunner

from active_learning.pipelines.data.pipeline import create_pipeline


def catalog(tmp_path: Path) -> DataCatalog:
    return DataCatalog.from_config(
        {
            "fashion_mnist": {
                "type": "active_learning.datasets.FashionMnistDataset",
                "filepath": str(tmp_path / "idx"),
                "download_to": str(tmp_path / "downloads"),
            },
            "default_images": {
                "type": "active_learning.datasets.ImageFolderDataset",
                "filepath": str(tmp_path / "images"),
                "cache": None,
                "max_pixels": 10_000,
            },
        }
    )


def put_idx(folder: Path) -> None:
    """Two images of 1 x 1 pixel in each split: a T-shirt and a pair of trousers."""
    folder.mkdir()
    for number, prefix in enumerate(("train", "t10k")):
        images = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 1, 1)
        labels = bytes([0, 0, 8, 1]) + struct.pack(">I", 2)
        pixels = bytes([10 * number, 10 * number + 1])
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(images + pixels)
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(labels + bytes([0, 1]))


def test_the_default_images_end_as_a_folder_per_class(tmp_path: Path) -> None:
    put_idx(tmp_path / "idx")
    datasets = catalog(tmp_path)

    SequentialRunner().run(create_pipeline(), datasets)

    assert datasets.load("default_images").table["image_id"].tolist() == [
        "test/T-shirt-top/00000.png",
        "test/Trouser/00001.png",
        "train/T-shirt-top/00000.png",
        "train/Trouser/00001.png",
    ]


def test_what_is_already_there_is_not_asked_for_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_idx(tmp_path / "idx")
    SequentialRunner().run(create_pipeline(), catalog(tmp_path))
    for path in (tmp_path / "idx").iterdir():
        path.unlink()

    SequentialRunner().run(
        create_pipeline(), catalog(tmp_path), only_missing_outputs=True
    )

    assert len(catalog(tmp_path).load("default_images").table) == 4
