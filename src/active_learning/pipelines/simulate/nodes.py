"""Nodes of ``simulate``: what surrounds the production pipelines in a replay."""

import io
import logging
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from active_learning.acquisition import needs_embeddings, weights
from active_learning.errors import SettingsError
from active_learning.evaluation.curves import CURVE_COLUMNS
from active_learning.imaging import ImageStore, LabeledImages
from active_learning.pipelines.label_ingest.params import LabelIngestParams
from active_learning.pipelines.select.nodes import SECOND_OPINION
from active_learning.pipelines.select.params import SelectParams
from active_learning.pipelines.simulate.params import BranchParams, SimulateParams
from active_learning.pipelines.train.params import TrainParams
from active_learning.schemas import (
    LABEL_REQUESTS,
    LABELS,
    MANIFEST,
    PREDICTIONS,
    REJECTED_LABELS,
    empty_frame,
    fingerprint,
)
from active_learning.services.labeling import LabelingQueue
from active_learning.services.labeling.oracle import OracleParams, answer

logger = logging.getLogger(__name__)

N_ASKED = 12


def hold_out_test_set(
    labeled_images: LabeledImages, test_set: pd.DataFrame
) -> pd.DataFrame:
    """Take the images that may be learned from: all but the test set and its copies.

    Returns:
        Columns of ``schemas.MANIFEST``, by ``image_id``.
    """
    table = labeled_images.table
    held_out = table["content"].isin(set(test_set["content"]))
    rest = table[~held_out & (table["split"] != "test")]
    manifest: pd.DataFrame = rest.sort_values("image_id")[MANIFEST.names]
    return manifest.reset_index(drop=True)


def draw_pool(
    training_images: pd.DataFrame, params: SimulateParams, branch: BranchParams
) -> pd.DataFrame:
    """Draw what a seed learns from, and in which round each image comes in.

    Args:
        training_images: ``image_id``, ``label``, ``content``.
        params: Uses ``pool_size``, ``initial_labels`` and ``stream_size``.
        branch: Uses ``seed``.

    Returns:
        Columns of ``schemas.MANIFEST`` and ``round``: 0 for the images whose labels
        are known from the start, beside a pool that comes in ``stream_size`` at a
        time.

    Raises:
        SettingsError: There are fewer images than that.
    """
    needed = params.initial_labels + params.pool_size
    if len(training_images) < needed:
        raise SettingsError(
            f"{params.initial_labels} initial labels and a pool of "
            f"{params.pool_size} need {needed} images; there are "
            f"{len(training_images)} to learn from. Lower simulate.pool_size and, with "
            "it, simulate.stream_size or simulate.rounds."
        )
    order = np.random.default_rng(branch.seed).permutation(len(training_images))
    drawn = training_images.iloc[order[:needed]].reset_index(drop=True)
    streamed = np.arange(params.pool_size) // params.stream_size + 1
    start = np.zeros(params.initial_labels, dtype=np.int64)
    return drawn.assign(round=np.concatenate([start, streamed]))


def label_start(
    pool: pd.DataFrame, now: datetime, simulate: SimulateParams, params: OracleParams
) -> tuple[
    dict[str, pd.DataFrame], pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame
]:
    """Give the first labels, which nobody had to ask for.

    Args:
        pool: ``image_id``, ``label`` and ``round``.
        now: When they are given.
        simulate: Uses ``initial_labels``.
        params: Uses all fields. Several labelers share the first labels: there are so
            many images less.

    Returns:
        One export with the labels of round 0, and what there is none of before it:
        labels, requests, rejected answers, and predictions of what was asked for.
    """
    first = pool[pool["round"] == 0].head(simulate.initial_labels // params.labelers)
    requests = first[["image_id", "label"]].assign(
        request_id="", labeled_at=pd.Timestamp(now), n_before=0
    )
    export = answer(requests, sorted(set(pool["label"])), params)
    return (
        {"round_00": export},
        empty_frame(LABELS),
        empty_frame(LABEL_REQUESTS),
        empty_frame(REJECTED_LABELS),
        empty_frame(PREDICTIONS),
    )


def look_back(
    last_requests: pd.DataFrame, last_labels: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Have at hand what the rounds before left, read once for all who ask for it.

    Returns:
        The requests of the round before, every answer so far, and what was rejected of
        this round's export before it came: nothing.
    """
    return last_requests, last_labels, empty_frame(REJECTED_LABELS)


def draw_stream(
    pool: pd.DataFrame,
    past_requests: pd.DataFrame,
    known_labels: pd.DataFrame,
    params: SelectParams,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Let the next round's images come in.

    Args:
        pool: ``image_id`` and ``round``.
        past_requests: Those of the round before; none before the first.
        known_labels: A row for each answer so far. A strategy that keeps its distance
            from what is labeled has it looked at again, as a folder that is scored
            whole would.
        params: Uses ``strategy`` and ``over``.

    Returns:
        The incoming images, and what the champion scored of them before: nothing.
    """
    number = int(past_requests["round"].max()) + 1 if len(past_requests) else 1
    incoming = pool.loc[pool["round"] == number, ["image_id"]]
    if needs_embeddings(params.strategy, params.over):
        labeled = known_labels[["image_id"]].drop_duplicates()
        incoming = pd.concat([incoming, labeled])
    nothing = pd.DataFrame({"image_id": [], "model_version": []})
    return incoming.reset_index(drop=True), nothing


def offer_candidates(
    scored_batch: pd.DataFrame,
    embeddings: pd.DataFrame,
    known_labels: pd.DataFrame,
    params: SelectParams,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Answer what ``select`` asks the engine in production.

    Of a round's stream nothing is labeled, asked for or in the test set, so every image
    of it is a candidate.

    Args:
        scored_batch: What the champion said.
        embeddings: How it saw the same images; none unless the strategy looks at them.
        known_labels: ``image_id`` of what is labeled.
        params: Uses ``over`` and ``exponent``.

    Returns:
        The candidates with ``vector``, ``weight``, ``mass`` and ``population``; the
        same for a blind draw; and ``vector`` of the labeled images.
    """
    vectors = embeddings[["image_id", "vector"]]
    labeled = set(known_labels["image_id"])
    candidates = scored_batch[~scored_batch["image_id"].isin(labeled)]
    candidates = candidates.merge(vectors, on="image_id", how="left")
    plain = {
        "margin": 1 - candidates["margin"],
        "entropy": candidates["entropy"],
        "least_confidence": 1 - candidates["confidence"],
    }.get(params.over, candidates["sampling_key"])
    weight = weights(plain.to_numpy(), params.exponent)
    candidates = candidates.assign(
        weight=weight, mass=weight.sum(), population=len(candidates)
    )
    return candidates, candidates, vectors[vectors["image_id"].isin(labeled)]


def recall_predictions(
    past_predictions: pd.DataFrame,
    candidates: pd.DataFrame,
    labeling_queue: LabelingQueue,
) -> pd.DataFrame:
    """Keep what was said of each image before anybody was asked about it.

    Args:
        past_predictions: Of the images that earlier rounds asked for.
        candidates: What the champion said of this round's stream.
        labeling_queue: What this round asks for. An image that was asked for before is
            no candidate, and keeps what was said of it then.

    Returns:
        One row for each image ever asked for that was scored, in the columns of
        ``schemas.PREDICTIONS``.
    """
    asked = candidates["image_id"].isin(labeling_queue.requests["image_id"])
    return join_frames(past_predictions, candidates.loc[asked, PREDICTIONS.names])


def measure_start(
    evaluation: dict[str, Any],
    step_times: dict[str, float],
    branch: BranchParams,
    simulate: SimulateParams,
    oracle: OracleParams,
) -> dict[str, Any]:
    """Give the first point of a seed's curves; nothing was scored or selected yet."""
    n_images = simulate.initial_labels // oracle.labelers
    point = _point(evaluation, step_times, branch)
    return point | {"round": 0, "n_labels": n_images * oracle.labelers}


def measure_round(
    past_point: dict[str, Any],
    evaluation: dict[str, Any],
    label_requests: pd.DataFrame,
    scored_batch: pd.DataFrame,
    pool: pd.DataFrame,
    step_times: dict[str, float],
    branch: BranchParams,
    oracle: OracleParams,
) -> dict[str, Any]:
    """Give one point of a learning curve.

    A label is an answer that was paid for: each request costs one of every labeler,
    also where they skip the image, where the answer is rejected, and where it is a
    second opinion.

    Args:
        past_point: Of the round before: its ``n_labels`` are counted on.
        evaluation: Of the challenger, on the frozen test set.
        label_requests: Of the round; gives its number.
        scored_batch: What the champion said of the incoming images.
        pool: Their true labels.
        step_times: Seconds by step.
        branch: Seed and strategy.
        oracle: Uses ``labelers``.

    Returns:
        A value for each column of ``learning_curves``.
    """
    number = int(label_requests["round"].iloc[0])
    truth = pool[pool["round"] == number].set_index("image_id")["label"]
    stream = scored_batch[scored_batch["image_id"].isin(truth.index)]
    right = stream["label"].to_numpy() == truth.loc[stream["image_id"]].to_numpy()
    n_labels = past_point["n_labels"] + oracle.labelers * len(label_requests)
    logger.info(
        "Seed %d, %s, round %d: %d labels, test accuracy %.4f",
        branch.seed,
        branch.strategy,
        number,
        n_labels,
        evaluation["accuracy"],
    )
    return _point(evaluation, step_times, branch) | {
        "round": number,
        "n_labels": n_labels,
        "stream_accuracy": float(right.mean()),
    }


def join_points(branch: BranchParams, *points: dict[str, Any]) -> pd.DataFrame:
    """Put the points of one branch below each other, the start under its own name.

    Returns:
        Columns of ``learning_curves``, by round.
    """
    curve = pd.DataFrame(points).assign(strategy=branch.strategy)
    return curve.sort_values("round", ignore_index=True)[list(CURVE_COLUMNS)]


def join_frames(*frames: pd.DataFrame) -> pd.DataFrame:
    """Put frames below each other, in their order."""
    # pandas takes a column's type from a frame without rows, too.
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled or frames[:1], ignore_index=True)


def describe_settings(
    simulate: SimulateParams,
    oracle: OracleParams,
    train: TrainParams,
    label_ingest: LabelIngestParams,
    test_set: pd.DataFrame,
) -> dict[str, Any]:
    """Say what was simulated, for a reader who was not there."""
    return {
        "simulate": simulate.model_dump(mode="json"),
        "oracle": oracle.model_dump(mode="json", exclude={"seed"}),
        "train": train.model_dump(mode="json", exclude={"seed"}),
        "label_ingest": label_ingest.model_dump(mode="json"),
        "test_set": {"images": len(test_set), "fingerprint": fingerprint(test_set)},
    }


def picture_first_asked(
    label_requests: pd.DataFrame,
    scored_batch: pd.DataFrame,
    pool: pd.DataFrame,
    images: ImageStore,
    branch: BranchParams,
    train: TrainParams,
) -> pd.DataFrame:
    """Show what a strategy asked for first, as the network saw it.

    Returns:
        Of what it chose itself, second opinions left out, up to 12 rows:
        ``strategy``, ``seed``, ``round``, ``rank``, ``label``, ``predicted_label``,
        ``utility`` and ``png`` (bytes).
    """
    scored = label_requests["image_id"].isin(scored_batch["image_id"])
    chosen = label_requests[scored & (label_requests["strategy"] != SECOND_OPINION)]
    first = chosen.nsmallest(N_ASKED, "rank").reset_index(drop=True)
    names = first["image_id"].tolist()
    decoded = images.pixels(names, train.preprocessing)
    pixels = decoded.pixels.take(np.arange(len(names)))
    said = scored_batch.set_index("image_id")["label"]
    truth = pool.set_index("image_id")["label"]
    return first[["round", "rank", "utility"]].assign(
        strategy=branch.strategy,
        seed=branch.seed,
        label=truth.loc[names].to_numpy(),
        predicted_label=said.loc[names].to_numpy(),
        png=[_png(image) for image in pixels],
    )


def _point(
    evaluation: dict[str, Any], step_times: dict[str, float], branch: BranchParams
) -> dict[str, Any]:
    return {
        "seed": branch.seed,
        "strategy": branch.strategy,
        "test_accuracy": evaluation["accuracy"],
        "test_macro_f1": evaluation["macro_f1"],
        "stream_accuracy": None,
        "train_s": step_times.get("train"),
        "score_s": step_times.get("score"),
        "select_s": step_times.get("select"),
    }


def _png(pixels: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, format="PNG")
    return buffer.getvalue()
