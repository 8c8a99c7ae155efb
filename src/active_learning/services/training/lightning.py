"""The trainer of this process: one round of Lightning."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from active_learning.errors import CheckpointError
from active_learning.imaging import ImageStore
from active_learning.learning.protocol import Classifier
from active_learning.learning.recipe import Initialization

if TYPE_CHECKING:
    from active_learning.services.training.settings import TrainingSettings

logger = logging.getLogger(__name__)

_FROM_THE_CHAMPION = ("previous", "shrink_perturb")


def train(
    *,
    training_set: pd.DataFrame,
    images: ImageStore,
    champion: Classifier | None,
    classes: list[str],
    lineage: dict[str, Any],
    settings: TrainingSettings,
    seed: int,
) -> Classifier:
    """Fine-tune an ``ImageClassifier``; see ``Trainer``.

    The same seed gives the same weights on the same hardware. An image that cannot be
    read is left out and named in the log.

    Raises:
        CheckpointError: The champion is another network than the one asked for, or
            was not trained by Lightning and is to be gone on from.
    """
    from active_learning.learning.training import fine_tune

    before = _continued(champion, settings.init)
    decoded = images.pixels(training_set["image_id"].tolist(), settings.preprocessing)
    if len(decoded.set_aside):
        logger.warning(
            "%d of %d labeled images cannot be read and are not trained on; the first "
            "is %r: %s",
            len(decoded.set_aside),
            len(training_set),
            *decoded.set_aside[["image_id", "reason"]].iloc[0],
        )
    labels = training_set.set_index("image_id")["label"].loc[decoded.image_ids]
    return fine_tune(
        champion=before,
        classes=classes,
        pixels=decoded.pixels,
        targets=pd.Categorical(labels, categories=classes).codes.astype(np.int64),
        preprocessing=settings.preprocessing,
        network=settings.network,
        initialization=settings.init,
        recipe=settings.recipe,
        hardware=settings.hardware,
        lineage=lineage,
        seed=seed,
    )


def _continued(
    champion: Classifier | None, initialization: Initialization
) -> Classifier | None:
    """The champion, where there is one and Lightning can use it."""
    from active_learning.learning.module import ImageClassifier

    if champion is None or isinstance(champion, ImageClassifier):
        return champion
    if initialization.start in _FROM_THE_CHAMPION:
        raise CheckpointError(
            f"Version {champion.version}, which is in production, is a "
            f"{champion.model_name} that Lightning did not train: it has no checkpoint "
            f"for 'train.init.start: {initialization.start}' to go on from. Set "
            "train.init.start to 'scratch' or 'pretrained' to begin anew with the same "
            "classes, or train.trainer to what trained it."
        )
    return None
