"""Nodes of ``select``."""

import logging
from datetime import datetime

import numpy as np
import pandas as pd

from active_learning.acquisition import Pool, find_strategy, rank
from active_learning.errors import TestSetError
from active_learning.imaging import ImageStore
from active_learning.pipelines.select.params import SelectParams
from active_learning.schemas import LABEL_REQUESTS, row_id
from active_learning.services.labeling import LabelingQueue

logger = logging.getLogger(__name__)


def find_candidates(
    scored_batch: pd.DataFrame,
    known_labels: pd.DataFrame,
    past_requests: pd.DataFrame,
) -> pd.DataFrame:
    """Keep what the newest model said of images that nobody was asked about.

    Args:
        scored_batch: Predictions, of one model version or several.
        known_labels: ``image_id`` of what has a label.
        past_requests: ``image_id`` of what was asked for.

    Returns:
        The rows of the newest ``model_version`` without a label or a request.
    """
    newest = scored_batch["model_version"] == scored_batch["model_version"].max()
    taken = pd.concat([known_labels["image_id"], past_requests["image_id"]])
    free: pd.DataFrame = scored_batch[newest & ~scored_batch["image_id"].isin(taken)]
    return free


def rank_candidates(candidates: pd.DataFrame, params: SelectParams) -> pd.DataFrame:
    """Order the candidates by what each label would teach.

    Args:
        candidates: One prediction per image, all of one model version.
        params: Uses ``strategy``.

    Returns:
        The candidates with ``utility`` (float64), most useful first; as many rows as
        came in. Ties go by ``image_id``, so equal pools give equal rankings.
    """
    if candidates.empty:
        return candidates.assign(utility=np.empty(0))
    pool = Pool(
        image_ids=tuple(candidates["image_id"]),
        probabilities=np.stack(candidates["probabilities"].tolist()),
        sampling_keys=candidates["sampling_key"].to_numpy(dtype=np.float64),
    )
    order, utilities = rank(pool, find_strategy(params.strategy))
    ranked = candidates.iloc[order].reset_index(drop=True)
    return ranked.assign(utility=utilities)


def choose_batch(
    ranked_candidates: pd.DataFrame,
    past_requests: pd.DataFrame,
    test_set: pd.DataFrame,
    images: ImageStore,
    now: datetime,
    params: SelectParams,
) -> pd.DataFrame:
    """Take the budget from the top of the ranking.

    Args:
        ranked_candidates: Predictions with ``utility``, most useful first.
        past_requests: Earlier requests; this round's number is one more than theirs.
        test_set: ``content`` of the images that no round may ask for.
        images: Where the candidates are.
        now: Becomes ``requested_at``.
        params: Uses ``strategy`` and ``budget``.

    Returns:
        Requests in the columns of ``schemas.LABEL_REQUESTS``, by ``rank``; fewer than
        the budget when there are fewer candidates.

    Raises:
        TestSetError: A chosen image is in the test set, or a copy of one that is.
    """
    chosen = ranked_candidates.head(params.budget)
    _refuse_test_images(chosen["image_id"].tolist(), test_set, images)
    if len(chosen) < params.budget:
        logger.warning(
            "Only %d of %d requests can be made: no more unlabeled candidates",
            len(chosen),
            params.budget,
        )
    round_number = int(past_requests["round"].max() + 1) if len(past_requests) else 1
    blind = params.strategy == "random"
    propensity = len(chosen) / len(ranked_candidates) if blind and len(chosen) else 1.0
    requests = pd.DataFrame(
        {
            "request_id": [row_id(name, round_number) for name in chosen["image_id"]],
            "image_id": chosen["image_id"],
            "round": round_number,
            "strategy": params.strategy,
            "utility": chosen["utility"],
            "rank": np.arange(1, len(chosen) + 1),
            "propensity": propensity,
            "audit": False,
            "model_name": chosen["model_name"],
            "model_version": chosen["model_version"],
            "requested_at": pd.Timestamp(now),
        }
    )
    return requests.reindex(columns=LABEL_REQUESTS.names)


def stage_images(
    label_requests: pd.DataFrame, ranked_candidates: pd.DataFrame, images: ImageStore
) -> LabelingQueue:
    """Put what a labeler needs side by side: the requests, the images, the guess.

    Returns:
        A queue whose ``requests`` have ``request_id``, ``image_id``,
        ``predicted_label`` and ``rank``; the images are copied when it is saved.
    """
    guesses = ranked_candidates[["image_id", "label"]]
    requests = label_requests.merge(
        guesses.rename(columns={"label": "predicted_label"}), on="image_id"
    )
    columns = ["request_id", "image_id", "predicted_label", "rank"]
    return LabelingQueue(requests=requests[columns], images=images)


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
