"""Small PNG files that are unpacked together are what each is alone."""

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from active_learning.errors import ImageError
from active_learning.imaging import Preprocessing, UInt8Array
from active_learning.imaging.decode import decode, decode_many

SIDE = 8
GRAY = Preprocessing(height=SIDE, width=SIDE, channels=1, mean=(0,), std=(1,))
COLOR = Preprocessing(height=5, width=6, channels=3, mean=(0,) * 3, std=(1,) * 3)
MAX_PIXELS = 10_000

RNG = np.random.default_rng(0)


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(
    packed: Sequence[bytes],
    size: tuple[int, int] = (SIDE, SIDE),
    kind: bytes = b"\x08\0\0\0\0",
) -> bytes:
    """A PNG file of any bytes."""
    parts = [chunk(b"IHDR", struct.pack(">II", *size) + kind)]
    parts += [chunk(b"IDAT", part) for part in packed]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def filtered(number: int, n_rows: int = SIDE) -> bytes:
    """Random rows, each under one filter."""
    rows = RNG.integers(0, 256, (n_rows, 1 + SIDE), dtype=np.uint8)
    rows[:, 0] = number
    return rows.tobytes()


def saved(mode: str, size: tuple[int, int] = (SIDE, SIDE), kind: str = "PNG") -> bytes:
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = RNG.integers(0, 256, (*size[::-1], bands), dtype=np.uint8)
    file = BytesIO()
    Image.frombytes(mode, size, pixels.tobytes()).save(file, format=kind)
    return file.getvalue()


def alone(
    data: bytes, preprocessing: Preprocessing, max_pixels: int
) -> UInt8Array | ImageError:
    try:
        return decode(data, preprocessing, max_pixels)
    except ImageError as exc:
        return exc


def assert_like_one_at_a_time(
    files: Sequence[bytes], preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS
) -> None:
    together = decode_many(files, preprocessing, max_pixels)

    assert len(together) == len(files)
    for data, one in zip(files, together, strict=True):
        expected = alone(data, preprocessing, max_pixels)
        if isinstance(one, ImageError) or isinstance(expected, ImageError):
            assert repr(one) == repr(expected)
        else:
            np.testing.assert_array_equal(one, expected)
            assert one.flags.c_contiguous
            assert not one.flags.writeable


@pytest.mark.parametrize("preprocessing", [GRAY, COLOR], ids=["gray", "color"])
@pytest.mark.parametrize("n", [0, 1, 2, 150])
def test_many_are_what_each_is_alone(n: int, preprocessing: Preprocessing) -> None:
    kinds = [("L", (8, 8)), ("RGB", (6, 5)), ("L", (7, 30)), ("RGBA", (8, 8))]
    files = [saved(*kinds[number % len(kinds)]) for number in range(n)]
    files += [saved("RGB", (40, 30), "JPEG"), saved("L", (200, 150))][:n]

    assert_like_one_at_a_time(files, preprocessing)


@pytest.mark.parametrize("number", range(5))
def test_no_filter_looks_at_the_image_before(number: int) -> None:
    files = [png([zlib.compress(filtered(number))]) for _ in range(4)]

    assert_like_one_at_a_time(files, GRAY)


WHOLE = zlib.compress(filtered(1))
FILES = {
    "two parts": png([WHOLE[:20], WHOLE[20:]]),
    "no part": png([]),
    "an empty part": png([b"", WHOLE]),
    "a row short": png([zlib.compress(filtered(1, SIDE - 1))]),
    "a row more": png([zlib.compress(filtered(1, SIDE + 1))]),
    "no checksum": png([WHOLE[:-4]]),
    "another checksum": png([WHOLE[:-1] + bytes([WHOLE[-1] ^ 1])]),
    "something behind": png([WHOLE + b"more"]),
    "not packed": png([b"nonsense"]),
    "an unknown filter": png([zlib.compress(filtered(5))]),
    "no rows": png([WHOLE], (SIDE, 0)),
    "a bomb by its header": png([WHOLE], (2**15, 2**15)),
    "a bomb by its content": png([zlib.compress(bytes(40_000_000))]),
    "interlaced": png([WHOLE], kind=b"\x08\0\0\0\1"),
    "four bits": png([WHOLE], kind=b"\x04\0\0\0\0"),
    "a flipped bit": png([WHOLE])[:50] + b"\x11" + png([WHOLE])[51:],
    "a flipped bit in the header": b"".join(
        [png([WHOLE])[:31], b"\0", png([WHOLE])[32:]]
    ),
    "cut off": png([WHOLE])[:-7],
    "cut off early": png([WHOLE])[:20],
    "behind the end": png([WHOLE]) + b"x",
    "a text": b"no image",
    "nothing": b"",
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_a_strange_file_spoils_none_of_its_neighbors(data: bytes) -> None:
    neighbors = [saved("L") for _ in range(4)]
    files = [*neighbors[:2], data, *neighbors[2:], data]

    assert_like_one_at_a_time(files, GRAY)
    assert_like_one_at_a_time(files, GRAY, SIDE * SIDE - 1)
