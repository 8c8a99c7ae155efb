"""What crosses the catalog is checked, and a wrong row is named."""

import math
from typing import Any

import pandas as pd
import pytest

from active_learning import schemas
from active_learning.errors import LabelsError, PredictionsError, SchemaError


def predictions(*probabilities: list[float], **columns: Any) -> pd.DataFrame:
    """One prediction of classes 0, 1, ... for each vector, of a.png, b.png, ..."""
    names = [f"{chr(ord('a') + n)}.png" for n in range(len(probabilities))]
    frame = pd.DataFrame(
        {
            "prediction_id": names,
            "image_id": names,
            "source": "batch",
            "label": "0",
            "confidence": 1.0,
            "margin": 1.0,
            "entropy": 0.0,
            "sampling_key": 0.5,
            "classes": [[str(n) for n in range(len(p))] for p in probabilities],
            "probabilities": list(probabilities),
            "model_name": "small_cnn",
            "model_version": 1,
            "scored_at": pd.Timestamp("2000-01-01", tz="UTC"),
        }
    )
    return frame.assign(**columns)


def manifest(**columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame(
        {"image_id": ["a", "b"], "label": ["cat", "dog"], "content": ["1", "2"]}
    )
    return frame.assign(**columns)


def test_predictions_of_two_model_versions_may_have_other_classes() -> None:
    frame = predictions([0.5, 0.5], [0.2, 0.3, 0.5])

    assert schemas.check_predictions(frame) is frame


@pytest.mark.parametrize(
    "wrong", [[0.5, 0.6], [-0.1, 1.1], [math.nan, 1.0], [3.2, -1.0]]
)
def test_what_is_no_probability_vector_is_named(wrong: list[float]) -> None:
    with pytest.raises(PredictionsError, match=r"1 of 2 .*'b\.png'.*softmax"):
        schemas.check_predictions(predictions([1.0, 0.0], wrong))


def test_another_number_of_classes_than_probabilities_is_named() -> None:
    frame = predictions([1.0, 0.0], classes=[["0"]])

    with pytest.raises(PredictionsError, match="2 probabilities for 1 classes"):
        schemas.check_predictions(frame)


def test_a_repeated_id_is_refused() -> None:
    frame = predictions([1.0], [1.0], prediction_id="same")

    with pytest.raises(SchemaError, match=r"repeat a prediction_id.*'same'"):
        schemas.check_predictions(frame)


def test_a_missing_and_an_unknown_column_are_named() -> None:
    frame = predictions([1.0]).rename(columns={"entropy": "entropie"})

    with pytest.raises(SchemaError, match=r"missing: \['entropy'\].*\['entropie'\]"):
        schemas.check_predictions(frame)


def test_an_empty_label_is_refused() -> None:
    with pytest.raises(LabelsError, match="image_id='b'"):
        schemas.check_manifest(manifest(label=["cat", ""]))


def test_an_image_stands_in_a_manifest_once() -> None:
    with pytest.raises(SchemaError, match="repeat a image_id"):
        schemas.check_manifest(manifest(image_id="a"))


def test_the_fingerprint_speaks_of_content_and_label_alone() -> None:
    one = schemas.fingerprint(manifest())

    assert one == schemas.fingerprint(manifest()[::-1])
    assert one == schemas.fingerprint(manifest(image_id=["x", "y"]))
    assert one != schemas.fingerprint(manifest(label=["dog", "cat"]))
    assert one != schemas.fingerprint(manifest(content=["1", "3"]))


def test_a_value_that_does_not_fit_its_type_is_refused() -> None:
    frame = predictions([1.0], model_version="one")

    with pytest.raises(SchemaError, match="does not fit"):
        schemas.to_arrow(frame, schemas.PREDICTIONS)


@pytest.mark.parametrize("name", schemas.TABLES)
def test_an_empty_table_has_the_columns_of_a_full_one(name: str) -> None:
    schema = schemas.TABLES[name].schema

    schemas.check_columns(schemas.empty_frame(schema), schema)
