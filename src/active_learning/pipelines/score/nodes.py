"""Nodes of ``score``."""

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from active_learning.acquisition import Float32Array
from active_learning.imaging import Decoded, ImageStore
from active_learning.learning.progress import person_watches
from active_learning.learning.protocol import Classifier
from active_learning.pipelines.score.params import ScoreParams
from active_learning.schemas import (
    EMBEDDINGS,
    PREDICTIONS,
    SET_ASIDE,
    empty_frame,
    to_arrow,
)
from active_learning.services.telemetry.rows import predictions_table

logger = logging.getLogger(__name__)

# Embeddings, set aside, predictions: in the order in which they are saved.
Chunk = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]

# Images of the first chunk, where there are several: it is decoded while nobody scores.
_FIRST = 256

# Chunks that wait or are decoded while one is scored and saved.
_AHEAD = 2

_NAMES = pa.schema([("image_id", pa.string())])


def score_images(
    incoming_images: pd.DataFrame,
    images: ImageStore,
    champion: Classifier | None,
    scored_images: pd.DataFrame,
    now: datetime,
    params: ScoreParams,
) -> Iterator[Chunk]:
    """Score the incoming images that this version has not scored yet.

    The next chunks are decoded while one is scored and saved; it is saved before the
    next one is scored: killed in between and run again, it goes on where it stopped.
    The predictions are saved last, since they are what counts as done.

    Args:
        incoming_images: ``image_id`` of what may be scored.
        images: Where they are.
        champion: The model in production; before the first one nothing is scored.
        scored_images: Earlier predictions: ``image_id``, ``model_version``.
        now: Becomes ``scored_at``.
        params: Uses all fields.

    Yields:
        One chunk or more, in the order of the incoming images: embeddings in the
        columns of ``schemas.EMBEDDINGS``, none unless asked for; the images that could
        not be read, ``image_id`` and ``reason``; predictions in the columns of
        ``schemas.PREDICTIONS``. A chunk is emptied when the next one is asked for.
    """
    if champion is None:
        logger.warning(
            "There is no champion to score with, so nothing was scored. 'kedro run "
            "--pipelines start' asks for the first labels, 'kedro run --pipelines "
            "label-ingest,train,deploy' makes a champion of the answers."
        )
        yield _nothing()
        return
    fresh = _fresh(incoming_images, scored_images, champion.version)
    n_scored = n_set_aside = 0
    hidden = len(fresh) <= params.rows_at_once(len(fresh)) or not person_watches()
    with tqdm(total=len(fresh), desc="Scoring", unit="image", disable=hidden) as bar:
        for chunk in _scored(fresh, images, champion, now, params):
            _, set_aside, predictions = chunk
            n_scored += len(predictions)
            n_set_aside += len(set_aside)
            bar.update(len(predictions) + len(set_aside))
            yield chunk
    if not len(fresh):
        yield _nothing()
    logger.info(
        "Scored %d images with version %d; %d were scored before, %d set aside",
        n_scored,
        champion.version,
        len(incoming_images) - len(fresh),
        n_set_aside,
    )


def _scored(
    names: pa.ChunkedArray,
    images: ImageStore,
    champion: Classifier,
    now: datetime,
    params: ScoreParams,
) -> Iterator[Chunk]:
    """Chunk after chunk; the next ones are decoded while one is scored and saved."""
    size = params.rows_at_once(len(names))
    title = "Scoring" if len(names) <= size else ""

    def decode(rows: slice) -> Decoded:
        decoded = images.pixels(names[rows].to_pylist(), champion.preprocessing)
        # A simulation comes back to its images round after round.
        if params.source != "simulation":
            images.forget()
        return decoded

    chunks = _chunks(len(names), size)
    with ThreadPoolExecutor(1) as ahead:
        coming = deque(ahead.submit(decode, rows) for rows in islice(chunks, _AHEAD))
        while coming:
            chunk = _score(coming.popleft().result(), champion, now, params, title)
            # Not before: a chunk is saved by one thread, while the other cores rest.
            coming.extend(ahead.submit(decode, rows) for rows in islice(chunks, 1))
            yield chunk
            if coming:
                _let_go(chunk)


def _fresh(
    incoming_images: pd.DataFrame, scored_images: pd.DataFrame, version: int
) -> pa.ChunkedArray:
    """The names that this version has not scored, in their order.

    As Arrow keeps them: a Python text takes five times the memory.
    """
    by_this = scored_images.loc[scored_images["model_version"] == version]
    names, seen = (
        to_arrow(frame[["image_id"]], _NAMES).column("image_id")
        for frame in (incoming_images, by_this)
    )
    return names.filter(pc.invert(pc.is_in(names, seen)))


def _chunks(n: int, size: int) -> Iterator[slice]:
    """The rows of each chunk; of many, the first are smaller.

    Nobody scores while the first one is decoded.
    """
    step = min(size, _FIRST) if n > size else size
    start = 0
    while start < n:
        yield slice(start, start + step)
        start += step
        step = min(size, 2 * step)


def _score(
    decoded: Decoded,
    champion: Classifier,
    now: datetime,
    params: ScoreParams,
    title: str,
) -> Chunk:
    how = (decoded.pixels, params.batch_size, params.accelerator, title)
    embeddings = empty_frame(EMBEDDINGS)
    if params.embeddings:
        probabilities, vectors = champion.look(*how)
        embeddings = pd.DataFrame(
            {
                "image_id": decoded.image_ids,
                "model_version": champion.version,
                "vector": _lists(vectors),
            }
        )
    else:
        probabilities = champion.probabilities(*how)
    predictions = predictions_table(
        decoded.image_ids,
        probabilities,
        champion.classes,
        champion.model_name,
        champion.version,
        params.source,
        now,
    ).to_pandas()
    return embeddings, decoded.set_aside, predictions


def _lists(vectors: Float32Array) -> pd.api.extensions.ExtensionArray:
    """A list for each row, over the array's own memory."""
    # Not list(vectors): saving an array for each row takes several times the memory.
    values = pa.array(vectors.reshape(-1))
    rows = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])
    return pd.arrays.ArrowExtensionArray(rows.cast(pa.list_(pa.float32())))


def _nothing() -> Chunk:
    return empty_frame(EMBEDDINGS), empty_frame(SET_ASIDE), empty_frame(PREDICTIONS)


def _let_go(chunk: Chunk) -> None:
    """Give back the memory of a chunk that is saved."""
    # Kedro's way from a node to several datasets holds on to 57 chunks.
    for frame in chunk:
        frame.drop(index=frame.index, inplace=True)
    # What writing Parquet took, Arrow would keep for the next time.
    pa.default_memory_pool().release_unused()
