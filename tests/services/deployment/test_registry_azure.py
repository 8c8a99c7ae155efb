"""The same versions and roles in Azure ML's registry."""

from pathlib import Path
from uuid import uuid4

import mlflow
import pytest
from mlflow import MlflowClient
from tests.services.deployment.builders import examples, live, local, taken_in
from tests.standins.identity import Identity, identity
from tests.standins.mlflow_workspace import (
    SAS_SECRET,
    Fault,
    MlflowWorkspace,
    mlflow_workspace,
    workspace,
)
from tests.standins.tls import tls

from active_learning.errors import EndpointError
from active_learning.services.deployment.local import LocalEndpoint
from active_learning.services.deployment.registry import Registry
from active_learning.services.deployment.state import Release

__all__ = ["identity", "mlflow_workspace", "tls", "workspace"]

pytestmark = pytest.mark.azure


@pytest.fixture
def name(workspace: MlflowWorkspace) -> str:
    """A registered model of the test's own, and an experiment that is active."""
    name = f"digits-{uuid4().hex}"
    mlflow.set_experiment(name)
    workspace.log.clear()
    return name


def registered(name: str, endpoint: LocalEndpoint, release: Release) -> str:
    example = examples(endpoint, release, n=1)[0].content
    return Registry(name).register(release, endpoint.folder(release), example)


def roles(name: str) -> dict[str, str]:
    versions = MlflowClient().search_model_versions(f"name = '{name}'")
    return {str(version.version): version.tags["role"] for version in versions}


def test_a_release_becomes_a_version_that_mlflow_can_load(
    workspace: MlflowWorkspace, name: str, tmp_path: Path
) -> None:
    endpoint = local(tmp_path / "endpoint")
    release = taken_in(endpoint, 3)

    with mlflow.start_run() as run:
        version = registered(name, endpoint, release)
        assert registered(name, endpoint, release) == version

    made = MlflowClient().get_model_version(name, version)
    assert made.run_id == run.info.run_id
    assert made.tags["fingerprint"] == release.fingerprint
    assert made.tags["model_version"] == "3"
    assert roles(name) == {"1": "challenger"}
    loaded = mlflow.pyfunc.load_model(f"models:/{name}/{version}")
    said = loaded.predict(loaded.input_example)
    assert said["label"].iloc[0] in ("a", "b", "c")
    # What Azure ML does not have is not even asked for.
    assert not workspace.requests("logged-models")
    assert not workspace.requests("alias")


@pytest.mark.usefixtures("workspace")
def test_roles_follow_the_endpoint(name: str, tmp_path: Path) -> None:
    endpoint = local(tmp_path / "endpoint")
    for number, release in enumerate(
        (taken_in(endpoint, 1), taken_in(endpoint, 2, weights=1)), start=1
    ):
        assert registered(name, endpoint, release) == str(number)

    live(endpoint, 1)
    Registry(name).tell(endpoint.state)
    assert roles(name) == {"1": "champion", "2": "challenger"}

    live(endpoint, 2, weights=1)
    Registry(name).tell(endpoint.state)
    assert roles(name) == {"1": "retired", "2": "champion"}


@pytest.mark.parametrize(
    ("status", "path"),
    [
        (503, "/model-versions/create"),
        (403, "/account.blob.*conda.yaml"),
        (500, "/artifacts/batch/metadata"),
        (401, "/registered-models/create"),
    ],
)
def test_a_release_that_was_not_taken_is_taken_by_the_next_run(
    workspace: MlflowWorkspace,
    identity: Identity,
    name: str,
    status: int,
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    endpoint = local(tmp_path / "endpoint")
    release = taken_in(endpoint, 1)

    with mlflow.start_run() as run:
        workspace.faults.append(Fault(status, path, times=100))
        with pytest.raises(EndpointError, match="did not take") as refusal:
            registered(name, endpoint, release)
        workspace.faults.clear()
        version = registered(name, endpoint, release)

    for secret in (SAS_SECRET, identity.secret, *identity.issued):
        assert secret not in str(refusal.value)
    assert roles(name) == {"1": "challenger"}
    # What was half written before cannot be written again: it lies beside it.
    source = MlflowClient().get_model_version_download_uri(name, version)
    folder = source.rpartition("/")[2]
    kept = [place for owner, place in workspace.blobs if owner == run.info.run_id]
    assert f"{folder}/MLmodel" in kept
    assert f"{folder}/conda.yaml" in kept


def test_an_answer_that_is_lost_makes_no_second_champion(
    workspace: MlflowWorkspace, name: str, tmp_path: Path
) -> None:
    endpoint = local(tmp_path / "endpoint")
    release = taken_in(endpoint, 1)
    workspace.faults.append(Fault(0, "/model-versions/create", done=True))

    version = registered(name, endpoint, release)
    live(endpoint, 1)
    Registry(name).tell(endpoint.state)

    assert version == "1"
    assert list(roles(name).values()).count("champion") == 1
    assert registered(name, endpoint, release) == "1"
