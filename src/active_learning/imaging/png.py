"""Small PNG files that hold gray or RGB of 8 bits and nothing else.

Pillow's reader is ready for every other PNG file, and takes longer for it than a small
image's pixels do. Its decoder alone unpacks these; of many it makes one tall image.
"""

import struct
import zlib
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from active_learning.imaging.pixels import UInt8Array

_HEAD = struct.Struct(">8sI4sII5sI")  # magic, length, kind, width, height, rest, CRC
_CHUNK = struct.Struct(">I4s")  # length, kind
_START = (b"\x89PNG\r\n\x1a\n", 13, b"IHDR")
_END = b"\0\0\0\0IEND\xaeB`\x82"

# Pillow's mode of 8 bits a channel, not interlaced.
_MODES = {b"\x08\x00\x00\x00\x00": "L", b"\x08\x02\x00\x00\x00": "RGB"}
_CHANNELS = {"L": 1, "RGB": 3}
_LAST_FILTER = 4

# Pillow hands its decoder so much at a time.
_PACKED_BYTES = 1 << 16
# More pixels take longer than the calls that are saved.
_SMALL_BYTES = 1 << 14
_AT_ONCE = 64


class Shape(NamedTuple):
    """What a header says: ``mode`` is Pillow's."""

    mode: str
    width: int
    height: int

    @property
    def row_bytes(self) -> int:
        """Of a row of pixels and the number of its filter before them."""
        return 1 + self.width * _CHANNELS[self.mode]


def unpack(data: bytes, max_pixels: int) -> Image.Image | None:
    """Unpack one file.

    Args:
        data: The file's bytes.
        max_pixels: An image of more is left alone.

    Returns:
        ``None`` for a file with more in it, or with anything wrong: the reader judges.
    """
    shape = _shape(data, max_pixels)
    packed = None if shape is None else _packed(data)
    if shape is None or packed is None:
        return None
    try:
        size = (shape.width, shape.height)
        return Image.frombytes(shape.mode, size, packed, "zip", shape.mode)
    except ValueError:
        return None


def unpack_many(files: Sequence[bytes], max_pixels: int) -> dict[int, UInt8Array]:
    """Unpack the smallest of some files, those of a size together.

    Args:
        files: The files' bytes.
        max_pixels: An image of more is left alone.

    Returns:
        By position in ``files``: (height, width, channels), C-contiguous, read-only.
        Files that are not small, or that ``unpack`` would not take, are missing.
    """
    alike: dict[Shape, list[int]] = defaultdict(list)
    for number, data in enumerate(files):
        shape = _shape(data, max_pixels)
        if shape is not None and shape.row_bytes * shape.height <= _SMALL_BYTES:
            alike[shape].append(number)
    unpacked: dict[int, UInt8Array] = {}
    for shape, numbers in alike.items():
        for start in range(0, len(numbers), _AT_ONCE):
            rows = {
                number: inflated
                for number in numbers[start : start + _AT_ONCE]
                if (inflated := _inflated(files[number], shape)) is not None
            }
            if rows:
                pixels = _unfiltered(list(rows.values()), shape)
                unpacked.update(zip(rows, pixels, strict=True))
    return unpacked


def _shape(data: bytes, max_pixels: int) -> Shape | None:
    if len(data) > _PACKED_BYTES:
        return None
    shape = _shape_in(data[: _HEAD.size])
    if shape is None or not 0 < shape.width * shape.height <= max_pixels:
        return None
    return shape


@lru_cache(maxsize=256)
def _shape_in(head: bytes) -> Shape | None:
    if len(head) < _HEAD.size:
        return None
    *start, width, height, rest, crc = _HEAD.unpack(head)
    mode = _MODES.get(rest)
    whole = tuple(start) == _START and zlib.crc32(head[12:29]) == crc
    return Shape(mode, width, height) if mode and whole else None


def _packed(data: bytes) -> bytes | None:
    """The packed pixels, when nothing else follows the header and all is undamaged."""
    parts: list[bytes] = []
    place, end = _HEAD.size, len(data) - len(_END)
    while place + 12 <= end:
        length, kind = _CHUNK.unpack_from(data, place)
        stop = place + 8 + length
        crc = zlib.crc32(data[place + 4 : stop]).to_bytes(4)
        if kind != b"IDAT" or crc != data[stop : stop + 4]:
            return None
        parts.append(data[place + 8 : stop])
        place = stop + 4
    return b"".join(parts) if place == end and data.endswith(_END) else None


def _inflated(data: bytes, shape: Shape) -> bytes | None:
    """The filtered rows, when they are as many as the header says."""
    packed = _packed(data)
    if packed is None:
        return None
    size = shape.row_bytes * shape.height
    inflater = zlib.decompressobj()
    try:
        rows = inflater.decompress(packed, size + 1)
    except zlib.error:
        return None
    whole = inflater.eof and len(rows) == size
    known = max(rows[:: shape.row_bytes], default=0) <= _LAST_FILTER
    return rows if whole and known else None


def _unfiltered(images: Sequence[bytes], shape: Shape) -> UInt8Array:
    """(n, height, width, channels) of filtered rows."""
    # A row's filter looks at the row above it, which is empty above the first.
    empty = bytes(shape.row_bytes)
    tall = zlib.compress(empty + empty.join(images), 0)
    size = (shape.width, len(images) * (shape.height + 1))
    image = Image.frombytes(shape.mode, size, tall, "zip", shape.mode)
    pixels = np.frombuffer(image.tobytes(), dtype=np.uint8)
    by_image = (len(images), shape.height + 1, shape.width, _CHANNELS[shape.mode])
    return pixels.reshape(by_image)[:, 1:]
