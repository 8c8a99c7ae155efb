"""Nodes of ``select``."""

import logging
import math
from datetime import datetime

import numpy as np
import pandas as pd

from active_learning.acquisition import (
    Float32Array,
    FloatArray,
    IntArray,
    Pool,
    distinct,
    distinct_hashes,
    find_strategy,
    propensities,
    rank,
)
from active_learning.errors import DataError, PredictionsError, TestSetError
from active_learning.imaging import ImageStore
from active_learning.imaging.perceptual import perceptual_hash
from active_learning.pipelines.select.params import NearDuplicates, SelectParams
from active_learning.schemas import LABEL_REQUESTS, row_id
from active_learning.services.labeling import LabelingQueue
from active_learning.texts import among

logger = logging.getLogger(__name__)

POWER = "power"
RANDOM = "random"
SECOND_OPINION = "second_opinion"


def draw_audit(audit_candidates: pd.DataFrame, params: SelectParams) -> pd.DataFrame:
    """Draw the images on which the champion's accuracy will be known, blindly.

    Args:
        audit_candidates: What the champion said: ``image_id``, ``sampling_key``,
            ``population`` and the model.
        params: Uses ``audit``.

    Returns:
        The lowest sampling keys, a uniform sample, with ``utility`` (the key) and
        ``propensity``: the share of the population that was drawn.
    """
    drawn = audit_candidates.sort_values(["sampling_key", "image_id"])
    drawn = drawn.head(params.audit).reset_index(drop=True)
    return drawn.assign(
        utility=drawn["sampling_key"],
        propensity=np.minimum(1.0, len(drawn) / drawn["population"].clip(lower=1)),
    )


def rank_candidates(
    candidates: pd.DataFrame,
    labeled_embeddings: pd.DataFrame,
    known_labels: pd.DataFrame,
    params: SelectParams,
) -> pd.DataFrame:
    """Order the candidates by what each label would teach.

    Args:
        candidates: One prediction per image, all of one model version, and how many
            could have been drawn (``population``); ``vector`` where the strategy looks
            at embeddings; ``weight`` and their sum ``mass`` where it draws.
        labeled_embeddings: ``vector`` of the images that have a label.
        known_labels: A row for each answer: ``image_id``, ``label`` and ``answer``. The
            latest label of an image counts; one that was skipped has none.
        params: Uses ``strategy``, ``over``, ``exponent`` and ``budget``.

    Returns:
        The candidates with ``utility`` (float64), most useful first, and the
        ``propensity`` with which each was drawn: with ``power`` the probability of its
        draw after those before it, with ``random`` the share that is drawn, else 1.
        Ties go by ``image_id``, so equal pools give equal rankings.
    """
    if candidates.empty:
        logger.warning("There are no unlabeled candidates to ask for")
        return candidates.assign(utility=np.empty(0), propensity=np.empty(0))
    pool = _pool(candidates, labeled_embeddings, known_labels, params)
    strategy = find_strategy(params.strategy, params.over, params.exponent)
    order, utilities = rank(pool, strategy)
    ranked = candidates.iloc[order].reset_index(drop=True).assign(utility=utilities)
    return ranked.assign(propensity=_propensity(ranked, params))


def draw_second_opinions(
    open_disputes: pd.DataFrame,
    past_requests: pd.DataFrame,
    known_labels: pd.DataFrame,
    test_set: pd.DataFrame,
    images: ImageStore,
    now: datetime,
    params: SelectParams,
) -> pd.DataFrame:
    """Take the labels in doubt that somebody shall look at once more.

    Args:
        open_disputes: In the columns of ``schemas.DISPUTED_LABELS``.
        past_requests: A second opinion that was asked for, not answered and not
            expired is not asked for again.
        known_labels: ``request_id`` of what was answered.
        test_set: ``content`` of the images that no round may ask for.
        images: Where the images are; one that cannot be read now is passed over.
        now: The end of what has not expired.
        params: Uses ``second_opinions``, ``budget`` and ``expire_after_days``.

    Returns:
        The highest priorities first, ties by ``image_id``: ``label`` (what the model
        that asked said of it, empty where none did, as its version is 0 then),
        ``utility`` (the priority), ``propensity`` 1 and the model. ``population`` is
        how many disputes could have been taken.
    """
    at_most = math.ceil(params.second_opinions * params.budget)
    if open_disputes.empty or not at_most:
        return open_disputes.head(0)
    since = pd.Timestamp(now) - pd.Timedelta(days=params.expire_after_days)
    asked = past_requests[
        (past_requests["strategy"] == SECOND_OPINION)
        & (past_requests["requested_at"] > since)
        & ~past_requests["request_id"].isin(set(known_labels["request_id"]))
    ]
    ordered = open_disputes[~open_disputes["image_id"].isin(set(asked["image_id"]))]
    ordered = ordered.sort_values(["priority", "image_id"], ascending=[False, True])
    ordered = ordered.drop_duplicates("image_id")
    taken = _askable(ordered, at_most, test_set, images)
    logger.info(
        "%d of %d labels in doubt get a second opinion; %d wait for theirs",
        len(taken),
        len(open_disputes),
        asked["image_id"].nunique(),
    )
    return pd.DataFrame(
        {
            "image_id": taken["image_id"],
            "label": taken["predicted_label"].fillna(""),
            "utility": taken["priority"],
            "propensity": 1.0,
            "population": len(ordered),
            "model_name": taken["model_name"].fillna(""),
            "model_version": taken["model_version"].fillna(0).astype(np.int64),
        }
    )


def choose_batch(
    ranked_candidates: pd.DataFrame,
    second_opinions: pd.DataFrame,
    audit_sample: pd.DataFrame,
    past_requests: pd.DataFrame,
    test_set: pd.DataFrame,
    images: ImageStore,
    now: datetime,
    params: SelectParams,
) -> pd.DataFrame:
    """Take the budget: second opinions, then the top of the ranking; audits beside it.

    Near-duplicates of a better image are passed over, and so is a predicted class that
    has its share of the batch.

    Args:
        ranked_candidates: Predictions with ``utility``, most useful first.
        second_opinions: Labeled images to ask about again; they come out of the budget.
        audit_sample: Drawn blind; asked beside the budget.
        past_requests: Earlier requests; this round's number is one more than theirs.
        test_set: ``content`` of the images that no round may ask for.
        images: Where the candidates are.
        now: Becomes ``requested_at``.
        params: Uses ``strategy``, ``budget``, ``near_duplicates`` and
            ``max_class_share``.

    Returns:
        Requests in the columns of ``schemas.LABEL_REQUESTS`` with the class that was
        ``predicted_label``, by ``rank``, the audit sample last; fewer than the budget
        when there are fewer candidates. The strategy's first has rank 1 and second
        opinions stand before it, so that the last of them has rank 0. The rank of a
        draw with known probability counts what was drawn before it and passed over.

    Raises:
        TestSetError: A chosen image is in the test set, or a copy of one that is.
    """
    n_second = len(second_opinions)
    rest = params.model_copy(update={"budget": params.budget - n_second})
    ranked = ranked_candidates.head(len(ranked_candidates) if rest.budget else 0)
    if n_second and len(ranked):
        ranked = ranked.assign(propensity=_propensity(ranked, rest))
    fits = _within_class_share(ranked, rest)
    twice = ranked["image_id"].iloc[fits].isin(second_opinions["image_id"])
    fits = fits[~twice.to_numpy(dtype=bool)]
    rows = _without_near_duplicates(ranked.iloc[fits], images, rest)
    chosen = ranked.iloc[fits[rows]]
    if len(ranked) and len(chosen) < rest.budget:
        logger.warning(
            "Only %d of %d requests can be made: no more unlabeled candidates",
            len(chosen),
            rest.budget,
        )
    parts = [second_opinions] if n_second else []
    every = pd.concat([*parts, chosen, audit_sample], ignore_index=True)
    _refuse_test_images(every["image_id"].tolist(), test_set, images)
    round_number = int(past_requests["round"].max() + 1) if len(past_requests) else 1
    ranks = fits[rows] + 1 if params.strategy == POWER else np.arange(len(chosen)) + 1
    last = int(ranks.max()) if len(ranks) else 0
    kinds = np.repeat(
        [SECOND_OPINION, params.strategy, RANDOM],
        [n_second, len(chosen), len(audit_sample)],
    )
    audits = np.arange(len(every)) >= n_second + len(chosen)
    # One image may be asked about twice in a round, for different reasons.
    marks = np.where(audits, "audit", np.where(kinds == SECOND_OPINION, kinds, ""))
    requests = every.assign(
        request_id=[
            row_id(name, round_number, *((mark,) if mark else ()))
            for name, mark in zip(every["image_id"], marks.tolist(), strict=True)
        ],
        round=round_number,
        strategy=kinds,
        rank=np.concatenate(
            [
                np.arange(n_second) - n_second + 1,
                ranks,
                last + 1 + np.arange(len(audit_sample)),
            ]
        ),
        audit=audits,
        requested_at=pd.Timestamp(now),
        predicted_label=every["label"],
    )
    return requests.reindex(columns=[*LABEL_REQUESTS.names, "predicted_label"])


def stage_images(
    batch: pd.DataFrame, past_requests: pd.DataFrame, images: ImageStore
) -> LabelingQueue:
    """Put what a labeler needs side by side: the requests, the images, the guess.

    An audit may draw an image that this version asks for anyway; its one answer serves
    both, and it is not staged twice.

    Returns:
        A queue whose ``requests`` have ``request_id``, ``image_id``,
        ``predicted_label``, ``rank`` and ``round``; the images are copied when it is
        saved.
    """
    audits = batch["audit"].astype(bool)
    # A second opinion may bear an older version, whose answers are none to this one.
    versions = batch.loc[audits, "model_version"]
    same = past_requests["model_version"].isin(versions)
    asked = {*past_requests.loc[same, "image_id"], *batch.loc[~audits, "image_id"]}
    known = audits & batch["image_id"].isin(asked)
    columns = ["request_id", "image_id", "predicted_label", "rank", "round"]
    return LabelingQueue(requests=batch.loc[~known, columns], images=images)


def record_requests(batch: pd.DataFrame, labeling_queue: LabelingQueue) -> pd.DataFrame:
    """Write down what was asked, once it is there to be answered.

    Killed before this, the same state gives the same requests under the same ids.

    Args:
        batch: The chosen requests.
        labeling_queue: Holds them: what is recorded can be answered.

    Returns:
        Requests in the columns of ``schemas.LABEL_REQUESTS``.
    """
    logger.info(
        "Asked for %d labels, %d of them drawn blind; %d wait in the queue",
        len(batch),
        int(batch["audit"].sum()),
        len(labeling_queue.requests),
    )
    requests: pd.DataFrame = batch[LABEL_REQUESTS.names]
    return requests


def _pool(
    candidates: pd.DataFrame,
    labeled_embeddings: pd.DataFrame,
    known_labels: pd.DataFrame,
    params: SelectParams,
) -> Pool:
    classes = list(candidates["classes"].iloc[0])
    counts = _latest_labels(known_labels).value_counts()
    return Pool(
        image_ids=tuple(candidates["image_id"]),
        probabilities=np.stack(candidates["probabilities"].tolist()),
        sampling_keys=candidates["sampling_key"].to_numpy(dtype=np.float64),
        embeddings=_vectors(candidates),
        labeled_embeddings=_vectors(labeled_embeddings),
        labeled_counts=np.array([counts.get(name, 0) for name in classes], np.int64),
        budget=params.budget,
    )


def _latest_labels(known_labels: pd.DataFrame) -> pd.Series:
    """One label for each image that has one."""
    labels = known_labels[known_labels["answer"].fillna("label") == "label"]
    if labels["image_id"].duplicated().any():
        labels = labels.sort_values(["labeled_at", "label_id"])
        labels = labels.drop_duplicates("image_id", keep="last")
    return labels["label"]


def _askable(
    ordered: pd.DataFrame, at_most: int, test_set: pd.DataFrame, images: ImageStore
) -> pd.DataFrame:
    """The first rows whose images can be read and are not held out."""
    parts = [ordered.head(0)]
    for start in range(0, len(ordered), 2 * at_most):
        rows = ordered.iloc[start : start + 2 * at_most]
        found = images.survey(rows["image_id"].tolist())
        fit = (found["reason"] == "").to_numpy(dtype=np.bool_)
        fit &= ~among(found["content"], test_set["content"])
        parts.append(rows[fit])
        if sum(map(len, parts)) >= at_most:
            break
    return pd.concat(parts, ignore_index=True).head(at_most)


def _vectors(frame: pd.DataFrame) -> Float32Array | None:
    if "vector" not in frame or frame.empty or frame["vector"].isna().all():
        return None
    missing = frame.loc[frame["vector"].isna(), "image_id"]
    if len(missing):
        raise PredictionsError(
            f"{len(missing)} of {len(frame)} images have no embedding; the first is "
            f"image_id={missing.iloc[0]!r}. Set score.embeddings to true and score "
            "again, or choose a strategy that looks at probabilities alone."
        )
    return np.stack(frame["vector"].tolist()).astype(np.float32)


def _propensity(ranked: pd.DataFrame, params: SelectParams) -> FloatArray:
    n = len(ranked)
    if params.strategy == RANDOM:
        drawn = min(params.budget, n)
        return np.full(n, drawn / max(int(ranked["population"].iloc[0]), drawn))
    if params.strategy == POWER:
        mass = float(ranked["mass"].iloc[0])
        return propensities(ranked["weight"].to_numpy(), mass)
    return np.ones(n)


def _within_class_share(ranked: pd.DataFrame, params: SelectParams) -> IntArray:
    """Rows of the ranking that no predicted class takes beyond its share."""
    if params.max_class_share is None or ranked.empty:
        return np.arange(len(ranked))
    most = max(1, int(params.max_class_share * params.budget))
    place = ranked.groupby("label", sort=False).cumcount()
    return np.flatnonzero((place < most).to_numpy())


def _without_near_duplicates(
    ranked: pd.DataFrame, images: ImageStore, params: SelectParams
) -> IntArray:
    """The first ``budget`` rows of a ranking that are unlike all before them."""
    rule: NearDuplicates = params.near_duplicates
    if rule.by == "none" or ranked.empty:
        return np.arange(min(len(ranked), params.budget))
    if rule.by == "embedding":
        vectors = _vectors(ranked)
        if vectors is None:
            raise PredictionsError(
                "select.near_duplicates.by is 'embedding' and no image has one. Set "
                "score.embeddings to true and score again, or use 'perceptual_hash'."
            )
        return distinct(vectors, params.budget, rule.similarity)
    return _unlike_by_hash(ranked, images, params)


def _unlike_by_hash(
    ranked: pd.DataFrame, images: ImageStore, params: SelectParams
) -> IntArray:
    """Read images down the ranking until the budget is met, and no further."""
    hashes: list[int] = []
    rows: list[int] = []
    kept = np.arange(0)
    for row, name in enumerate(ranked["image_id"]):
        try:
            hashes.append(perceptual_hash(images.read(name)))
        except DataError as exc:
            logger.warning("%r is passed over: %s", name, exc)
            continue
        rows.append(row)
        # Every so often, since each look goes through what is kept so far.
        if len(rows) % params.budget == 0 or row == len(ranked) - 1:
            kept = distinct_hashes(
                np.array(hashes, dtype=np.uint64),
                params.budget,
                params.near_duplicates.distance,
            )
            if len(kept) >= params.budget:
                break
    return np.array(rows, dtype=np.int64)[kept]


def _refuse_test_images(
    image_ids: list[str], test_set: pd.DataFrame, images: ImageStore
) -> None:
    held_out = set(test_set["content"])
    contents = images.fingerprints(image_ids)
    leaks = [
        name
        for name, content in zip(image_ids, contents, strict=True)
        if content in held_out
    ]
    if leaks:
        raise TestSetError(
            f"{len(leaks)} of {len(image_ids)} chosen images are in the frozen test "
            f"set or copies of its images; the first is image_id={leaks[0]!r}. Take "
            "the test images out of the folder that is scored."
        )
