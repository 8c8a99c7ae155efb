"""Nodes of ``label-ingest``."""

import logging
from collections.abc import Mapping
from datetime import datetime
from difflib import get_close_matches

import pandas as pd

from active_learning.imaging import ImageStore
from active_learning.imaging.ids import flaw
from active_learning.pipelines.label_ingest.params import LabelIngestParams
from active_learning.schemas import (
    LABELS,
    REJECTED_LABELS,
    TRAINING_SET,
    empty_frame,
    row_id,
)

logger = logging.getLogger(__name__)


def gather_answers(
    label_exports: Mapping[str, pd.DataFrame],
    label_requests: pd.DataFrame,
    known_labels: pd.DataFrame,
) -> pd.DataFrame:
    """Put all exports below each other and leave out what is known already.

    Args:
        label_exports: Answers by batch: at least ``image_id`` and ``label``; also
            ``labeler``, ``labeled_at``, ``source`` and ``request_id`` where known.
        label_requests: An answer that does not name its request is taken for one to
            the latest request of its image; without any it is unsolicited.
        known_labels: Labels of earlier runs.

    Returns:
        Answers in the columns of ``schemas.LABELS``, in the order of the batches'
        names. An answer's id comes from what it says, not from the batch that brought
        it, so the same answer in two exports is one label.
    """
    frames = [
        frame.reindex(columns=LABELS.names).assign(batch_id=batch_id)
        for batch_id, frame in sorted(label_exports.items())
    ]
    answers = pd.concat([empty_frame(LABELS), *frames], ignore_index=True)
    for column in ("image_id", "label", "labeler", "source", "request_id"):
        answers[column] = answers[column].fillna("").astype(str).str.strip()
    answers["labeled_at"] = pd.to_datetime(answers["labeled_at"], utc=True)
    identity = zip(
        answers["image_id"],
        answers["label"],
        answers["labeler"],
        answers["labeled_at"],
        answers["request_id"],
        strict=True,
    )
    answers["label_id"] = [row_id(*parts) for parts in identity]
    answers = answers.drop_duplicates("label_id")
    latest = label_requests.sort_values("round").drop_duplicates(
        "image_id", keep="last"
    )
    asked = answers["image_id"].map(latest.set_index("image_id")["request_id"])
    named = answers["request_id"] != ""
    answers["request_id"] = answers["request_id"].where(named, asked.fillna(""))
    return answers[~answers["label_id"].isin(known_labels["label_id"])]


def check_answers(
    answers: pd.DataFrame,
    test_set: pd.DataFrame,
    images: ImageStore,
    now: datetime,
    params: LabelIngestParams,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part the labels to learn from from those to look at again.

    Args:
        answers: New answers in the columns of ``schemas.LABELS``.
        test_set: ``content`` of the images that are never trained on.
        images: Where the labeled images are.
        now: Becomes ``rejected_at``, and ``labeled_at`` where an answer has no time.
        params: Uses ``classes``.

    Returns:
        The labels, and the rejected answers with the reason of each. Together they
        are as many as the answers.
    """
    flaws = answers["image_id"].map(lambda name: flaw(name) or "")
    found = images.survey(answers.loc[flaws == "", "image_id"].tolist())
    content = dict(zip(found["image_id"], found["content"], strict=True))
    unfit = dict(zip(found["image_id"], found["reason"], strict=True))
    held_out = set(test_set["content"])
    reasons = [
        _reason(label, content.get(name, ""), no_place or unfit[name], held_out, params)
        for name, label, no_place in zip(
            answers["image_id"], answers["label"], flaws, strict=True
        )
    ]
    judged = answers.assign(
        reason=reasons, labeled_at=answers["labeled_at"].fillna(pd.Timestamp(now))
    )
    good = judged[judged["reason"] == ""]
    bad = judged[judged["reason"] != ""].assign(rejected_at=pd.Timestamp(now))
    logger.info(
        "%d new answers: %d labels, %d rejected%s",
        len(judged),
        len(good),
        len(bad),
        f"; the first: {bad['reason'].iloc[0]}" if len(bad) else "",
    )
    return good[LABELS.names], bad[REJECTED_LABELS.names]


def build_training_set(
    known_labels: pd.DataFrame, labels: pd.DataFrame, images: ImageStore
) -> pd.DataFrame:
    """Take the latest label of each image that was ever labeled.

    Args:
        known_labels: Labels of earlier runs.
        labels: The new ones.
        images: Where the labeled images are.

    Returns:
        One row per image in the columns of ``schemas.TRAINING_SET``, by ``image_id``:
        the label, the answer it came from and the SHA-256 of the image's file.
    """
    known = known_labels[LABELS.names]
    every = pd.concat([known, labels] if len(known) else [labels], ignore_index=True)
    latest = (
        every.sort_values(["labeled_at", "label_id"])
        .drop_duplicates("image_id", keep="last")
        .sort_values("image_id", ignore_index=True)
    )
    contents = images.fingerprints(latest["image_id"].tolist())
    training_set: pd.DataFrame = latest.assign(content=contents)[TRAINING_SET.names]
    return training_set


def _reason(
    label: str,
    content: str,
    unfit: str,
    held_out: set[str],
    params: LabelIngestParams,
) -> str:
    """Why an answer cannot be learned from; empty when it can."""
    if unfit:
        return f"the image cannot be used: {unfit}"
    if not label:
        return "the label is empty"
    if params.classes is not None and label not in params.classes:
        near = get_close_matches(label, params.classes, n=1)
        hint = f"; did the labeler mean {near[0]!r}?" if near else ""
        return f"{label!r} is not among label_ingest.classes{hint}"
    if content in held_out:
        return "the image is in the frozen test set, or a copy of one that is"
    return ""
