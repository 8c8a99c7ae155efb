"""Where image files lie: a local folder, or any other place that fsspec knows."""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from active_learning.errors import DataError, ImageError, ImageIdError
from active_learning.files import filesystem_at, is_local
from active_learning.imaging.ids import IMAGE_SUFFIXES, flaw, has_image_suffix, suffix
from active_learning.imaging.whole import write_whole

NOT_THERE = "the file is not there"
NO_FILE = "it is no regular file"
_OUTSIDE = "it is a link that leaves the image store"

# A file that changes twice within its clock's tick keeps size and time.
_TICK_NS = 2_000_000_000

# Bytes read at once: all of a small file.
_BLOCK = 1 << 16

_UNREADABLE = {
    errno.ENOENT: NOT_THERE,
    errno.ENOTDIR: NOT_THERE,
    errno.ENAMETOOLONG: NOT_THERE,
    errno.EISDIR: "it is a folder",
    errno.ELOOP: "it is a link to itself",
    errno.EACCES: "permission to read it is denied",
    errno.EPERM: "permission to read it is denied",
    errno.ESTALE: "it changes while it is read",
}


class Stamp(NamedTuple):
    """What changes when a file does."""

    size: int
    version: str
    settled: bool  # False: it may still change without another stamp


@dataclass(frozen=True)
class Listing:
    """What lies in a place, hidden and temporary names left out.

    Attributes:
        image_ids: Sorted.
        skipped: What is no image of the store, and why.
        folders: Every folder, relative, POSIX, sorted.
    """

    image_ids: list[str]
    skipped: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)


class Place(Protocol):
    """A root, and files addressed by ``image_id`` below it."""

    root: str
    n_threads: int

    def exists(self) -> bool:
        """Whether the root is there."""
        ...

    def listing(self, under: str) -> Listing:
        """Everything below a folder of the root; ``""`` is the root itself."""
        ...

    def names(self, under: str) -> Iterator[str]:
        """Every file below a folder of the root, in no order, images or not.

        For those who need not hold all names at once.
        """
        ...

    def stamps(self, image_ids: Sequence[str]) -> list[Stamp | DataError]:
        """Each file's stamp, or why there is none."""
        ...

    def read(self, image_id: str) -> bytes:
        """A file's content.

        Raises:
            ImageIdError: A link leaves the root.
            ImageError: The file is not there or not to be read.
        """
        ...

    def size(self, name: str) -> int | None:
        """A file's size; ``None`` when it is not there."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Put a file there, whole or not at all."""
        ...

    def fill(self, name: str, read: Callable[[], bytes]) -> bool:
        """Put a file there unless one is.

        Args:
            name: Below the root.
            read: Gives its content, where that is needed.

        Returns:
            Whether it was put.

        Raises:
            FrozenError: What is there differs, in a store where looking costs nothing
                beside the attempt.
        """
        ...

    def remove(self, name: str) -> None:
        """Take a file away if it is there."""
        ...


def place_at(root: str, storage_options: dict[str, Any] | None) -> Place:
    """The place that ``root`` names; nothing is touched yet.

    Args:
        root: A path, or a URL of any protocol that fsspec knows.
        storage_options: For fsspec: accounts, credentials; for blobs of Azure also
            ``at_once``, ``retries`` and ``back_off_s``.
    """
    if is_local(root):
        return LocalPlace(root)
    from fsspec.implementations.local import LocalFileSystem

    from active_learning.imaging.remote import RemotePlace

    filesystem, path = filesystem_at(root, storage_options)
    if isinstance(filesystem, LocalFileSystem):
        return LocalPlace(path)
    return RemotePlace(filesystem, path)


class LocalPlace:
    """A folder, read without fsspec: it would cost more than the files themselves."""

    def __init__(self, root: str) -> None:
        """Remember where; a later change of the working directory does not matter."""
        self.root = os.path.abspath(os.path.expanduser(root))
        self.n_threads = min(8, os.cpu_count() or 1)
        self._real_root = os.path.realpath(self.root)
        self._inside: dict[str, bool] = {}

    def exists(self) -> bool:
        """Whether the folder is there."""
        return os.path.isdir(self.root)

    def listing(self, under: str) -> Listing:
        """Walk the folder; links to folders are not followed, so the walk ends."""
        image_ids: list[str] = []
        folders: list[str] = []
        skipped: dict[str, str] = {}
        todo = [under]
        while todo:
            folder = todo.pop()
            for name, entry in self._visible(folder):
                if entry.is_symlink() and (reason := self._why_not_followed(entry)):
                    skipped[name] = reason
                elif entry.is_dir():
                    folders.append(name)
                    todo.append(name)
                elif reason := why_no_image(name):
                    skipped[name] = reason
                else:
                    image_ids.append(name)
        return Listing(
            sorted(image_ids), dict(sorted(skipped.items())), sorted(folders)
        )

    def names(self, under: str) -> Iterator[str]:
        """Walk the folder."""
        found = self.listing(under)
        yield from found.image_ids
        yield from found.skipped

    def _visible(self, folder: str) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
        prefix = f"{folder}/" if folder else ""
        with os.scandir(os.path.join(self.root, folder)) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    yield prefix + entry.name, entry

    def _why_not_followed(self, link: "os.DirEntry[str]") -> str | None:
        if not self._contains(link.path):
            return _OUTSIDE
        if not os.path.exists(link.path):
            return "it is a link to nothing"
        if link.is_dir():
            return "it is a link to a folder; its images count where they lie"
        return None

    def _contains(self, path: str) -> bool:
        real = os.path.realpath(path)
        return real == self._real_root or real.startswith(
            os.path.join(self._real_root, "")
        )

    def stamps(self, image_ids: Sequence[str]) -> list[Stamp | DataError]:
        """Size and modification time, a few microseconds each."""
        now_ns = time.time_ns()
        return [self._stamp(image_id, now_ns) for image_id in image_ids]

    def _stamp(self, image_id: str, now_ns: int) -> Stamp | DataError:
        path = f"{self.root}/{image_id}"
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode) or not self._folder_inside(image_id):
                self._check_inside(image_id)
                status = os.stat(path)
        except DataError as exc:
            return exc
        except OSError as exc:
            return as_image_error(exc)
        if not stat.S_ISREG(status.st_mode):
            return ImageError(NO_FILE)
        settled = status.st_mtime_ns < now_ns - _TICK_NS
        return Stamp(status.st_size, str(status.st_mtime_ns), settled)

    def _folder_inside(self, image_id: str) -> bool:
        folder = image_id.rpartition("/")[0]
        inside = self._inside.get(folder)
        if inside is None:
            inside = self._contains(f"{self.root}/{folder}")
            self._inside[folder] = inside
        return inside

    def _check_inside(self, image_id: str) -> None:
        path = f"{self.root}/{image_id}"
        linked = os.path.islink(path)
        if not self._folder_inside(image_id) or (linked and not self._contains(path)):
            raise ImageIdError(_OUTSIDE)

    def read(self, image_id: str) -> bytes:
        """A file's content."""
        path = f"{self.root}/{image_id}"
        try:
            if self._folder_inside(image_id):
                return _content(path, os.O_NOFOLLOW)
        except OSError as exc:
            if exc.errno != errno.ELOOP:
                raise as_image_error(exc) from exc
        self._check_inside(image_id)
        try:
            return _content(path, 0)
        except OSError as exc:
            raise as_image_error(exc) from exc

    def size(self, name: str) -> int | None:
        """A file's size; ``None`` when it is not there."""
        try:
            return os.stat(f"{self.root}/{name}").st_size
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write beside the place, then rename."""
        write_whole(Path(self.root, name), [data])

    def fill(self, name: str, read: Callable[[], bytes]) -> bool:
        """Put a file there unless one is; what is there is left as it is."""
        if self.size(name) is not None:
            return False
        self.write(name, read())
        return True

    def remove(self, name: str) -> None:
        """Take a file away if it is there."""
        Path(self.root, name).unlink(missing_ok=True)


def _content(path: str, flags: int) -> bytes:
    # Not open(): a file object costs more than what a small file holds.
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        parts = [os.read(descriptor, _BLOCK)]
        while parts[-1]:
            parts.append(os.read(descriptor, _BLOCK))
        return b"".join(parts)
    finally:
        os.close(descriptor)


def why_no_image(name: str) -> str | None:
    """Why a file is no image of a store, by its name alone; ``None`` for one."""
    if not has_image_suffix(name):
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        return f"its suffix {suffix(name)!r} is none of {known}"
    return flaw(name)


def as_image_error(exc: OSError) -> ImageError:
    """What a file that cannot be read means for its image.

    Raises:
        OSError: The same, where it says nothing about the file.
    """
    # fsspec raises the right class without an error number.
    by_class = {
        FileNotFoundError: errno.ENOENT,
        NotADirectoryError: errno.ENOTDIR,
        IsADirectoryError: errno.EISDIR,
        PermissionError: errno.EACCES,
    }
    reason = _UNREADABLE.get(exc.errno or by_class.get(type(exc), 0))
    if reason is None:
        raise exc
    return ImageError(reason)
