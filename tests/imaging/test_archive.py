"""Images that came with a request are kept whole, once, under their content's name."""

import subprocess
import sys
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from active_learning.errors import ImageError, ImageIdError
from active_learning.imaging import ImageStore, Preprocessing
from active_learning.imaging.archive import ImageArchive
from active_learning.imaging.ids import check_image_ids

PIXELS = np.arange(16, dtype=np.uint8).reshape(4, 4)
FILL = """
import resource, sys
from active_learning.imaging.archive import ImageArchive
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
archive = ImageArchive(sys.argv[1])
archive.keep([archive.named(sys.stdin.buffer.read())])
"""


def encoded(kind: str) -> bytes:
    file = BytesIO()
    Image.fromarray(PIXELS).save(file, format=kind)
    return file.getvalue()


def archived(archive: ImageArchive, data: bytes) -> str:
    image = archive.named(data)
    assert archive.keep([image]) == []
    return image.image_id


def files(root: Path) -> list[str]:
    return [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("PNG", ".png"),
        ("JPEG", ".jpg"),
        ("BMP", ".bmp"),
        ("TIFF", ".tif"),
        ("WEBP", ".webp"),
    ],
)
def test_the_content_gives_the_name(tmp_path: Path, kind: str, suffix: str) -> None:
    data = encoded(kind)
    digest = sha256(data).hexdigest()

    name = archived(ImageArchive(str(tmp_path)), data)

    assert name == f"archive/{digest[:2]}/{digest}{suffix}"
    assert (tmp_path / name).read_bytes() == data
    check_image_ids([name])


def test_the_image_store_finds_what_was_archived(tmp_path: Path) -> None:
    name = archived(ImageArchive(str(tmp_path)), encoded("PNG"))
    form = Preprocessing(height=4, width=4, channels=1, mean=(0,), std=(1,))

    decoded = ImageStore(str(tmp_path), cache=None, max_pixels=100).pixels([name], form)

    assert decoded.image_ids == [name]


@pytest.mark.parametrize("power_cut_safe", [False, True])
def test_the_same_bytes_are_there_once(tmp_path: Path, power_cut_safe: bool) -> None:
    archive = ImageArchive(str(tmp_path), power_cut_safe=power_cut_safe)

    one = archived(archive, encoded("PNG"))
    written = (tmp_path / one).stat().st_mtime_ns
    two = archived(archive, encoded("PNG"))

    assert one == two
    assert files(tmp_path) == [one]
    assert (tmp_path / one).stat().st_mtime_ns == written


def test_an_archive_lies_in_any_store(tmp_path: Path) -> None:
    archive = ImageArchive(f"file://{tmp_path}", prefix="in/production")

    name = archived(archive, encoded("PNG"))

    assert name.startswith("in/production/")
    assert files(tmp_path) == [name]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b"no image", "holds no JPEG"),
        (b"\x89PNG\r\n\x1a\n", "header is damaged"),
        (encoded("PNG")[:20], "header is damaged"),
        (b"RIFF0000WEBPVP8 ", "header is damaged"),
        (b"BM" + b"\xff" * 40, "header is damaged"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, data: bytes, told: str) -> None:
    with pytest.raises(ImageError, match=told):
        ImageArchive(str(tmp_path)).named(data)

    assert files(tmp_path) == []


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, format="PNG")

    ran = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path)],
        input=file.getvalue(),
        capture_output=True,
        check=False,
    )

    assert b"OSError" in ran.stderr
    assert files(tmp_path) == []


def test_an_archive_outside_the_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageIdError, match="climbs"):
        ImageArchive(str(tmp_path), prefix="../elsewhere")
