"""The image store: bytes, fingerprints and pixels by ``image_id``."""

import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm import tqdm

from active_learning.errors import DataError, ImageError, NoImagesError
from active_learning.imaging.cache import (
    FINGERPRINT,
    Digests,
    FingerprintCache,
    PixelCache,
)
from active_learning.imaging.decode import EMPTY, NO_IMAGE, decode_many, opener
from active_learning.imaging.ids import check_image_ids
from active_learning.imaging.pixels import IntArray, PixelArray, UInt8Array
from active_learning.imaging.places import Listing, Place, Stamp, place_at
from active_learning.imaging.preprocessing import Preprocessing
from active_learning.texts import hexadecimal, to_frame

# What the first bytes of a file tell: a position in this tuple is its `fitness`.
_FITNESS = ("", EMPTY, NO_IMAGE)

_TASK = 64
# Files of a task wait for one look into the cache, unless they are so large together.
_HELD_BYTES = 1 << 20
# Threads pass the interpreter on at every file, which costs more than they bring when
# one takes less work than this, and no longer than that to come.
_WORK_S = 2e-4
_WAIT_S = 1e-3
_PROBE = 4
_CHUNK_ROWS = 16384
_CHUNK_BYTES = 64 * 2**20
_MANY = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoded:
    """Images as pixels, and those that could not be had.

    Attributes:
        image_ids: Those that decoded, in the order asked.
        pixels: As many rows, in the same order.
        set_aside: ``image_id`` and ``reason`` of the others, each once.
    """

    image_ids: list[str]
    pixels: PixelArray
    set_aside: pd.DataFrame


@dataclass(slots=True)
class _Read:
    """What reading one file gave."""

    image_id: str
    failure: DataError | None = None
    content: bytes = b""
    fitness: int = 0
    pixels: UInt8Array | None = None
    reason: str | None = None


class _View:
    """Rows of one pixel cache by the store's own numbers for its images."""

    def __init__(self, cache: PixelCache, preprocessing: Preprocessing) -> None:
        self.cache = cache
        self.preprocessing = preprocessing
        self.rows: IntArray = np.empty(0, dtype=np.int64)

    def find(self, numbers: IntArray, contents: Digests) -> IntArray:
        """(n,) rows, -1 where there is none; ``contents`` covers every number."""
        missing = len(contents) - len(self.rows)
        self.rows = np.append(self.rows, np.full(missing, -1, dtype=np.int64))
        unknown = numbers[self.rows[numbers] < 0]
        if len(unknown):
            self.rows[unknown] = self.cache.find(contents[unknown])
        found: IntArray = self.rows[numbers]
        return found


class ImageStore:
    """Images of one place, addressed by ``image_id``.

    A store is a snapshot: what it has seen of a file it does not look up again. Make
    a new one to see what changed. It may be used by several threads.

    Args:
        root: A folder, or a URL of any protocol that fsspec knows.
        cache: A local folder that keeps fingerprints and decoded pixels for every run
            and process; ``None`` keeps them in memory.
        max_pixels: An image of more is set aside and not unpacked.
        storage_options: For fsspec: accounts, credentials.
    """

    def __init__(
        self,
        root: str,
        *,
        cache: str | None,
        max_pixels: int,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        """Describe the place; nothing is read yet."""
        self.root = root
        self._cache = None if cache is None else Path(cache).absolute()
        self._max_pixels = max_pixels
        self._storage_options = storage_options
        self._lock = threading.RLock()
        self._connected: Place | None = None
        self._remembered: FingerprintCache | None = None
        self._numbers: dict[str, int] = {}
        self._contents: Digests = np.empty(0, dtype="S32")
        self._fitness: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)
        self._views: dict[str, _View] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as a description; it looks for itself there."""
        arguments = (self.root, self._cache, self._max_pixels, self._storage_options)
        return _make, arguments

    def exists(self) -> bool:
        """Whether the place is there; it may still hold no image."""
        return self._place.exists()

    def image_ids(self, under: str = "") -> list[str]:
        """Every image, sorted; what else lies there is counted in the log.

        Args:
            under: A folder of the store; only what lies below it.

        Raises:
            NoImagesError: There are none, and what to type.
        """
        return self.listing(under).image_ids

    def listing(self, under: str = "") -> Listing:
        """Images, folders, and what is neither with the reason.

        Raises:
            NoImagesError: There are no images, and what to type.
        """
        if under:
            check_image_ids([under])
        self._check_root()
        try:
            listing = self._place.listing(under)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise self._no_images(f"it has no folder {under!r}") from exc
        if not listing.image_ids:
            where = f"its folder {under!r}" if under else "it"
            raise self._no_images(f"{where} holds none{_first(listing.skipped)}")
        if listing.skipped:
            _log.info("Images in %s%s.", self.root, _first(listing.skipped))
        return listing

    def read(self, image_id: str) -> bytes:
        """A file's bytes.

        Raises:
            ImageIdError: The name leaves the store.
            ImageError: The file is not there or not to be read.
        """
        check_image_ids([image_id])
        try:
            return self._place.read(image_id)
        except DataError as exc:
            self._check_root()
            message = f"{image_id!r} in {self.root!r} cannot be read: {exc}."
            raise type(exc)(message) from exc

    def fingerprints(self, image_ids: Sequence[str]) -> list[str]:
        """SHA-256 of each file's bytes in hex, order as asked.

        A file is read once and known from then on by its size and time (or etag).

        Raises:
            ImageIdError: A name leaves the store.
            ImageError: Files are not there or not to be read: how many, which first.
        """
        with self._lock:
            failures = self._meet(image_ids, None)
            if failures:
                name, failure = next(iter(failures.items()))
                raise type(failure)(
                    f"{len(failures)} of {len(image_ids)} images in {self.root!r} "
                    f"cannot be read; the first is {name!r}: {failure}."
                )
            return _hex(self._contents[self._number(image_ids)])

    def survey(self, image_ids: Sequence[str]) -> pd.DataFrame:
        """What each file is, without decoding it.

        Returns:
            ``image_id``, ``content`` (SHA-256 in hex, empty where there is none) and
            ``reason`` (empty for what starts like an image), order as asked.
        """
        with self._lock:
            number = self._known_numbers(image_ids)
            failures: dict[str, DataError] = {}
            if (number < 0).any():
                failures = self._meet(image_ids, None)
                number = self._known_numbers(image_ids)
            there = number >= 0
            known = number[there]
            content = hexadecimal(self._contents[known].tobytes(), 32)
            reason = pa.array(_FITNESS, pa.large_string()).take(self._fitness[known])
            if failures:
                row = pa.array(np.cumsum(there) - 1, mask=~there)
                why = [str(failures.get(name, "")) for name in image_ids]
                content = content.take(row).fill_null("")
                reason = pc.coalesce(reason.take(row), pa.array(why, reason.type))
            names = np.array(image_ids, dtype=object)
            table = to_frame(pa.table({"content": content, "reason": reason}))
            table.insert(0, "image_id", names)
            return table

    def pixels(self, image_ids: Sequence[str], preprocessing: Preprocessing) -> Decoded:
        """Decoded images, each file read and decoded once for all runs.

        Raises:
            ImageIdError: A name is no place inside the store.
        """
        with self._lock:
            view = self._view(preprocessing)
            failures = self._meet(image_ids, view)
            numbers = self._known_numbers(image_ids)
            rows = np.where(numbers < 0, -1, 0)
            rows[numbers >= 0] = view.find(numbers[numbers >= 0], self._contents)
            decoded = rows >= 0
            if decoded.all():
                return Decoded(list(image_ids), view.cache.pixels(rows), _set_aside({}))
            reasons = {
                image_ids[n]: self._reason(image_ids[n], view, failures)
                for n in np.flatnonzero(~decoded).tolist()
            }
            return Decoded(
                [image_ids[n] for n in np.flatnonzero(decoded).tolist()],
                view.cache.pixels(rows[decoded]),
                _set_aside(reasons),
            )

    def forget(self) -> None:
        """Let go of what was seen of files; who asks again has it looked up again.

        For those who go through more images than they want to hold in memory. What
        was handed out stays as it is, and what the cache keeps is not read again.
        """
        with self._lock:
            self._numbers = {}
            self._contents = self._contents[:0].copy()
            self._fitness = self._fitness[:0].copy()
            for view in self._views.values():
                view.rows = view.rows[:0].copy()
                view.cache.release()
            self._fingerprints.release()

    @property
    def _place(self) -> Place:
        if self._connected is None:
            self._connected = place_at(self.root, self._storage_options)
        return self._connected

    @property
    def _fingerprints(self) -> FingerprintCache:
        if self._remembered is None:
            folder = None if self._cache is None else self._cache / "fingerprints"
            self._remembered = FingerprintCache(folder)
        return self._remembered

    def _no_images(self, why: str) -> NoImagesError:
        return NoImagesError(
            f"No images in {self.root!r}: {why}. Type `make data` for the default "
            "images, or name a folder of your own: "
            "`kedro run --params images=<folder>`."
        )

    def _check_root(self) -> None:
        if not self._place.exists():
            raise self._no_images("there is no such folder")

    def _view(self, preprocessing: Preprocessing) -> _View:
        key = preprocessing.decode_key
        if key not in self._views:
            folder = None if self._cache is None else self._cache / key
            cache = PixelCache(folder, preprocessing, self._max_pixels)
            self._views[key] = _View(cache, preprocessing)
        return self._views[key]

    def _number(self, image_ids: Iterable[str]) -> IntArray:
        numbers = self._numbers
        return np.array([numbers[name] for name in image_ids], dtype=np.int64)

    def _known_numbers(self, image_ids: Iterable[str]) -> IntArray:
        """(n,) numbers, -1 for an image that was not met or cannot be read."""
        numbers = self._numbers
        return np.array([numbers.get(name, -1) for name in image_ids], dtype=np.int64)

    def _reason(
        self, image_id: str, view: _View, failures: dict[str, DataError]
    ) -> str:
        if image_id in failures:
            return str(failures[image_id])
        number = self._numbers[image_id]
        unfit = _FITNESS[self._fitness[number]]
        return unfit or view.cache.reasons[self._content(number)]

    def _content(self, number: int) -> bytes:
        return self._contents[number : number + 1].tobytes()

    def _meet(
        self, image_ids: Sequence[str], view: _View | None
    ) -> dict[str, DataError]:
        """Know each image's content, and with ``view`` its pixels or why it has none.

        Returns:
            Why, for those that cannot be read.
        """
        new = [name for name in dict.fromkeys(image_ids) if name not in self._numbers]
        check_image_ids(new)
        failures, keys, unread = self._recall(new)
        todo = list(unread)
        if view is not None:
            known = [name for name in dict.fromkeys(image_ids) if name in self._numbers]
            todo += self._without_pixels(known, view)
        if todo:
            failures |= self._read_all(todo, keys, view)
        if failures:
            self._check_root()
        return failures

    def _recall(
        self, new: Sequence[str]
    ) -> tuple[dict[str, DataError], dict[str, bytes], list[str]]:
        """Number the images that an earlier run read and that did not change since.

        Returns:
            Why, for those that are not there; the keys under which the others will be
            remembered, where they can be; those that have to be read.
        """
        if not new:
            return {}, {}, []
        failures: dict[str, DataError] = {}
        stamped: list[str] = []
        stamps: list[Stamp] = []
        for name, stamp in zip(new, self._place.stamps(new), strict=True):
            if isinstance(stamp, Stamp):
                stamped.append(name)
                stamps.append(stamp)
            else:
                failures[name] = stamp
        # The place is part of the key: one cache may serve several.
        place = blake2b(self._place.root.encode(), digest_size=16).digest()
        keys = [
            blake2b(
                f"{name}\0{stamp.size}\0{stamp.version}".encode(),
                digest_size=16,
                key=place,
            ).digest()
            for name, stamp in zip(stamped, stamps, strict=True)
        ]
        joined = np.frombuffer(b"".join(keys), dtype="S16")
        known, records = self._fingerprints.find(joined)
        recalled = [name for name, there in zip(stamped, known, strict=True) if there]
        self._register(recalled, records["content"], records["fitness"])
        unread = [name for name, there in zip(stamped, known, strict=True) if not there]
        lasting = {
            name: key
            for name, key, stamp in zip(stamped, keys, stamps, strict=True)
            if stamp.settled
        }
        return failures, lasting, unread

    def _register(
        self,
        image_ids: Sequence[str],
        contents: Digests,
        fitness: NDArray[np.uint8],
    ) -> None:
        start = len(self._contents)
        end = start + len(image_ids)
        self._numbers.update(zip(image_ids, range(start, end), strict=True))
        self._contents = np.concatenate([self._contents, contents])
        self._fitness = np.concatenate([self._fitness, fitness])

    def _without_pixels(self, known: Sequence[str], view: _View) -> list[str]:
        numbers = self._number(known)
        if (view.find(numbers, self._contents) < 0).any():
            view.cache.refresh()
        missing = np.flatnonzero(view.find(numbers, self._contents) < 0).tolist()
        return [
            known[n]
            for n in missing
            if self._fitness[numbers[n]] == 0
            and self._content(numbers[n]) not in view.cache.reasons
        ]

    def _read_all(
        self, todo: Sequence[str], keys: dict[str, bytes], view: _View | None
    ) -> dict[str, DataError]:
        """Read files, and with ``view`` decode them, a chunk after the other.

        Returns:
            Why, for those that cannot be read.
        """
        began = time.monotonic()
        failures: dict[str, DataError] = {}
        what = "Reading" if view is None else "Decoding"
        many = len(todo) >= _MANY
        with (
            ThreadPoolExecutor(self._place.n_threads) as pool,
            tqdm(
                total=len(todo),
                desc=f"{what} images",
                unit="image",
                disable=not (many and sys.stderr.isatty()),
            ) as bar,
        ):
            for chunk in _chunks(todo, view):
                failures |= self._read_chunk(chunk, keys, view, pool, bar)
        _log.log(
            logging.INFO if many else logging.DEBUG,
            "%s %d images of %s took %.1f s; %d could not be read.",
            what,
            len(todo),
            self.root,
            time.monotonic() - began,
            len(failures),
        )
        return failures

    def _read_chunk(
        self,
        chunk: Sequence[str],
        keys: dict[str, bytes],
        view: _View | None,
        pool: ThreadPoolExecutor,
        bar: "tqdm[NoReturn]",
    ) -> dict[str, DataError]:
        if view is not None:
            view.cache.refresh()
        reads: list[_Read] = []
        for done in self._read_tasks(chunk, view, pool):
            reads += done
            bar.update(len(done))
        whole = [read for read in reads if read.failure is None]
        contents = _digests([read.content for read in whole])
        fitness = np.array([read.fitness for read in whole], dtype=np.uint8)
        if view is not None:
            fresh = {
                read.content: read.pixels for read in whole if read.pixels is not None
            }
            if fresh:
                view.cache.add(_digests(list(fresh)), np.stack(list(fresh.values())))
            view.cache.set_aside(
                {read.content: read.reason for read in whole if read.reason}
            )
        # One read again for its pixels has its number, and may have changed since.
        new = [n for n, read in enumerate(whole) if read.image_id not in self._numbers]
        old = [n for n, read in enumerate(whole) if read.image_id in self._numbers]
        numbers = self._number(whole[n].image_id for n in old)
        self._contents[numbers], self._fitness[numbers] = contents[old], fitness[old]
        self._register([whole[n].image_id for n in new], contents[new], fitness[new])
        lasting = [n for n, read in enumerate(whole) if read.image_id in keys]
        records = np.empty(len(lasting), dtype=FINGERPRINT)
        records["key"] = [keys[whole[n].image_id] for n in lasting]
        records["content"], records["fitness"] = contents[lasting], fitness[lasting]
        self._fingerprints.add(records)
        return {read.image_id: read.failure for read in reads if read.failure}

    def _read_tasks(
        self, names: Sequence[str], view: _View | None, pool: ThreadPoolExecutor
    ) -> Iterator[list[_Read]]:
        """Read files in order: in this thread, or in several once a file takes long."""
        size = max(1, min(_TASK, len(names) // (4 * self._place.n_threads)))
        starts = range(_PROBE, len(names), size)
        tasks = [names[:_PROBE], *(names[n : n + size] for n in starts)]
        for number, task in enumerate(tasks, 1):
            began, began_work = time.perf_counter(), time.thread_time()
            done = self._read_task(task, view)
            work_s = (time.thread_time() - began_work) / len(task)
            took_s = (time.perf_counter() - began) / len(task)
            yield done
            if work_s > _WORK_S or took_s > _WAIT_S:
                yield from pool.map(
                    lambda task: self._read_task(task, view), tasks[number:]
                )
                return

    def _read_task(self, names: Sequence[str], view: _View | None) -> list[_Read]:
        reads: list[_Read] = []
        held: list[tuple[_Read, bytes]] = []
        n_held = 0
        for name in names:
            try:
                data = self._place.read(name)
            except DataError as exc:
                reads.append(_Read(name, exc))
                continue
            fitness = 0 if opener(data[:12]) else 2 if data else 1
            read = _Read(name, None, sha256(data).digest(), fitness)
            reads.append(read)
            if view is not None and fitness == 0:
                held.append((read, data))
                n_held += len(data)
                if n_held > _HELD_BYTES:
                    self._decode_held(held, view)
                    n_held = 0
        if view is not None:
            self._decode_held(held, view)
        return reads

    def _decode_held(self, held: list[tuple[_Read, bytes]], view: _View) -> None:
        """Decode what no cache has, after one look for all of it."""
        rows = view.cache.find(_digests([read.content for read, _ in held]))
        new = [
            (read, data)
            for (read, data), row in zip(held, rows.tolist(), strict=True)
            if row < 0 and read.content not in view.cache.reasons
        ]
        files = [data for _, data in new]
        decoded = decode_many(files, view.preprocessing, self._max_pixels)
        for (read, _), pixels in zip(new, decoded, strict=True):
            if isinstance(pixels, ImageError):
                read.reason = str(pixels)
            else:
                read.pixels = pixels
        held.clear()


def _first(skipped: dict[str, str]) -> str:
    if not skipped:
        return ""
    name, reason = next(iter(skipped.items()))
    return f"; {len(skipped)} left out, the first is {name!r}: {reason}"


def _make(
    root: str,
    cache: Path | None,
    max_pixels: int,
    storage_options: dict[str, Any] | None,
) -> ImageStore:
    return ImageStore(
        root,
        cache=None if cache is None else str(cache),
        max_pixels=max_pixels,
        storage_options=storage_options,
    )


def _chunks(todo: Sequence[str], view: _View | None) -> Iterator[Sequence[str]]:
    size = _CHUNK_ROWS
    if view is not None:
        wanted = view.preprocessing
        bytes_each = wanted.height * wanted.width * wanted.channels
        size = max(1, min(size, _CHUNK_BYTES // bytes_each))
    starts = range(0, len(todo), size)
    # Processes that begin at once go different ways and find each other's work; the
    # pixels are the same in any order.
    for n in np.random.default_rng().permutation(len(starts)):
        yield todo[starts[n] : starts[n] + size]


def _digests(digests: Sequence[bytes]) -> Digests:
    return np.frombuffer(b"".join(digests), dtype="S32")


def _hex(digests: Digests) -> list[str]:
    joined = digests.tobytes().hex()
    return [joined[n : n + 64] for n in range(0, len(joined), 64)]


def _set_aside(reasons: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        {"image_id": list(reasons), "reason": list(reasons.values())}, dtype=object
    )
