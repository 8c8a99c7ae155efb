"""An endpoint is described at once and touched late."""

import subprocess
import sys
from pathlib import Path

import pytest
from kedro.io import DataCatalog, DatasetError
from tests.services.deployment.builders import live, local
from tests.services.deployment.cloud import Cloud, cloud, code_url
from tests.standins.azurite import azurite
from tests.standins.identity import identity
from tests.standins.tls import tls

from active_learning.datasets import EndpointDataset

__all__ = ["azurite", "cloud", "code_url", "identity", "tls"]

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


def test_a_catalog_entry_gives_an_endpoint_of_azure(cloud: Cloud) -> None:
    entry = {
        "type": "active_learning.datasets.EndpointDataset",
        "backend": "azure",
        "path": cloud.place,
        "load_timeout_s": 30.0,
        "options": cloud.options(),
    }
    catalog = DataCatalog.from_config({"endpoint": entry})
    asked = len(cloud.arm.requests)

    endpoint = catalog.load("endpoint")

    assert len(cloud.arm.requests) == asked
    release = cloud.live(1)
    assert endpoint.state.champion == release
    assert endpoint.serving
    assert cloud.azurite.key not in str(catalog["endpoint"])


def test_options_that_do_not_fit_are_named(cloud: Cloud) -> None:
    options = {**cloud.options(), "name": "no_underscores"}
    dataset = EndpointDataset(
        backend="azure", path=cloud.place, load_timeout_s=1, options=options
    )

    with pytest.raises(DatasetError, match="first is 'name'"):
        dataset.load()


def test_whoever_stays_on_this_machine_imports_nothing_of_azure(tmp_path: Path) -> None:
    code = (
        "import sys; from active_learning.datasets import EndpointDataset; "
        f"d = EndpointDataset(backend='local', path={str(tmp_path)!r}, "
        "load_timeout_s=1); d.load().state; "
        "print([n for n in sys.modules if n.split('.')[0] in ('azure', 'adlfs')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert ran.stdout == "[]\n"
