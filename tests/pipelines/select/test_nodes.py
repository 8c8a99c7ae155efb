"""Which images are asked for, and which never are."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.test_parameters import configured

from active_learning.acquisition import propensities, sampling_keys
from active_learning.errors import PredictionsError, TestSetError
from active_learning.imaging import ImageStore
from active_learning.pipelines.select.nodes import (
    choose_batch,
    draw_audit,
    draw_second_opinions,
    rank_candidates,
    record_requests,
    stage_images,
)
from active_learning.pipelines.select.params import SelectParams
from active_learning.schemas import (
    DISPUTED_LABELS,
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
NO_DISPUTES = empty_frame(DISPUTED_LABELS)
NO_VECTORS = pd.DataFrame({"image_id": [], "vector": []})


def params(**changes: Any) -> SelectParams:
    small = {"strategy": "margin", "budget": 2, "audit": 0}
    near = {"by": "none", "similarity": 0.98, "distance": 2}
    return SelectParams.model_validate(
        configured("select", **(small | {"near_duplicates": near} | changes))
    )


def near(by: str) -> dict[str, Any]:
    return {"by": by, "similarity": 0.98, "distance": 2}


def predictions(version: int = 1, **probabilities: float) -> pd.DataFrame:
    """One prediction of two classes for each image, given the first probability."""
    names = [f"{name}.png" for name in probabilities]
    first = np.array(list(probabilities.values()))
    weight = 1 - abs(2 * first - 1)
    return pd.DataFrame(
        {
            "image_id": names,
            "label": ["cat" if p >= 0.5 else "dog" for p in first],
            "classes": [["cat", "dog"]] * len(names),
            "probabilities": [[p, 1 - p] for p in first],
            "sampling_key": sampling_keys(names, version),
            "model_name": "small_cnn",
            "model_version": version,
            "population": len(names),
            "weight": weight,
            "mass": weight.sum(),
        }
    )


def ranked(scored: pd.DataFrame, **changes: Any) -> pd.DataFrame:
    return rank_candidates(scored, NO_VECTORS, NO_LABELS, params(**changes))


def ask(
    store: ImageStore,
    scored: pd.DataFrame,
    tests: pd.DataFrame = NO_TESTS,
    past: pd.DataFrame = NO_REQUESTS,
    disputes: pd.DataFrame = NO_DISPUTES,
    labels: pd.DataFrame = NO_LABELS,
    **changes: Any,
) -> pd.DataFrame:
    own = params(**changes)
    return choose_batch(
        ranked(scored, **changes),
        draw_second_opinions(disputes, past, labels, tests, store, NOW, own),
        draw_audit(scored, own),
        past,
        tests,
        store,
        NOW,
        own,
    )


def test_ties_do_not_depend_on_row_order() -> None:
    one = ranked(predictions(b=0.5, a=0.5))
    two = ranked(predictions(a=0.5, b=0.5))

    pd.testing.assert_frame_equal(one, two)


def test_the_budget_goes_to_the_most_useful(store: ImageStore) -> None:
    requests = ask(store, predictions(a=0.9, b=0.55, c=0.5, d=1.0))

    assert requests["image_id"].tolist() == ["c.png", "b.png"]
    assert requests["rank"].tolist() == [1, 2]
    assert requests["utility"].tolist() == pytest.approx([1.0, 0.9])
    assert not requests["audit"].any()
    check_label_requests(requests[LABEL_REQUESTS.names])


def test_fewer_images_than_budget_are_all_asked_for(
    store: ImageStore, caplog: pytest.LogCaptureFixture
) -> None:
    requests = ask(store, predictions(a=0.9), budget=5)

    assert requests["image_id"].tolist() == ["a.png"]
    assert "Only 1 of 5 requests" in caplog.text


def test_no_candidate_gives_no_request(store: ImageStore) -> None:
    requests = ask(store, predictions())

    assert requests.empty
    assert list(requests.columns) == [*LABEL_REQUESTS.names, "predicted_label"]


def test_a_top_k_pick_has_propensity_one_and_a_random_one_its_own(
    store: ImageStore,
) -> None:
    scored = predictions(a=0.9, b=0.6, c=0.5, d=1.0)

    assert set(ask(store, scored)["propensity"]) == {1.0}
    assert set(ask(store, scored, strategy="random")["propensity"]) == {0.5}


def test_a_draw_by_power_has_the_probability_of_its_turn(store: ImageStore) -> None:
    scored = predictions(a=0.9, b=0.6, c=0.5, d=0.7)
    # The engine knows of more images than it brings back.
    scored["mass"] = 10.0

    requests = ask(store, scored, strategy="power")

    weights = scored.set_index("image_id")["weight"].loc[requests["image_id"]]
    expected = propensities(weights.to_numpy(), 10.0)
    assert requests["propensity"].tolist() == pytest.approx(expected.tolist())


def test_rounds_are_counted_from_the_last_request(store: ImageStore) -> None:
    past = NO_REQUESTS.reindex([0]).assign(image_id="f.png", round=7)

    requests = ask(store, predictions(a=0.5), past=past)

    assert requests["round"].tolist() == [8]


def test_the_same_state_gives_the_same_requests_under_the_same_ids(
    store: ImageStore,
) -> None:
    scored = predictions(a=0.9, b=0.6, c=0.5)

    one, two = ask(store, scored, audit=1), ask(store, scored, audit=1)

    pd.testing.assert_frame_equal(one, two)


def test_an_image_of_the_test_set_is_never_asked_for(store: ImageStore) -> None:
    content = store.fingerprints(["c.png"])
    # The same content under another name is as bad.
    tests = pd.DataFrame({"image_id": ["x.png"], "label": "cat", "content": content})

    with pytest.raises(TestSetError, match=r"1 of 2 .*'c\.png'"):
        ask(store, predictions(a=0.6, c=0.5), tests)


# --- the audit sample ---


def test_the_audit_is_drawn_blind_beside_the_budget(store: ImageStore) -> None:
    scored = predictions(a=0.9, b=0.6, c=0.5, d=1.0, e=0.8)

    requests = ask(store, scored, audit=2)

    audits = requests[requests["audit"]]
    lowest = scored.sort_values("sampling_key")["image_id"].tolist()[:2]
    assert audits["image_id"].tolist() == lowest
    assert set(audits["propensity"]) == {2 / 5}
    assert set(audits["strategy"]) == {"random"}
    assert requests["rank"].tolist() == [1, 2, 3, 4]
    assert len(requests[~requests["audit"]]) == 2
    assert requests["request_id"].is_unique
    check_label_requests(requests[LABEL_REQUESTS.names])


def test_an_audit_of_what_is_asked_anyway_is_not_staged_twice(
    store: ImageStore,
) -> None:
    batch = ask(store, predictions(a=0.5), audit=1)
    assert batch["image_id"].tolist() == ["a.png", "a.png"]

    queue = stage_images(batch, NO_REQUESTS, store)

    assert queue.requests["image_id"].tolist() == ["a.png"]


def test_an_audit_of_what_this_version_asked_before_is_not_staged_again(
    store: ImageStore,
) -> None:
    past = NO_REQUESTS.reindex([0]).assign(
        image_id="a.png", round=1, model_version=1, request_id="r"
    )
    batch = ask(store, predictions(a=0.5, b=0.9), past=past, audit=2, budget=1)
    audits = batch[batch["audit"]]

    queue = stage_images(audits, past, store)

    assert queue.requests["image_id"].tolist() == ["b.png"]


# --- near-duplicates and classes ---


def test_a_near_duplicate_by_embedding_is_passed_over(store: ImageStore) -> None:
    scored = predictions(a=0.5, b=0.51, c=0.6).assign(
        vector=[np.float32([1, 0]), np.float32([1, 0.01]), np.float32([0, 1])]
    )

    requests = ask(store, scored, near_duplicates=near("embedding"))

    assert requests["image_id"].tolist() == ["a.png", "c.png"]


def test_near_duplicates_by_embedding_need_embeddings(store: ImageStore) -> None:
    with pytest.raises(PredictionsError, match=r"score\.embeddings"):
        ask(store, predictions(a=0.5), near_duplicates=near("embedding"))


def photos(folder: Path) -> ImageStore:
    """``a`` and ``b`` show the same gradient, ``c`` its mirror image."""
    ramp = np.tile(np.arange(0, 250, 8, dtype=np.uint8), (32, 1))
    for name, pixels in {"a": ramp, "b": ramp + 3, "c": ramp[:, ::-1]}.items():
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{name}.png")
    return ImageStore(str(folder), cache=None, max_pixels=10_000)


def test_a_near_duplicate_by_its_looks_is_passed_over(tmp_path: Path) -> None:
    scored = predictions(a=0.5, b=0.51, c=0.6)

    requests = ask(photos(tmp_path), scored, near_duplicates=near("perceptual_hash"))

    assert requests["image_id"].tolist() == ["a.png", "c.png"]


def test_an_image_that_cannot_be_read_any_more_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = photos(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no image")

    requests = ask(
        store,
        predictions(a=0.5, b=0.51, c=0.6),
        near_duplicates=near("perceptual_hash"),
    )

    assert requests["image_id"].tolist() == ["b.png", "c.png"]
    assert "'a.png' is passed over" in caplog.text


def test_no_predicted_class_takes_more_than_its_share(store: ImageStore) -> None:
    scored = predictions(a=0.5, b=0.51, c=0.52, d=0.3)

    requests = ask(store, scored, max_class_share=0.5)

    assert requests["predicted_label"].tolist() == ["cat", "dog"]
    assert requests["image_id"].tolist() == ["a.png", "d.png"]


def test_a_draw_that_was_passed_over_leaves_a_gap_in_the_ranks(
    store: ImageStore,
) -> None:
    scored = predictions(a=0.5, b=0.5, c=0.5, d=0.3)

    requests = ask(store, scored, strategy="power", max_class_share=0.5)

    drawn = ranked(scored, strategy="power")["image_id"].tolist()
    places = [drawn.index(name) + 1 for name in requests["image_id"]]
    assert requests["rank"].tolist() == places


# --- second opinions ---


def disputes(**priorities: float) -> pd.DataFrame:
    """One label in doubt for each image; version 1 called all of them cats."""
    return pd.DataFrame(
        {
            "image_id": [f"{name}.png" for name in priorities],
            "reason": "the labelers disagree",
            "priority": list(priorities.values()),
            "label": "dog",
            "n_answers": 2,
            "predicted_label": "cat",
            "model_name": "small_cnn",
            "model_version": 1,
        }
    )


def asked_again(name: str, days_ago: float = 0, **changed: Any) -> pd.DataFrame:
    """A second opinion that was asked for in an earlier round."""
    row = {
        "request_id": "r",
        "image_id": f"{name}.png",
        "round": 3,
        "strategy": "second_opinion",
        "model_version": 1,
        "audit": False,
        "requested_at": pd.Timestamp(NOW) - pd.Timedelta(days=days_ago),
    }
    return NO_REQUESTS.reindex([0]).assign(**(row | changed))


def test_labels_in_doubt_come_first_and_out_of_the_budget(store: ImageStore) -> None:
    requests = ask(
        store,
        predictions(version=2, a=0.9, b=0.55, c=0.5),
        disputes=disputes(d=0.2, e=0.9, f=0.9),
        budget=4,
        second_opinions=0.5,
    )

    # The highest priority first, ties by name; the third has to wait.
    assert requests["image_id"].tolist() == ["e.png", "f.png", "c.png", "b.png"]
    assert requests["strategy"].tolist() == [*["second_opinion"] * 2, *["margin"] * 2]
    assert requests["rank"].tolist() == [-1, 0, 1, 2]
    seconds = requests.head(2)
    assert seconds["utility"].tolist() == [0.9, 0.9]
    assert set(seconds["propensity"]) == {1.0}
    assert set(seconds["population"]) == {3}
    assert set(seconds["predicted_label"]) == {"cat"}
    assert set(seconds["model_version"]) == {1}
    assert not requests["audit"].any()
    check_label_requests(requests[LABEL_REQUESTS.names])


@pytest.mark.parametrize(
    ("share", "n_second"), [(0.0, 0), (0.2, 1), (0.5, 2), (0.6, 3), (1.0, 4)]
)
def test_second_opinions_take_no_more_than_their_share(
    share: float, n_second: int, store: ImageStore
) -> None:
    requests = ask(
        store,
        predictions(a=0.9, b=0.55, c=0.5),
        disputes=disputes(d=0.2, e=0.9, f=0.8, a=0.1),
        budget=4,
        second_opinions=share,
        near_duplicates=near("perceptual_hash"),
    )

    assert (requests["strategy"] == "second_opinion").sum() == n_second
    assert len(requests) <= 4


@pytest.mark.parametrize("strategy", ["margin", "random", "power"])
def test_without_a_label_in_doubt_nothing_changes(
    strategy: str, store: ImageStore
) -> None:
    scored = predictions(a=0.9, b=0.55, c=0.5, d=0.7)
    how = {"strategy": strategy, "audit": 2}

    with_share = ask(store, scored, second_opinions=1.0, **how)
    without = ask(store, scored, second_opinions=0.0, **how)

    pd.testing.assert_frame_equal(with_share, without, check_exact=True)
    assert with_share["rank"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("days_ago", "answered", "asked"),
    [(13, False, False), (15, False, True), (13, True, True)],
    ids=["open", "expired", "answered"],
)
def test_a_second_opinion_is_not_asked_for_twice_at_once(
    days_ago: float, answered: bool, asked: bool, store: ImageStore
) -> None:
    labels = NO_LABELS.reindex([0]).assign(image_id="d.png", request_id="r")

    requests = ask(
        store,
        predictions(a=0.5),
        past=asked_again("d", days_ago),
        labels=labels if answered else NO_LABELS,
        disputes=disputes(d=0.5),
    )

    assert ("d.png" in set(requests["image_id"])) is asked


def test_another_request_for_the_image_is_no_second_opinion(
    store: ImageStore,
) -> None:
    # The request whose answers are in doubt may be unanswered by the last labeler.
    past = asked_again("d", strategy="margin")

    requests = ask(store, predictions(a=0.5), past=past, disputes=disputes(d=0.5))

    assert "d.png" in set(requests["image_id"])


def test_a_label_in_doubt_whose_image_cannot_be_shown_is_passed_over(
    store: ImageStore,
) -> None:
    content = store.fingerprints(["e.png"])
    tests = pd.DataFrame({"image_id": ["x.png"], "label": "cat", "content": content})

    requests = ask(
        store,
        predictions(a=0.5),
        tests,
        disputes=disputes(gone=0.9, e=0.8, d=0.1),
        budget=1,
        second_opinions=1.0,
    )

    assert requests["image_id"].tolist() == ["d.png"]


def test_a_label_that_no_model_asked_for_gets_a_second_opinion_too(
    store: ImageStore,
) -> None:
    unsolicited = disputes(d=0.5).assign(
        predicted_label=None, model_name=None, model_version=np.nan
    )

    requests = ask(store, predictions(a=0.5), disputes=unsolicited)

    first = requests.iloc[0]
    assert (first["image_id"], first["predicted_label"]) == ("d.png", "")
    assert (first["model_name"], first["model_version"]) == ("", 0)


def test_draws_keep_their_places_and_chances_behind_second_opinions(
    store: ImageStore,
) -> None:
    scored = predictions(a=0.9, b=0.6, c=0.5, d=0.7)
    how = {"disputes": disputes(e=0.5), "budget": 2, "second_opinions": 0.5}

    power = ask(store, scored, strategy="power", **how)
    blind = ask(store, scored, strategy="random", **how)

    # An estimate from weighted draws needs them numbered from 1, without a gap.
    draws = power[power["strategy"] == "power"]
    assert draws["rank"].tolist() == [1]
    alone = ask(store, scored, strategy="power", budget=1)
    assert draws["propensity"].tolist() == alone["propensity"].tolist()
    # One of four is drawn, and not two.
    assert blind.loc[blind["strategy"] == "random", "propensity"].tolist() == [0.25]


def test_an_audit_may_draw_what_gets_a_second_opinion(store: ImageStore) -> None:
    batch = ask(
        store,
        predictions(version=2, a=0.5, b=0.9),
        disputes=disputes(a=0.5),
        audit=2,
        budget=1,
        second_opinions=1.0,
    )

    queue = stage_images(batch, NO_REQUESTS, store)

    assert batch["request_id"].is_unique
    assert batch["image_id"].tolist().count("a.png") == 2
    assert sorted(queue.requests["image_id"]) == ["a.png", "b.png"]


def test_an_older_versions_requests_do_not_answer_an_audit_of_the_newer(
    store: ImageStore,
) -> None:
    # Version 1 asked about b; the second opinion on e bears version 1 as well.
    past = asked_again("b", strategy="margin")
    batch = ask(
        store,
        predictions(version=2, b=0.5),
        past=past,
        disputes=disputes(e=0.5),
        audit=1,
        budget=1,
        second_opinions=1.0,
    )

    queue = stage_images(batch, past, store)

    assert queue.requests["image_id"].tolist() == ["e.png", "b.png"]


def test_only_the_latest_label_of_an_image_counts_for_balance(
    store: ImageStore,
) -> None:
    scored = predictions(a=0.52, b=0.52, c=0.48, d=0.48)
    told = pd.DataFrame(
        {
            "label_id": list("1234567"),
            "image_id": ["x", "x", "x", "y", "y", "z", "z"],
            "label": ["dog", "cat", "cat", "dog", "", "dog", ""],
            "answer": [None, None, *["label"] * 2, "skipped", "label", "unclear"],
            "labeled_at": pd.date_range("2000", periods=7, tz="UTC"),
        }
    )
    plain = pd.DataFrame(
        {
            "image_id": ["x", "y", "z"],
            "label": ["cat", "dog", "dog"],
            "answer": "label",
        }
    )
    own = params(strategy="class_balanced")

    one = rank_candidates(scored, NO_VECTORS, told, own)
    two = rank_candidates(scored, NO_VECTORS, plain, own)

    pd.testing.assert_frame_equal(one, two)
    # One cat and two dogs so far: cats come first.
    assert one["label"].tolist()[:2] == ["cat", "cat"]


# --- staging and recording ---


def test_the_queue_shows_the_models_guess_beside_each_request(
    store: ImageStore,
) -> None:
    batch = ask(store, predictions(a=0.6, b=0.4, c=1.0))

    queue = stage_images(batch, NO_REQUESTS, store)

    shown = queue.requests.set_index("image_id")["predicted_label"]
    assert shown.to_dict() == {"a.png": "cat", "b.png": "dog"}


def test_what_is_recorded_has_the_columns_of_the_table(store: ImageStore) -> None:
    batch = ask(store, predictions(a=0.6, b=0.4))

    requests = record_requests(batch, stage_images(batch, NO_REQUESTS, store))

    assert list(requests.columns) == LABEL_REQUESTS.names
    assert len(requests) == 2


def test_selecting_leaves_its_inputs_as_they_were(store: ImageStore) -> None:
    scored = predictions(a=0.6, b=0.4)
    before = scored.copy(deep=True)

    ask(store, scored, audit=1)

    pd.testing.assert_frame_equal(scored, before)
