"""Nodes of ``label-ingest``."""

import logging
from collections.abc import Mapping
from datetime import datetime
from difflib import get_close_matches
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from active_learning.acquisition import IntArray
from active_learning.imaging import ImageStore
from active_learning.pipelines.label_ingest.checks import (
    REQUESTS,
    Images,
    allowed_classes,
    judge,
    survey,
)
from active_learning.pipelines.label_ingest.params import LabelIngestParams
from active_learning.pipelines.label_ingest.settling import (
    DISAGREEMENT,
    SETTLED,
    SUSPECTED,
    TIED,
    settle,
)
from active_learning.schemas import (
    ANSWERS,
    LABELS,
    REJECTED_LABELS,
    TRAINING_SET,
    fingerprint,
)
from active_learning.services.labeling.answers import (
    LABEL,
    answer_ids,
    in_columns,
    joined,
    numbered,
    places,
)
from active_learning.services.labeling.consensus import BoolArray
from active_learning.services.labeling.references import resolve
from active_learning.texts import TEXT, among, n_unlike, surely_unlike, to_texts

logger = logging.getLogger(__name__)

# What became of a row: a position in this tuple.
OUTCOMES = ("label", "rejected", "unchanged", "rejected before")
ACCEPTED, REJECTED, KNOWN, REJECTED_BEFORE = range(len(OUTCOMES))
_N_TOLD = 1000


def gather_answers(
    label_exports: Mapping[str, pd.DataFrame],
    label_requests: pd.DataFrame,
    images: ImageStore,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put all exports below each other and find the image of each answer.

    Args:
        label_exports: Answers by batch, in the columns of ``schemas.ANSWERS``; one that
            is missing is empty, and ``image_id`` may stand for ``reference``.
        label_requests: ``image_id`` of what was asked for, where a short reference is
            looked for first.
        images: Where it is looked for next.

    Returns:
        A row for each row of the exports, in the order of the batches' names: the
        columns of ``schemas.ANSWERS`` with ``batch_id``, ``image_id``, which is empty
        where there is a ``reason``, and ``label_id``. The id comes from what an answer
        says, not from the batch that brought it. And what is used of the requests.
    """
    frames = [
        in_columns(_with_reference(frame), ANSWERS).assign(
            batch_id=pd.Series(pa.repeat(batch_id, len(frame)), dtype=TEXT),
            named="image_id" in frame.columns,
        )
        for batch_id, frame in sorted(label_exports.items())
    ]
    empty = in_columns(pd.DataFrame(), ANSWERS)
    empty = empty.assign(batch_id=pd.Series(dtype=TEXT), named=False)
    answers = pd.concat(frames or [empty], ignore_index=True)
    requests = in_columns(label_requests, REQUESTS)
    found, reasons = to_texts(answers["reference"]), to_texts(answers["reason"])
    unsure = pc.equal(reasons, "")
    unsure = pc.and_(unsure, pc.invert(pa.array(answers.pop("named"))))
    if pc.any(unsure).as_py():
        asked = to_texts(requests["image_id"])
        resolved = resolve(found.filter(unsure), asked, images.image_ids)
        found = pc.replace_with_mask(found, unsure, to_texts(resolved["image_id"]))
        reasons = pc.replace_with_mask(reasons, unsure, to_texts(resolved["reason"]))
    found = pc.if_else(pc.equal(reasons, ""), found, "")
    answers["image_id"] = pd.Series(found, dtype=TEXT)
    answers["reason"] = pd.Series(reasons, dtype=TEXT)
    answers["label_id"] = pd.Series(answer_ids(answers), dtype=TEXT)
    return answers, requests


def check_answers(
    answers: pd.DataFrame,
    requests: pd.DataFrame,
    known_labels: pd.DataFrame,
    past_rejections: pd.DataFrame,
    test_set: pd.DataFrame,
    images: ImageStore,
    now: datetime,
    params: LabelIngestParams,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Part the labels to learn from from those to look at again.

    Args:
        answers: What ``gather_answers`` gives.
        requests: An answer that does not name its request is taken for one to the
            latest request of its image that was made before it; without any it is
            unsolicited.
        known_labels: Labels of earlier runs; what is among them is unchanged, whatever
            the parameters say now.
        past_rejections: Rejections of earlier runs; the same row of the same batch is
            not rejected again for the same reason.
        test_set: ``content`` of the images that are never trained on.
        images: Where the labeled images are.
        now: Becomes ``rejected_at``, and ``labeled_at`` where an answer has no time.
        params: Uses ``classes``, ``new_classes``, ``map``, ``unsolicited`` and
            ``clock_skew_s``.

    Returns:
        The new labels; the new rejections, each with its reason; every answer with its
        ``outcome``, a place in ``OUTCOMES``, and its ``reason``; and every label, known
        or new, with the ``image`` as a number, its ``content``, empty where that cannot
        be used now, the ``round``, and whether it is ``audited`` and ``new``.
    """
    known = in_columns(known_labels, LABELS)
    (new, of_known, asked), names = numbered(
        answers["image_id"], known["image_id"], requests["image_id"]
    )
    n_images = int(max(new.max(initial=-1), of_known.max(initial=-1))) + 1
    contents = survey(names[:n_images].to_series(), images)
    fresh = _fresh(answers, known)
    judged = judge(
        _those(answers, fresh),
        known,
        requests,
        Images(new[fresh], of_known, asked),
        contents,
        test_set,
        now,
        params,
    )
    accepted = (judged["reason"] == "").to_numpy()
    good = _those(judged, accepted)
    rejected = _rejections(answers.loc[judged.index[~accepted]], judged, now)
    before = _among(rejected, past_rejections)
    outcome = np.full(len(answers), KNOWN, dtype=np.int8)
    outcome[good.index] = ACCEPTED
    outcome[rejected.index] = np.where(before, REJECTED_BEFORE, REJECTED)
    checked = judged if fresh.all() else pd.concat([judged, answers[~fresh]])
    checked = checked.sort_index().assign(outcome=outcome)
    _log_outcomes(checked)
    labels = good[LABELS.names].reset_index(drop=True)
    every = labels.assign(round=good["round"].to_numpy(), new=True)
    if len(known):
        earlier = _with_rounds(known, requests).assign(new=False)
        every = pd.concat([earlier, every], ignore_index=True)
    image = np.r_[of_known, new[good.index]]
    audited = np.zeros(len(names), dtype=np.bool_)
    audited[asked[requests["audit"].to_numpy(dtype=np.bool_)]] = True
    every = every.assign(
        image=image, content=contents["content"].array[image], audited=audited[image]
    )
    refused = rejected.loc[~before, REJECTED_LABELS.names]
    return labels, refused.reset_index(drop=True), checked, every


def settle_labels(
    every_label: pd.DataFrame,
    asked_probabilities: pd.DataFrame,
    params: LabelIngestParams,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Make one label for each image out of all its answers, and say what is in doubt.

    The latest answer of each labeler is a vote; to skip or to call it unclear is none.
    A clear majority decides. Where there is none, cleanlab weighs labelers and model if
    there are enough of them. A label that contradicts what was said of the image before
    it was known is suspected until a second answer says the same.

    Args:
        every_label: Labels so far, the ``new`` ones of this run among them.
        asked_probabilities: What the version that asked for an image had said of it:
            ``label``, ``classes``, ``probabilities`` and the model.
        params: Uses ``consensus``, ``suspected`` and ``suspicion``.

    Returns:
        For each image with a vote the answer that carries its label, in the columns of
        ``every_label`` with ``standing`` (``settled``, ``tied``, ``disagreement`` or
        ``suspected``), ``n_answers``, ``n_votes`` and ``agreement``. What is disputed
        now, in the columns of ``schemas.DISPUTED_LABELS``. And what labelers changed:
        ``image_id``, ``labeler``, ``from``, ``to`` and ``at``.
    """
    settled, disputed, changes = settle(every_label, asked_probabilities, params)
    standings = settled["standing"].value_counts()
    logger.info(
        "%d images have a label%s",
        len(settled),
        "".join(f"; {n} {how}" for how, n in standings.items() if how != SETTLED),
    )
    if len(changes):
        first = changes.iloc[0]
        logger.info(
            "%d labels were changed by their labelers; the first: %r to %r of %r by %r",
            len(changes),
            *first[["from", "to", "image_id", "labeler"]],
        )
    return settled, disputed, changes


def build_training_set(
    settled_labels: pd.DataFrame, params: LabelIngestParams
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Take the label of each image that may be learned from.

    Args:
        settled_labels: One answer for each image, and what ``check_answers`` adds.
        params: Uses ``consensus.disagreement``, ``suspected`` and ``train_on_audits``.

    Returns:
        One row per image in the columns of ``schemas.TRAINING_SET``, by ``image_id``:
        the label, the answer it came from and the SHA-256 of the image's file. And
        where it came from: its fingerprint, how many labels by class, batch and round,
        how many requests and unsolicited answers, and how many were left out and why.
    """
    standing = settled_labels["standing"]
    left_out = standing.where(standing.isin(_held_out_standings(params)), "")
    left_out = left_out.where(settled_labels["content"] != "", "unreadable")
    if not params.train_on_audits:
        left_out = left_out.where(~settled_labels["audited"], "audit")
    kept = (left_out == "").to_numpy()
    good = _those(settled_labels, kept)
    by_name = pc.sort_indices(to_texts(good["image_id"])).to_numpy()
    training_set = good[TRAINING_SET.names].take(by_name).reset_index(drop=True)
    solicited = (good["request_id"] != "").to_numpy()
    request_ids = to_texts(good["request_id"]).filter(solicited)
    lineage = {
        "fingerprint": fingerprint(training_set),
        "n_labels": len(training_set),
        "by_class": _counts(good["label"]),
        "by_batch": _counts(good["batch_id"]),
        "by_round": _counts(good["round"][solicited]),
        "n_requests": n_unlike(request_ids),
        "unsolicited": int((~solicited).sum()),
        "left_out": _counts(left_out[~kept]),
    }
    return training_set, lineage


def report_ingestion(
    checked_answers: pd.DataFrame,
    every_label: pd.DataFrame,
    changed_labels: pd.DataFrame,
    settled_labels: pd.DataFrame,
    disputed_labels: pd.DataFrame,
    training_lineage: dict[str, Any],
    now: datetime,
    params: LabelIngestParams,
) -> dict[str, Any]:
    """Say what became of every row, for a reader who was not there.

    Returns:
        ``rows``, the sum of ``labels``, ``rejected`` and ``unchanged``; the same by
        batch; the first rejections and changed labels; new classes; labelers; disputes;
        the training set. Plain values, for JSON.
    """
    outcome = checked_answers["outcome"].to_numpy()
    refused = checked_answers[np.isin(outcome, (REJECTED, REJECTED_BEFORE))]
    (batch,), batches = numbered(checked_answers["batch_id"])
    n = np.bincount(
        batch * len(OUTCOMES) + outcome, minlength=len(batches) * len(OUTCOMES)
    ).reshape(-1, len(OUTCOMES))
    new = every_label["new"].to_numpy(dtype=np.bool_)
    accepted = _those(every_label, new)
    columns = ["batch_id", "line", "image_id", "label", "labeler", "reason"]
    return {
        "at": now.isoformat(),
        "rows": len(checked_answers),
        **_outcomes(n.sum(axis=0)),
        "by_batch": {
            batch_id: {"rows": int(of.sum()), **_outcomes(of)}
            for batch_id, of in sorted(zip(batches, n, strict=True), key=itemgetter(0))
        },
        "answers": _counts(accepted["answer"]),
        "unsolicited": int((accepted["request_id"] == "").sum()),
        "new_classes": _new_classes(accepted, every_label[~new], params),
        "rejections": _told(refused.assign(image_id=_called(refused)), columns),
        "n_changes": len(changed_labels),
        "changes": _told(changed_labels, list(changed_labels.columns)),
        "labelers": _counts(accepted["labeler"]),
        "disputes": {
            "open": len(disputed_labels),
            "by_standing": _counts(settled_labels["standing"]),
            "first": _told(disputed_labels, ["image_id", "reason", "priority"]),
        },
        "training_set": training_lineage,
    }


def _those(frame: pd.DataFrame, chosen: BoolArray) -> pd.DataFrame:
    """Some rows of a frame; all of them, as nearly always, without a copy."""
    return frame if chosen.all() else frame[chosen]


def _fresh(answers: pd.DataFrame, known: pd.DataFrame) -> BoolArray:
    """Which answers are not known, and no repetition of one further up."""
    if known.empty and surely_unlike(to_texts(answers["label_id"])):
        return np.ones(len(answers), dtype=np.bool_)
    (new, before), ids = numbered(answers["label_id"], known["label_id"])
    readable = (answers["reason"] == "").to_numpy()
    seen = np.zeros(len(ids), dtype=np.bool_)
    seen[before] = True
    again = np.ones(len(answers), dtype=np.bool_)
    again[readable] = pd.Series(new[readable]).duplicated()
    return ~(readable & (seen[new] | again))


def _with_rounds(known: pd.DataFrame, requests: pd.DataFrame) -> pd.DataFrame:
    row = places(known["request_id"], requests["request_id"])
    return known.assign(round=np.append(requests["round"].to_numpy(), 0)[row])


def _called(answers: pd.DataFrame) -> pd.Series:
    """The image, or how it was called where it was not found."""
    return answers["image_id"].where(answers["image_id"] != "", answers["reference"])


def _with_reference(frame: pd.DataFrame) -> pd.DataFrame:
    if "image_id" not in frame.columns:
        return frame
    return frame.assign(reference=frame["image_id"])


def _rejections(
    answers: pd.DataFrame, judged: pd.DataFrame, now: datetime
) -> pd.DataFrame:
    """The rows as they came, with the reason; an image unfound as it was called."""
    return answers.assign(
        image_id=_called(answers),
        reason=judged.loc[answers.index, "reason"],
        rejected_at=pd.Timestamp(now),
    )


def _among(rejected: pd.DataFrame, past_rejections: pd.DataFrame) -> BoolArray:
    """Whether each was rejected before; the line does not count, it may move."""
    if rejected.empty:
        return np.zeros(0, dtype=np.bool_)
    names = [n for n in REJECTED_LABELS.names if n not in ("line", "rejected_at")]
    past = in_columns(past_rejections, REJECTED_LABELS)
    keys, known = (pd.Series(joined(of, names), dtype=TEXT) for of in (rejected, past))
    return among(keys, known) | keys.duplicated().to_numpy()


def _log_outcomes(checked: pd.DataFrame) -> None:
    outcome = checked["outcome"].to_numpy()
    counts = _outcomes(np.bincount(outcome, minlength=len(OUTCOMES)))
    first = checked[np.isin(outcome, (REJECTED, REJECTED_BEFORE))].head(1)
    logger.info(
        "%d rows of %d exports: %d labels, %d rejected, %d unchanged%s",
        len(checked),
        checked["batch_id"].nunique(),
        counts["labels"],
        counts["rejected"],
        counts["unchanged"],
        "".join(
            f"; the first rejected: {row.batch_id}, line {row.line}: {row.reason}"
            for row in first.itertuples()
        ),
    )


def _outcomes(n: IntArray) -> dict[str, int]:
    """What N outcomes come to, by their numbers in the order of ``OUTCOMES``."""
    return {
        "labels": int(n[ACCEPTED]),
        "rejected": int(n[REJECTED]),
        "unchanged": int(n[KNOWN] + n[REJECTED_BEFORE]),
        "rejected_before": int(n[REJECTED_BEFORE]),
    }


def _held_out_standings(params: LabelIngestParams) -> set[str]:
    held_out = {TIED}
    if params.consensus.disagreement == "hold_out":
        held_out.add(DISAGREEMENT)
    if params.suspected != "keep":
        held_out.add(SUSPECTED)
    return held_out


def _counts(values: pd.Series) -> dict[str, int]:
    return {str(name): int(n) for name, n in values.value_counts().sort_index().items()}


def _told(table: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    head = table[columns].head(_N_TOLD).astype(object)
    return [{str(name): row[name] for name in row} for row in head.to_dict("records")]


def _new_classes(
    accepted: pd.DataFrame, known: pd.DataFrame, params: LabelIngestParams
) -> dict[str, dict[str, Any]]:
    """Classes that came with this run: how many labels, and what they resemble."""
    before = allowed_classes(known, params)
    if before is None:
        return {}
    new = accepted.loc[
        (accepted["answer"] == LABEL) & ~accepted["label"].isin(before), "label"
    ]
    told: dict[str, dict[str, Any]] = {}
    for label, n in _counts(new).items():
        near = get_close_matches(label, before, n=1)
        told[label] = {"labels": n, "resembles": near}
        hint = f"; did the labeler mean {near[0]!r}?" if near else ""
        logger.warning("%r is a new class, with %d labels%s", label, n, hint)
    return told
