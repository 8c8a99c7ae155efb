"""Decoded images in memory-mapped shards."""

from collections.abc import Sequence
from mmap import MADV_DONTNEED, mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from active_learning.errors import ImageError

UInt8Array = NDArray[np.uint8]
IntArray = NDArray[np.int64]


def release(array: NDArray[Any]) -> None:
    """Give back the memory of an array that is mapped from a file; others keep theirs.

    The array stays as it is: what is read of it comes from the file again.
    """
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap):
        base.madvise(MADV_DONTNEED)


class Shard:
    """Some decoded images: a memory-mapped file, or an array where there is no cache.

    Args:
        pixels: (n, H, W, C) uint8.
        path: The file behind the pixels; ``None`` when they live in memory alone.
    """

    def __init__(self, pixels: UInt8Array, path: Path | None) -> None:
        """Hold the pixels without reading them."""
        # A plain view: indexing a np.memmap costs several times what an array does.
        self.pixels: UInt8Array = np.asarray(pixels)
        self.path = path

    @classmethod
    def open(cls, path: Path) -> "Shard":
        """Map a file.

        Raises:
            ImageError: The file is shorter or longer than its header says, or no
                array of images at all.
        """
        try:
            pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as exc:
            raise ImageError(f"{path.name} is damaged: {exc}") from exc
        if pixels.dtype != np.uint8 or pixels.ndim != 4:
            raise ImageError(f"{path.name} holds no images but {pixels.dtype}")
        expected = pixels.offset + pixels.nbytes
        if path.stat().st_size != expected:
            raise ImageError(f"{path.name} does not have the {expected} bytes it names")
        return cls(pixels, path)

    def __len__(self) -> int:
        """How many images."""
        return len(self.pixels)

    def rows(self, positions: IntArray) -> UInt8Array:
        """Copy (B,) images, (B, H * W * C), a flat row each."""
        # Whole rows are copied at a stretch; with more axes it goes byte by byte.
        flat = self.pixels.reshape(len(self), -1)
        copied: UInt8Array = flat.take(positions, axis=0)
        return copied

    def release(self) -> None:
        """Let pages of the file go; who asks for rows has them read again."""
        release(self.pixels)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as a path, not as pixels."""
        if self.path is None:
            return Shard, (self.pixels, None)
        return Shard.open, (self.path,)


class PixelArray:
    """(N, H, W, C) uint8 pixels, read from their shards when asked for.

    Rows stay on disk until ``take`` copies some, so N may exceed what memory holds.

    Args:
        shards: Where the pixels lie.
        rows: (N,) positions in the shards' concatenation, in any order, repeats too.
        image_shape: (H, W, C).
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        rows: IntArray,
        image_shape: tuple[int, int, int],
    ) -> None:
        """Find each row's shard; no pixel is read."""
        starts = np.cumsum([0, *(len(shard) for shard in shards)])
        self._shards = tuple(shards)
        self._which = np.searchsorted(starts, rows, side="right") - 1
        self._offset = rows - starts[self._which]
        self._image_shape = image_shape

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        return (len(self._which), *self._image_shape)

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self._which)

    def take(self, rows: IntArray) -> UInt8Array:
        """Copy some images.

        Args:
            rows: (B,) which ones, in the order wanted.

        Returns:
            (B, H, W, C), C-contiguous and the caller's own.
        """
        which, offset = self._which[rows], self._offset[rows]
        shards = np.unique(which)
        if len(shards) == 1:
            batch = self._shards[shards[0]].rows(offset)
        else:
            n_bytes = int(np.prod(self._image_shape))
            batch = np.empty((len(which), n_bytes), dtype=np.uint8)
            for shard in shards:
                chosen = np.flatnonzero(which == shard)
                batch[chosen] = self._shards[shard].rows(offset[chosen])
        images: UInt8Array = batch.reshape(len(which), *self._image_shape)
        return images
