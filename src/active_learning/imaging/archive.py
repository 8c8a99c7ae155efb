"""Images that came with a request, kept under a name that their content gives."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from threading import get_ident
from typing import Any, NamedTuple
from uuid import uuid4

from active_learning.errors import FrozenError, ImageError
from active_learning.files import force_to_disk
from active_learning.imaging.decode import reader_of
from active_learning.imaging.ids import check_image_ids
from active_learning.imaging.places import LocalPlace, place_at

_SUFFIXES = {
    "BMP": ".bmp",
    "JPEG": ".jpg",
    "PNG": ".png",
    "TIFF": ".tif",
    "WEBP": ".webp",
}

# With a process and a thread it names whoever writes, on any machine. A random number
# for each file would be one more call of the system.
_HERE = uuid4().hex

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class NamedImage(NamedTuple):
    """An image file on its way into a store.

    Attributes:
        root: The store's, as ``ImageArchive.root`` gives it.
        image_id: Its name there.
        content: The file's bytes.
    """

    root: str
    image_id: str
    content: bytes


class ImageArchive:
    """A folder of the image store; the same bytes are there once.

    Args:
        root: The store's: a folder, or a URL of any protocol that fsspec knows.
        storage_options: For fsspec: accounts, credentials.
        prefix: The archive's own folder below the root.
        power_cut_safe: Waits for the disk at every image; a remote store has its
            own promise and none is added to it.

    Attributes:
        root: The store's, the same wherever the process works.
        prefix: The archive's own folder below it.
        is_local: Whether the store is a folder of this machine.

    Raises:
        ImageIdError: The prefix is no place inside the store.
    """

    def __init__(
        self,
        root: str,
        storage_options: dict[str, Any] | None = None,
        prefix: str = "archive",
        power_cut_safe: bool = False,
    ) -> None:
        """Describe the place; nothing is touched yet."""
        check_image_ids([prefix])
        self._place = place_at(root, storage_options)
        self.is_local = isinstance(self._place, LocalPlace)
        self.root = self._place.root if self.is_local else root
        self.prefix = prefix
        self._power_cut_safe = power_cut_safe

    def named(self, data: bytes, decoded: bool = False) -> NamedImage:
        """What an image file will be called; the store is not touched.

        Args:
            data: Its bytes. What it is, its content says. Its pixels are not unpacked:
                whoever scored it has done so.
            decoded: Somebody has just unpacked it: its header is not read again.

        Returns:
            With the ``image_id`` ``<prefix>/<two digits>/<SHA-256><suffix>``.

        Raises:
            ImageError: The bytes are no image that a store reads.
        """
        suffix = _suffix(data, decoded)
        name = sha256(data).hexdigest()
        image_id = f"{self.prefix}/{name[:2]}/{name}{suffix}"
        return NamedImage(self.root, image_id, data)

    def keep(self, images: Sequence[NamedImage]) -> list[FrozenError]:
        """Keep images, each whole or not at all; several at once in a remote store.

        Returns:
            Why some were refused: another content has their name.

        Raises:
            OSError: One could not be written; others may have been.
        """
        if isinstance(self._place, LocalPlace):
            found = [self._keep(image) for image in images]
        else:
            with ThreadPoolExecutor(self._place.n_threads) as threads:
                found = list(threads.map(self._keep, images))
        return [refusal for refusal in found if refusal is not None]

    def _keep(self, image: NamedImage) -> FrozenError | None:
        image_id, data = image.image_id, image.content
        if not isinstance(self._place, LocalPlace):
            # The name is the content's: of several who archive it, the first is right.
            try:
                self._place.fill(image_id, lambda: data)
            except FrozenError as exc:
                return exc
            return None
        if self._place.size(image_id) != len(data):
            self._write(f"{self._place.root}/{image_id}", data)
        if self._power_cut_safe:
            _flush(Path(self._place.root), image_id)
        return None

    def _write(self, path: str, data: bytes) -> None:
        try:
            _write_beside(path, data)
        except OSError as exc:
            # A full disk's own message does not say which file it was.
            raise OSError(exc.errno, exc.strerror, path) from exc


def _write_beside(path: str, data: bytes) -> None:
    """Write a file under another name, then rename.

    With bare system calls: there are as many as requests, and `files.replacing` spends
    more on looking at the folder and on names than the file itself costs.
    """
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.{_HERE}-{os.getpid()}-{get_ident()}.tmp"
    try:
        file = os.open(temporary, _NEW, 0o666)
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        file = os.open(temporary, _NEW, 0o666)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
        finally:
            os.close(file)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _suffix(data: bytes, decoded: bool) -> str:
    reader = reader_of(data)
    if not decoded:
        try:
            with reader(BytesIO(data)):
                pass
        except (OSError, SyntaxError, ValueError) as exc:
            raise ImageError(f"the image's header is damaged ({exc})") from exc
    return _SUFFIXES[str(reader.format)]


def _flush(root: Path, image_id: str) -> None:
    """Force a file to the disk, and the folders that make it be found."""
    file = root / image_id
    n_folders = image_id.count("/") + 1
    for path in (file, *list(file.parents)[:n_folders]):
        force_to_disk(path)
