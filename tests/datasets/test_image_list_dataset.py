"""The names of the images in a store."""

from pathlib import Path

import pytest
from kedro.io import DatasetError

from active_learning.datasets import ImageListDataset

N_IMAGES = 300


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(N_IMAGES):
        (tmp_path / f"{number:03}.png").write_bytes(b"not read yet")
    return tmp_path


def test_every_image_is_listed_once_and_sorted(photos: Path) -> None:
    listed = ImageListDataset(filepath=str(photos)).load()

    assert list(listed) == ["image_id"]
    assert listed["image_id"].tolist() == [f"{n:03}.png" for n in range(N_IMAGES)]


def test_a_name_takes_little_more_memory_than_its_letters(photos: Path) -> None:
    listed = ImageListDataset(filepath=str(photos)).load()

    n_letters = len("000.png") * N_IMAGES
    used = listed["image_id"].memory_usage(index=False, deep=True)
    assert n_letters <= used < 3 * n_letters


def test_a_list_is_no_place_to_save_to(photos: Path) -> None:
    with pytest.raises(DatasetError, match="read-only"):
        ImageListDataset(filepath=str(photos)).save("a")  # type: ignore[arg-type]
