"""Nodes of ``train``."""

import logging
from typing import Any

import numpy as np
import pandas as pd

from active_learning.errors import LabelsError, TestSetError
from active_learning.imaging import ImageStore
from active_learning.imaging.held_out import decode_held_out
from active_learning.learning.protocol import Classifier
from active_learning.pipelines.train.params import TrainParams
from active_learning.schemas import fingerprint

logger = logging.getLogger(__name__)


def train_challenger(
    training_set: pd.DataFrame,
    images: ImageStore,
    champion: Classifier | None,
    test_set: pd.DataFrame,
    params: TrainParams,
) -> Classifier:
    """Fine-tune a challenger on every label so far.

    Args:
        training_set: ``image_id``, ``label``, ``content``.
        images: Where the images are.
        champion: The model to go on from; ``None`` before the first.
        test_set: ``content`` of the images that must not be trained on.
        params: Uses all but ``evaluation_batch_size``; the seed is spread over the
            versions, so that each round draws afresh and a resumed one draws alike.

    Returns:
        The challenger. Its classes are the champion's, then the new ones by name.

    Raises:
        TestSetError: An image of the test set, or a copy of one, would be trained on.
        LabelsError: There are no labels, or fewer than two classes of them.
    """
    from active_learning.learning.training import fine_tune

    _refuse_test_images(training_set, test_set)
    known = champion.classes if champion else ()
    classes = [*known, *sorted(set(training_set["label"]) - set(known))]
    if len(classes) < 2:
        raise LabelsError(
            f"{len(training_set)} labels name {len(classes)} classes; a classifier "
            "needs two or more. Ingest more labels first."
        )
    decoded = images.pixels(training_set["image_id"].tolist(), params.preprocessing)
    if len(decoded.set_aside):
        logger.warning(
            "%d of %d labeled images cannot be read and are not trained on; the first "
            "is %r: %s",
            len(decoded.set_aside),
            len(training_set),
            *decoded.set_aside[["image_id", "reason"]].iloc[0],
        )
    labels = training_set.set_index("image_id")["label"].loc[decoded.image_ids]
    version = champion.version + 1 if champion else 1
    lineage = {
        "version": version,
        "parent": champion.version if champion else None,
        "n_labels": len(training_set),
        "training_set": fingerprint(training_set),
        "batches": sorted(set(training_set["batch_id"])),
    }
    seed = np.random.SeedSequence([params.seed, version]).generate_state(1)[0]
    return fine_tune(
        champion=champion,
        classes=classes,
        pixels=decoded.pixels,
        targets=pd.Categorical(labels, categories=classes).codes.astype(np.int64),
        preprocessing=params.preprocessing,
        network=params.network,
        initialization=params.init,
        recipe=params.recipe,
        hardware=params.hardware,
        lineage=lineage,
        seed=int(seed),
    )


def evaluate(
    model: Classifier | None,
    test_set: pd.DataFrame,
    images: ImageStore,
    params: TrainParams,
) -> dict[str, Any]:
    """Measure a model on the frozen test set.

    Args:
        model: Champion or challenger; ``None`` when there is no champion yet.
        test_set: ``image_id``, ``label``, ``content``.
        images: Where the images are.
        params: Uses ``evaluation_batch_size`` and ``hardware.accelerator``.

    Returns:
        ``version``, ``n_labels``, ``n_test``, ``accuracy``, ``macro_f1``, ``recall`` by
        class, and the fingerprints ``training_set`` and ``test_set``; every figure is
        ``None`` without a model.

    Raises:
        TestSetError: A test image cannot be read any more.
    """
    from active_learning.learning.evaluation import measure

    if model is None:
        return {"version": None, "accuracy": None, "macro_f1": None}
    decoded = decode_held_out(images, test_set, model.preprocessing)
    probabilities = model.probabilities(
        decoded.pixels,
        params.evaluation_batch_size,
        params.hardware.accelerator,
        "Evaluating",
    )
    return {
        "version": model.version,
        "n_labels": model.lineage["n_labels"],
        "training_set": model.lineage["training_set"],
        "test_set": fingerprint(test_set),
        **measure(probabilities, test_set["label"].tolist(), model.classes),
    }


def _refuse_test_images(training_set: pd.DataFrame, test_set: pd.DataFrame) -> None:
    leaks = training_set[training_set["content"].isin(set(test_set["content"]))]
    if len(leaks):
        raise TestSetError(
            f"{len(leaks)} of {len(training_set)} training images are in the frozen "
            "test set or copies of its images; the first is "
            f"image_id={leaks['image_id'].iloc[0]!r}. label-ingest rejects such "
            "labels: build the training set with it."
        )
