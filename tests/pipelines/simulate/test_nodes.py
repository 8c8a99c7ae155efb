"""What surrounds the production pipelines in a replay."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.test_parameters import configured

from active_learning.errors import SettingsError
from active_learning.imaging import ImageStore, LabeledImages
from active_learning.pipelines.select.params import SelectParams
from active_learning.pipelines.simulate.nodes import (
    answer_requests,
    draw_pool,
    draw_stream,
    hold_out_test_set,
    join_points,
    label_start,
    measure_round,
    measure_start,
    offer_candidates,
)
from active_learning.pipelines.simulate.params import BranchParams, SimulateParams
from active_learning.pipelines.simulate.plan import Branch, Plan, make_plan
from active_learning.schemas import LABEL_REQUESTS, empty_frame
from active_learning.services.labeling import LabelingQueue

NOW = datetime(2000, 1, 5, tzinfo=UTC)


def settings(**changes: Any) -> SimulateParams:
    small = {
        "rounds": 2,
        "pool_size": 6,
        "initial_labels": 2,
        "stream_size": 3,
        "labels_per_round": 1,
    }
    return SimulateParams.model_validate(configured("simulate", **(small | changes)))


def images(n: int) -> pd.DataFrame:
    names = [f"{number}.png" for number in range(n)]
    return pd.DataFrame({"image_id": names, "label": "cat", "content": names})


def select(**changes: Any) -> SelectParams:
    return SelectParams.model_validate(configured("select", **changes))


def branch(seed: int = 0) -> BranchParams:
    return BranchParams(seed=seed, strategy="margin")


def test_test_images_and_their_copies_are_held_out() -> None:
    rows = [("a", "train", "1"), ("b", "train", "2"), ("c", "test", "3")]
    table = pd.DataFrame(rows, columns=["image_id", "split", "content"])
    tree = LabeledImages(table.assign(label="cat"), pd.DataFrame())
    tests = pd.DataFrame({"image_id": ["x"], "label": "cat", "content": ["2"]})

    assert hold_out_test_set(tree, tests)["image_id"].tolist() == ["a"]


def test_every_image_of_a_pool_comes_in_once_and_beside_the_start() -> None:
    pool = draw_pool(images(10), settings(), branch())

    assert pool["image_id"].is_unique
    assert pool["round"].tolist() == [0, 0, 1, 1, 1, 2, 2, 2]


def test_a_seed_draws_alike_and_another_otherwise() -> None:
    def drawn(seed: int) -> list[str]:
        return draw_pool(images(50), settings(), branch(seed))["image_id"].tolist()

    assert drawn(0) == drawn(0) != drawn(1)


def test_too_few_images_are_counted() -> None:
    with pytest.raises(SettingsError, match="need 8 images; there are 7"):
        draw_pool(images(7), settings(), branch())


def test_the_start_is_labeled_without_being_asked() -> None:
    pool = draw_pool(images(10), settings(), branch())

    exports, known, requests = label_start(pool, NOW)

    assert exports["round_00"]["image_id"].tolist() == pool["image_id"][:2].tolist()
    assert known.empty
    assert requests.empty


def test_each_round_sees_its_own_part_of_the_pool() -> None:
    pool = draw_pool(images(10), settings(), branch())
    none = empty_frame(LABEL_REQUESTS)

    first, scored = draw_stream(pool, none, pool[:2], select())
    later = none.reindex([0]).assign(round=1)
    second, _ = draw_stream(pool, later, pool[:2], select())

    assert first["image_id"].tolist() == pool["image_id"][2:5].tolist()
    assert second["image_id"].tolist() == pool["image_id"][5:8].tolist()
    assert scored.empty


def test_what_keeps_its_distance_from_labels_sees_them_again() -> None:
    pool = draw_pool(images(10), settings(), branch())

    incoming, _ = draw_stream(
        pool, empty_frame(LABEL_REQUESTS), pool[:2], select(strategy="coreset")
    )

    assert incoming["image_id"].tolist() == [
        *pool["image_id"][2:5],
        *pool["image_id"][:2],
    ]


def test_the_stream_is_what_select_may_ask_for() -> None:
    scored = pd.DataFrame(
        {"image_id": ["a", "b", "c"], "margin": [0.9, 0.5, 0.0], "label": "cat"}
    ).assign(entropy=0.0, confidence=1.0, sampling_key=0.5)
    seen = pd.DataFrame({"image_id": ["a", "b", "c"], "vector": [[1.0], [2.0], [3.0]]})
    known = pd.DataFrame({"image_id": ["c"]})

    candidates, drawn_from, labeled = offer_candidates(scored, seen, known, select())

    assert candidates["image_id"].tolist() == ["a", "b"]
    assert candidates["vector"].tolist() == [[1.0], [2.0]]
    assert candidates["weight"].tolist() == pytest.approx([0.1, 0.5])
    assert candidates["mass"].tolist() == pytest.approx([0.6, 0.6])
    assert candidates["population"].tolist() == [2, 2]
    assert drawn_from["image_id"].tolist() == ["a", "b"]
    assert labeled["image_id"].tolist() == ["c"]


def test_the_oracle_answers_each_request_with_the_truth(store: ImageStore) -> None:
    pool = images(3).assign(label=["cat", "dog", "cow"], round=1)
    asked = pd.DataFrame({"request_id": ["r1", "r2"], "image_id": ["2.png", "0.png"]})

    exports = answer_requests(LabelingQueue(asked, store), pool, NOW)

    answers = exports["2000-01-05"]
    assert answers["label"].tolist() == ["cow", "cat"]
    assert answers["request_id"].tolist() == ["r1", "r2"]


def test_a_point_of_a_curve_tells_accuracy_before_and_after() -> None:
    evaluation = {"n_labels": 7, "accuracy": 0.5, "macro_f1": 0.4}
    times = {"train": 3.0, "score": 2.0, "select": 1.0}
    requests = empty_frame(LABEL_REQUESTS).reindex([0]).assign(round=4)
    # The last one is labeled and was only looked at again.
    scored = pd.DataFrame({"image_id": ["0.png", "1.png", "2.png"]})
    scored["label"] = ["cat", "dog", "dog"]
    pool = images(3).assign(round=[4, 4, 0])

    point = measure_round(evaluation, requests, scored, pool, times, branch())

    assert point == {
        "seed": 0,
        "strategy": "margin",
        "round": 4,
        "n_labels": 7,
        "test_accuracy": 0.5,
        "test_macro_f1": 0.4,
        "stream_accuracy": 0.5,
        "train_s": 3.0,
        "score_s": 2.0,
        "select_s": 1.0,
    }


def test_the_start_is_the_first_point_of_every_strategy() -> None:
    evaluation = {"n_labels": 2, "accuracy": 0.1, "macro_f1": 0.1}
    start = BranchParams(seed=0, strategy="start")
    first = measure_start(evaluation, {"train": 1.0}, start)

    curve = join_points(branch(), first | {"round": 1}, first)

    assert curve["strategy"].unique().tolist() == ["margin"]
    assert curve["round"].tolist() == [0, 1]
    assert curve["stream_accuracy"].isna().all()


# --- the plan ---


def parameters(**simulate: Any) -> dict[str, Any]:
    names = ("score", "select", "label_ingest", "train", "test_set", "simulate")
    sections = {name: configured(name) for name in names}
    sections["simulate"] |= simulate
    return sections


def test_a_longer_run_goes_on_in_the_same_folder() -> None:
    one = make_plan(parameters(), "photos").experiment
    more = {"rounds": 4, "seeds": [0, 1, 7], "strategies": ["random", "entropy"]}

    assert make_plan(parameters(**more), "photos").experiment == one


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("simulate", "labels_per_round", 149),
        ("train", "evaluation_batch_size", 7),
        ("label_ingest", "classes", ["cat"]),
        ("test_set", "seed", 9),
    ],
)
def test_other_settings_never_meet_the_same_files(
    section: str, name: str, value: Any
) -> None:
    changed = parameters()
    changed[section][name] = value

    one, two = make_plan(parameters(), "photos"), make_plan(changed, "photos")

    assert one.experiment != two.experiment


def test_other_images_never_meet_the_same_files() -> None:
    one = make_plan(parameters(), "a/photos").experiment
    two = make_plan(parameters(), "b/photos").experiment

    assert one != two
    assert one.startswith("photos-")


def test_every_branch_has_its_own_strategy_budget_and_seed() -> None:
    plan = make_plan(parameters(seeds=[3], strategies=["random", "math.sqrt"]), "x")

    laid_out = plan.lay_out(parameters())["seed_3"]

    assert set(laid_out) == {"start", "random", "math-sqrt"}
    assert laid_out["math-sqrt"]["select"] == configured("select") | {
        "strategy": "math.sqrt",
        "budget": 150,
        "audit": 0,
    }
    assert laid_out["math-sqrt"]["train"]["seed"] == 3
    assert laid_out["math-sqrt"]["score"]["source"] == "simulation"


@pytest.mark.parametrize(
    ("strategy", "near_duplicates", "made"),
    [
        ("margin", "perceptual_hash", False),
        ("coreset", "none", True),
        ("margin", "embedding", True),
    ],
)
def test_embeddings_are_made_only_for_who_looks_at_them(
    strategy: str, near_duplicates: str, made: bool
) -> None:
    sections = parameters(seeds=[0], strategies=["random", strategy])
    sections["select"]["near_duplicates"]["by"] = near_duplicates

    laid_out = make_plan(sections, "x").lay_out(sections)

    assert laid_out["seed_0"][strategy]["score"]["embeddings"] is made


def test_a_dotted_strategy_keeps_one_part_of_the_namespace() -> None:
    assert Branch(0, "my.own.strategy").round(3) == "seed_0.my-own-strategy.round_03"


def test_a_plan_has_every_seed_with_every_strategy() -> None:
    plan = Plan(settings(seeds=[0, 1], strategies=["random", "margin"]), "x")

    names = [b.namespace for b in plan.branches]

    assert names == ["seed_0.random", "seed_0.margin", "seed_1.random", "seed_1.margin"]
    np.testing.assert_array_equal([b.strategy for b in plan.starts], ["start"] * 2)
