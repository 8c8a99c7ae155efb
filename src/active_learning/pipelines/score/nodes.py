"""Nodes of ``score``."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime

import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from active_learning.acquisition import Float32Array
from active_learning.imaging import Decoded, ImageStore, Preprocessing
from active_learning.learning.progress import person_watches
from active_learning.learning.protocol import Classifier
from active_learning.pipelines.score.params import ScoreParams
from active_learning.schemas import EMBEDDINGS, PREDICTIONS, SET_ASIDE, empty_frame
from active_learning.services.telemetry.rows import predictions_table

logger = logging.getLogger(__name__)

# Embeddings, set aside, predictions: in the order in which they are saved.
Chunk = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]

# Images of the first chunk, where there are several: it is decoded while nobody scores.
_FIRST = 256


def score_images(
    incoming_images: pd.DataFrame,
    images: ImageStore,
    champion: Classifier | None,
    scored_images: pd.DataFrame,
    now: datetime,
    params: ScoreParams,
) -> Iterator[Chunk]:
    """Score the incoming images that this version has not scored yet.

    A chunk is decoded while the one before it is scored, and saved before the next
    one is: killed in between and run again, it goes on where it stopped. The
    predictions are saved last, since they are what counts as done.

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
    seen = scored_images.loc[
        scored_images["model_version"] == champion.version, "image_id"
    ]
    fresh = incoming_images.loc[
        ~incoming_images["image_id"].isin(seen), "image_id"
    ].tolist()
    n_scored = n_set_aside = 0
    size = params.rows_at_once(len(fresh))
    hidden = len(fresh) <= size or not person_watches()
    last: Chunk | None = None
    with tqdm(total=len(fresh), desc="Scoring", unit="image", disable=hidden) as bar:
        for decoded in _decoded(images, fresh, champion.preprocessing, size):
            if last is not None:
                _let_go(last)
            title = "Scoring" if len(fresh) <= size else ""
            last = _score(decoded, champion, now, params, title)
            n_scored += len(decoded.image_ids)
            n_set_aside += len(decoded.set_aside)
            bar.update(len(decoded.image_ids) + len(decoded.set_aside))
            yield last
    if last is None:
        yield _nothing()
    logger.info(
        "Scored %d images with version %d; %d were scored before, %d set aside",
        n_scored,
        champion.version,
        len(incoming_images) - len(fresh),
        n_set_aside,
    )


def _decoded(
    images: ImageStore, names: Sequence[str], preprocessing: Preprocessing, size: int
) -> Iterator[Decoded]:
    """Decode a chunk ahead of the one that is asked for."""

    def decode(rows: slice) -> Decoded:
        decoded = images.pixels(names[rows], preprocessing)
        images.forget()
        return decoded

    coming: Future[Decoded] | None = None
    with ThreadPoolExecutor(1) as ahead:
        for rows in _chunks(len(names), size):
            after = ahead.submit(decode, rows)
            if coming is not None:
                yield coming.result()
            coming = after
        if coming is not None:
            yield coming.result()


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
