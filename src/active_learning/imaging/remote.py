"""Image files in an object store."""

import errno
import posixpath
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from active_learning.errors import DataError, FrozenError, ImageError
from active_learning.files import VERSIONS
from active_learning.imaging.places import (
    NO_FILE,
    NOT_THERE,
    Listing,
    Stamp,
    as_image_error,
    why_no_image,
)

# Requests under way where the file system does not say how many.
_AT_ONCE = 16
# More names than this, and listing them may be faster than asking for each.
_ASK_EACH = 32
# A page of a listing takes as long as asking for so many names, several at a time.
_PAGE_IN_ASKS = 400

# What the file itself is the reason for; that a store is away, or lets nobody in,
# is no property of an image.
_OF_THE_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ESTALE}

_Info = dict[str, Any]


class RemotePlace:
    """A prefix of an object store; one that publishes a blob when it is whole.

    Args:
        filesystem: fsspec's. One with ``pages`` is listed page by page, and its
            ``at_once`` is how many requests are under way at a time.
        root: The prefix as the filesystem spells it, without protocol.
    """

    def __init__(self, filesystem: Any, root: str) -> None:
        """Remember where; listings that others cached are not believed."""
        self._filesystem = filesystem
        self.root = root.rstrip("/")
        self.n_threads = int(getattr(filesystem, "at_once", _AT_ONCE))
        filesystem.invalidate_cache()

    def exists(self) -> bool:
        """Whether anything is there; an object store has no empty folders."""
        return bool(self._filesystem.exists(self.root))

    def names(self, under: str) -> Iterator[str]:
        """Every file, as the store lists them, hidden and temporary names left out."""
        for page in self._pages(under):
            for name, info in page:
                if info["type"] != "directory" and not _is_hidden(name):
                    yield name

    def listing(self, under: str) -> Listing:
        """One listing of the prefix; only names are kept of it."""
        image_ids: list[str] = []
        folders: set[str] = set()
        skipped: dict[str, str] = {}
        folder = ""
        for page in self._pages(under):
            for name, info in page:
                if _is_hidden(name):
                    continue
                if info["type"] == "directory":
                    folders.add(name)
                    continue
                if (parent := posixpath.dirname(name)) != folder:
                    folder = parent
                    folders.update(_upwards(folder))
                if reason := why_no_image(name):
                    skipped[name] = reason
                else:
                    image_ids.append(name)
        return Listing(
            sorted(image_ids), dict(sorted(skipped.items())), sorted(folders)
        )

    def stamps(self, image_ids: Sequence[str]) -> list[Stamp | DataError]:
        """Size and version of each blob, listed or asked for, whatever takes less."""
        found: dict[str, Stamp | DataError] = {}
        if len(image_ids) > _ASK_EACH:
            found = self._listed(image_ids)
        unknown = [name for name in dict.fromkeys(image_ids) if name not in found]
        with ThreadPoolExecutor(self.n_threads) as pool:
            found.update(zip(unknown, pool.map(self._stamp, unknown), strict=True))
        return [found[name] for name in image_ids]

    def _listed(self, image_ids: Sequence[str]) -> dict[str, Stamp | DataError]:
        """Stamps of those that a listing meets before it costs more than to ask.

        All of them, if it gets to its end.
        """
        wanted = set(image_ids)
        found: dict[str, Stamp | DataError] = {}
        under = posixpath.commonpath([posixpath.dirname(name) for name in image_ids])
        for n_pages, page in enumerate(self._pages(under), 1):
            found.update(
                (name, _stamp_of(info)) for name, info in page if name in wanted
            )
            if n_pages * _PAGE_IN_ASKS > len(wanted) - len(found):
                return found
        return {name: found.get(name, ImageError(NOT_THERE)) for name in wanted}

    def _stamp(self, image_id: str) -> Stamp | DataError:
        try:
            return _stamp_of(self._filesystem.info(f"{self.root}/{image_id}"))
        except OSError as exc:
            return _of_the_file(exc)

    def read(self, image_id: str) -> bytes:
        """A blob's content, of one version."""
        try:
            return bytes(self._filesystem.cat_file(f"{self.root}/{image_id}"))
        except OSError as exc:
            raise _of_the_file(exc) from exc

    def size(self, name: str) -> int | None:
        """A blob's size; ``None`` when it is not there."""
        try:
            return int(self._filesystem.info(f"{self.root}/{name}")["size"] or 0)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Upload in one step."""
        self._filesystem.pipe_file(f"{self.root}/{name}", data)

    def fill(self, name: str, read: Callable[[], bytes]) -> bool:
        """Upload in one step, unless a blob is there: then it has to be the same.

        The store decides which of two writers was first.
        """
        data = read()
        try:
            self._filesystem.pipe_file(f"{self.root}/{name}", data, mode="create")
        except FileExistsError as exc:
            if self.read(name) != data:
                raise FrozenError(
                    f"{name!r} is in {self.root!r} already, with another content"
                ) from exc
            return False
        return True

    def remove(self, name: str) -> None:
        """Take a blob away if it is there."""
        with suppress(FileNotFoundError):
            self._filesystem.rm_file(f"{self.root}/{name}")

    def _pages(self, under: str) -> Iterator[list[tuple[str, _Info]]]:
        """What lies below a folder, by its name below the root."""
        start = f"{self.root}/{under}".rstrip("/")
        pages = getattr(self._filesystem, "pages", None)
        if pages is None:
            found = self._filesystem.find(start, detail=True, withdirs=True)
            listed = iter([list(found.items())])
        else:
            listed = ([(i["name"], i) for i in page] for page in pages(start))
        for page in listed:
            named = ((path[len(self.root) + 1 :].rstrip("/"), i) for path, i in page)
            yield [(name, info) for name, info in named if name and name != under]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or "/." in name


def _upwards(folder: str) -> Iterator[str]:
    while folder:
        yield folder
        folder = posixpath.dirname(folder)


def _stamp_of(info: _Info) -> Stamp | DataError:
    if info["type"] != "file":
        return ImageError(NO_FILE)
    found = [f"{name} {info[name]}" for name in VERSIONS if info.get(name)]
    size = int(info["size"])
    # Without a version only the content itself can tell: read it every time.
    return Stamp(size, found[0], True) if found else Stamp(size, "", False)


def _of_the_file(exc: OSError) -> ImageError:
    known = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
    if exc.errno in _OF_THE_FILE or isinstance(exc, known):
        return as_image_error(exc)
    raise exc
