"""A batch endpoint answers for every file, and one bad image costs one row."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.learning.builders import noise, untrained

from active_learning.errors import CheckpointError, SettingsError
from active_learning.imaging import ImageStore
from active_learning.schemas import PREDICTIONS, row_id, to_arrow
from active_learning.services.scoring import batch
from active_learning.services.scoring.export import export
from active_learning.services.scoring.model import InferenceModel
from active_learning.services.telemetry.rows import check_rows


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Azure ML mounts them: the release is a folder deeper."""
    folder = tmp_path_factory.mktemp("models")
    export(untrained(["Größe", "b", "c"]), noise(5), folder / "release")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, image in enumerate(noise(3, side=40)):
        path = tmp_path / "images" / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    return tmp_path / "images"


@pytest.fixture
def ready(models: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(models))
    monkeypatch.setenv("AL_IMAGE_ROOT", str(root))
    batch.init()
    return root


def test_every_file_has_a_row_in_its_order(ready: Path, models: Path) -> None:
    files = [str(ready / name) for name in ("1/1.png", "0/2.png", "0/0.png")]

    rows = batch.run(files)

    assert tuple(rows.columns) == batch.COLUMNS
    names = ["1/1.png", "0/2.png", "0/0.png"]
    assert rows["image_id"].tolist() == names
    model = InferenceModel.load(models / "release")
    store = ImageStore(str(ready), cache=None, max_pixels=10**6)
    decoded = store.pixels(names, model.preprocessing)
    expected = model.answer(decoded.pixels.take(np.arange(3)))
    said = np.array([json.loads(text) for text in rows["probabilities"]])
    np.testing.assert_allclose(said, expected, rtol=1e-6)
    assert (rows["reason"] == "").all()
    ids = [row_id(name, model.model_name, model.version) for name in names]
    assert rows["prediction_id"].tolist() == ids


def test_rows_survive_a_text_file_as_predictions(ready: Path) -> None:
    rows = batch.run([str(path) for path in sorted(ready.glob("*/*.png"))])

    text = rows.to_csv(index=False, sep=" ")

    read = pd.read_csv(io.StringIO(text), sep=" ").drop(columns="reason")
    for name in ("classes", "probabilities"):
        read[name] = read[name].map(json.loads)
    read["scored_at"] = pd.to_datetime(read["scored_at"])
    check_rows(to_arrow(read, PREDICTIONS))
    assert read["classes"].iloc[0] == ["Größe", "b", "c"]


def test_a_bad_file_is_one_row_with_a_reason(ready: Path, tmp_path: Path) -> None:
    (ready / "text.png").write_bytes(b"no image")
    (ready / "cut.png").write_bytes((ready / "0/0.png").read_bytes()[:60])
    (ready / "empty.png").touch()
    (tmp_path / "outside.png").write_bytes((ready / "0/0.png").read_bytes())
    bad = ["text.png", "cut.png", "empty.png", "absent.png", "../outside.png", "0"]
    odd = "back\\slash.png"
    (ready / odd).write_bytes((ready / "0/0.png").read_bytes())

    rows = batch.run([str(ready / name) for name in [*bad, odd, "0/0.png"]])

    assert len(rows) == len(bad) + 2
    assert (rows["reason"].iloc[:-1].str.len() > 5).all()
    assert rows["label"].isna().tolist() == [True] * (len(bad) + 1) + [False]
    assert rows["image_id"].tolist() == [*bad, odd, "0/0.png"]


def test_only_bad_files_and_none_at_all(ready: Path) -> None:
    (ready / "text.png").write_bytes(b"no image")

    only_bad = batch.run([str(ready / "text.png")])

    assert only_bad["reason"].tolist() != [""]
    assert tuple(only_bad.columns) == batch.COLUMNS
    assert tuple(batch.run([]).columns) == batch.COLUMNS


def test_a_file_that_is_listed_twice_has_two_rows(ready: Path) -> None:
    rows = batch.run([str(ready / "0/0.png")] * 2)

    assert len(rows) == 2
    assert rows["prediction_id"].nunique() == 1


def test_an_image_of_too_many_pixels_is_not_unpacked(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AL_MAX_PIXELS", "1599")
    batch.init()

    rows = batch.run([str(ready / "0/0.png")])

    assert "1,599" in rows["reason"].item()


@pytest.mark.parametrize("limit", ["many", "0", "-1", ""])
def test_a_limit_that_is_no_number_is_refused(
    models: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(models))
    monkeypatch.setenv("AL_MAX_PIXELS", limit)

    with pytest.raises(SettingsError, match="AL_MAX_PIXELS"):
        batch.init()


def test_without_a_model_the_job_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZUREML_MODEL_DIR", raising=False)
    with pytest.raises(SettingsError, match="AZUREML_MODEL_DIR"):
        batch.init()

    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
    with pytest.raises(CheckpointError, match="holds 0 releases"):
        batch.init()
