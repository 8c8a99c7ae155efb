"""What was read once: fingerprints of files, and decoded pixels, on a local disk.

Several processes write at once and hold no lock: each adds parts of its own, written
to a temporary name and renamed, and a shard of pixels is believed only once the index
beside it is there. Two that decode the same image store it twice; the first one found
counts. Too many small shards are merged into one.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from active_learning.errors import ImageError
from active_learning.imaging.pixels import (
    IntArray,
    PixelArray,
    Shard,
    UInt8Array,
    release,
)
from active_learning.imaging.preprocessing import Preprocessing
from active_learning.imaging.whole import write_whole

# NumPy drops trailing NULs of a single element but compares full widths, so arrays of
# these are safe to sort and search; take bytes out with tobytes().
Digests = NDArray[np.bytes_]

FINGERPRINT = np.dtype([("key", "S16"), ("content", "S32"), ("fitness", "u1")])

_MAX_SMALL_PARTS = 64
_SMALL_BYTES = 16 * 2**20
_FORGOTTEN_S = 3600.0

_log = logging.getLogger(__name__)


class Stack:
    """Arrays one after the other, each left where it lies: in memory or in a file."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        """Start empty, for arrays of one axis and one type."""
        self._dtype = dtype
        self._arrays: list[NDArray[Any]] = []
        self._starts = np.zeros(1, dtype=np.int64)

    def __len__(self) -> int:
        """How many elements all arrays have."""
        return int(self._starts[-1])

    def append(self, array: NDArray[Any]) -> None:
        """Put an array behind the others."""
        # A plain view: indexing a np.memmap costs several times what an array does.
        self._arrays.append(np.asarray(array))
        self._starts = np.append(self._starts, len(self) + len(array))

    def take(self, positions: IntArray) -> NDArray[Any]:
        """Copy (n,) elements."""
        which = np.searchsorted(self._starts, positions, side="right") - 1
        taken = np.empty(len(positions), dtype=self._dtype)
        for number in np.unique(which).tolist():
            chosen = which == number
            offsets = positions[chosen] - self._starts[number]
            taken[chosen] = self._arrays[number][offsets]
        return taken

    def release(self) -> None:
        """Give back the memory of those that lie in files."""
        for array in self._arrays:
            release(array)


class DigestIndex:
    """Position by digest, in the order they came; of equal digests the first counts.

    It keeps eight bytes of each digest and its position; the digests themselves stay
    where they are.

    Args:
        digests_at: Gives the (n,) digests at n positions.
    """

    def __init__(self, digests_at: Callable[[IntArray], Digests]) -> None:
        """Start empty."""
        self._digests_at = digests_at
        self._n = 0
        # Sorted runs, the oldest first, each more than twice as long as the next: what
        # comes in small portions is not sorted anew with all that came before.
        self._runs: list[tuple[NDArray[np.uint64], NDArray[np.int32]]] = []

    def extend(self, digests: Digests) -> None:
        """Add (n,) digests at the next n positions."""
        if not len(digests):
            return
        prefixes = _prefixes(digests)
        positions = np.arange(self._n, self._n + len(digests), dtype=np.int32)
        self._n += len(digests)
        while self._runs and len(self._runs[-1][0]) <= 2 * len(prefixes):
            older_prefixes, older_positions = self._runs.pop()
            prefixes = np.concatenate([older_prefixes, prefixes])
            positions = np.concatenate([older_positions, positions])
        # Stable: what came first stands first among equals and is found first.
        order = np.argsort(prefixes, kind="stable")
        self._runs.append((prefixes[order], positions[order]))

    def find(self, digests: Digests) -> IntArray:
        """(n,) positions, -1 for a digest that never came."""
        found = np.full(len(digests), -1, dtype=np.int64)
        prefixes = _prefixes(digests)
        for run in self._runs:
            left = np.flatnonzero(found < 0)
            found[left] = self._find_in(run, digests[left], prefixes[left])
        return found

    def _find_in(
        self,
        run: tuple[NDArray[np.uint64], NDArray[np.int32]],
        digests: Digests,
        prefixes: NDArray[np.uint64],
    ) -> IntArray:
        found = np.full(len(digests), -1, dtype=np.int64)
        places = np.searchsorted(run[0], prefixes)
        left = np.arange(len(digests))
        # More than one turn only where digests differ and their first bytes do not.
        while len(left := left[places[left] < len(run[0])]):
            left = left[run[0][places[left]] == prefixes[left]]
            positions = run[1][places[left]].astype(np.int64)
            equal = self._digests_at(positions) == digests[left]
            found[left[equal]] = positions[equal]
            left = left[~equal]
            places[left] += 1
        return found


class FingerprintCache:
    """Content by stamp: files that did not change need not be read to be known.

    Args:
        folder: Where the parts lie; ``None`` keeps nothing between runs.
    """

    def __init__(self, folder: Path | None) -> None:
        """Read what earlier runs left."""
        self._folder = folder
        self._records = Stack(FINGERPRINT)
        self._index = DigestIndex(lambda rows: self._records.take(rows)["key"])
        for path in _files(folder, "part-*.npy"):
            self._extend(_records(path))

    def find(self, keys: Digests) -> tuple[NDArray[np.bool_], NDArray[np.void]]:
        """Which (n,) keys are known, and the records of those that are."""
        positions = self._index.find(keys)
        known = positions >= 0
        return known, self._records.take(positions[known])

    def add(self, records: NDArray[np.void]) -> None:
        """Remember records, for later runs too."""
        if not len(records):
            return
        if self._folder is None:
            self._extend(records)
            return
        self._extend(_load(self._save(self._folder, records)))
        parts = list(_files(self._folder, "part-*.npy"))
        if len(parts) > _MAX_SMALL_PARTS:
            merged = np.concatenate([_records(path) for path in parts])
            _, first = np.unique(merged["key"], return_index=True)
            self._save(self._folder, merged[first])
            _remove(parts)

    def release(self) -> None:
        """Give back memory that the files can fill again."""
        self._records.release()

    def _save(self, folder: Path, records: NDArray[np.void]) -> Path:
        path = folder / f"part-{uuid4().hex}.npy"
        _save(path, records.shape, [records])
        return path

    def _extend(self, records: NDArray[np.void]) -> None:
        self._records.append(records)
        self._index.extend(records["key"])


class PixelCache:
    """Decoded pixels by content, for one size and number of channels.

    Args:
        folder: Where the shards lie; ``None`` keeps them in this process's memory.
        preprocessing: Uses what shapes the pixels.
        max_pixels: Images set aside under another limit are tried again.
    """

    def __init__(
        self, folder: Path | None, preprocessing: Preprocessing, max_pixels: int
    ) -> None:
        """Find what earlier runs left."""
        self._folder = folder
        self._max_pixels = max_pixels
        self._shape = (
            preprocessing.height,
            preprocessing.width,
            preprocessing.channels,
        )
        self._seen: set[str] = set()
        self._shards: list[Shard] = []
        self._contents = Stack(np.dtype("S32"))
        self._index = DigestIndex(self._contents.take)
        self.reasons: dict[bytes, str] = {}
        self.refresh()

    def find(self, contents: Digests) -> IntArray:
        """(n,) rows, -1 for content that is not there."""
        return self._index.find(contents)

    def pixels(self, rows: IntArray) -> PixelArray:
        """The images in these rows."""
        return PixelArray(self._shards, rows, self._shape)

    def refresh(self) -> None:
        """Take in what other processes decoded since."""
        for path in _files(self._folder, "shard-*.index.npy"):
            if path.name not in self._seen and (part := self._open(path)):
                self._extend(*part)
            self._seen.add(path.name)
        for path in _files(self._folder, "aside-*.json"):
            if path.name not in self._seen:
                self._seen.add(path.name)
                self._read_reasons(path)

    def add(self, contents: Digests, pixels: UInt8Array) -> None:
        """Keep (n, H, W, C) pixels under their (n,) contents."""
        if not len(contents):
            return
        if self._folder is None:
            self._extend(contents, Shard(pixels, None))
            return
        shard = self._folder / f"shard-{uuid4().hex}.npy"
        index = _index_of(shard)
        _save(shard, pixels.shape, [pixels])
        _save(index, contents.shape, [contents])
        self._seen.add(index.name)
        self._extend(_load(index), Shard.open(shard))
        self._tidy(self._folder)

    def set_aside(self, reasons: dict[bytes, str]) -> None:
        """Keep why these contents give no pixels."""
        self.reasons |= reasons
        if reasons and self._folder is not None:
            name = f"aside-{uuid4().hex}.json"
            self._seen.add(name)
            by_content = {content.hex(): text for content, text in reasons.items()}
            part = {"max_pixels": self._max_pixels, "reasons": by_content}
            write_whole(self._folder / name, [json.dumps(part).encode()])

    def release(self) -> None:
        """Give back memory that the files can fill again."""
        self._contents.release()
        for shard in self._shards:
            shard.release()

    def _extend(self, contents: Digests, shard: Shard) -> None:
        self._shards.append(shard)
        self._contents.append(contents)
        self._index.extend(contents)

    def _open(self, index: Path) -> tuple[Digests, Shard] | None:
        path = _shard_of(index)
        try:
            contents = _load(index)
            shard = Shard.open(path)
            shapes = (contents.dtype, len(contents), shard.pixels.shape[1:])
            if shapes != (np.dtype("S32"), len(shard), self._shape):
                raise ImageError(f"{path.name} and its index do not fit each other")
        except FileNotFoundError:
            return None  # merged away since the folder was listed
        except ImageError as exc:
            _drop_damaged([index, path], exc)
            return None
        return contents, shard

    def _read_reasons(self, path: Path) -> None:
        try:
            part = json.loads(path.read_bytes())
            reasons = {
                bytes.fromhex(key): text for key, text in part["reasons"].items()
            }
            limit = part["max_pixels"]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, AttributeError, TypeError) as exc:
            _drop_damaged([path], exc)
            return
        if limit == self._max_pixels:
            self.reasons |= reasons

    def _tidy(self, folder: Path) -> None:
        # Merge small shards when there are many; drop what killed writers left.
        indexes = list(_files(folder, "shard-*.index.npy"))
        small = [path for path in indexes if _size(_shard_of(path)) < _SMALL_BYTES]
        if len(small) > _MAX_SMALL_PARTS:
            self._merge(folder, small)
        whole = {path.name for index in indexes for path in (index, _shard_of(index))}
        long_ago = time.time() - _FORGOTTEN_S
        for path in folder.iterdir():
            torn = path.name.startswith("shard-") and path.name not in whole
            if torn or path.suffix == ".tmp":
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < long_ago:
                        _remove([path])

    def _merge(self, folder: Path, indexes: Sequence[Path]) -> None:
        parts = [(path, *part) for path in indexes if (part := self._open(path))]
        contents = np.concatenate([contents for _, contents, _ in parts])
        _, first = np.unique(contents, return_index=True)
        once = np.zeros(len(contents), dtype=np.bool_)
        once[first] = True
        ends = np.cumsum([len(shard) for _, _, shard in parts])
        # Two processes that merge the same shards write the same file.
        names = "".join(path.name for path, _, _ in parts)
        name = f"shard-{sha256(names.encode()).hexdigest()[:32]}"
        kept = np.split(once, ends[:-1])
        chunks = _some([shard for _, _, shard in parts], kept)
        _save(folder / f"{name}.npy", (len(first), *self._shape), chunks)
        _save(folder / f"{name}.index.npy", (len(first),), [contents[once]])
        # This process reads on from the old ones, which live while they are mapped.
        self._seen.add(f"{name}.index.npy")
        _remove([path for path, _, _ in parts])
        _remove([_shard_of(path) for path, _, _ in parts])


def _some(
    shards: Sequence[Shard], kept: Sequence[NDArray[np.bool_]]
) -> Iterator[UInt8Array]:
    """The kept pixels of one shard after the other, none held for longer."""
    for shard, rows in zip(shards, kept, strict=True):
        yield shard.pixels[rows]
        shard.release()


def _prefixes(digests: Digests) -> NDArray[np.uint64]:
    words = np.ascontiguousarray(digests).view(np.uint64)
    return words[:: digests.dtype.itemsize // 8].copy()


def _index_of(shard: Path) -> Path:
    return shard.with_name(f"{shard.stem}.index.npy")


def _shard_of(index: Path) -> Path:
    return index.with_name(index.name.removesuffix(".index.npy") + ".npy")


def _files(folder: Path | None, pattern: str) -> Iterator[Path]:
    if folder is not None and folder.is_dir():
        yield from sorted(folder.glob(pattern))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _save(path: Path, shape: tuple[int, ...], arrays: Iterable[NDArray[Any]]) -> None:
    write_whole(path, _npy(shape, arrays))


def _npy(
    shape: tuple[int, ...], arrays: Iterable[NDArray[Any]]
) -> Iterator[bytes | memoryview]:
    # Not np.save: at a full disk it says how many items were written, and not why.
    for number, array in enumerate(arrays):
        if number == 0:
            header = np.lib.format.header_data_from_array_1_0(array)
            file = BytesIO()
            np.lib.format.write_array_header_1_0(file, header | {"shape": shape})
            yield file.getvalue()
        if array.size:
            yield np.ascontiguousarray(array).view(np.uint8).data


def _load(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as exc:
        raise ImageError(f"{path.name} is damaged: {exc}") from exc
    return array


def _records(path: Path) -> NDArray[np.void]:
    try:
        records = _load(path)
        if records.dtype != FINGERPRINT or records.ndim != 1:
            raise ImageError(f"{path.name} holds no fingerprints but {records.dtype}")
    except FileNotFoundError:
        return np.empty(0, dtype=FINGERPRINT)
    except ImageError as exc:
        _drop_damaged([path], exc)
        return np.empty(0, dtype=FINGERPRINT)
    return records


def _drop_damaged(paths: Sequence[Path], why: Exception) -> None:
    _log.warning(
        "Dropped a damaged part of the image cache in %s (%s); what it held is made "
        "anew when it is needed.",
        paths[0].parent,
        why,
    )
    _remove(paths)


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        # Elsewhere than on POSIX a file that is still mapped cannot be removed.
        with suppress(OSError):
            path.unlink(missing_ok=True)
