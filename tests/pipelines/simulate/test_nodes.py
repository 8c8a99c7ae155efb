"""What surrounds the production pipelines in a replay."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from tests.test_parameters import configured

from active_learning.errors import SettingsError
from active_learning.imaging import ImageStore, LabeledImages
from active_learning.pipelines.select.params import SelectParams
from active_learning.pipelines.simulate.nodes import (
    draw_pool,
    draw_stream,
    hold_out_test_set,
    join_points,
    label_start,
    look_back,
    measure_round,
    measure_start,
    offer_candidates,
    recall_predictions,
)
from active_learning.pipelines.simulate.params import BranchParams, SimulateParams
from active_learning.pipelines.simulate.plan import Branch, Plan, make_plan
from active_learning.schemas import (
    LABEL_REQUESTS,
    LABELS,
    PREDICTIONS,
    REJECTED_LABELS,
    empty_frame,
)
from active_learning.services.labeling import LabelingQueue
from active_learning.services.labeling.oracle import OracleParams

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


def oracle(**changes: Any) -> OracleParams:
    return OracleParams.model_validate(configured("oracle", **changes))


def known(*names: str) -> pd.DataFrame:
    """A row for each answer."""
    return empty_frame(LABELS).reindex(range(len(names))).assign(image_id=list(names))


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

    exports, labels, requests, rejected, predictions = label_start(
        pool, NOW, settings(), oracle()
    )

    answers = exports["round_00"]
    assert answers["reference"].tolist() == pool["image_id"][:2].tolist()
    assert answers["label"].tolist() == pool["label"][:2].tolist()
    assert set(answers["request_id"]) == {""}
    assert not any(map(len, (labels, requests, rejected, predictions)))


def test_labelers_share_the_first_labels() -> None:
    four = settings(initial_labels=4)
    pool = draw_pool(images(10), four, branch())

    exports, *_ = label_start(pool, NOW, four, oracle(labelers=2))

    first = pool["image_id"][:2].tolist()
    assert exports["round_00"]["reference"].tolist() == [
        *([first[0]] * 2),
        *([first[1]] * 2),
    ]


def test_a_round_has_at_hand_what_the_rounds_before_left() -> None:
    requests = empty_frame(LABEL_REQUESTS).reindex(range(2))

    past, labels, rejected = look_back(requests, known("a", "b", "a"))

    assert len(past) == 2
    assert labels["image_id"].tolist() == ["a", "b", "a"]
    assert rejected.columns.tolist() == REJECTED_LABELS.names
    assert rejected.empty


def test_each_round_sees_its_own_part_of_the_pool() -> None:
    pool = draw_pool(images(10), settings(), branch())
    none = empty_frame(LABEL_REQUESTS)
    answered = known(*pool["image_id"][:2])

    first, scored = draw_stream(pool, none, answered, select())
    later = none.reindex([0]).assign(round=1)
    second, _ = draw_stream(pool, later, answered, select())

    assert first["image_id"].tolist() == pool["image_id"][2:5].tolist()
    assert second["image_id"].tolist() == pool["image_id"][5:8].tolist()
    assert scored.empty


def test_what_keeps_its_distance_from_labels_sees_them_again_once() -> None:
    pool = draw_pool(images(10), settings(), branch())
    names = pool["image_id"][:2].tolist()

    incoming, _ = draw_stream(
        pool,
        empty_frame(LABEL_REQUESTS),
        known(names[0], names[1], names[0]),
        select(strategy="coreset"),
    )

    assert incoming["image_id"].tolist() == [*pool["image_id"][2:5], *names]


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


def predictions(version: int, *names: str) -> pd.DataFrame:
    frame = empty_frame(PREDICTIONS).reindex(range(len(names)))
    return frame.assign(image_id=list(names), model_version=version)


def queue(store: ImageStore, *names: str) -> LabelingQueue:
    return LabelingQueue(pd.DataFrame({"image_id": list(names)}), store)


def test_what_was_said_before_anybody_answered_is_kept(store: ImageStore) -> None:
    # b is asked about again; old was asked for without having been scored.
    asked = recall_predictions(
        predictions(1, "a", "b"),
        predictions(2, "c", "d").assign(vector=None, weight=0.0),
        queue(store, "c", "b", "old"),
    )

    said = dict(zip(asked["image_id"], asked["model_version"], strict=True))
    assert said == {"a": 1, "b": 1, "c": 2}
    assert asked.columns.tolist() == PREDICTIONS.names


def test_the_first_round_recalls_what_it_asked_for(store: ImageStore) -> None:
    asked = recall_predictions(
        empty_frame(PREDICTIONS), predictions(1, "a", "b"), queue(store, "b")
    )

    assert asked["image_id"].tolist() == ["b"]


def point(n_labels: int, labelers: int = 1, n_requests: int = 1) -> dict[str, Any]:
    """The fourth round, after one that ended with so many labels."""
    evaluation = {"n_labels": 7, "accuracy": 0.5, "macro_f1": 0.4}
    times = {"train": 3.0, "score": 2.0, "select": 1.0}
    requests = empty_frame(LABEL_REQUESTS).reindex(range(n_requests)).assign(round=4)
    # The last one is labeled and was only looked at again.
    scored = pd.DataFrame({"image_id": ["0.png", "1.png", "2.png"]})
    scored["label"] = ["cat", "dog", "dog"]
    pool = images(3).assign(round=[4, 4, 0])
    return measure_round(
        {"n_labels": n_labels},
        evaluation,
        requests,
        scored,
        pool,
        times,
        branch(),
        oracle(labelers=labelers),
    )


def test_a_point_of_a_curve_tells_accuracy_before_and_after() -> None:
    assert point(6) == {
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


def test_what_is_counted_is_every_answer_that_was_paid_for() -> None:
    assert point(100, labelers=3, n_requests=2)["n_labels"] == 106


def test_the_start_is_the_first_point_of_every_strategy() -> None:
    evaluation = {"n_labels": 2, "accuracy": 0.1, "macro_f1": 0.1}
    start = BranchParams(seed=0, strategy="start")
    first = measure_start(evaluation, {"train": 1.0}, start, settings(), oracle())

    curve = join_points(branch(), first | {"round": 1}, first)

    assert curve["strategy"].unique().tolist() == ["margin"]
    assert curve["round"].tolist() == [0, 1]
    assert curve["stream_accuracy"].isna().all()


@pytest.mark.parametrize(("labelers", "paid"), [(1, 7), (2, 6), (3, 6), (7, 7)])
def test_the_start_counts_the_answers_to_whole_images(labelers: int, paid: int) -> None:
    evaluation = {"n_labels": 1, "accuracy": 0.1, "macro_f1": 0.1}

    first = measure_start(
        evaluation,
        {},
        branch(),
        settings(initial_labels=7),
        oracle(labelers=labelers),
    )

    assert first["n_labels"] == paid


# --- the plan ---


def parameters(**simulate: Any) -> dict[str, Any]:
    names = (
        *("score", "select", "oracle", "label_ingest", "train", "test_set", "simulate"),
    )
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
        ("oracle", "noise", 0.1),
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


# --- variants ---

NOISY = {"oracle": {"noise": 0.2, "labelers": 3}}


def laid_out(**simulate: Any) -> dict[str, Any]:
    """The sections of seed 0, by branch."""
    sections = parameters(seeds=[0], strategies=["random"], **simulate)
    return dict(make_plan(sections, "x").lay_out(sections)["seed_0"])


def test_a_variant_runs_every_strategy_again_with_its_own_changes() -> None:
    own = laid_out(variants={"noisy": NOISY})

    assert set(own) == {"start", "random", "start--noisy", "random--noisy"}
    assert own["random"]["oracle"] == configured("oracle")
    for name in ("start--noisy", "random--noisy"):
        assert own[name]["oracle"] == configured("oracle") | NOISY["oracle"]
    assert own["random--noisy"]["branch"]["strategy"] == "random (noisy)"


def test_a_variant_changes_single_leaves() -> None:
    near = {"select": {"near_duplicates": {"by": "none"}}}

    select = laid_out(variants={"alike": near})["random--alike"]["select"]

    untouched = configured("select")["near_duplicates"]
    assert select["near_duplicates"] == untouched | {"by": "none"}


def test_variants_share_the_pool_of_their_seed() -> None:
    sections = parameters(variants={"noisy": NOISY})
    plan = make_plan(sections, "x")

    assert {b.pool for b in plan.branches} == {"seed_0.start.pool", "seed_1.start.pool"}
    assert Branch(0, "margin", "noisy").start.round(0) == "seed_0.start--noisy.round_00"


def test_a_budget_of_answers_is_shared_by_the_labelers() -> None:
    own = laid_out(variants={"noisy": NOISY})

    assert own["random"]["select"]["budget"] == 150
    assert own["random--noisy"]["select"]["budget"] == 50


def test_more_labelers_than_answers_are_refused() -> None:
    many = {"oracle": {"labelers": 151}}

    with pytest.raises(SettingsError, match="151, and simulate pays for 150"):
        laid_out(variants={"many": many})


def test_nothing_is_suspected_where_nothing_is_wrong() -> None:
    checks = {"suspected": "hold_out"}
    variants = {
        "checked": {"label_ingest": checks, "oracle": {"noise": 0.1}},
        "needless": {"label_ingest": checks},
    }
    own = laid_out(variants=variants)

    assert own["random--checked"]["label_ingest"]["suspected"] == "hold_out"
    assert own["random--needless"]["label_ingest"]["suspected"] == "keep"
    assert own["random"]["label_ingest"]["suspected"] == "keep"


@pytest.mark.parametrize(
    ("variants", "reason"),
    [
        ({"No isy": NOISY}, "cannot name a variant"),
        ({"noisy": {}}, "changes nothing"),
        ({"noisy": {"orcle": {"noise": 0.1}}}, r"changes \['orcle'\]"),
        ({"noisy": {"simulate": {"rounds": 1}}}, "it may change score"),
    ],
)
def test_a_variant_that_cannot_be_is_refused(
    variants: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        settings(variants=variants)


def test_other_variants_never_meet_the_same_files() -> None:
    one = make_plan(parameters(variants={"noisy": NOISY}), "photos")
    two = make_plan(
        parameters(variants={"noisy": {"oracle": {"noise": 0.1}}}), "photos"
    )

    assert one.experiment != two.experiment
