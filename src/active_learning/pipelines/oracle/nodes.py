"""Nodes of ``oracle``."""

from datetime import datetime

import pandas as pd

from active_learning.services.labeling import LabelingQueue
from active_learning.services.labeling.oracle import OracleParams, answer


def answer_requests(
    labeling_queue: LabelingQueue,
    pool: pd.DataFrame,
    known_labels: pd.DataFrame,
    now: datetime,
    params: OracleParams,
) -> dict[str, pd.DataFrame]:
    """Answer as labelers do who know every class, and err as often as they are told.

    Args:
        labeling_queue: What is asked.
        pool: ``image_id`` and ``label``, the true class.
        known_labels: A row for each answer so far: an image that is asked about again
            goes to others than those who saw it before.
        now: Becomes ``labeled_at``.
        params: Uses all fields.

    Returns:
        One export in the columns of ``schemas.ANSWERS``; with neither noise nor
        abstentions it holds the true class of every request.
    """
    asked = labeling_queue.requests["image_id"]
    truth = pool.set_index("image_id")["label"]
    before = known_labels["image_id"].value_counts()
    requests = pd.DataFrame(
        {
            "image_id": asked.to_numpy(),
            "request_id": labeling_queue.requests["request_id"].to_numpy(),
            "label": truth.loc[asked].to_numpy(),
            "labeled_at": pd.DatetimeIndex([now] * len(asked), tz="UTC"),
            "n_before": before.reindex(asked, fill_value=0).to_numpy(),
        }
    )
    classes = sorted(set(pool["label"]))
    return {f"{now:%Y-%m-%d}": answer(requests, classes, params)}
