"""Nodes of ``start``."""

import logging
from datetime import datetime

import numpy as np
import pandas as pd

from active_learning.acquisition import sampling_keys
from active_learning.errors import NoImagesError
from active_learning.imaging import ImageStore
from active_learning.pipelines.start.params import StartParams
from active_learning.schemas import LABEL_REQUESTS, empty_frame, row_id
from active_learning.texts import among

logger = logging.getLogger(__name__)


def draw_first(
    incoming_images: pd.DataFrame,
    known_labels: pd.DataFrame,
    past_requests: pd.DataFrame,
    test_set: pd.DataFrame,
    images: ImageStore,
    now: datetime,
    params: StartParams,
) -> pd.DataFrame:
    """Draw the images of the first model blindly.

    Args:
        incoming_images: ``image_id`` of what may be asked for.
        known_labels: Where there is a label, the project has begun.
        past_requests: Likewise.
        test_set: ``content`` of the images that no round may ask for.
        images: Where the images are.
        now: Becomes ``requested_at``.
        params: Uses all fields.

    Returns:
        Requests of round 0 in the columns of ``schemas.LABEL_REQUESTS`` with an empty
        ``predicted_label``, in the order of their keys: readable images outside of the
        test set, uniformly drawn. None in a project that has begun.

    Raises:
        NoImagesError: Not one image can be asked for.
    """
    nothing = empty_frame(LABEL_REQUESTS).assign(predicted_label="")
    if len(known_labels) or len(past_requests):
        logger.info(
            "%d labels and %d requests are there: nothing is drawn to start with",
            len(known_labels),
            len(past_requests),
        )
        return nothing
    keyed = incoming_images[["image_id"]].assign(
        utility=sampling_keys(incoming_images["image_id"], params.seed)
    )
    drawn = _usable(
        keyed.sort_values(["utility", "image_id"]), test_set, images, params
    )
    if drawn.empty:
        raise NoImagesError(
            f"None of {len(incoming_images)} images can be asked for: each is in the "
            "frozen test set or cannot be read. Put more images beside them."
        )
    if len(drawn) < params.labels:
        logger.warning(
            "Only %d of %d images can be asked for", len(drawn), params.labels
        )
    population = len(incoming_images)
    return drawn.assign(
        request_id=[row_id(name, 0) for name in drawn["image_id"]],
        round=0,
        strategy="random",
        rank=range(1, len(drawn) + 1),
        propensity=len(drawn) / population,
        population=population,
        audit=False,
        model_name="",
        model_version=0,
        requested_at=pd.Timestamp(now),
        predicted_label="",
    )[nothing.columns]


def _usable(
    keyed: pd.DataFrame, test_set: pd.DataFrame, images: ImageStore, params: StartParams
) -> pd.DataFrame:
    """The first rows that may be asked for, reading no more files than that takes."""
    parts = [keyed.head(0)]
    step = 2 * params.labels
    for start in range(0, len(keyed), step):
        rows = keyed.iloc[start : start + step]
        found = images.survey(rows["image_id"].tolist()).set_index("image_id")
        found = found.loc[rows["image_id"]]
        fit = (found["reason"] == "").to_numpy(dtype=np.bool_)
        fit &= ~among(found["content"], test_set["content"])
        parts.append(rows[fit])
        if sum(map(len, parts)) >= params.labels:
            break
    return pd.concat(parts, ignore_index=True).head(params.labels)
