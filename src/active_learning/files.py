"""Files that are whole or not there at all, here or wherever fsspec reaches."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from uuid import uuid4

# Which class fsspec imports for a protocol when the first such file is touched.
_FILESYSTEMS = {
    "abfs": "active_learning.services.blob.azure.BlobFileSystem",
    "abfss": "active_learning.services.blob.azure.BlobFileSystem",
    "az": "active_learning.services.blob.azure.BlobFileSystem",
}
_EXTRA = (
    "Blobs of Azure need an optional dependency: "
    "pip install 'active-learning-loop[azure]'"
)

# What file systems call the version of a file; the first one found counts.
VERSIONS = (
    "etag",
    "ETag",
    "e_tag",
    "last_modified",
    "LastModified",
    "updated",
    "mtime",
    "created",
)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; it becomes ``path`` when all went well.

    A reader sees the old file or the new one. A failed or killed writer, or a full
    disk, leaves ``path`` as it was; the temporary name starts with a dot and does not
    keep the suffix, so that no glob over the folder takes it for a part.

    Args:
        path: Where the file shall be; its folder is made.

    Yields:
        A name in the same folder, since only a rename within one is atomic.
    """
    with _beside(path) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextmanager
def making(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to, as ``replacing`` does; the first one stays.

    Of several processes that make the same file at once, one is right, and the others
    take what it made.
    """
    with _beside(path) as temporary:
        yield temporary
        with suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()


@contextmanager
def alone(lock: Path) -> Iterator[int | None]:
    """Hold a lock, without waiting for it; a killed process gives it back.

    Args:
        lock: A file; it is made, and stays.

    Yields:
        A descriptor, which a process that inherits it holds the lock by as well;
        ``None`` where somebody else has the lock.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


class WholeFile(Protocol):
    """One file that is read and written as a whole, through a local path."""

    def exists(self) -> bool:
        """Whether it is there."""
        ...

    def version(self) -> object:
        """What changes when the file does, to compare.

        Raises:
            FileNotFoundError: It is not there.
        """
        ...

    def reading(self) -> AbstractContextManager[Path]:
        """A path to read it from.

        Raises:
            FileNotFoundError: It is not there.
        """
        ...

    def replacing(self) -> AbstractContextManager[Path]:
        """A path to write to; it becomes the file when all went well."""
        ...

    def making(self) -> AbstractContextManager[Path]:
        """A path to write to; of several who make the same file, the first is right."""
        ...


class LocalFile:
    """A file of this machine."""

    def __init__(self, path: str) -> None:
        """Remember where."""
        self._path = Path(path)

    def __str__(self) -> str:
        return str(self._path)

    def exists(self) -> bool:
        """Whether it is there."""
        return self._path.exists()

    def version(self) -> object:
        """Its time and size."""
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size

    @contextmanager
    def reading(self) -> Iterator[Path]:
        """The file itself."""
        yield self._path

    def replacing(self) -> AbstractContextManager[Path]:
        """A name beside it, renamed in the end."""
        return replacing(self._path)

    def making(self) -> AbstractContextManager[Path]:
        """A name beside it, linked in the end."""
        return making(self._path)


class RemoteFile:
    """A file of another machine: copied here to be read, and there when it is whole."""

    def __init__(self, url: str, storage_options: dict[str, Any] | None = None) -> None:
        """Remember where; nothing is connected before it is used."""
        self._url = url
        self._storage_options = storage_options

    def __str__(self) -> str:
        return self._url

    def exists(self) -> bool:
        """Whether it is there; what others listed before is not believed."""
        try:
            return bool(self._info()["type"] == "file")
        except FileNotFoundError:
            return False

    def version(self) -> object:
        """What the store calls it, or its size where it calls it nothing."""
        info = self._info()
        found = [f"{name} {info[name]}" for name in VERSIONS if info.get(name)]
        return found[0] if found else info["size"]

    @contextmanager
    def reading(self) -> Iterator[Path]:
        """A copy of one version of it, under its own name."""
        filesystem, path = self._place
        with self._copy() as copy:
            copy.write_bytes(filesystem.cat_file(path))
            yield copy

    @contextmanager
    def replacing(self) -> Iterator[Path]:
        """A local name, uploaded in one step."""
        filesystem, path = self._place
        with self._copy() as copy:
            yield copy
            filesystem.pipe_file(path, copy.read_bytes())

    @contextmanager
    def making(self) -> Iterator[Path]:
        """A local name, uploaded in one step unless the file has come to be."""
        filesystem, path = self._place
        with self._copy() as copy:
            yield copy
            with suppress(FileExistsError):
                filesystem.pipe_file(path, copy.read_bytes(), mode="create")

    @contextmanager
    def _copy(self) -> Iterator[Path]:
        with TemporaryDirectory() as folder:
            yield Path(folder, self._url.rpartition("/")[2])

    def _info(self) -> dict[str, Any]:
        filesystem, path = self._place
        filesystem.invalidate_cache()
        info: dict[str, Any] = filesystem.info(path)
        return info

    @cached_property
    def _place(self) -> tuple[Any, str]:
        return filesystem_at(self._url, self._storage_options)


def file_at(path: str, storage_options: dict[str, Any] | None = None) -> WholeFile:
    """The file that a path or a URL names; nothing is touched yet.

    Args:
        path: A path, or a URL of any protocol that fsspec knows.
        storage_options: For fsspec: accounts, credentials.
    """
    if is_local(path):
        return LocalFile(path)
    if path.startswith("file://"):
        return LocalFile(path.removeprefix("file://"))
    return RemoteFile(path, storage_options)


def is_local(path: str) -> bool:
    """Whether it is a plain path, which fsspec has nothing to do with."""
    return "://" not in path and "::" not in path


def filesystem_at(
    url: str, storage_options: dict[str, Any] | None = None
) -> tuple[Any, str]:
    """Find fsspec's file system for a URL, and the path as that spells it.

    Args:
        url: Of any protocol that fsspec knows.
        storage_options: For fsspec: accounts, credentials.
    """
    know_filesystems()
    from fsspec.core import url_to_fs

    filesystem, path = url_to_fs(url, **(storage_options or {}))
    return filesystem, str(path)


def know_filesystems() -> None:
    """Tell fsspec of the file systems that this package has; none is imported."""
    from fsspec import register_implementation

    for protocol, name in _FILESYSTEMS.items():
        register_implementation(protocol, name, clobber=True, errtxt=_EXTRA)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def force_to_disk(path: Path) -> None:
    """Wait until a file, or a folder's list of names, survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
