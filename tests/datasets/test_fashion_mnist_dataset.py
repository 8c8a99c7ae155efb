import gzip
import os
import struct
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from kedro.io import DatasetError

from active_learning.datasets import FashionMnistDataset
from active_learning.errors import NoImagesError

FILES = [
    f"{prefix}-{kind}-ubyte"
    for prefix in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
]


def idx(values: list[int], *shape: int) -> bytes:
    header = bytes([0, 0, 8, len(shape)])
    return header + struct.pack(f">{len(shape)}I", *shape) + bytes(values)


def put_idx(folder: Path, *, packed: bool = False) -> None:
    """Three training images and two to test on, of 1 x 2 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = [
        idx([1, 2, 3, 4, 5, 6], 3, 1, 2),
        idx([0, 9, 8], 3),
        idx([7, 8, 9, 10], 2, 1, 2),
        idx([8, 1], 2),
    ]
    for name, content in zip(FILES, contents, strict=True):
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def dataset(tmp_path: Path) -> FashionMnistDataset:
    return FashionMnistDataset(
        filepath=str(tmp_path / "idx"), download_to=str(tmp_path / "downloads")
    )


@contextmanager
def programs(folder: Path, **scripts: str) -> Iterator[None]:
    """Let nothing but these shell scripts be found, and no network answer."""
    folder.mkdir()
    for name, script in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    changes = {"PATH": str(folder)} | dict.fromkeys(
        ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"], "http://127.0.0.1:9"
    )
    changes |= {"no_proxy": "", "NO_PROXY": ""}
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        # urllib keeps the proxies that it saw at its first call.
        urllib.request.install_opener(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_idx_files_become_images_with_class_names(tmp_path: Path, packed: bool) -> None:
    put_idx(tmp_path / "idx", packed=packed)

    splits = dataset(tmp_path).load()

    assert splits["train"].labels.tolist() == ["T-shirt-top", "Ankle-boot", "Bag"]
    assert splits["test"].labels.tolist() == ["Bag", "Trouser"]
    assert splits["train"].images.tolist() == [[[1, 2]], [[3, 4]], [[5, 6]]]
    assert splits["train"].images.dtype == np.uint8


def test_class_names_are_folder_names(tmp_path: Path) -> None:
    put_idx(tmp_path / "idx")

    labels = dataset(tmp_path).load()["train"].labels.tolist()

    assert not [label for label in labels if "/" in label or " " in label]


def test_what_is_already_there_needs_no_download(tmp_path: Path) -> None:
    put_idx(tmp_path / "idx")

    with programs(tmp_path / "bin"):
        dataset(tmp_path).load()

    assert not (tmp_path / "downloads").exists()


def test_torchvisions_download_comes_second(tmp_path: Path) -> None:
    put_idx(tmp_path / "downloads" / "FashionMNIST" / "raw")

    with programs(tmp_path / "bin"):
        assert len(dataset(tmp_path).load()["train"].images) == 3


def test_debians_package_comes_last_and_is_kept(tmp_path: Path) -> None:
    package = tmp_path / "package"
    put_idx(package / "usr/share/datasets/fashion-mnist", packed=True)
    scripts = {
        "apt_get": 'test "$1 $2" = "download dataset-fashion-mnist" && : > data.deb',
        "dpkg_deb": f'/bin/mkdir "$3" && /bin/cp -r {package}/usr "$3"',
    }

    with programs(tmp_path / "bin", **scripts):
        fetched = dataset(tmp_path).load()
    with programs(tmp_path / "empty"):
        again = dataset(tmp_path).load()

    assert fetched["test"].labels.tolist() == again["test"].labels.tolist()
    assert not list((tmp_path / "downloads").glob(".debian-*"))


def test_when_nothing_works_one_error_names_all_four_sources(tmp_path: Path) -> None:
    scripts = {"apt_get": "echo E: Unable to locate package >&2; exit 100"}

    with (
        programs(tmp_path / "bin", **scripts, dpkg_deb="exit 1"),
        pytest.raises(DatasetError) as caught,
    ):
        dataset(tmp_path).load()

    text = str(caught.value)
    assert isinstance(caught.value.__cause__, NoImagesError)
    assert "1. already there" in text
    assert (
        f"2. IDX files in {tmp_path}/idx: train-images-idx3-ubyte(.gz) is not in"
        in text
    )
    assert "3. torchvision's download: " in text
    assert (
        "4. Debian's package dataset-fashion-mnist through apt-get: apt-get ended"
        in text
    )
    assert "E: Unable to locate package" in text
    assert "make data" in text
    assert "--params images=" in text


def test_a_machine_without_apt_says_so(tmp_path: Path) -> None:
    with programs(tmp_path / "bin"), pytest.raises(DatasetError, match="no apt-get"):
        dataset(tmp_path).load()


BROKEN = {
    "truncated": (0, idx([1, 2], 3, 1, 2), "promises 6 bytes .* has 2"),
    "not idx": (0, b"<html>not found</html>", "is no IDX file"),
    "fewer labels": (1, idx([0, 9], 2), "3 train images but 2 labels"),
    "unknown class": (1, idx([0, 9, 10], 3), "label 10, .* 10 classes"),
}


@pytest.mark.parametrize(("number", "data", "reason"), BROKEN.values(), ids=BROKEN)
def test_damaged_files_are_a_reason_to_try_the_next_source(
    tmp_path: Path, number: int, data: bytes, reason: str
) -> None:
    put_idx(tmp_path / "idx")
    (tmp_path / "idx" / FILES[number]).write_bytes(data)

    with programs(tmp_path / "bin"), pytest.raises(DatasetError, match=reason):
        dataset(tmp_path).load()

    put_idx(tmp_path / "downloads" / "FashionMNIST" / "raw")
    assert len(dataset(tmp_path).load()["train"].images) == 3


def test_a_damaged_archive_is_a_reason_too(tmp_path: Path) -> None:
    put_idx(tmp_path / "idx", packed=True)
    path = tmp_path / "idx" / f"{FILES[0]}.gz"
    path.write_bytes(path.read_bytes()[:20])

    with programs(tmp_path / "bin"), pytest.raises(DatasetError, match="is damaged"):
        dataset(tmp_path).load()


def test_declaring_it_touches_nothing(tmp_path: Path) -> None:
    with programs(tmp_path / "bin"):
        assert not dataset(tmp_path).exists()

    assert not (tmp_path / "downloads").exists()


def test_saving_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"read-only.*ImageFolderDataset"):
        dataset(tmp_path).save("anything")  # type: ignore[arg-type]
