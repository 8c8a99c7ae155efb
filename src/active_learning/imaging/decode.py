"""Image files to pixels, and the reasons why one cannot be used."""

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import Base
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from active_learning.errors import ImageError
from active_learning.imaging import png
from active_learning.imaging.pixels import UInt8Array
from active_learning.imaging.preprocessing import Preprocessing

EMPTY = "the file is empty (0 bytes)"
NO_IMAGE = "the file holds no JPEG, PNG, BMP, WebP or TIFF image"

_OPENERS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"BM": BmpImageFile,
    b"II*\0": TiffImageFile,
    b"MM\0*": TiffImageFile,
    b"II+\0": TiffImageFile,
    b"MM\0+": TiffImageFile,
}

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's readers raise at bytes that are not what their header says.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    UserWarning,  # where warnings are errors; Pillow warns of broken metadata
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,  # a strip or tile larger than the image
    Image.DecompressionBombWarning,
)


def opener(head: bytes) -> type[ImageFile.ImageFile] | None:
    """The reader for a file that starts with ``head`` (12 bytes are enough)."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImageFile
    for magic, reader in _OPENERS.items():
        if head.startswith(magic):
            return reader
    return None


def reader_of(data: bytes) -> type[ImageFile.ImageFile]:
    """The reader for a whole file.

    Raises:
        ImageError: It is empty, or no image that a store reads.
    """
    if not data:
        raise ImageError(EMPTY)
    reader = opener(data[:12])
    if reader is None:
        raise ImageError(NO_IMAGE)
    return reader


def decode(data: bytes, preprocessing: Preprocessing, max_pixels: int) -> UInt8Array:
    """Pixels of an image file, in the size and channels that a model takes.

    The content decides what it is, not the name. EXIF orientation is honored, what is
    transparent lies on white, 16-bit gray is scaled to 8, color profiles are ignored,
    an animation gives its first frame. Gray is ITU-R 601 luma.

    Args:
        data: The file's bytes.
        preprocessing: Uses ``height``, ``width`` and ``channels``.
        max_pixels: An image of more is not unpacked: its few bytes might fill memory.

    Returns:
        (H, W, C), C-contiguous, read-only.

    Raises:
        ImageError: The file cannot be used; the message is the reason.
    """
    reader = reader_of(data)
    plain = png.unpack(data, max_pixels) if reader is PngImageFile else None
    if plain is not None:
        return _fitted(plain, preprocessing)
    try:
        # Not Image.open: it measures against a limit of the whole process and warns.
        with reader(BytesIO(data)) as image:
            _refuse_bomb(image.size, max_pixels)
            return _scaled(image, preprocessing)
    except _DAMAGE as exc:
        what = f"{type(exc).__name__}: {exc}".rstrip(": ")
        raise ImageError(f"the image is damaged or cut off ({what})") from exc


def decode_many(
    files: Sequence[bytes], preprocessing: Preprocessing, max_pixels: int
) -> list[UInt8Array | ImageError]:
    """Decode several files; those that are small and alike take less time together.

    Args:
        files: The files' bytes.
        preprocessing: As ``decode`` uses it.
        max_pixels: As ``decode`` uses it.

    Returns:
        Of each file what ``decode`` gives, or the error that it raises.
    """
    shape = (preprocessing.height, preprocessing.width, preprocessing.channels)
    unpacked = png.unpack_many(files, max_pixels)
    decoded: list[UInt8Array | ImageError] = []
    for number, data in enumerate(files):
        pixels = unpacked.get(number)
        try:
            if pixels is None:
                decoded.append(decode(data, preprocessing, max_pixels))
            elif pixels.shape == shape:
                decoded.append(pixels)
            else:
                # Pillow knows gray as an image without an axis for its channel.
                image = Image.fromarray(
                    pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels
                )
                decoded.append(_fitted(image, preprocessing))
        except ImageError as exc:
            decoded.append(exc)
    return decoded


def _refuse_bomb(size: tuple[int, int], max_pixels: int) -> None:
    n_pixels = size[0] * size[1]
    if n_pixels > max_pixels:
        raise ImageError(
            f"{size[0]} x {size[1]} pixels are {n_pixels:,}, "
            f"more than max_pixels allows ({max_pixels:,})"
        )


def _scaled(image: ImageFile.ImageFile, preprocessing: Preprocessing) -> UInt8Array:
    longest = max(preprocessing.height, preprocessing.width)
    # JPEG can be unpacked at an eighth of its size; twice the goal on the shorter
    # side of either orientation leaves the resampling enough to work on.
    image.draft(None, (2 * longest, 2 * longest))
    image.load()
    flat = _eight_bits(image)
    return _fitted(_on_white(flat), preprocessing, _TURNS.get(_orientation(image)))


def _fitted(
    flat: Image.Image,
    preprocessing: Preprocessing,
    turn: Image.Transpose | None = None,
) -> UInt8Array:
    mode = "L" if preprocessing.channels == 1 else "RGB"
    size = (preprocessing.width, preprocessing.height)
    if flat.mode != mode:
        flat = flat.convert(mode)
    if turn is not None:
        flat = flat.transpose(turn)
    if flat.size != size:
        flat = flat.resize(size, Image.Resampling.BILINEAR)
    pixels = np.frombuffer(flat.tobytes(), dtype=np.uint8)
    return pixels.reshape(size[1], size[0], preprocessing.channels)


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ImageError(
            "its pixels are 32-bit numbers without a known range; "
            "save it with 8 or 16 bits per channel"
        )
    return image


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    clear = image.convert("RGBA")
    white = Image.new("RGBA", clear.size, "white")
    return Image.alpha_composite(white, clear)


def _orientation(image: Image.Image) -> int:
    # Like every viewer: an image whose EXIF block is broken is shown as it lies.
    try:
        return int(image.getexif().get(Base.Orientation, 1))
    except _DAMAGE:
        return 1
