"""Nodes of ``score``."""

import logging
from datetime import datetime

import pandas as pd

from active_learning.errors import CheckpointError
from active_learning.imaging import ImageStore
from active_learning.learning.protocol import Classifier
from active_learning.pipelines.score.params import ScoreParams
from active_learning.schemas import EMBEDDINGS, empty_frame
from active_learning.services.telemetry.rows import predictions_table

logger = logging.getLogger(__name__)


def score_images(
    incoming_images: pd.DataFrame,
    images: ImageStore,
    champion: Classifier | None,
    scored_images: pd.DataFrame,
    now: datetime,
    params: ScoreParams,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Score the incoming images that this version has not scored yet.

    Args:
        incoming_images: ``image_id`` of what may be scored.
        images: Where they are.
        champion: The model in production.
        scored_images: Earlier predictions: ``image_id``, ``model_version``.
        now: Becomes ``scored_at``.
        params: Uses all fields.

    Returns:
        Predictions in the columns of ``schemas.PREDICTIONS``, in the order of the
        incoming images; their embeddings in those of ``schemas.EMBEDDINGS``, none
        unless asked for; and the images that could not be read: ``image_id``,
        ``reason``.

    Raises:
        CheckpointError: There is no champion yet, and how to get one.
    """
    if champion is None:
        raise CheckpointError(
            "There is no champion to score with. Ingest some labels, run "
            "'kedro run --pipelines label-ingest,train' and put the challenger that "
            "you trust in the champion's place."
        )
    seen = scored_images.loc[
        scored_images["model_version"] == champion.version, "image_id"
    ]
    fresh = incoming_images.loc[~incoming_images["image_id"].isin(seen), "image_id"]
    decoded = images.pixels(fresh.tolist(), champion.preprocessing)
    how = (decoded.pixels, params.batch_size, params.accelerator, "Scoring")
    embeddings = empty_frame(EMBEDDINGS)
    if params.embeddings:
        probabilities, vectors = champion.look(*how)
        embeddings = pd.DataFrame(
            {
                "image_id": decoded.image_ids,
                "model_version": champion.version,
                "vector": list(vectors),
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
    logger.info(
        "Scored %d images with version %d; %d were scored before, %d set aside",
        len(predictions),
        champion.version,
        len(incoming_images) - len(fresh),
        len(decoded.set_aside),
    )
    return predictions, embeddings, decoded.set_aside
