import logging
import os
import signal
import subprocess
import sys
import time
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kedro.io import DataCatalog, DatasetError
from PIL import Image

from active_learning.datasets import ImageFolderDataset
from active_learning.errors import ImageIdError, NoImagesError
from active_learning.imaging import UInt8Array


def dataset(root: Path | str, **options: Any) -> ImageFolderDataset:
    settings = {"filepath": str(root), "cache": None, "max_pixels": 10_000}
    return ImageFolderDataset(**settings | options)


def square(value: int) -> UInt8Array:
    return np.full((2, 2), value, dtype=np.uint8)


def png(value: int) -> bytes:
    file = BytesIO()
    Image.fromarray(square(value)).save(file, "PNG")
    return file.getvalue()


def files(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in found
        if path.name != ".complete.json"
    }


def test_what_was_saved_is_loaded_with_its_labels(tmp_path: Path) -> None:
    images = dataset(tmp_path)

    images.save({"train/Coat/1.png": square(1), "test/Bag/2.png": png(2)})

    table = images.load().table
    assert table["label"].tolist() == ["Bag", "Coat"]
    assert table["split"].tolist() == ["test", "train"]
    assert Image.open(tmp_path / "train/Coat/1.png").getpixel((0, 0)) == 1


def test_pixels_of_any_shape_become_png_files(tmp_path: Path) -> None:
    shapes = {"a.png": (3, 2), "b.png": (3, 2, 1), "c.png": (3, 2, 3)}

    dataset(tmp_path).save(
        {f"x/{n}": np.zeros(shape, dtype=np.uint8) for n, shape in shapes.items()}
    )

    modes = [Image.open(tmp_path / "x" / name).mode for name in shapes]
    assert modes == ["L", "L", "RGB"]


def test_a_catalog_entry_works_elsewhere_than_on_a_disk() -> None:
    entry = {
        "type": "active_learning.datasets.ImageFolderDataset",
        "filepath": "memory://folder-dataset/images",
        "cache": None,
        "max_pixels": 10_000,
    }
    catalog = DataCatalog.from_config({"labeled_images": entry})
    assert not catalog.exists("labeled_images")

    catalog.save("labeled_images", {"a/1.png": square(1), "b/2.png": square(2)})

    assert catalog.exists("labeled_images")
    assert catalog.load("labeled_images").table["label"].tolist() == ["a", "b"]


def test_every_bad_file_is_set_aside_with_its_reason(tmp_path: Path) -> None:
    root, outside = tmp_path / "images", tmp_path / "private.png"
    dataset(root).save(
        {"a/good one.png": png(1), "ä/gut.png": png(2), "a/copy.png": png(1)}
    )
    outside.write_bytes(png(3))
    (root / "a" / "empty.png").touch()
    (root / "a" / "text.png").write_text("I am no image")
    (root / "a" / "link.png").symlink_to(outside)
    (root / "a" / "movie.gif").write_bytes(b"GIF89a")
    (root / "void").mkdir()

    images = dataset(root).load()

    assert images.table["image_id"].tolist() == ["a/copy.png", "ä/gut.png"]
    assert dict(images.set_aside.itertuples(index=False)) == {
        "a/empty.png": "the file is empty (0 bytes)",
        "a/good one.png": "it is a copy of a/copy.png",
        "a/link.png": "it is a link that leaves the image store",
        "a/movie.gif": "its suffix '.gif' is none of "
        ".bmp, .jpeg, .jpg, .png, .tif, .tiff, .webp",
        "a/text.png": "the file holds no JPEG, PNG, BMP, WebP or TIFF image",
        "void": "the class folder holds no image",
    }


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *product(["a.jpg", "a.JPEG"], ["L", "RGB"]),
        *product(["a.png", "a.bmp", "a.webp", "a.tiff"], ["L", "RGB", "RGBA", "P"]),
    ],
)
def test_any_image_of_any_mode_is_labeled(tmp_path: Path, name: str, mode: str) -> None:
    (tmp_path / "class").mkdir()
    Image.new("RGB", (17, 9), "red").convert(mode).save(tmp_path / "class" / name)

    images = dataset(tmp_path).load()

    assert images.table["label"].tolist() == ["class"]
    assert images.set_aside.empty


@pytest.mark.parametrize("made", [False, True], ids=["no folder", "empty folder"])
def test_no_images_say_what_to_type(tmp_path: Path, made: bool) -> None:
    root = tmp_path / "images"
    if made:
        root.mkdir()

    with pytest.raises(DatasetError, match=r"`make data`.*--params images=") as caught:
        dataset(root).load()

    assert isinstance(caught.value.__cause__, NoImagesError)


def test_it_exists_once_all_is_there(tmp_path: Path) -> None:
    images = dataset(tmp_path)
    assert not images.exists()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(png(1))
    assert not images.exists()

    images.save({"a/1.png": png(1), "a/2.png": png(2)})
    assert images.exists()

    (tmp_path / "a" / "2.png").unlink()
    assert not images.exists()


def test_a_save_that_failed_halfway_is_not_taken_for_the_one_before(
    tmp_path: Path,
) -> None:
    images = dataset(tmp_path)
    images.save({"a/1.png": square(1)})
    shapeless = np.zeros((), dtype=np.uint8)

    with pytest.raises(DatasetError):
        images.save({"a/1.png": square(1), "a/2.png": shapeless})

    assert not images.exists()


def test_saving_again_writes_only_what_is_missing_or_cut_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = {f"a/{n}.png": square(n) for n in range(5)}
    dataset(tmp_path).save(content)
    expected = files(tmp_path)
    (tmp_path / "a" / "1.png").unlink()
    (tmp_path / "a" / "2.png").write_bytes(b"half")
    kept = (tmp_path / "a" / "3.png").stat().st_ino

    with caplog.at_level(logging.INFO):
        dataset(tmp_path).save(content)

    assert files(tmp_path) == expected
    assert (tmp_path / "a" / "3.png").stat().st_ino == kept
    assert "Wrote 2 images" in caplog.text
    assert "3 were there already" in caplog.text


@pytest.mark.parametrize("name", ["../1.png", "/tmp/1.png", "a/1.txt", "a/1.jpg"])
def test_a_name_that_would_not_be_found_again_is_refused(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(DatasetError) as caught:
        dataset(tmp_path / "images").save({"a/0.png": square(0), name: square(1)})

    assert isinstance(caught.value.__cause__, ImageIdError)
    assert not (tmp_path / "images").exists()


SAVE = """
import resource, sys
import numpy as np
from active_learning.datasets import ImageFolderDataset
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
noise = np.random.default_rng(0).integers(0, 256, (3000, 40, 40), dtype=np.uint8)
images = ImageFolderDataset(filepath=sys.argv[1], cache=None, max_pixels=10_000)
images.save({f"a/{n:04}.png": image[:2 + n % 39] for n, image in enumerate(noise)})
"""


def test_a_full_disk_is_named_and_leaves_no_half_file(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SAVE, str(tmp_path), "1000"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode != 0
    assert "File too large" in ran.stderr
    assert ".png" in ran.stderr.splitlines()[-1]
    assert not dataset(tmp_path).exists()
    assert files(tmp_path)
    for name, data in files(tmp_path).items():
        assert name.endswith(".png")
        Image.open(BytesIO(data)).load()


def test_a_killed_save_leaves_whole_files_and_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAVE, str(tmp_path)]
    process = subprocess.Popen(command)
    while not (tmp_path / "a").is_dir():
        time.sleep(0.001)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()

    assert not dataset(tmp_path).exists()
    for name, data in files(tmp_path).items():
        if name.endswith(".png"):
            Image.open(BytesIO(data)).load()

    subprocess.run(command, check=True)
    assert dataset(tmp_path).exists()
    assert len(dataset(tmp_path).load().table) == 3000


def test_a_preview_shows_the_first_rows_as_kedro_viz_reads_them(tmp_path: Path) -> None:
    images = dataset(tmp_path)
    images.save({f"a/{n}.png": square(n) for n in range(5)})

    preview = images.preview(nrows=2)

    assert preview["columns"] == ["image_id", "class folder"]
    assert preview["data"] == [["a/0.png", "a"], ["a/1.png", "a"]]
    assert type(images).preview.__annotations__["return"].__name__ == "TablePreview"


def test_fingerprints_outlive_the_run(tmp_path: Path) -> None:
    root, cache = tmp_path / "images", str(tmp_path / "cache")
    dataset(root).save({"a/1.png": png(1), "b/2.png": png(2)})
    for path in root.rglob("*.png"):
        os.utime(path, (1, 1))
    first = dataset(root, cache=cache).load().table["content"].tolist()
    for path in root.rglob("*.png"):
        path.write_bytes(bytes(path.stat().st_size))
        os.utime(path, (1, 1))

    assert dataset(root, cache=cache).load().table["content"].tolist() == first


def test_credentials_are_never_shown() -> None:
    images = dataset("memory://x", credentials={"account_key": "hunter2"})

    assert "hunter2" not in str(images)
