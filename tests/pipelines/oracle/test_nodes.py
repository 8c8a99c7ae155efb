"""What stands in a replay for people and their tool."""

from datetime import UTC, datetime
from typing import Any

import pandas as pd

from active_learning.imaging import ImageStore
from active_learning.pipelines.oracle.nodes import answer_requests
from active_learning.schemas import LABELS, empty_frame
from active_learning.services.labeling import LabelingQueue
from active_learning.services.labeling.oracle import OracleParams

NOW = datetime(2000, 1, 5, tzinfo=UTC)


def answers(store: ImageStore, known: list[str], **changes: Any) -> pd.DataFrame:
    """Answers about c.png and a.png, out of three classes."""
    names = ["a.png", "b.png", "c.png"]
    pool = pd.DataFrame({"image_id": names, "label": ["cat", "dog", "cow"]})
    asked = pd.DataFrame({"request_id": ["r1", "r2"], "image_id": ["c.png", "a.png"]})
    labels = empty_frame(LABELS).reindex(range(len(known))).assign(image_id=known)
    values = {"noise": 0.0, "labelers": 1, "abstain": 0.0, "seed": 0} | changes
    exports = answer_requests(
        LabelingQueue(asked, store),
        pool,
        labels,
        NOW,
        OracleParams.model_validate(values),
    )
    assert list(exports) == ["2000-01-05"]
    return exports["2000-01-05"]


def test_each_request_is_answered_with_the_truth(store: ImageStore) -> None:
    told = answers(store, [])

    assert told["reference"].tolist() == ["c.png", "a.png"]
    assert told["label"].tolist() == ["cow", "cat"]
    assert told["request_id"].tolist() == ["r1", "r2"]
    assert told["labeled_at"].tolist() == [pd.Timestamp(NOW)] * 2


def test_every_labeler_answers_each_request(store: ImageStore) -> None:
    told = answers(store, [], labelers=3)

    assert told.groupby("request_id")["labeler"].nunique().to_dict() == {
        "r1": 3,
        "r2": 3,
    }


def test_an_image_goes_to_others_than_those_who_saw_it(store: ImageStore) -> None:
    told = answers(store, ["c.png", "b.png", "c.png"])

    assert told["labeler"].tolist() == ["oracle-3", "oracle"]


def test_a_round_that_asks_nothing_has_an_export_without_answers(
    store: ImageStore,
) -> None:
    nothing = pd.DataFrame({"request_id": [], "image_id": []}, dtype=object)
    exports = answer_requests(
        LabelingQueue(nothing, store),
        pd.DataFrame({"image_id": ["a.png"], "label": ["cat"]}),
        empty_frame(LABELS),
        NOW,
        OracleParams(noise=0.0, labelers=1, abstain=0.0, seed=0),
    )

    assert exports["2000-01-05"].empty
