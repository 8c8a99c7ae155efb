"""What a batch endpoint leaves is what ``score`` would have made of the same images."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.learning.builders import noise, untrained

from active_learning.errors import PredictionsError
from active_learning.imaging import ImageStore
from active_learning.services.scoring.collected import read_job
from active_learning.services.scoring.entry import score_files
from active_learning.services.scoring.export import export
from active_learning.services.scoring.model import InferenceModel
from active_learning.services.telemetry.rows import check_rows, predictions_table


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Azure ML mounts a model that MLflow has registered."""
    folder = tmp_path_factory.mktemp("models")
    export(untrained(["b", "a"]), noise(5), folder / "model/artifacts/release")
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number, pixels in enumerate(noise(4, side=40)):
        path = tmp_path / f"store/{number % 2}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0]).save(path)
    (tmp_path / "store/0/bad.png").write_bytes(b"no image")
    return tmp_path / "store"


@pytest.fixture
def scored(
    model_dir: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The output of a job that sees the images where they are mounted."""
    mounted = tmp_path / "mnt/azureml/cr/j/0123/INPUT_images"
    shutil.copytree(images, mounted)
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(model_dir))
    monkeypatch.setenv("AZUREML_BI_OUTPUT_PATH", str(tmp_path / "out"))
    monkeypatch.delenv("AL_IMAGE_ROOT", raising=False)
    score_files.init()
    files = sorted(str(path) for path in mounted.glob("*/*.png"))
    for mini_batch in (files[:2], files[2:], files[:2]):  # the first is tried again
        score_files.run(mini_batch)
    return tmp_path / "out"


def test_rows_are_those_of_score(scored: Path, images: Path, model_dir: Path) -> None:
    store = ImageStore(str(images), cache=None, max_pixels=10**6)

    predictions, set_aside = read_job(str(scored), store.image_ids())

    check_rows(predictions)
    assert set_aside.to_pydict()["image_id"] == ["0/bad.png"]
    model = InferenceModel.load(model_dir / "model/artifacts/release")
    decoded = store.pixels(
        ["0/0.png", "0/2.png", "1/1.png", "1/3.png"], model.preprocessing
    )
    expected = predictions_table(
        decoded.image_ids,
        model.probabilities(decoded.pixels, 128, "cpu", ""),
        model.classes,
        model.model_name,
        model.version,
        "batch",
        predictions["scored_at"][0].as_py(),
    )
    mine = predictions.drop_columns(["scored_at"]).sort_by("image_id").to_pandas()
    theirs = expected.drop_columns(["scored_at"]).to_pandas()
    np.testing.assert_allclose(
        np.stack(mine.pop("probabilities")), np.stack(theirs.pop("probabilities"))
    )
    pd.testing.assert_frame_equal(mine, theirs)


def test_a_mini_batch_that_is_tried_again_is_one_part(scored: Path) -> None:
    assert len(list(scored.glob("*.parquet"))) == 2


def test_files_of_another_store_are_refused(scored: Path) -> None:
    with pytest.raises(PredictionsError, match=r"2 of 5 files .*1/1\.png"):
        read_job(str(scored), ["0/0.png", "0/2.png", "0/bad.png"])


def test_an_output_without_parts_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(PredictionsError, match="holds no part"):
        read_job(str(tmp_path / "empty"), [])
