"""Both forms of the champion are those of the release that is in production."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kedro.io import DataCatalog, DatasetError
from tests.learning.builders import same, weights
from tests.services.deployment.builders import classifier, live, local
from tests.services.deployment.cloud import Cloud, cloud, code_url
from tests.standins.azurite import azurite
from tests.standins.identity import identity
from tests.standins.tls import tls

from active_learning.datasets import ChampionDataset
from active_learning.learning.module import ImageClassifier
from active_learning.services.scoring.model import InferenceModel

__all__ = ["azurite", "cloud", "code_url", "identity", "tls"]


def dataset(root: Path, form: str) -> ChampionDataset:
    return ChampionDataset(path=str(root), form=form)


@pytest.mark.parametrize("form", ["checkpoint", "inference"])
def test_before_the_first_there_is_none(tmp_path: Path, form: str) -> None:
    assert dataset(tmp_path, form).load() is None
    assert not dataset(tmp_path, form).exists()


def test_each_load_is_of_what_is_in_production_then(tmp_path: Path) -> None:
    endpoint = local(tmp_path)
    checkpoint = dataset(tmp_path, "checkpoint")
    inference = dataset(tmp_path, "inference")
    live(endpoint, 1)
    assert inference.load().version == 1  # type: ignore[union-attr]

    live(endpoint, 2, weights=1)

    model, trained = inference.load(), checkpoint.load()
    assert isinstance(model, InferenceModel)
    assert isinstance(trained, ImageClassifier)
    assert model.version == trained.version == 2
    assert same(weights(trained), weights(classifier(2, weights=1)))
    assert inference.exists()


@pytest.mark.parametrize(
    ("form", "file"), [("checkpoint", "checkpoint.ckpt"), ("inference", "model.onnx")]
)
def test_a_damaged_champion_is_no_missing_champion(
    tmp_path: Path, form: str, file: str
) -> None:
    endpoint = local(tmp_path)
    release = live(endpoint, 1)
    os.truncate(endpoint.folder(release) / file, 100)

    with pytest.raises(DatasetError, match=file):
        dataset(tmp_path, form).load()


@pytest.mark.parametrize("form", ["checkpoint", "inference"])
def test_another_model_in_its_place_is_refused(tmp_path: Path, form: str) -> None:
    endpoint = local(tmp_path)
    second, first = live(endpoint, 2, weights=1), live(endpoint, 1)
    for file in endpoint.folder(first).iterdir():
        file.write_bytes((endpoint.folder(second) / file.name).read_bytes())

    with pytest.raises(DatasetError, match=r"is in production.*deploy\.rollback=true"):
        dataset(tmp_path, form).load()


def test_nothing_is_saved_as_champion(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="'kedro run --pipelines deploy' decides"):
        dataset(tmp_path, "checkpoint").save(classifier(1))  # type: ignore[arg-type]


def test_an_unknown_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no form .onnx.; known: .*inference"):
        dataset(tmp_path, "onnx")


def test_a_catalog_gives_both_forms(tmp_path: Path) -> None:
    entry = {
        "type": "active_learning.datasets.ChampionDataset",
        "path": str(tmp_path),
    }
    forms = ("checkpoint", "inference")
    config = {f"champion@{form}": {**entry, "form": form} for form in forms}
    catalog = DataCatalog.from_config(config)
    live(local(tmp_path), 1)

    assert catalog.load("champion@checkpoint").classes == ("a", "b", "c")
    assert catalog.load("champion@inference").classes == ("a", "b", "c")


def test_what_serves_is_loaded_without_torch(tmp_path: Path) -> None:
    live(local(tmp_path), 1)
    code = (
        "import sys; from active_learning.datasets import ChampionDataset; "
        f"d = ChampionDataset(path={str(tmp_path)!r}, form='inference'); "
        "print(d.load().version, *{'torch', 'pytorch_lightning', 'mlflow'} "
        "& set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert ran.stdout.split() == ["1"]


def of_azure(cloud: Cloud, form: str) -> ChampionDataset:
    options = {**cloud.options(), "deployment": None}
    return ChampionDataset(
        backend="azure", path=cloud.place, form=form, options=options
    )


def test_both_forms_are_those_of_the_endpoint_in_azure(cloud: Cloud) -> None:
    assert of_azure(cloud, "inference").load() is None
    assert not of_azure(cloud, "inference").exists()
    cloud.live(1)
    cloud.live(2, weights=1)
    # Another machine has nothing yet, and gets the files.
    shutil.rmtree(cloud.folder / "cache")

    model = of_azure(cloud, "inference").load()
    trained = of_azure(cloud, "checkpoint").load()

    assert isinstance(model, InferenceModel)
    assert isinstance(trained, ImageClassifier)
    assert model.version == trained.version == 2
    assert same(weights(trained), weights(classifier(2, weights=1)))


@pytest.mark.parametrize("file", ["model.onnx", "checkpoint.ckpt"])
def test_a_champion_that_was_changed_in_its_container_is_refused(
    cloud: Cloud, file: str
) -> None:
    release = cloud.live(1)
    shutil.rmtree(cloud.folder / "cache")
    cloud.overwrite(f"endpoint/releases/{release.name}/{file}", b"another model")

    with pytest.raises(DatasetError, match=rf"{file} is not the file that was written"):
        of_azure(cloud, "inference").load()


def test_a_copy_that_was_damaged_here_is_brought_again(cloud: Cloud) -> None:
    release = cloud.live(1)
    os.truncate(cloud.folder / "cache" / release.name / "model.onnx", 100)

    model = of_azure(cloud, "inference").load()

    assert isinstance(model, InferenceModel)
    assert model.fingerprint == release.fingerprint
