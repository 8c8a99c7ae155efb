"""Predictions on their way from a model to their table, one at a time or many.

One at a time they go through a ``Spool``: what ``collect`` returned from outlives the
process. A thread carries them on to a ``Sink`` in batches; delivery is at least once,
and every batch and row has a name by which it counts once.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from io import BytesIO
from json.encoder import encode_basestring_ascii
from pathlib import Path
from random import SystemRandom
from types import TracebackType
from typing import NamedTuple, Self
from uuid import uuid4
from weakref import WeakSet

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
from pydantic import PositiveFloat, PositiveInt, model_validator

from active_learning.errors import (
    DataError,
    PredictionsError,
    SchemaError,
    SettingsError,
    TelemetryError,
)
from active_learning.imaging.archive import ImageArchive, NamedImage
from active_learning.imaging.archivist import Archivist
from active_learning.imaging.ids import check_image_ids
from active_learning.imaging.waiting import Archived, archive_images
from active_learning.parameters import Parameters
from active_learning.schemas import PREDICTIONS, to_arrow
from active_learning.services.telemetry import Sink
from active_learning.services.telemetry.parts import batch_name, once
from active_learning.services.telemetry.rows import (
    check_rows,
    check_time,
    completed,
    is_vector,
    what_it_holds,
)
from active_learning.services.telemetry.spool import Spool

logger = logging.getLogger(__name__)

_TABLE = "predictions"
_KEY = ("prediction_id",)
_random = SystemRandom()
# Bytes of images that are handed over; fewer are sooner archived than told of.
_WORTH_A_PROCESS = 1 << 16


class CollectorSettings(Parameters):
    """How predictions travel. No defaults here: ``conf/base`` is their one home.

    ``batch_rows`` go from the spool to the table at once, every ``linger_s`` or sooner
    when so many wait. A table that is away is tried again after ``back_off_min_s``,
    then ever later up to ``back_off_max_s``. A frame is appended in parts of
    ``part_rows``.
    """

    batch_rows: PositiveInt
    linger_s: PositiveFloat
    back_off_min_s: PositiveFloat
    back_off_max_s: PositiveFloat
    part_rows: PositiveInt

    @model_validator(mode="after")
    def _shortest_before_longest(self) -> Self:
        if self.back_off_min_s > self.back_off_max_s:
            raise ValueError(
                f"back_off_min_s={self.back_off_min_s} is longer than "
                f"back_off_max_s={self.back_off_max_s}"
            )
        return self


class Prediction(NamedTuple):
    """One answer on its way to a row of ``schemas.PREDICTIONS``; ``of`` makes it.

    What follows from these is worked out when the row is delivered, many at once: a
    caller waits for what is here and for no more.
    """

    prediction_id: str
    image_id: str
    source: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    model_name: str
    model_version: int
    scored_at: str

    @classmethod
    def of(
        cls,
        image_id: str | None,
        probabilities: Sequence[float],
        classes: Sequence[str],
        model_name: str,
        model_version: int,
        source: str,
        scored_at: datetime,
        prediction_id: str | None = None,
    ) -> Self:
        """Check one answer.

        Args:
            image_id: In the store; ``None`` for an image that ``collect`` is to
                archive.
            probabilities: One for each class.
            classes: Their names.
            model_name: Said it.
            model_version: Said it.
            source: ``online``, ``batch`` or ``simulation``.
            scored_at: With its time zone.
            prediction_id: A retry carries the one it had; ``None`` is a new one.

        Raises:
            PredictionsError: It is no probability vector over the classes.
            ImageIdError: The name is no place inside the image store.
            SchemaError: ``scored_at`` has no time zone, or the id is empty.
        """
        # Plain Python: for one row NumPy takes ten times as long.
        values = tuple(map(float, probabilities))
        whose = "A prediction" if image_id is None else f"image_id={image_id!r}"
        if len(values) != len(classes) or not values:
            raise PredictionsError(
                f"{whose} came with {len(values)} probabilities for {len(classes)} "
                "classes. Give one for each class."
            )
        low, total = min(values), sum(values)
        if not is_vector(low, total):
            raise PredictionsError(
                f"{whose} came with no probability vector but numbers "
                f"{what_it_holds(low, total)}"
            )
        if image_id is not None:
            check_image_ids([image_id])
        check_time(scored_at)
        if prediction_id == "":
            raise SchemaError(f"{whose} came with an empty prediction_id.")
        return cls(
            prediction_id=prediction_id or uuid4().hex,
            image_id=image_id or "",
            source=source,
            classes=tuple(classes),
            probabilities=values,
            model_name=model_name,
            model_version=model_version,
            scored_at=_iso(scored_at),
        )

    def to_json(self) -> str:
        """One line, as the spool keeps it."""
        # By hand: json.dumps takes twice as long, and a caller waits for it.
        shared = _shared(self.source, self.classes, self.model_name, self.model_version)
        return (
            f'{{"prediction_id": {encode_basestring_ascii(self.prediction_id)}, '
            f'"image_id": {encode_basestring_ascii(self.image_id)}, '
            f'"probabilities": {list(self.probabilities)}, '
            f'"scored_at": "{self.scored_at}", {shared[1:]}'
        )


@lru_cache(maxsize=32)
def _shared(
    source: str, classes: tuple[str, ...], model_name: str, model_version: int
) -> str:
    """The part of a line that all answers of one model have in common."""
    return json.dumps(
        {
            "source": source,
            "classes": classes,
            "model_name": model_name,
            "model_version": model_version,
        }
    )


class Collector:
    """Takes predictions; loses none that it acknowledged.

    Processes of a machine share a spool, each with a collector of its own; one of them
    at a time delivers for all. The thread that does so starts with the first
    prediction, so that a server may fork its workers before or after it makes one.

    Args:
        spool: Where predictions wait; ``close`` closes it.
        sink: Where they go.
        settings: How.
        archive: Gets images that come with predictions; the thread takes them there
            before their rows go to the sink.
    """

    _thread: threading.Thread | None
    _not_before: float
    _until: float
    _starting: threading.Lock
    _draining: threading.Lock
    _counting: threading.Lock
    _closing: threading.Event

    def __init__(
        self,
        spool: Spool,
        sink: Sink,
        settings: CollectorSettings,
        archive: ImageArchive | None = None,
    ) -> None:
        """Describe the way; nothing is touched yet."""
        self._spool = spool
        self._sink = sink
        self._settings = settings
        self._archive = archive
        self._archivist = Archivist(spool.power_cut_safe)
        self._counts = {"spooled": 0, "delivered": 0, "rejected": 0}
        self._last_error: str | None = None
        self._renew_threading()
        _collectors.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(self._settings.back_off_max_s)

    def collect(
        self, prediction: Prediction, image: bytes | NamedImage | None = None
    ) -> str:
        """Keep one prediction; when this returns, it will get to its table.

        Args:
            prediction: As ``Prediction.of`` gives it.
            image: The file it speaks of, if it is not in the store yet. It will be
                archived before the row gets to its table, and the row bears its name.

        Returns:
            Its ``prediction_id``: the acknowledgement.

        Raises:
            SpoolFullError: There is no room; it was not collected, and the answer is
                still good.
            TelemetryError: The spool cannot be used; likewise.
            ImageError: The image is none that a store reads.
            ImageIdError: There is neither a name nor an image.
            SettingsError: There is an image and no archive.
        """
        if isinstance(image, bytes):
            image = self._named(image)
        if image is not None:
            prediction = prediction._replace(image_id=image.image_id)
        elif not prediction.image_id:
            check_image_ids([prediction.image_id])
        self._spool.put([prediction.to_json()], image)
        self._count("spooled", 1)
        self.start()
        return prediction.prediction_id

    def waiting_image(self, image_id: str) -> bytes | None:
        """An image that came with a prediction and is not in its archive yet."""
        if self._archive is None:
            return None
        return self._spool.waiting_image(self._archive.root, image_id)

    def collect_batch(self, predictions: pa.Table | pd.DataFrame) -> int:
        """Append many predictions at once, past the spool.

        The same rows in the same order count once, however often they come.

        Args:
            predictions: In the columns of ``schemas.PREDICTIONS``.

        Returns:
            How many rows they are.

        Raises:
            DataError: A row that no reader should see; none was appended.
            SinkAwayError: The table cannot be reached now; send the same rows again.
        """
        rows = _as_table(predictions)
        check_rows(rows)
        n_rows: int = rows.num_rows
        for start in range(0, n_rows, self._settings.part_rows):
            part = rows.slice(start, self._settings.part_rows)
            self._sink.append(_TABLE, part, f"batch-{batch_name(part, _KEY)}")
            self._count("delivered", part.num_rows)
        return n_rows

    def start(self) -> None:
        """Begin to deliver in the background, unless it is under way."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._starting:
            if self._closing.is_set() or (self._thread and self._thread.is_alive()):
                return
            if time.monotonic() < self._not_before:
                return
            self._not_before = time.monotonic() + self._settings.back_off_max_s
            self._thread = threading.Thread(
                target=self._deliver_always, name="collector", daemon=True
            )
            self._thread.start()

    def drain_once(self) -> int:
        """Deliver one batch of what waits, whoever spooled it.

        Returns:
            How many rows left the spool; 0 when none waits, or while another process
            delivers.

        Raises:
            SinkAwayError: The table cannot be reached now; the rows stay.
            OSError: Likewise, or the store of their images.
        """
        return self._drain(self._archive_here)

    def _drain(self, archive: Callable[[Path], Archived]) -> int:
        with self._draining:
            claim = self._spool.claim(self._settings.batch_rows)
            if claim is None:
                return 0
            try:
                self._spool.archive_images(archive)
                rows, places, rejected = parse_rows(claim.rows)
                refused = self._deliver(rows, claim.batch)
                rejected |= {places[n]: reason for n, reason in refused.items()}
                self._spool.done(claim, rejected)
            finally:
                self._spool.release()
        for place, reason in rejected.items():
            logger.error(
                "A collected prediction will never fit its table and was put among the "
                "rejected of %s: %s; it is %.200s",
                self._spool.path,
                reason,
                claim.rows[place],
            )
        self._count("rejected", len(rejected))
        self._count("delivered", len(claim.rows) - len(rejected))
        return len(claim.rows)

    def close(self, timeout_s: float) -> int:
        """Deliver what can be, within a time.

        Returns:
            How many rows stay in the spool; the next process to use it delivers them.
        """
        self._until = time.monotonic() + timeout_s
        with self._starting:
            self._closing.set()
        if self._thread is not None and self._thread.is_alive():
            # It archives here what was under way there: that is sooner done.
            self._archivist.interrupt()
            self._thread.join(timeout_s)
        else:
            self._flush()
        stay = len(self._spool)
        if stay:
            logger.warning(
                "%d predictions stay in the spool %s; the next process that uses it "
                "delivers them",
                stay,
                self._spool.path,
            )
        # A thread still at a batch keeps its lock, or another would send it too.
        if self._thread is None or not self._thread.is_alive():
            self._spool.close()
        return stay

    def status(self) -> dict[str, int | bool | str | None]:
        """What a health check shows; counts are this process's own.

        Returns:
            ``waiting`` of at most ``capacity`` in the spool, ``spooled``,
            ``delivered``, ``rejected``, ``damaged`` spool files that were set aside,
            whether the thread is ``running``, and the ``last_error``: its kind and
            the system's word for it, as its text might hold a secret.
        """
        return {
            "waiting": len(self._spool),
            "capacity": self._spool.max_rows,
            **self._counts,
            "damaged": len(self._spool.damaged()),
            "running": self._thread is not None and self._thread.is_alive(),
            "last_error": self._last_error,
        }

    def _named(self, image: bytes) -> NamedImage:
        if self._archive is None:
            raise SettingsError(
                "An image came with a prediction and there is no archive to keep it. "
                "Give the collector one, or send the image_id alone."
            )
        return self._archive.named(image)

    def _archive_here(self, path: Path) -> Archived:
        return archive_images(path, self._archive_at)

    def _archive_beside(self, path: Path) -> Archived:
        """In a process of its own, where that is worth it and the store a folder.

        Waiting for a remote store, a thread is in nobody's way; and another process
        does not know how to reach it.
        """
        remote = self._archive is not None and not self._archive.is_local
        few = path.stat().st_size < _WORTH_A_PROCESS
        if remote or few or self._closing.is_set():
            return self._archive_here(path)
        return self._archivist.archive(path)

    def _archive_at(self, root: str) -> ImageArchive:
        """Our own, or that of another collector which shared the spool."""
        if self._archive is not None and self._archive.root == root:
            return self._archive
        return ImageArchive(root, power_cut_safe=self._spool.power_cut_safe)

    def _deliver_always(self) -> None:
        back_off_s = self._settings.back_off_min_s
        try:
            while not self._closing.is_set():
                try:
                    n_rows = self._drain(self._archive_beside)
                except (TelemetryError, OSError) as exc:
                    if self._closing.is_set():
                        break
                    self._note(exc)
                    self._closing.wait(_random.uniform(back_off_s / 2, back_off_s))
                    back_off_s = min(2 * back_off_s, self._settings.back_off_max_s)
                    continue
                back_off_s = self._settings.back_off_min_s
                if n_rows < self._settings.batch_rows:
                    self._closing.wait(self._settings.linger_s)
            self._flush()
        except BaseException as exc:
            self._note(exc)
            raise
        finally:
            self._archivist.close()

    def _flush(self) -> None:
        try:
            while time.monotonic() < self._until and self.drain_once():
                pass
        except (TelemetryError, OSError) as exc:
            self._note(exc)

    def _deliver(self, rows: pa.Table, batch: str) -> dict[int, str]:
        """Append rows; the sink's refusal is halved until it is known whose it is.

        Returns:
            The refused, by their number in ``rows``, and why.
        """
        if not rows.num_rows:
            return {}
        try:
            self._sink.append(_TABLE, rows, batch)
        except SchemaError as exc:
            if rows.num_rows == 1:
                return {0: str(exc)}
        else:
            return {}
        half = rows.num_rows // 2
        refused = self._deliver(rows.slice(0, half), f"{batch}.0")
        later = self._deliver(rows.slice(half), f"{batch}.1")
        return refused | {half + n: reason for n, reason in later.items()}

    def _note(self, exc: BaseException) -> None:
        kind = type(exc).__name__
        number = exc.errno if isinstance(exc, OSError) else None
        self._last_error = f"{kind}: {os.strerror(number)}" if number else kind
        logger.warning("Collected predictions wait for another try: %s", exc)

    def _count(self, what: str, n: int) -> None:
        with self._counting:
            self._counts[what] += n

    def _renew_threading(self) -> None:
        """Threads and locks of this process; a fork copies locks as they are."""
        self._thread = None
        self._not_before = 0.0
        self._until = 0.0
        self._starting = threading.Lock()
        self._draining = threading.Lock()
        self._counting = threading.Lock()
        self._closing = threading.Event()


def _iso(moment: datetime) -> str:
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return f"{utc.isoformat(timespec='microseconds')[:-6]}Z"


def _as_table(predictions: pa.Table | pd.DataFrame) -> pa.Table:
    if isinstance(predictions, pd.DataFrame):
        return to_arrow(predictions, PREDICTIONS)
    names = set(predictions.column_names)
    if names != set(PREDICTIONS.names):
        check_rows(predictions)  # names what is missing or unknown
    try:
        return predictions.select(PREDICTIONS.names).cast(PREDICTIONS)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:
        raise SchemaError(f"A column does not fit its type: {exc}") from exc


def parse_rows(
    texts: Sequence[str],
) -> tuple[pa.Table, list[int], dict[int, str]]:
    """Turn spooled texts into rows.

    Returns:
        The rows, each id once; the place of each in ``texts``; the places of those that
        no table takes, and why.
    """
    numbers = list(range(len(texts)))
    rejected: dict[int, str] = {}
    try:
        rows = _checked(texts, numbers)
    except DataError:
        good = []
        for number in numbers:
            try:
                good.append(_checked([texts[number]], [number]))
            except DataError as exc:
                rejected[number] = str(exc)
        rows = pa.concat_tables(good) if good else _numbered(_read([]), [])
        rows = once(rows, _KEY)
    places = rows.column(_PLACE).to_pylist()
    return rows.drop_columns(_PLACE), places, rejected


_PLACE = "_place"


def _checked(texts: Sequence[str], numbers: Sequence[int]) -> pa.Table:
    rows = completed(_read(texts))
    places = pa.array(numbers, pa.int64())
    ids = rows.column(*_KEY)
    # Hardly ever is one there twice, and this is told sooner than which.
    if pc.count_distinct(ids).as_py() < rows.num_rows:
        numbered = once(rows.append_column(_PLACE, places), _KEY)
        rows, places = numbered.drop_columns(_PLACE), numbered.column(_PLACE)
    check_rows(rows)
    return rows.append_column(_PLACE, places)


def _numbered(rows: pa.Table, numbers: Iterable[int]) -> pa.Table:
    return rows.append_column(_PLACE, pa.array(numbers, pa.int64()))


def _read(texts: Sequence[str]) -> pa.Table:
    if not texts:
        return PREDICTIONS.empty_table()
    if any("\n" in text for text in texts):
        raise SchemaError("It is no row of a prediction: it is more than one line.")
    lines = "\n".join(texts).encode()
    try:
        rows = pj.read_json(
            BytesIO(lines),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(lines) + 1),
            parse_options=pj.ParseOptions(
                explicit_schema=PREDICTIONS, unexpected_field_behavior="error"
            ),
        ).select(PREDICTIONS.names)
    except pa.ArrowInvalid as exc:
        raise SchemaError(f"It is no row of a prediction: {exc}") from exc
    if rows.num_rows != len(texts):
        raise SchemaError(f"{len(texts)} texts hold {rows.num_rows} predictions.")
    return rows


_collectors: "WeakSet[Collector]" = WeakSet()


def _after_fork_in_child() -> None:
    for collector in list(_collectors):
        collector._renew_threading()


os.register_at_fork(after_in_child=_after_fork_in_child)
