"""Image files to pixels, and the reasons why one cannot be used."""

import struct
import zlib
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
        (H, W, C), C-contiguous.

    Raises:
        ImageError: The file cannot be used; the message is the reason.
    """
    reader = reader_of(data)
    try:
        # Not Image.open: it measures against a limit of the whole process and warns.
        with reader(BytesIO(data)) as image:
            _refuse_bomb(image.size, max_pixels)
            return _scaled(image, preprocessing)
    except _DAMAGE as exc:
        what = f"{type(exc).__name__}: {exc}".rstrip(": ")
        raise ImageError(f"the image is damaged or cut off ({what})") from exc


def _refuse_bomb(size: tuple[int, int], max_pixels: int) -> None:
    n_pixels = size[0] * size[1]
    if n_pixels > max_pixels:
        raise ImageError(
            f"{size[0]} x {size[1]} pixels are {n_pixels:,}, "
            f"more than max_pixels allows ({max_pixels:,})"
        )


def _scaled(image: ImageFile.ImageFile, preprocessing: Preprocessing) -> UInt8Array:
    height, width = preprocessing.height, preprocessing.width
    # JPEG can be unpacked at an eighth of its size; twice the goal on the shorter
    # side of either orientation leaves the resampling enough to work on.
    image.draft(None, (2 * max(height, width), 2 * max(height, width)))
    image.load()
    flat = _eight_bits(image)
    flat = _on_white(flat).convert("L" if preprocessing.channels == 1 else "RGB")
    turn = _TURNS.get(_orientation(image))
    if turn is not None:
        flat = flat.transpose(turn)
    if flat.size != (width, height):
        flat = flat.resize((width, height), Image.Resampling.BILINEAR)
    pixels: UInt8Array = np.array(flat, dtype=np.uint8)
    return pixels.reshape(height, width, preprocessing.channels)


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
