"""An endpoint is described at once and touched late."""

from pathlib import Path

import pytest
from kedro.io import DataCatalog, DatasetError
from tests.services.deployment.builders import live, local

from active_learning.datasets import EndpointDataset

PLACE = {"service_url": "http://127.0.0.1:9/score", "load_timeout_s": 1.0}


def test_a_catalog_entry_gives_the_endpoint_of_a_folder(tmp_path: Path) -> None:
    release = live(local(tmp_path), 1)
    entry = {
        "type": "active_learning.datasets.EndpointDataset",
        "backend": "local",
        "path": str(tmp_path),
        **PLACE,
    }
    catalog = DataCatalog.from_config({"endpoint": entry})

    assert catalog.load("endpoint").state.champion == release


def test_describing_one_makes_no_folder(tmp_path: Path) -> None:
    dataset = EndpointDataset(backend="local", path=str(tmp_path / "new"), **PLACE)  # type: ignore[arg-type]

    assert dataset.load().state.champion is None
    assert not dataset.load().serving
    assert not (tmp_path / "new").exists()


def test_an_unknown_backend_is_told_the_nearest(tmp_path: Path) -> None:
    dataset = EndpointDataset(backend="locla", path=str(tmp_path), **PLACE)  # type: ignore[arg-type]

    with pytest.raises(DatasetError, match="Did you mean 'local'"):
        dataset.load()


def test_nothing_is_saved_to_it(tmp_path: Path) -> None:
    dataset = EndpointDataset(backend="local", path=str(tmp_path), **PLACE)  # type: ignore[arg-type]

    with pytest.raises(DatasetError, match="--pipelines deploy"):
        dataset.save("anything")  # type: ignore[arg-type]
