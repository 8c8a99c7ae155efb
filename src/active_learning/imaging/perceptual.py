"""Perceptual hashes: images that look alike have nearly the same 64 bits."""

import imagehash
from PIL import Image

from active_learning.imaging.decode import decode
from active_learning.imaging.preprocessing import Preprocessing

# Eight times what the hash compares in each direction, so that its own filter decides.
_SIZE = Preprocessing(height=64, width=72, channels=1, mean=(0.0,), std=(1.0,))

# Where Pillow's own Image.open refuses. What was scored passed the store's limit too.
_MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)


def perceptual_hash(data: bytes, max_pixels: int = _MAX_PIXELS) -> int:
    """The difference hash (dHash) of an image file.

    A bit says whether a patch is brighter than its left neighbor, in a grid of 8 rows
    and 9 columns. It is taken of what a labeler sees, as ``decode`` gives it: turned
    upright, on white, 16 bits scaled and not cut.

    Args:
        data: The file's bytes.
        max_pixels: An image of more is not unpacked: its few bytes might fill memory.

    Returns:
        64 bits, in [0, 2**64). Two of the same scene differ in few of them.

    Raises:
        ImageError: The file cannot be used; the message is the reason.

    Source:
        Krawetz, *Kind of Like That*, The Hacker Factor Blog, 2013; computed by the
        library ImageHash.
    """
    gray = decode(data, _SIZE, max_pixels)
    return int(str(imagehash.dhash(Image.fromarray(gray[..., 0]))), 16)
