"""Images that came with predictions, until an archive has them.

They lie one behind another in files beside the spool, where one costs a caller a tenth
of what a file of its own would. The files are numbered. The spool says which number
takes images now; whoever appends holds the spool's lock, and nobody appends to a file
of an earlier number. Whoever delivers rows has the spool go on to the next number,
archives all files before it, and delivers then: a row in the table has its image.

A SIGKILL may cut off an image while it is written. Nobody was told that it is kept, and
it is left out; those behind it are found by the mark that each begins with.
"""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from active_learning.files import force_to_disk
from active_learning.imaging.archive import ImageArchive, NamedImage

logger = logging.getLogger(__name__)

_MARK = b"\0\xfaimage\n"
# The mark, and a checksum of all that follows it.
_HEAD = Struct(f"<{len(_MARK)}sI")
# Lengths of root, image_id and content, which follow them.
_LENGTHS = Struct("<IIQ")

# So much is read into memory at once, and an image more.
_LONGEST = 1 << 23


class WaitingImages:
    """Files of images that no archive has yet.

    Args:
        beside: The spool's file; its folder is there.
        max_bytes: While more wait, no further file is begun.
    """

    def __init__(self, beside: Path, max_bytes: int) -> None:
        """Remember where; a file is made by the first image."""
        self._beside = beside
        self._max_bytes = max_bytes
        self._file: int | None = None
        self._number = -1
        self._known: set[str] = set()

    def append(self, number: int, image: NamedImage, power_cut_safe: bool) -> bool:
        """Add an image; when this returns, no SIGKILL takes it back.

        Args:
            number: Of the file that takes images now.
            image: One that this process has added to the same file is not added again.
            power_cut_safe: Waits for the disk.

        Returns:
            Whether the next image belongs into the next file.

        Raises:
            OSError: It could not be written, or too many wait; nothing of it was.
        """
        file, size = self._opened(number, power_cut_safe)
        name = f"{image.root}/{image.image_id}"
        if name in self._known:
            return False
        try:
            rest = memoryview(_packed(image))
            n_bytes = len(rest)
            while rest:
                rest = rest[os.write(file, rest) :]
            if power_cut_safe:
                os.fsync(file)
        except OSError:
            os.ftruncate(file, size)
            raise
        self._known.add(name)
        return size + n_bytes > _LONGEST

    def before(self, number: int) -> list[Path]:
        """Files that take no more images, oldest first."""
        return [path for n, path in sorted(self._found()) if n < number]

    def next_number(self) -> int:
        """One that no file has."""
        return max((number for number, _ in self._found()), default=-1) + 1

    def find(self, root: str, image_id: str) -> bytes | None:
        """An image that waits, if it does."""
        for _, path in sorted(self._found()):
            try:
                images, _ = _read(path)
            except FileNotFoundError:  # it has just been archived
                continue
            for image in images:
                if (image.root, image.image_id) == (root, image_id):
                    return image.content
        return None

    def close(self) -> None:
        """Let go of the file; a later use opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._known.clear()

    def _opened(self, number: int, power_cut_safe: bool) -> tuple[int, int]:
        """The file of a number, and its size."""
        if self._file is not None and number == self._number:
            found = os.fstat(self._file)
            if found.st_nlink:
                return self._file, found.st_size
            logger.error(
                "The images that waited beside %s were taken away while they were in "
                "use; a new file is begun",
                self._beside,
            )
        self.close()
        waiting = sum(_size(path) for _, path in self._found())
        if waiting > self._max_bytes:
            raise OSError(
                f"{waiting:,} bytes of images wait for their archive, more than the "
                f"{self._max_bytes:,} that may"
            )
        path = f"{self._beside}.images-{number:012d}"
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        self._number = number
        if power_cut_safe:
            force_to_disk(self._beside.parent)
        return self._file, os.fstat(self._file).st_size

    def _found(self) -> Iterator[tuple[int, Path]]:
        start = f"{self._beside.name}.images-"
        folder = self._beside.parent
        for name in os.listdir(folder) if folder.is_dir() else ():
            number = name.removeprefix(start)
            if name.startswith(start) and number.isdecimal():
                yield int(number), self._beside.with_name(name)


class Archived(NamedTuple):
    """What became of the images of a file.

    Attributes:
        refused: Why some were: another content has their name in the store.
        n_cut_off: Had been cut off while they were written, before anybody was told
            that they are kept.
    """

    refused: list[str]
    n_cut_off: int


def archive_images(path: Path, archive_at: Callable[[str], ImageArchive]) -> Archived:
    """Archive all images of a file; it stays.

    Killed at any moment, it is done again: what an archive has is there once.

    Args:
        path: One of ``WaitingImages.before``.
        archive_at: Gives the archive of a store's root.

    Raises:
        OSError: A store is away or full.
    """
    images, n_cut_off = _read(path)
    by_root: dict[str, list[NamedImage]] = {}
    for image in images:
        by_root.setdefault(image.root, []).append(image)
    refused = [
        str(reason)
        for root, some in by_root.items()
        for reason in archive_at(root).keep(some)
    ]
    return Archived(refused, n_cut_off)


def put_away(path: Path, archived: Archived) -> None:
    """Remove a file whose images are archived, and tell what was not.

    An image that was refused will never be archived. The file is kept then under
    another suffix, and no row waits for it.
    """
    if archived.n_cut_off:
        logger.warning(
            "%d images in %s had been cut off while they were written, before anybody "
            "was told that they are kept, and are left out",
            archived.n_cut_off,
            path,
        )
    if archived.refused:
        aside = path.with_name(f"{path.name}.refused")
        path.rename(aside)
        logger.error(
            "%d images were refused by their archive and are kept in %s; the first: %s",
            len(archived.refused),
            aside,
            archived.refused[0],
        )
    else:
        path.unlink()


def _packed(image: NamedImage) -> bytes:
    root, name = image.root.encode(), image.image_id.encode()
    lengths = _LENGTHS.pack(len(root), len(name), len(image.content))
    following = b"".join([lengths, root, name, image.content])
    return _HEAD.pack(_MARK, crc32(following)) + following


def _read(path: Path) -> tuple[list[NamedImage], int]:
    """The images in a file, and how many had been cut off."""
    content = path.read_bytes()
    images: list[NamedImage] = []
    n_cut_off, start = 0, 0
    while 0 <= start < len(content):
        image, end = _unpacked(content, start)
        if image is None:
            n_cut_off += 1
            start = content.find(_MARK, start + 1)
        else:
            images.append(image)
            start = end
    return images, n_cut_off


def _unpacked(content: bytes, start: int) -> tuple[NamedImage | None, int]:
    """The image that begins somewhere, and where it ends; ``None`` if it is cut off."""
    body = start + _HEAD.size
    begin = body + _LENGTHS.size
    if begin > len(content):
        return None, start
    mark, checksum = _HEAD.unpack_from(content, start)
    n_root, n_name, n_bytes = _LENGTHS.unpack_from(content, body)
    end = begin + n_root + n_name + n_bytes
    if mark != _MARK or end > len(content):
        return None, start
    if crc32(memoryview(content)[body:end]) != checksum:
        return None, start
    names, data = begin + n_root, begin + n_root + n_name
    image = NamedImage(
        content[begin:names].decode(), content[names:data].decode(), content[data:end]
    )
    return image, end


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it has just been archived
        return 0
