"""What the champion says of images, and of which."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from active_learning.acquisition import Float32Array, FloatArray, sampling_keys
from active_learning.errors import CheckpointError
from active_learning.imaging import ImageStore, PixelArray, Preprocessing
from active_learning.pipelines.score.nodes import score_images
from active_learning.pipelines.score.params import ScoreParams
from active_learning.schemas import (
    EMBEDDINGS,
    PREDICTIONS,
    SET_ASIDE,
    to_arrow,
)
from active_learning.services.telemetry.rows import check_predictions

NOW = datetime(2000, 1, 1, tzinfo=UTC)
PARAMS = ScoreParams(batch_size=2, accelerator="cpu", embeddings=False, source="batch")
WITH_EMBEDDINGS = PARAMS.model_copy(update={"embeddings": True})
NEVER = pd.DataFrame({"image_id": [], "model_version": []})


class Brightness:
    """A classifier that looks at how bright an image is."""

    model_name = "brightness"
    classes = ("dark", "light")
    preprocessing = Preprocessing(height=4, width=4, channels=1, mean=(0,), std=(1,))

    def __init__(self, version: int = 3) -> None:
        self.version = version
        self.lineage: dict[str, object] = {"version": version}

    def probabilities(
        self, pixels: PixelArray, batch_size: int, accelerator: str, title: str
    ) -> FloatArray:
        rows = np.arange(len(pixels))
        light = pixels.take(rows).mean(axis=(1, 2, 3)) / 255
        return np.column_stack([1 - light, light])

    def look(
        self, pixels: PixelArray, batch_size: int, accelerator: str, title: str
    ) -> tuple[FloatArray, Float32Array]:
        said = self.probabilities(pixels, batch_size, accelerator, title)
        return said, said.astype(np.float32)[:, :1]


def listed(*names: str) -> pd.DataFrame:
    return pd.DataFrame({"image_id": list(names)})


def test_each_image_gets_a_prediction_with_its_derived_columns(
    store: ImageStore,
) -> None:
    scored, _, unreadable = score_images(
        listed("a.png", "f.png"), store, Brightness(), NEVER, NOW, PARAMS
    )

    assert scored["label"].tolist() == ["dark", "light"]
    light = 200 / 255
    np.testing.assert_allclose(scored["confidence"], [1.0, light])
    np.testing.assert_allclose(scored["margin"], [1.0, 2 * light - 1])
    np.testing.assert_array_equal(
        scored["sampling_key"], sampling_keys(["a.png", "f.png"], 3)
    )
    assert unreadable.empty
    check_predictions(scored)
    to_arrow(scored, PREDICTIONS)


def test_what_this_version_scored_is_not_scored_again(store: ImageStore) -> None:
    seen = pd.DataFrame({"image_id": ["a.png", "b.png"], "model_version": [3, 2]})

    scored, *_ = score_images(
        listed("a.png", "b.png"), store, Brightness(), seen, NOW, PARAMS
    )

    assert scored["image_id"].tolist() == ["b.png"]


def test_an_unreadable_image_is_set_aside_with_its_reason(store: ImageStore) -> None:
    (Path(store.root) / "bad.png").write_bytes(b"no image")

    scored, _, unreadable = score_images(
        listed("a.png", "bad.png"), store, Brightness(), NEVER, NOW, PARAMS
    )

    assert scored["image_id"].tolist() == ["a.png"]
    assert unreadable["image_id"].tolist() == ["bad.png"]
    assert unreadable["reason"].item()
    to_arrow(unreadable, SET_ASIDE)


def test_a_retry_carries_the_same_id_and_another_version_another(
    store: ImageStore,
) -> None:
    def ids(version: int) -> list[str]:
        model = Brightness(version)
        scored, *_ = score_images(listed("a.png"), store, model, NEVER, NOW, PARAMS)
        return scored["prediction_id"].tolist()

    assert ids(3) == ids(3) != ids(4)


def test_without_a_champion_it_is_said_how_to_get_one(store: ImageStore) -> None:
    with pytest.raises(CheckpointError, match="label-ingest,train"):
        score_images(listed("a.png"), store, None, NEVER, NOW, PARAMS)


def test_nothing_new_gives_an_empty_table(store: ImageStore) -> None:
    scored, _, unreadable = score_images(
        listed(), store, Brightness(), NEVER, NOW, PARAMS
    )

    assert scored.empty
    assert unreadable.empty
    to_arrow(scored, PREDICTIONS)


def test_embeddings_are_kept_when_they_are_asked_for(store: ImageStore) -> None:
    def embeddings(params: ScoreParams) -> pd.DataFrame:
        listing = listed("a.png", "f.png")
        model = Brightness()
        return score_images(listing, store, model, NEVER, NOW, params)[1]

    kept = embeddings(WITH_EMBEDDINGS)

    assert kept["image_id"].tolist() == ["a.png", "f.png"]
    assert set(kept["model_version"]) == {3}
    assert np.stack(kept["vector"].tolist()).tolist() == [[1.0], [np.float32(55 / 255)]]
    to_arrow(kept, EMBEDDINGS)
    assert embeddings(PARAMS).empty
    to_arrow(embeddings(PARAMS), EMBEDDINGS)
