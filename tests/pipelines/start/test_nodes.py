from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from active_learning.errors import NoImagesError
from active_learning.imaging import ImageStore
from active_learning.pipelines.start.nodes import draw_first
from active_learning.pipelines.start.params import StartParams
from active_learning.schemas import (
    LABEL_REQUESTS,
    LABELS,
    MANIFEST,
    check_label_requests,
    empty_frame,
)

NOON = datetime(2000, 1, 1, 12, tzinfo=UTC)


def begin(images: ImageStore, names: list[str], **changes: Any) -> pd.DataFrame:
    """Draw 3 of the named images of an empty project."""
    inputs: dict[str, Any] = {
        "incoming_images": pd.DataFrame({"image_id": names}),
        "known_labels": empty_frame(LABELS),
        "past_requests": empty_frame(LABEL_REQUESTS),
        "test_set": empty_frame(MANIFEST),
        "images": images,
        "now": NOON,
        "params": StartParams(labels=3, seed=0),
    }
    return draw_first(**(inputs | changes))


EVERY = [f"{letter}.png" for letter in "abcdef"]


def test_the_first_requests_are_a_draw_with_known_propensity(store: ImageStore) -> None:
    batch = begin(store, EVERY)

    check_label_requests(batch[LABEL_REQUESTS.names])
    assert len(set(batch["image_id"])) == 3
    assert set(batch["propensity"]) == {0.5}
    assert set(batch["population"]) == {6}
    assert batch["rank"].tolist() == [1, 2, 3]
    assert set(batch["round"]) == {0}


def test_the_draw_does_not_depend_on_the_order_of_the_images(store: ImageStore) -> None:
    pd.testing.assert_frame_equal(begin(store, EVERY), begin(store, EVERY[::-1]))


def test_another_seed_draws_others(store: ImageStore) -> None:
    draws = {
        tuple(begin(store, EVERY, params=StartParams(labels=3, seed=seed))["image_id"])
        for seed in range(5)
    }

    assert len(draws) > 1


def test_every_image_can_be_drawn(store: ImageStore) -> None:
    drawn = {
        name
        for seed in range(20)
        for name in begin(store, EVERY, params=StartParams(labels=3, seed=seed))[
            "image_id"
        ]
    }

    assert drawn == set(EVERY)


def test_no_image_of_the_test_set_is_drawn_and_no_copy_of_one(
    store: ImageStore,
) -> None:
    (content,) = store.fingerprints(["a.png"])
    held_out = pd.DataFrame(
        {"image_id": ["elsewhere.png"], "label": ["x"], "content": [content]}
    )

    batch = begin(store, ["a.png", "b.png"], test_set=held_out)

    assert batch["image_id"].tolist() == ["b.png"]


def test_an_unreadable_image_is_passed_over(store: ImageStore, tmp_path: Any) -> None:
    (tmp_path / "store" / "0.png").write_bytes(b"no image")

    batch = begin(store, ["0.png", "a.png"])

    assert batch["image_id"].tolist() == ["a.png"]


def test_nothing_that_can_be_asked_for_is_one_clear_error(
    store: ImageStore, tmp_path: Any
) -> None:
    (tmp_path / "store" / "0.png").write_bytes(b"no image")

    with pytest.raises(NoImagesError, match="None of 1 images"):
        begin(store, ["0.png"])


def test_a_project_that_has_begun_draws_nothing(store: ImageStore) -> None:
    requests = begin(store, EVERY)[LABEL_REQUESTS.names]
    label = pd.DataFrame({"image_id": ["a.png"]}).reindex(columns=LABELS.names)

    assert begin(store, EVERY, past_requests=requests).empty
    assert begin(store, EVERY, known_labels=label).empty
