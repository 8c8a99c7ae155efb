import pickle
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog, DatasetError
from PIL import Image

from active_learning.datasets import ImageStoreDataset


def dataset(root: Path, **options: Any) -> ImageStoreDataset:
    settings = {"filepath": str(root), "cache": None, "max_pixels": 10_000}
    return ImageStoreDataset(**settings | options)


def paint(root: Path) -> None:
    root.mkdir(exist_ok=True)
    Image.new("L", (2, 2)).save(root / "a.png")


def test_a_catalog_entry_gives_the_store(tmp_path: Path) -> None:
    paint(tmp_path)
    entry = {
        "type": "active_learning.datasets.ImageStoreDataset",
        "filepath": str(tmp_path),
        "cache": str(tmp_path / ".cache"),
        "max_pixels": 10_000,
    }

    images = DataCatalog.from_config({"images": entry}).load("images")

    assert images.image_ids() == ["a.png"]


def test_every_load_gives_the_same_store(tmp_path: Path) -> None:
    images = dataset(tmp_path)

    assert images.load() is images.load()


def test_a_released_dataset_sees_what_changed(tmp_path: Path) -> None:
    images = dataset(tmp_path)
    before = images.load()
    images.release()

    assert images.load() is not before


def test_another_process_makes_its_own_store(tmp_path: Path) -> None:
    paint(tmp_path)
    images = dataset(tmp_path)
    images.load()

    arrived = pickle.loads(pickle.dumps(images))

    assert arrived.load().image_ids() == ["a.png"]


def test_declaring_a_store_touches_nothing(tmp_path: Path) -> None:
    images = dataset(tmp_path / "nowhere", cache=str(tmp_path / "cache"))

    images.load()

    assert not images.exists()
    assert list(tmp_path.iterdir()) == []


def test_credentials_are_used_and_never_shown() -> None:
    secret = {"account_key": "hunter2"}
    images = dataset(
        Path("x"), fs_args={"skip_instance_cache": True}, credentials=secret
    )

    assert "hunter2" not in str(images)
    with pytest.raises(DatasetError) as caught:
        images.save("anything")  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


def test_saving_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"read-only.*ImageFolderDataset"):
        dataset(tmp_path).save("anything")  # type: ignore[arg-type]
