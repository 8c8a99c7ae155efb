"""Releases and the books on them, in blob storage, with a cache of files here.

::

    <place>/
        state.json                    the books: which releases are and were champions
        lock.json                     who deploys now; its lease is the lock
        releases/<name>/files.json    its files and their SHA-256; written last
        releases/<name>/model.onnx    and the others
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from active_learning.errors import CheckpointError, EndpointError
from active_learning.files import filesystem_at, replacing
from active_learning.services.deployment.azure.refusals import told
from active_learning.services.deployment.state import (
    RELEASES,
    STATE,
    EndpointState,
    parse_state,
)

_FILES = "files.json"


class _Files(BaseModel):
    """SHA-256 of each file of a release, by its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: Mapping[str, str]


class ReleaseStore:
    """See the module.

    Args:
        place: URL of a folder of blobs.
        cache: A folder of this machine.
    """

    def __init__(self, place: str, cache: Path) -> None:
        """Describe the places; nothing is asked yet."""
        self._place = place.rstrip("/")
        self._cache = cache

    @property
    def lock(self) -> str:
        """URL of the blob whose lease is the lock."""
        return f"{self._place}/lock.json"

    def read_books(self) -> EndpointState:
        """What was written last; an endpoint that nobody released to has empty books.

        Raises:
            EndpointError: They cannot be read, or are no state.
        """
        url = f"{self._place}/{STATE}"
        with told(f"Reading {url!r}"):
            try:
                text = self._read(STATE)
            except FileNotFoundError as exc:
                self._refuse_no_container(exc)
                return EndpointState()
        return parse_state(text, url)

    def write_books(self, state: EndpointState) -> None:
        """Replace them; whoever calls it holds the lock."""
        with told(f"Writing {self._place}/{STATE}"):
            self._write(STATE, state.model_dump_json(indent=2).encode())

    def incoming(self) -> Path:
        """The name of a new folder here."""
        return self._cache / f".incoming-{uuid4().hex}"

    def cached(self, name: str) -> Path:
        """Where a release's files are or will be here."""
        return self._cache / name

    def names(self, prefix: str = "") -> list[str]:
        """The releases that are whole, by name."""
        return [name for name, _ in self._whole() if name.startswith(prefix)]

    def fetch(self, name: str) -> Path:
        """A release's files here, each one checked.

        Raises:
            CheckpointError: It is not there, or its files are not what they were.
        """
        where = f"{self._place}/{RELEASES}/{name}"
        with told(f"Reading {where!r}"):
            try:
                text = self._read(f"{RELEASES}/{name}/{_FILES}")
            except FileNotFoundError as exc:
                raise CheckpointError(
                    f"{where!r} is not there, or was not written to its end. Deploy "
                    "again, or bring it back from the model registry."
                ) from exc
            try:
                listed = _Files.model_validate_json(text).files
            except ValidationError as exc:
                raise CheckpointError(
                    f"{where}/{_FILES} does not say what is in the release. Deploy "
                    "again, or bring it back from the model registry."
                ) from exc
            folder = self.cached(name)
            for file, expected in listed.items():
                self._fetch_file(name, file, expected, folder)
        return folder

    def put(self, name: str, folder: Path) -> None:
        """Write a release whole, and move its folder into the cache."""
        files = sorted(path for path in folder.iterdir() if path.is_file())
        listed = _Files(files={path.name: _sha256(path) for path in files})
        with told(f"Writing {self._place}/{RELEASES}/{name}"):
            self._remove(f"{RELEASES}/{name}")
            for path in files:
                self._upload(path, f"{RELEASES}/{name}/{path.name}")
            # Last: without it there is no such release.
            self._write(
                f"{RELEASES}/{name}/{_FILES}", listed.model_dump_json().encode()
            )
        place = self.cached(name)
        if place != folder:
            shutil.rmtree(place, ignore_errors=True)
            folder.rename(place)

    def forget(self, keep: int, wanted: frozenset[str]) -> None:
        """Remove all but the latest releases and those that are wanted."""
        with told(f"Removing old releases from {self._place!r}"):
            by_age = sorted(self._whole(), key=lambda one: (one[1], one[0]))
            for name, _ in by_age[:-keep]:
                if name not in wanted:
                    # Without its list it is no release, whatever else is left.
                    self._remove(f"{RELEASES}/{name}/{_FILES}")
                    self._remove(f"{RELEASES}/{name}")
                    shutil.rmtree(self.cached(name), ignore_errors=True)

    def _whole(self) -> list[tuple[str, Any]]:
        filesystem, path = filesystem_at(f"{self._place}/{RELEASES}")
        with told(f"Listing {self._place}/{RELEASES}"):
            filesystem.invalidate_cache()
            found = filesystem.find(path, detail=True)
        return sorted(
            (name.split("/")[-2], info["last_modified"])
            for name, info in found.items()
            if name.endswith(f"/{_FILES}")
        )

    def _fetch_file(self, name: str, file: str, expected: str, folder: Path) -> None:
        path = folder / file
        if path.parent != folder:
            raise CheckpointError(f"{name!r} lists {file!r}, which is no file of it.")
        if path.is_file() and _sha256(path) == expected:
            return
        content = self._read(f"{RELEASES}/{name}/{file}")
        if sha256(content).hexdigest() != expected:
            raise CheckpointError(
                f"{self._place}/{RELEASES}/{name}/{file} is not the file that was "
                "written: its SHA-256 differs. Bring the release back from the model "
                "registry, or deploy again."
            )
        with replacing(path) as temporary:
            temporary.write_bytes(content)

    def _read(self, path: str) -> bytes:
        filesystem, place = filesystem_at(f"{self._place}/{path}")
        return bytes(filesystem.cat_file(place))

    def _write(self, path: str, content: bytes) -> None:
        filesystem, place = filesystem_at(f"{self._place}/{path}")
        filesystem.pipe_file(place, content)

    def _upload(self, source: Path, path: str) -> None:
        filesystem, place = filesystem_at(f"{self._place}/{path}")
        filesystem.put_file(str(source), place, overwrite=True)

    def _remove(self, path: str) -> None:
        filesystem, place = filesystem_at(f"{self._place}/{path}")
        filesystem.invalidate_cache()
        for name in sorted(filesystem.find(place), key=lambda one: _FILES not in one):
            filesystem.rm_file(name)

    def _refuse_no_container(self, exc: FileNotFoundError) -> None:
        if "there is no container" in str(exc):
            raise EndpointError(str(exc)) from exc


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
