import struct
import zlib
from io import BytesIO
from typing import Any

import imagehash
import numpy as np
import pytest
from PIL import Image

from active_learning.errors import ImageError
from active_learning.imaging.perceptual import perceptual_hash

LIMIT = 1_000_000


def encoded(image: Image.Image, name: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def scene(seed: int, side: int = 128) -> Image.Image:
    """Soft patches, as a photo has."""
    generator = np.random.default_rng(seed)
    patches = generator.integers(0, 256, (8, 8), dtype=np.uint8)
    return Image.fromarray(patches).resize((side, side), Image.Resampling.BICUBIC)


def distance(one: bytes, other: bytes) -> int:
    """In bits."""
    return (perceptual_hash(one, LIMIT) ^ perceptual_hash(other, LIMIT)).bit_count()


def test_a_ramp_to_the_right_sets_every_bit_and_to_the_left_none() -> None:
    ramp = np.tile(np.arange(0, 180, dtype=np.uint8), (80, 1))

    assert perceptual_hash(encoded(Image.fromarray(ramp)), LIMIT) == 2**64 - 1
    assert perceptual_hash(encoded(Image.fromarray(ramp[:, ::-1])), LIMIT) == 0


def test_the_hash_is_the_librarys() -> None:
    image = scene(1)

    theirs = int(str(imagehash.dhash(image)), 16)

    assert (perceptual_hash(encoded(image), LIMIT) ^ theirs).bit_count() <= 2


def test_size_and_compression_hardly_matter() -> None:
    original = encoded(scene(1))

    assert distance(original, encoded(scene(1).resize((300, 200)))) <= 3
    assert distance(original, encoded(scene(1), "JPEG", quality=30)) <= 3


def test_another_scene_differs_in_many_bits() -> None:
    assert distance(encoded(scene(1)), encoded(scene(2))) > 16


def test_sixteen_bits_hash_as_eight_do() -> None:
    deep = Image.fromarray(np.asarray(scene(1)).astype(np.uint16) * 257)

    assert distance(encoded(deep), encoded(scene(1))) == 0


def test_a_photo_is_hashed_as_its_camera_was_held() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down

    turned = encoded(scene(1).transpose(Image.Transpose.ROTATE_180), exif=exif)

    assert distance(turned, encoded(scene(1))) == 0


@pytest.mark.parametrize("data", [b"", b"no image at all", encoded(scene(1))[:200]])
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        perceptual_hash(data, LIMIT)


@pytest.mark.filterwarnings("error")
def test_a_decompression_bomb_is_measured_and_not_unpacked() -> None:
    parts = [b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0), b"IDAT"]
    chunks = [
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in parts
    ]

    with pytest.raises(ImageError, match="more than max_pixels"):
        perceptual_hash(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), LIMIT)
