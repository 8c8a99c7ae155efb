"""Image files, many at once, each written once and whole."""

import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

from PIL import Image
from tqdm import tqdm

from active_learning.errors import DataError, ImageIdError
from active_learning.imaging.ids import (
    IMAGE_SUFFIXES,
    check_image_ids,
    has_image_suffix,
    suffix,
)
from active_learning.imaging.pixels import UInt8Array
from active_learning.imaging.places import place_at, why_no_image

_COMPLETE = ".complete.json"
_TASK = 64

_log = logging.getLogger(__name__)


class ImageWriter:
    """Writes images below a root, and knows whether all of them are there.

    Args:
        root: A folder, or a URL of any protocol that fsspec knows.
        storage_options: For fsspec: accounts, credentials.
        compress_level: Of PNG files: 0, fast and large, to 9, slow and small.
    """

    def __init__(
        self,
        root: str,
        storage_options: dict[str, Any] | None = None,
        compress_level: int = 1,
    ) -> None:
        """Describe the place; nothing is touched yet."""
        self._root = root
        self._place = place_at(root, storage_options)
        self._compress_level = compress_level

    def write(self, images: Mapping[str, bytes | UInt8Array]) -> None:
        """Write what is not there yet in its right size, then note that all is.

        Args:
            images: By ``image_id``: a file's bytes, or pixels for a PNG file.

        Raises:
            ImageIdError: A name leaves the root, or would not be found again.
        """
        names = list(images)
        check_image_ids(names)
        _check_suffixes(images)
        _log.info("Writing %d images to %s.", len(names), self._root)
        began = time.monotonic()
        self._place.remove(_COMPLETE)
        tasks = [names[n : n + _TASK] for n in range(0, len(names), _TASK)]
        n_written = 0
        with (
            ThreadPoolExecutor(self._place.n_threads) as pool,
            tqdm(
                total=len(names),
                desc="Writing images",
                unit="image",
                disable=not sys.stderr.isatty(),
            ) as bar,
        ):
            for task, new in zip(
                tasks,
                pool.map(lambda task: self._write(task, images), tasks),
                strict=True,
            ):
                n_written += new
                bar.update(len(task))
        self._place.write(_COMPLETE, json.dumps({"n_images": len(names)}).encode())
        _log.info(
            "Wrote %d images to %s in %.1f s; %d were there already.",
            n_written,
            self._root,
            time.monotonic() - began,
            len(names) - n_written,
        )

    def is_complete(self) -> bool:
        """Whether the last ``write`` got to its end and none of its images is gone."""
        if not self._place.exists():
            return False
        try:
            n_images = json.loads(self._place.read(_COMPLETE))["n_images"]
        except DataError:
            return False
        there = sum(why_no_image(name) is None for name in self._place.names(""))
        return there >= int(n_images)

    def _write(
        self, names: Sequence[str], images: Mapping[str, bytes | UInt8Array]
    ) -> int:
        n_written = 0
        for name in names:
            image = images[name]
            data = (
                image
                if isinstance(image, bytes)
                else png_bytes(image, self._compress_level)
            )
            if self._place.size(name) != len(data):
                self._place.write(name, data)
                n_written += 1
        return n_written


def png_bytes(pixels: UInt8Array, compress_level: int) -> bytes:
    """A PNG file.

    Args:
        pixels: (H, W), (H, W, 1) or (H, W, 3).
        compress_level: 0, fast and large, to 9, slow and small.
    """
    flat = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
    file = BytesIO()
    Image.fromarray(flat).save(file, format="PNG", compress_level=compress_level)
    return file.getvalue()


def _check_suffixes(images: Mapping[str, bytes | UInt8Array]) -> None:
    wrong = [
        name
        for name, image in images.items()
        if not has_image_suffix(name)
        or not (isinstance(image, bytes) or suffix(name) == ".png")
    ]
    if wrong:
        raise ImageIdError(
            f"{len(wrong)} of {len(images)} images have a name that does not fit; the "
            f"first is {wrong[0]!r}. Pixels are written as .png; files may end in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}."
        )
