"""A model's answers become rows, and rows that no reader should see are named."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from active_learning.acquisition import sampling_keys
from active_learning.errors import ImageIdError, PredictionsError, SchemaError
from active_learning.schemas import PREDICTIONS, row_id
from active_learning.services.telemetry.rows import check_rows, predictions_table

NOON = datetime(2000, 1, 1, 12, tzinfo=UTC)


def predictions(*probabilities: list[float], **changed: Any) -> pa.Table:
    """One row for each vector, of a.png, b.png, ...; some arguments changed."""
    arguments: dict[str, Any] = {
        "image_ids": [f"{chr(ord('a') + n)}.png" for n in range(len(probabilities))],
        "probabilities": np.array(probabilities),
        "classes": [f"class {n}" for n in range(len(probabilities[0]))],
        "model_name": "small_cnn",
        "model_version": 1,
        "source": "batch",
        "scored_at": NOON,
    }
    return predictions_table(**{**arguments, **changed})


def replace(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    place = table.schema.get_field_index(name)
    field = PREDICTIONS.field(name)
    return table.set_column(place, field, pa.array(values, field.type))


def good() -> pa.Table:
    return predictions([0.25, 0.75], [1.0, 0.0])


def test_a_row_says_what_was_predicted_and_how_sure_the_model_was() -> None:
    rows = predictions([0.25, 0.75])

    assert rows.schema.equals(PREDICTIONS)
    assert rows.to_pylist() == [
        {
            "prediction_id": row_id("a.png", "small_cnn", 1),
            "image_id": "a.png",
            "source": "batch",
            "label": "class 1",
            "confidence": 0.75,
            "margin": 0.5,
            "entropy": pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75)),
            "sampling_key": sampling_keys(["a.png"], 1)[0],
            "classes": ["class 0", "class 1"],
            "probabilities": [0.25, 0.75],
            "model_name": "small_cnn",
            "model_version": 1,
            "scored_at": NOON,
        }
    ]


def test_what_is_scored_again_has_the_same_ids() -> None:
    later = datetime(2001, 1, 1, tzinfo=UTC)

    one, two = predictions([1.0]), predictions([1.0], scored_at=later)

    assert one["prediction_id"] == two["prediction_id"]


def test_another_version_gives_other_ids() -> None:
    one, two = predictions([1.0]), predictions([1.0], model_version=2)

    assert one["prediction_id"] != two["prediction_id"]


def test_more_values_than_one_chunk_holds_keep_their_rows() -> None:
    n, n_classes = 5000, 1000
    certain = np.eye(n_classes)[np.arange(n) % n_classes]
    names = [f"{row}.png" for row in range(n)]

    rows = predictions_table(
        names, certain, [str(c) for c in range(n_classes)], "m", 1, "batch", NOON
    )

    check_rows(rows)
    assert rows["probabilities"].num_chunks > 1
    assert rows["probabilities"][4999].as_py()[999] == 1.0
    assert rows["classes"][4999].as_py() == [str(c) for c in range(n_classes)]
    assert rows["label"][4999].as_py() == "999"


def test_no_image_gives_no_row() -> None:
    rows = predictions_table([], np.empty((0, 2)), ["a", "b"], "m", 1, "batch", NOON)

    check_rows(rows)
    assert rows.num_rows == 0


@pytest.mark.parametrize(
    "changed",
    [{"classes": ["one"]}, {"image_ids": ["a.png", "b.png"]}, {"classes": []}],
    ids=["classes", "images", "no class"],
)
def test_shapes_that_do_not_fit_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(PredictionsError, match=r"of shape \(1, 2\); expected"):
        predictions([0.5, 0.5], **changed)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(SchemaError, match="no time zone"):
        predictions([1.0], scored_at=datetime(2000, 1, 1))


def test_rows_of_two_model_versions_may_have_other_classes() -> None:
    both = pa.concat_tables([good(), predictions([0.1, 0.2, 0.7], model_version=2)])

    check_rows(both)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ([0.5, 0.6], "sum to 1.100"),
        ([-0.1, 1.1], "lowest value is -0.100"),
        ([math.nan, 1.0], "sum to nan"),
        ([math.inf, 0.0], "sum to inf"),
        ([None, 1.0], "sum to nan"),
    ],
)
def test_what_is_no_probability_vector_is_named(wrong: list[Any], told: str) -> None:
    rows = replace(good(), "probabilities", [[0.25, 0.75], wrong])

    with pytest.raises(PredictionsError, match=rf"1 of 2 .*'b\.png'.*{told}.*softmax"):
        check_rows(rows)


def test_a_part_of_a_table_is_judged_by_its_own_rows() -> None:
    rows = predictions([0.5, 0.6], [1.0, 0.0], [0.3, 0.3], [0.0, 1.0])

    check_rows(rows.slice(1, 1))
    with pytest.raises(PredictionsError, match=r"1 of 3 .*'c\.png'.*0\.600"):
        check_rows(rows.slice(1))


@pytest.mark.parametrize(
    ("probabilities", "classes", "told"),
    [
        ([1.0], ["a", "b"], "1 probabilities for 2 classes"),
        ([], [], "0 probabilities for 0 classes"),
        ([], ["a"], "0 probabilities for 1 classes"),
    ],
)
def test_another_number_of_probabilities_than_of_classes_is_named(
    probabilities: list[float], classes: list[str], told: str
) -> None:
    rows = replace(good(), "probabilities", [[0.25, 0.75], probabilities])
    rows = replace(rows, "classes", [["a", "b"], classes])

    with pytest.raises(PredictionsError, match=rf"1 of 2 .*'b\.png' with {told}"):
        check_rows(rows)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/etc/a.png",
        "C:/a.png",
        "../a.png",
        "a/../../b.png",
        "a/..",
        "./a.png",
        "a/./b.png",
        "a/.",
        "a//b.png",
        "a/",
        "a\\b.png",
        "a\0.png",
        "memory://a.png",
    ],
)
def test_a_name_that_is_no_place_inside_the_store_is_refused(name: str) -> None:
    with pytest.raises(ImageIdError, match=r"1 of 2 image_ids .* the first is"):
        check_rows(replace(good(), "image_id", ["a.png", name]))


@pytest.mark.parametrize(
    "name",
    ["Größe/Ärmel lang.png", "a/..b/...png", "日.png", 'it\'s "a".png', "ab:c.png"],
)
def test_a_path_inside_the_store_is_accepted(name: str) -> None:
    check_rows(replace(good(), "image_id", ["a.png", name]))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda t: replace(t, "prediction_id", ["x", "x"]), "1 of 2 rows repeat .*'x'"),
        (lambda t: replace(t, "prediction_id", ["1234" * 8] * 2), "repeat .*'1234"),
        (lambda t: replace(t, "prediction_id", ["x", None]), "have no prediction_id"),
        (lambda t: replace(t, "prediction_id", ["x", ""]), "an empty prediction_id"),
        (lambda t: replace(t, "label", ["x", None]), "1 of 2 rows have no label"),
        (lambda t: replace(t, "probabilities", [[1.0], None]), "no probabilities"),
        (lambda t: replace(t, "entropy", [0.0, math.nan]), r"entropy .*'b\.png'"),
        (lambda t: t.drop_columns("label"), r"missing: \['label'\]"),
        (lambda t: t.append_column("extra", t["label"]), r"unknown: \['extra'\]"),
        (lambda t: t.append_column("label", t["label"]), "each once"),
        (
            lambda t: t.set_column(
                11, "model_version", pa.array([1.0, 2.0], pa.float64())
            ),
            "'model_version' is double, not int64",
        ),
    ],
)
def test_what_the_table_does_not_promise_is_named(
    spoil: Callable[[pa.Table], pa.Table], told: str
) -> None:
    with pytest.raises(SchemaError, match=told):
        check_rows(spoil(good()))
