"""Exports of labels in a place: a local folder, or any other that fsspec knows."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from fsspec.core import url_to_fs

from active_learning.imaging.ids import has_image_suffix
from active_learning.services.labeling.exports.folder import is_needless

# What the common stores call the version of a blob; the first one found counts.
_VERSIONS = (
    "etag",
    "ETag",
    "e_tag",
    "mtime",
    "last_modified",
    "LastModified",
    "updated",
    "created",
)
_BLOCK = 1 << 20


class File(NamedTuple):
    """One file of an export.

    Attributes:
        name: Its place relative to the root, POSIX.
        size: In bytes.
        version: What changes when it is written; empty where the place does not tell.
    """

    name: str
    size: int
    version: str


class Export(NamedTuple):
    """What a labeling tool or a person has put there at once.

    Attributes:
        name: Of the file, or of the folder whose images are sorted into classes.
        files: By name.
    """

    name: str
    files: tuple[File, ...]

    @property
    def stamp(self) -> str:
        """A hash of names, sizes and versions; equal as long as nothing is written."""
        return sha256(repr(self.files).encode()).hexdigest()


class ExportsPlace:
    """Where exports come in.

    Args:
        root: A path, or a URL of any protocol that fsspec knows. It need not be there.
        storage_options: For fsspec: accounts, credentials.
    """

    def __init__(
        self, root: str, storage_options: Mapping[str, Any] | None = None
    ) -> None:
        """Remember where; nothing is touched yet."""
        # Other watchers of a place learn nothing new from a listing that is kept.
        options = {"use_listings_cache": False, **(storage_options or {})}
        self._filesystem, path = url_to_fs(root, **options)
        self._root = str(path).rstrip("/")

    def __str__(self) -> str:
        """The root as the file system spells it."""
        return self._root

    def look(self) -> dict[str, Export]:
        """What is there now, by name.

        Hidden files are left out, and what is never an export. Images count for the
        first folder of their path: the same image in another class folder is another
        label. Every other file is an export of its own.

        Raises:
            OSError: The place cannot be reached.
        """
        self._filesystem.invalidate_cache()
        members: dict[str, list[File]] = {}
        for path, info in self._found().items():
            name = str(path)[len(self._root) :].lstrip("/")
            parts = name.split("/")
            hidden = any(part.startswith(".") for part in parts)
            if not name or hidden or is_needless(name):
                continue
            export = parts[0] if has_image_suffix(name) else name
            file = File(name, int(info["size"] or 0), _version(info))
            members.setdefault(export, []).append(file)
        return {
            name: Export(name, tuple(sorted(files)))
            for name, files in sorted(members.items())
        }

    def digest(self, export: Export) -> str | None:
        """SHA-256 of what an export holds, whenever it was written.

        A file may be called anything; images may not, whose folders are their labels.

        Args:
            export: As ``look`` found it.

        Returns:
            64 hexadecimal digits; ``None`` when it was taken away meanwhile. Whether
            it was changed, another look tells.

        Raises:
            OSError: The place cannot be reached.
        """
        whole = sha256()
        for file in export.files:
            # What an image's folders are called may be its label.
            called = "" if file.name == export.name else file.name
            try:
                content = self._hash(file)
            except FileNotFoundError:
                return None
            whole.update(f"{called}\0{content}\n".encode())
        return whole.hexdigest()

    def _found(self) -> dict[str, dict[str, Any]]:
        # A listing takes a place that is away for an empty one; this does not.
        try:
            self._filesystem.info(self._root)
        except FileNotFoundError:
            return {}
        found: dict[str, dict[str, Any]] = self._filesystem.find(
            self._root, detail=True
        )
        return found

    def _hash(self, file: File) -> str:
        path = f"{self._root}/{file.name}" if self._root else file.name
        content = sha256()
        with self._filesystem.open(path, "rb") as stream:
            while block := stream.read(_BLOCK):
                content.update(block)
        return content.hexdigest()


def _version(info: Mapping[str, Any]) -> str:
    found = (str(info[name]) for name in _VERSIONS if info.get(name) is not None)
    return next(found, "")
