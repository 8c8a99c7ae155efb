"""Nodes of ``score``."""

import logging
from datetime import datetime

import numpy as np
import pandas as pd

from active_learning.acquisition import FloatArray, sampling_keys, uncertainty
from active_learning.errors import CheckpointError
from active_learning.imaging import ImageStore
from active_learning.learning.protocol import Classifier
from active_learning.pipelines.score.params import ScoreParams
from active_learning.schemas import row_id

logger = logging.getLogger(__name__)


def score_images(
    incoming_images: pd.DataFrame,
    images: ImageStore,
    champion: Classifier | None,
    scored_images: pd.DataFrame,
    now: datetime,
    params: ScoreParams,
) -> tuple[pd.DataFrame, pd.DataFrame]:
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
        incoming images, and the images that could not be read: ``image_id``,
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
    probabilities = champion.probabilities(
        decoded.pixels, params.batch_size, params.accelerator, "Scoring"
    )
    predictions = _tabulate(decoded.image_ids, probabilities, champion).assign(
        source=params.source, scored_at=now
    )
    logger.info(
        "Scored %d images with version %d; %d were scored before, %d set aside",
        len(predictions),
        champion.version,
        len(incoming_images) - len(fresh),
        len(decoded.set_aside),
    )
    return predictions, decoded.set_aside


def _tabulate(
    image_ids: list[str], probabilities: FloatArray, champion: Classifier
) -> pd.DataFrame:
    predicted = probabilities.argmax(axis=1)
    names = np.array(champion.classes, dtype=object)
    model = (champion.model_name, champion.version)
    return pd.DataFrame(
        {
            "prediction_id": [row_id(name, *model) for name in image_ids],
            "image_id": image_ids,
            "label": names[predicted],
            "confidence": uncertainty.confidence(probabilities),
            "margin": uncertainty.margin(probabilities),
            "entropy": uncertainty.entropy(probabilities),
            "sampling_key": sampling_keys(image_ids, champion.version),
            "classes": [list(champion.classes)] * len(image_ids),
            "probabilities": list(probabilities),
            "model_name": champion.model_name,
            "model_version": champion.version,
        }
    )
