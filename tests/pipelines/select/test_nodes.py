"""Which images are asked for, and which never are."""

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from active_learning.acquisition import sampling_keys
from active_learning.errors import TestSetError
from active_learning.imaging import ImageStore
from active_learning.pipelines.select.nodes import (
    choose_batch,
    find_candidates,
    rank_candidates,
    stage_images,
)
from active_learning.pipelines.select.params import SelectParams
from active_learning.schemas import (
    LABEL_REQUESTS,
    LABELS,
    MANIFEST,
    check_label_requests,
    empty_frame,
)

NOW = datetime(2000, 1, 1, tzinfo=UTC)
NO_LABELS = empty_frame(LABELS)
NO_REQUESTS = empty_frame(LABEL_REQUESTS)
NO_TESTS = empty_frame(MANIFEST)


def params(**changes: Any) -> SelectParams:
    return SelectParams(**{"strategy": "margin", "budget": 2, **changes})


def predictions(version: int = 1, **probabilities: float) -> pd.DataFrame:
    """One prediction of two classes for each image, given the first probability."""
    names = [f"{name}.png" for name in probabilities]
    return pd.DataFrame(
        {
            "image_id": names,
            "label": ["cat" if p >= 0.5 else "dog" for p in probabilities.values()],
            "probabilities": [[p, 1 - p] for p in probabilities.values()],
            "sampling_key": sampling_keys(names, version),
            "model_name": "small_cnn",
            "model_version": version,
        }
    )


def ask(
    store: ImageStore, scored: pd.DataFrame, tests: pd.DataFrame = NO_TESTS, **kw: Any
) -> pd.DataFrame:
    ranked = rank_candidates(scored, params(**kw))
    return choose_batch(ranked, NO_REQUESTS, tests, store, NOW, params(**kw))


def test_what_has_a_label_or_was_asked_for_is_no_candidate() -> None:
    labels = NO_LABELS.reindex([0]).assign(image_id="a.png")
    requests = NO_REQUESTS.reindex([0]).assign(image_id="b.png")

    left = find_candidates(predictions(a=0.5, b=0.5, c=0.5), labels, requests)

    assert left["image_id"].tolist() == ["c.png"]


def test_only_what_the_newest_model_said_counts() -> None:
    scored = pd.concat([predictions(1, a=0.5), predictions(2, b=0.5)])

    left = find_candidates(scored, NO_LABELS, NO_REQUESTS)

    assert left["image_id"].tolist() == ["b.png"]


def test_ties_do_not_depend_on_row_order() -> None:
    one = rank_candidates(predictions(b=0.5, a=0.5), params())
    two = rank_candidates(predictions(a=0.5, b=0.5), params())

    pd.testing.assert_frame_equal(one, two)


def test_the_budget_goes_to_the_most_useful(store: ImageStore) -> None:
    requests = ask(store, predictions(a=0.9, b=0.55, c=0.5, d=1.0))

    assert requests["image_id"].tolist() == ["c.png", "b.png"]
    assert requests["rank"].tolist() == [1, 2]
    assert requests["utility"].tolist() == pytest.approx([1.0, 0.9])
    check_label_requests(requests)


def test_fewer_images_than_budget_are_all_asked_for(
    store: ImageStore, caplog: pytest.LogCaptureFixture
) -> None:
    requests = ask(store, predictions(a=0.9), budget=5)

    assert requests["image_id"].tolist() == ["a.png"]
    assert "Only 1 of 5 requests" in caplog.text


def test_no_candidate_gives_no_request(store: ImageStore) -> None:
    requests = ask(store, predictions())

    assert requests.empty
    assert list(requests.columns) == LABEL_REQUESTS.names


def test_a_top_k_pick_has_propensity_one_and_a_random_one_its_own(
    store: ImageStore,
) -> None:
    scored = predictions(a=0.9, b=0.6, c=0.5, d=1.0)

    assert set(ask(store, scored)["propensity"]) == {1.0}
    assert set(ask(store, scored, strategy="random")["propensity"]) == {0.5}


def test_rounds_are_counted_from_the_last_request(store: ImageStore) -> None:
    ranked = rank_candidates(predictions(a=0.5), params())
    past = NO_REQUESTS.reindex([0]).assign(image_id="f.png", round=7)

    requests = choose_batch(ranked, past, NO_TESTS, store, NOW, params())

    assert requests["round"].tolist() == [8]


def test_an_image_of_the_test_set_is_never_asked_for(store: ImageStore) -> None:
    content = store.fingerprints(["c.png"])
    # The same content under another name is as bad.
    tests = pd.DataFrame({"image_id": ["x.png"], "label": "cat", "content": content})

    with pytest.raises(TestSetError, match=r"1 of 2 .*'c\.png'"):
        ask(store, predictions(a=0.6, c=0.5), tests)


def test_the_queue_shows_the_models_guess_beside_each_request(
    store: ImageStore,
) -> None:
    ranked = rank_candidates(predictions(a=0.6, b=0.4, c=1.0), params())
    requests = choose_batch(ranked, NO_REQUESTS, NO_TESTS, store, NOW, params())

    queue = stage_images(requests, ranked, store)

    shown = queue.requests.set_index("image_id")["predicted_label"]
    assert shown.to_dict() == {"a.png": "cat", "b.png": "dog"}


def test_selecting_leaves_its_inputs_as_they_were(store: ImageStore) -> None:
    scored = predictions(a=0.6, b=0.4)
    before = scored.copy(deep=True)

    ask(store, scored)

    pd.testing.assert_frame_equal(scored, before)
