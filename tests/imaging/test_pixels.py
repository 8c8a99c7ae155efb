import pickle
from pathlib import Path

import numpy as np
import pytest

from active_learning.errors import ImageError
from active_learning.imaging import PixelArray
from active_learning.imaging.pixels import Shard


def shard(path: Path, *values: int) -> Shard:
    """Images of 1 x 2 pixels, each of one value."""
    images = np.repeat(np.array(values, dtype=np.uint8), 2).reshape(-1, 1, 2, 1)
    np.save(path, images)
    return Shard.open(path)


def pixel_array(folder: Path, rows: list[int]) -> PixelArray:
    """Rows of two shards that hold 10, 11, 12 and 20, 21."""
    shards = [shard(folder / "a.npy", 10, 11, 12), shard(folder / "b.npy", 20, 21)]
    return PixelArray(shards, np.array(rows, dtype=np.int64), (1, 2, 1))


def test_rows_come_in_the_order_asked_whatever_their_shard(tmp_path: Path) -> None:
    pixels = pixel_array(tmp_path, [4, 0, 3, 0])

    batch = pixels.take(np.array([3, 2, 1, 0, 0]))

    assert pixels.shape == (4, 1, 2, 1)
    assert batch[:, 0, 0, 0].tolist() == [10, 20, 10, 21, 21]


@pytest.mark.parametrize("rows", [[0, 1], [0, 3], []], ids=["one", "two", "none"])
def test_a_batch_is_the_callers_own(tmp_path: Path, rows: list[int]) -> None:
    pixels = pixel_array(tmp_path, rows)
    everything = np.arange(len(rows))
    before = pixels.take(everything)

    batch = pixels.take(everything)
    batch[:] = 0

    assert batch.flags.c_contiguous
    assert batch.shape == (len(rows), 1, 2, 1)
    np.testing.assert_array_equal(pixels.take(everything), before)


def test_an_array_travels_as_paths_and_not_as_pixels(tmp_path: Path) -> None:
    large = shard(tmp_path / "large.npy", *[7] * 10_000)
    pixels = PixelArray([large], np.array([9_999]), (1, 2, 1))

    parcel = pickle.dumps(pixels)

    assert len(parcel) < 2_000
    assert pickle.loads(parcel).take(np.array([0])).ravel().tolist() == [7, 7]


@pytest.mark.parametrize("change", [-1, 1], ids=["shorter", "longer"])
def test_a_shard_of_another_size_than_its_header_says_is_refused(
    tmp_path: Path, change: int
) -> None:
    path = tmp_path / "a.npy"
    shard(path, 1, 2, 3)
    data = path.read_bytes()
    path.write_bytes(data[:-1] if change < 0 else data + b"\0")

    with pytest.raises(ImageError, match=r"a\.npy"):
        Shard.open(path)
