"""Every release is one version, and its tag says what it is to production."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from tests.services.deployment.builders import examples, live, local, taken_in

from active_learning.errors import EndpointError
from active_learning.services.deployment.local import LocalEndpoint
from active_learning.services.deployment.registry import Registry
from active_learning.services.deployment.state import Release

NAME = "digits"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A tracking server of files, with an experiment that is active."""
    before = mlflow.get_tracking_uri()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    mlflow.create_experiment("deploy", artifact_location=str(tmp_path / "artifacts"))
    mlflow.set_experiment("deploy")
    yield uri
    mlflow.set_tracking_uri(before)


def registered(endpoint: LocalEndpoint, release: Release) -> str:
    example = examples(endpoint, release, n=1)[0].content
    return Registry(NAME).register(release, endpoint.folder(release), example)


def roles() -> dict[str, str]:
    """The role of each version."""
    versions = MlflowClient().search_model_versions(f"name = '{NAME}'")
    return {str(version.version): version.tags["role"] for version in versions}


@pytest.mark.usefixtures("server")
def test_a_release_becomes_a_version_that_mlflow_can_load(tmp_path: Path) -> None:
    endpoint = local(tmp_path / "endpoint")
    release = taken_in(endpoint, 3)

    with mlflow.start_run() as run:
        version = registered(endpoint, release)

    made = MlflowClient().get_model_version(NAME, version)
    assert made.run_id == run.info.run_id
    assert made.tags["fingerprint"] == release.fingerprint
    assert made.tags["model_version"] == "3"
    assert made.tags["role"] == "challenger"
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}/{version}")
    assert loaded.metadata.signature is not None
    said = loaded.predict(loaded.input_example)
    assert said["label"].iloc[0] in ("a", "b", "c")


@pytest.mark.usefixtures("server")
def test_a_second_run_finds_the_version_of_the_first(tmp_path: Path) -> None:
    endpoint = local(tmp_path / "endpoint")
    release = taken_in(endpoint, 1)

    assert registered(endpoint, release) == registered(endpoint, release)
    assert roles() == {"1": "challenger"}


@pytest.mark.usefixtures("server")
def test_roles_follow_the_endpoint_there_and_back(tmp_path: Path) -> None:
    endpoint = local(tmp_path / "endpoint")
    first, second = taken_in(endpoint, 1), taken_in(endpoint, 2, weights=1)
    for release in (first, second):
        registered(endpoint, release)

    live(endpoint, 1)
    Registry(NAME).tell(endpoint.state)
    assert roles() == {"1": "champion", "2": "challenger"}

    live(endpoint, 2, weights=1)
    Registry(NAME).tell(endpoint.state)
    assert roles() == {"1": "retired", "2": "champion"}

    with endpoint.exclusive():
        endpoint.promote(endpoint.stage(first), back=True)
    Registry(NAME).tell(endpoint.state)
    Registry(NAME).tell(endpoint.state)
    assert roles() == {"1": "champion", "2": "rolled_back"}


def test_a_server_that_is_away_is_named(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = local(tmp_path / "endpoint")
    release = taken_in(endpoint, 1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    mlflow.set_tracking_uri("http://127.0.0.1:9")
    with pytest.raises(EndpointError, match=r"'http://127\.0\.0\.1:9' did not take"):
        registered(endpoint, release)

    mlflow.set_tracking_uri(server)
    assert registered(endpoint, release) == "1"
