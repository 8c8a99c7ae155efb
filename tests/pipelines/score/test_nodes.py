"""What the champion says of images, and of which."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner
from PIL import Image

from active_learning.acquisition import Float32Array, FloatArray, sampling_keys
from active_learning.datasets import KqlDataset, TableDataset
from active_learning.imaging import ImageStore, PixelArray, Preprocessing
from active_learning.pipelines.score.nodes import score_images
from active_learning.pipelines.score.params import ScoreParams
from active_learning.pipelines.score.pipeline import create_pipeline
from active_learning.schemas import (
    EMBEDDINGS,
    PREDICTIONS,
    SET_ASIDE,
    to_arrow,
)
from active_learning.services.telemetry.rows import check_predictions

NOW = datetime(2000, 1, 1, tzinfo=UTC)
PARAMS = ScoreParams(
    batch_size=2, chunk_size=100, accelerator="cpu", embeddings=False, source="batch"
)
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


def chunks(
    incoming: pd.DataFrame,
    store: ImageStore,
    champion: Brightness | None,
    seen: pd.DataFrame = NEVER,
    params: ScoreParams = PARAMS,
) -> list[tuple[pd.DataFrame, ...]]:
    """Each chunk as it was when it was handed over."""
    scoring = score_images(incoming, store, champion, seen, NOW, params)
    return [tuple(frame.copy() for frame in chunk) for chunk in scoring]


def score(
    incoming: pd.DataFrame,
    store: ImageStore,
    champion: Brightness | None,
    seen: pd.DataFrame = NEVER,
    params: ScoreParams = PARAMS,
) -> Sequence[pd.DataFrame]:
    """The one chunk of a few images: embeddings, set aside, predictions."""
    (chunk,) = chunks(incoming, store, champion, seen, params)
    return chunk


def test_each_image_gets_a_prediction_with_its_derived_columns(
    store: ImageStore,
) -> None:
    _, unreadable, scored = score(listed("a.png", "f.png"), store, Brightness())

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

    *_, scored = score(listed("a.png", "b.png"), store, Brightness(), seen)

    assert scored["image_id"].tolist() == ["b.png"]


def test_names_may_come_as_arrow_keeps_them(store: ImageStore) -> None:
    names, seen = (
        frame.astype({"image_id": pd.ArrowDtype(pa.string())})
        for frame in (listed("a.png", "b.png"), listed("b.png"))
    )

    *_, scored = score(names, store, Brightness(), seen.assign(model_version=3))

    assert scored["image_id"].tolist() == ["a.png"]


def test_an_unreadable_image_is_set_aside_with_its_reason(store: ImageStore) -> None:
    (Path(store.root) / "bad.png").write_bytes(b"no image")

    _, unreadable, scored = score(listed("a.png", "bad.png"), store, Brightness())

    assert scored["image_id"].tolist() == ["a.png"]
    assert unreadable["image_id"].tolist() == ["bad.png"]
    assert unreadable["reason"].item()
    to_arrow(unreadable, SET_ASIDE)


def test_a_retry_carries_the_same_id_and_another_version_another(
    store: ImageStore,
) -> None:
    def ids(version: int) -> list[str]:
        model = Brightness(version)
        *_, scored = score(listed("a.png"), store, model)
        return scored["prediction_id"].tolist()

    assert ids(3) == ids(3) != ids(4)


def test_without_a_champion_nothing_is_scored_and_it_is_said_how_to_get_one(
    store: ImageStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        embeddings, unreadable, scored = score(listed("a.png"), store, None)

    assert embeddings.empty
    assert unreadable.empty
    assert scored.empty
    to_arrow(scored, PREDICTIONS)
    assert "label-ingest,train,deploy" in caplog.text


def test_nothing_new_gives_an_empty_table(store: ImageStore) -> None:
    _, unreadable, scored = score(listed(), store, Brightness())

    assert scored.empty
    assert unreadable.empty
    to_arrow(scored, PREDICTIONS)


def test_embeddings_are_kept_when_they_are_asked_for(store: ImageStore) -> None:
    def embeddings(params: ScoreParams) -> pd.DataFrame:
        listing = listed("a.png", "f.png")
        model = Brightness()
        return score(listing, store, model, params=params)[0]

    kept = embeddings(WITH_EMBEDDINGS)

    assert kept["image_id"].tolist() == ["a.png", "f.png"]
    assert set(kept["model_version"]) == {3}
    assert np.stack(kept["vector"].tolist()).tolist() == [[1.0], [np.float32(55 / 255)]]
    to_arrow(kept, EMBEDDINGS)
    assert embeddings(PARAMS).empty
    to_arrow(embeddings(PARAMS), EMBEDDINGS)


def test_chunks_hold_each_image_once_in_its_order(store: ImageStore) -> None:
    (Path(store.root) / "c.png").write_bytes(b"no image")
    names = [f"{letter}.png" for letter in "abcdef"]
    by_two = PARAMS.model_copy(update={"chunk_size": 2, "embeddings": True})

    several = chunks(listed(*names), store, Brightness(), params=by_two)
    (whole,) = chunks(listed(*names), store, Brightness(), params=WITH_EMBEDDINGS)

    assert [len(scored) for *_, scored in several] == [2, 1, 2]
    for number, alone in enumerate(whole):
        together = pd.concat([chunk[number] for chunk in several], ignore_index=True)
        pd.testing.assert_frame_equal(together, alone, check_dtype=False)


def test_a_round_of_a_simulation_is_one_chunk_whatever_its_size(
    store: ImageStore,
) -> None:
    small = PARAMS.model_copy(update={"chunk_size": 1, "source": "simulation"})

    scored = score(listed("a.png", "b.png"), store, Brightness(), params=small)[-1]

    assert scored["image_id"].tolist() == ["a.png", "b.png"]
    assert set(scored["source"]) == {"simulation"}


class Counting(Brightness):
    """Knows what it was asked."""

    n_asked = 0

    def probabilities(
        self, pixels: PixelArray, batch_size: int, accelerator: str, title: str
    ) -> FloatArray:
        self.n_asked += len(pixels)
        return super().probabilities(pixels, batch_size, accelerator, title)


def test_a_chunk_is_handed_over_before_the_next_one_is_scored(
    store: ImageStore,
) -> None:
    by_two = PARAMS.model_copy(update={"chunk_size": 2})
    model = Counting()
    names = listed(*(f"{letter}.png" for letter in "abcdef"))

    scoring = score_images(names, store, model, NEVER, NOW, by_two)

    assert [model.n_asked for _ in scoring] == [2, 4, 6]


def test_a_chunk_that_was_handed_over_takes_no_memory_any_more(
    store: ImageStore,
) -> None:
    single = WITH_EMBEDDINGS.model_copy(update={"chunk_size": 1})
    names = listed("a.png", "b.png", "c.png")

    kept = list(score_images(names, store, Brightness(), NEVER, NOW, single))

    assert [[len(frame) for frame in chunk] for chunk in kept] == [
        [0, 0, 0],
        [0, 0, 0],
        [1, 0, 1],
    ]


def test_the_store_holds_on_to_no_image_that_was_scored(store: ImageStore) -> None:
    before = score(listed("a.png"), store, Brightness())[-1]
    Image.new("L", (4, 4), 255).save(Path(store.root) / "a.png")

    again = score(listed("a.png"), store, Brightness())[-1]

    assert before["label"].tolist() == ["dark"]
    assert again["label"].tolist() == ["light"]


def test_the_store_of_a_simulation_looks_at_no_file_again(store: ImageStore) -> None:
    simulated = PARAMS.model_copy(update={"source": "simulation"})
    before = score(listed("a.png"), store, Brightness(), params=simulated)[-1]
    Image.new("L", (4, 4), 255).save(Path(store.root) / "a.png")

    again = score(listed("a.png"), store, Brightness(), params=simulated)[-1]

    assert before["label"].tolist() == again["label"].tolist() == ["dark"]


N_IMAGES = 240


class Slow(Brightness):
    """Takes its time, so that it can be interrupted."""

    def look(
        self, pixels: PixelArray, batch_size: int, accelerator: str, title: str
    ) -> tuple[FloatArray, Float32Array]:
        time.sleep(0.02)
        return super().look(pixels, batch_size, accelerator, title)


def score_into(folder: Path) -> None:
    """Run the pipeline on tables, as the catalog declares them."""
    images = ImageStore(str(folder / "images"), cache=None, max_pixels=10**6)
    params = WITH_EMBEDDINGS.model_copy(update={"chunk_size": 4})
    tables = {
        name: TableDataset(table=table, path=str(folder / name))
        for name, table in (
            ("scored_batch", "scored_batch"),
            ("embeddings", "embeddings"),
            ("unreadable_images", "set_aside"),
        )
    }
    scored_images = KqlDataset(
        query="scored_images",
        backend="local",
        database=str(folder / "tables"),
        tables={"scored_batch": str(folder / "scored_batch")},
    )
    catalog = DataCatalog(
        {
            **tables,
            "scored_images": scored_images,
        }
    )
    given = {
        "incoming_images": listed(*images.image_ids()),
        "images": images,
        "champion@inference": Slow(),
        "now": NOW,
        "params:score": params,
    }
    for name, value in given.items():
        catalog[name] = value
    SequentialRunner().run(Pipeline(create_pipeline()), catalog)


def test_killed_in_the_middle_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(N_IMAGES):
        image = Image.new("L", (4, 4), number)
        image.save(tmp_path / "images" / f"{number:03}.png")
    (tmp_path / "images" / "100.png").write_bytes(b"no image")
    scored = tmp_path / "scored_batch"

    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": "."},
    )
    deadline = time.monotonic() + 120
    while len(list(scored.glob("*.parquet"))) < 3 and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.002)
    child.kill()
    child.wait()
    before = {path: path.stat().st_mtime_ns for path in scored.glob("*.parquet")}
    done = TableDataset(table="scored_batch", path=str(scored)).load()
    score_into(tmp_path)

    # Each image has a row; none that was there is scored again.
    rows = pd.concat(map(pd.read_parquet, scored.glob("*.parquet")))
    assert 12 <= len(done) < N_IMAGES - 1
    assert len(rows) == N_IMAGES - 1
    assert rows["image_id"].is_unique
    assert {path: path.stat().st_mtime_ns for path in before} == before
    embedded = TableDataset(table="embeddings", path=str(tmp_path / "embeddings"))
    assert sorted(embedded.load()["image_id"]) == sorted(rows["image_id"])
    unreadable = pd.read_parquet(tmp_path / "unreadable_images")
    assert set(unreadable["image_id"]) == {"100.png"}


CHILD = """
import sys
from pathlib import Path
from tests.pipelines.score.test_nodes import score_into
score_into(Path(sys.argv[1]))
"""
