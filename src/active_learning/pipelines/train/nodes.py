"""Nodes of ``train``."""

import logging
from typing import Any

import numpy as np
import pandas as pd

from active_learning.errors import CheckpointError, LabelsError, TestSetError
from active_learning.imaging import ImageStore
from active_learning.imaging.held_out import decode_held_out
from active_learning.learning.protocol import Classifier
from active_learning.pipelines.train.novelty import memorize, novelty
from active_learning.pipelines.train.params import TrainParams
from active_learning.schemas import fingerprint
from active_learning.services.training import trainer_named

logger = logging.getLogger(__name__)


def train_challenger(
    training_set: pd.DataFrame,
    images: ImageStore,
    champion: Classifier | None,
    test_set: pd.DataFrame,
    params: TrainParams,
    last_challenger: Classifier | None = None,
) -> Classifier:
    """Fine-tune a challenger on every label so far, where there is something to learn.

    Args:
        training_set: ``image_id``, ``label``, ``content``, ``batch_id``.
        images: Where the images are.
        champion: The model to go on from; ``None`` before the first.
        test_set: ``content`` of the images that must not be trained on.
        params: Uses all but ``evaluation_batch_size``; the seed is spread over the
            versions, so that each round draws afresh and a resumed one draws alike.
        last_challenger: What an earlier run trained, deployed or not.

    Returns:
        The challenger. Its classes are the champion's, then the new ones by name. It
        is one of the models that came in where nothing was trained: the last
        challenger if training would only repeat it, which a killed run has left to
        deploy; the champion if fewer labels than ``min_new_labels`` are new to it.

    Raises:
        TestSetError: An image of the test set, or a copy of one, would be trained on.
        LabelsError: There are no labels, or fewer than two classes of them.
        UnknownNameError: There is no such trainer.
        CheckpointError: The champion cannot be gone on from, or the trainer gave a
            model of other classes or another lineage.
    """
    _refuse_test_images(training_set, test_set)
    lineage = _lineage(training_set, champion, params)
    there = _model_that_suffices(
        training_set, champion, last_challenger, lineage, params
    )
    if there is not None:
        return there
    return _train(training_set, images, champion, lineage, params)


def _train(
    training_set: pd.DataFrame,
    images: ImageStore,
    champion: Classifier | None,
    lineage: dict[str, Any],
    params: TrainParams,
) -> Classifier:
    known = champion.classes if champion else ()
    classes = [*known, *sorted(set(training_set["label"]) - set(known))]
    if training_set.empty or len(classes) < 2:
        raise LabelsError(
            f"{len(training_set)} labels name {len(classes)} classes; a classifier "
            "needs two or more. Ingest more labels first."
        )
    entropy = [params.seed, lineage["version"]]
    seed = np.random.SeedSequence(entropy).generate_state(1)[0]
    challenger = trainer_named(params.trainer)(
        training_set=training_set,
        images=images,
        champion=champion,
        classes=classes,
        lineage=lineage,
        settings=params,
        seed=int(seed),
    )
    _refuse_another_model(challenger, classes, lineage, params.trainer)
    return challenger


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
        class, and the fingerprints ``training_set``, ``settings`` and ``test_set``;
        every figure is ``None`` without a model.

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
        "settings": model.lineage.get("settings"),
        "test_set": fingerprint(test_set),
        **measure(probabilities, test_set["label"].tolist(), model.classes),
    }


def _lineage(
    training_set: pd.DataFrame, champion: Classifier | None, params: TrainParams
) -> dict[str, Any]:
    """What decides a challenger; two of one lineage are the same model."""
    return {
        "version": champion.version + 1 if champion else 1,
        "parent": champion.version if champion else None,
        "n_labels": len(training_set),
        "training_set": fingerprint(training_set),
        "batches": sorted(set(training_set["batch_id"])),
        "labels": memorize(training_set),
        "settings": params.fingerprint,
    }


def _model_that_suffices(
    training_set: pd.DataFrame,
    champion: Classifier | None,
    last_challenger: Classifier | None,
    lineage: dict[str, Any],
    params: TrainParams,
) -> Classifier | None:
    """The model that makes training needless; ``None`` where there is none."""
    if params.min_new_labels == 0:
        return None
    if last_challenger is not None and _descends(last_challenger, lineage):
        logger.info(
            "Nothing was trained: version %d has learned from these %d labels by the "
            "same settings already, and training again would only repeat it. 'deploy' "
            "decides about it.",
            last_challenger.version,
            len(training_set),
        )
        return last_challenger
    if champion is None:
        return None
    memory = champion.lineage.get("labels")
    if not isinstance(memory, str):
        same = champion.lineage.get("training_set") == lineage["training_set"]
        memory = lineage["labels"] if same else ""
    new = novelty(training_set, memory)
    if new.total >= params.min_new_labels:
        return None
    logger.info(
        "Nothing was trained: since version %d, which is in production, %s; "
        "train.min_new_labels waits for %d. Bring in more labels, or train on what "
        "there is with '--params train.min_new_labels=0'.",
        champion.version,
        new,
        params.min_new_labels,
    )
    return champion


def _descends(model: Classifier, lineage: dict[str, Any]) -> bool:
    """Whether a model keeps a lineage; its trainer may have added to it."""
    return {name: model.lineage.get(name) for name in lineage} == lineage


def _refuse_another_model(
    challenger: Classifier, classes: list[str], lineage: dict[str, Any], trainer: str
) -> None:
    if list(challenger.classes) != classes:
        raise CheckpointError(
            f"The trainer {trainer!r} gave a model of the classes "
            f"{list(challenger.classes)}, where {classes} were asked for: a model "
            "keeps its champion's classes in order, and new ones follow."
        )
    if not _descends(challenger, lineage):
        lost = [n for n in lineage if challenger.lineage.get(n) != lineage[n]]
        raise CheckpointError(
            f"The trainer {trainer!r} gave a model that has lost {lost} of its "
            "lineage; it must keep all that it was given."
        )


def _refuse_test_images(training_set: pd.DataFrame, test_set: pd.DataFrame) -> None:
    leaks = training_set[training_set["content"].isin(set(test_set["content"]))]
    if len(leaks):
        raise TestSetError(
            f"{len(leaks)} of {len(training_set)} training images are in the frozen "
            "test set or copies of its images; the first is "
            f"image_id={leaks['image_id'].iloc[0]!r}. label-ingest rejects such "
            "labels: build the training set with it."
        )
