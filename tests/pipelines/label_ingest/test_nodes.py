"""What comes back is learned from, rejected with a reason, or known already."""

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from active_learning.imaging import ImageStore
from active_learning.pipelines.label_ingest.nodes import (
    build_training_set,
    check_answers,
    gather_answers,
)
from active_learning.pipelines.label_ingest.params import LabelIngestParams
from active_learning.schemas import (
    LABEL_REQUESTS,
    LABELS,
    MANIFEST,
    check_labels,
    check_training_set,
    empty_frame,
)

NOW = datetime(2000, 1, 2, tzinfo=UTC)
ANY_CLASS = LabelIngestParams(classes=None)
NO_LABELS = empty_frame(LABELS)
NO_REQUESTS = empty_frame(LABEL_REQUESTS)
NO_TESTS = empty_frame(MANIFEST)


def export(**labels: str) -> pd.DataFrame:
    """Answers of one labeler at one time, image by image."""
    return pd.DataFrame(
        {
            "image_id": [f"{name}.png" for name in labels],
            "label": list(labels.values()),
            "labeler": "ann",
            "labeled_at": "2000-01-01T12:00:00Z",
            "source": "csv",
        }
    )


def ingest(
    store: ImageStore, exports: dict[str, pd.DataFrame], **kw: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    given = {"test_set": NO_TESTS, "params": ANY_CLASS, "known": NO_LABELS, **kw}
    asked = given.get("asked", NO_REQUESTS)
    answers = gather_answers(exports, asked, given["known"])
    return check_answers(answers, given["test_set"], store, NOW, given["params"])


def test_every_answer_is_a_label_or_rejected(store: ImageStore) -> None:
    labels, rejected = ingest(store, {"monday": export(a="cat", x="dog", b="")})

    assert labels["image_id"].tolist() == ["a.png"]
    assert rejected["image_id"].tolist() == ["x.png", "b.png"]
    assert "label is empty" in rejected["reason"].iloc[1]
    assert set(rejected["batch_id"]) == {"monday"}
    check_labels(labels)


def test_the_same_export_twice_adds_nothing(store: ImageStore) -> None:
    first, _ = ingest(store, {"monday": export(a="cat")})

    again, rejected = ingest(store, {"monday": export(a="cat")}, known=first)
    renamed, _ = ingest(store, {"tuesday": export(a="cat")}, known=first)

    assert again.empty
    assert rejected.empty
    assert renamed.empty


def test_an_export_that_contains_the_last_one_adds_what_is_new(
    store: ImageStore,
) -> None:
    first, _ = ingest(store, {"1": export(a="cat")})

    labels, _ = ingest(store, {"2": export(a="cat", b="dog")}, known=first)

    assert labels["image_id"].tolist() == ["b.png"]


def test_no_export_yet_is_no_label_yet(store: ImageStore) -> None:
    labels, rejected = ingest(store, {})

    assert labels.empty
    assert rejected.empty


def test_a_class_that_is_not_allowed_is_told_the_nearest(store: ImageStore) -> None:
    only = LabelIngestParams(classes=("cat", "dog"))

    labels, rejected = ingest(store, {"1": export(a="cat", b="dgo")}, params=only)

    assert labels["label"].tolist() == ["cat"]
    assert "did the labeler mean 'dog'" in rejected["reason"].item()


def test_a_label_of_a_test_image_is_not_learned_from(store: ImageStore) -> None:
    content = store.fingerprints(["a.png"])
    tests = pd.DataFrame({"image_id": ["t.png"], "label": "cat", "content": content})

    labels, rejected = ingest(store, {"1": export(a="cat", b="dog")}, test_set=tests)

    assert labels["image_id"].tolist() == ["b.png"]
    assert "frozen test set" in rejected["reason"].item()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", "no\\such"])
def test_a_name_that_leaves_the_store_is_rejected(store: ImageStore, name: str) -> None:
    answer = export(a="cat").assign(image_id=name)

    labels, rejected = ingest(store, {"1": answer})

    assert labels.empty
    assert len(rejected) == 1


def test_an_answer_finds_the_latest_request_of_its_image(store: ImageStore) -> None:
    asked = NO_REQUESTS.reindex(range(2)).assign(
        request_id=["old", "new"], image_id="a.png", round=[1, 2]
    )
    answers = export(a="cat", b="dog", c="cow").assign(request_id=["", "", "named"])

    labels, _ = ingest(store, {"1": answers}, asked=asked)

    assert labels["request_id"].tolist() == ["new", "", "named"]


def test_an_answer_without_a_time_is_as_old_as_its_ingestion(
    store: ImageStore,
) -> None:
    answer = export(a="cat").drop(columns=["labeled_at", "labeler"])

    labels, _ = ingest(store, {"1": answer})

    assert labels["labeled_at"].item() == pd.Timestamp(NOW)


def test_the_later_label_of_an_image_wins(store: ImageStore) -> None:
    early, _ = ingest(store, {"1": export(a="cat", b="cat")})
    correction = export(a="dog").assign(labeled_at="2000-01-01T13:00:00Z")
    late, _ = ingest(store, {"2": correction}, known=early)

    training_set = build_training_set(early, late, store)

    labels = training_set.set_index("image_id")["label"]
    assert labels.to_dict() == {"a.png": "dog", "b.png": "cat"}
    check_training_set(training_set)


def test_the_training_set_grows_from_itself(store: ImageStore) -> None:
    # A simulation gives the last training set for what is known.
    first, _ = ingest(store, {"1": export(a="cat")})
    before = build_training_set(NO_LABELS, first, store)
    more, _ = ingest(store, {"2": export(b="dog")}, known=before)

    after = build_training_set(before, more, store)

    assert after["image_id"].tolist() == ["a.png", "b.png"]
    assert after["content"].tolist() == store.fingerprints(["a.png", "b.png"])
