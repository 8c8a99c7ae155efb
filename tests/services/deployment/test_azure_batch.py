"""The batch endpoint, as the real client library asks for it."""

import io
import json
from pathlib import Path

import pytest
import yaml
from azure.ai.ml import load_online_deployment
from azure.ai.ml.entities._load_functions import load_model_batch_deployment
from tests.services.deployment.cloud import (
    MODEL,
    NAME,
    Cloud,
    cloud,
    code_url,
)
from tests.standins.arm import Fault
from tests.standins.azurite import azurite
from tests.standins.identity import identity
from tests.standins.tls import tls

from active_learning.errors import EndpointError
from active_learning.services.azure import Workspace
from active_learning.services.deployment.azure import read_settings
from active_learning.services.deployment.azure.batch import (
    BatchScoring,
    BatchSettings,
    batch_entity,
)
from active_learning.services.deployment.azure.code import code_folder
from active_learning.services.deployment.azure.entities import (
    deployment_entity,
    release_of,
    release_tags,
)
from active_learning.services.deployment.state import Release
from active_learning.services.environments import serving_environment

__all__ = ["azurite", "cloud", "code_url", "identity", "tls"]

RELEASE = Release(
    name="000003-0123456789ab",
    model_name="small_cnn",
    model_version=3,
    fingerprint="0" * 64,
    registry_version="7",
)
SETTINGS = {
    "name": "digits-batch",
    "registered_model": MODEL,
    "compute": "cpu-cluster",
    "instance_count": 2,
    "processes": 2,
    "mini_batch_size": 100,
    "max_retries": 3,
    "timeout_s": 600,
    "error_threshold": -1,
    "images": "azureml://datastores/images/paths//",
    "output": "azureml://datastores/loop/paths/07_model_output",
    "output_url": "abfs://loop@account.dfs.core.windows.net/07_model_output",
    "max_pixels": 100_000_000,
    "wait_s": 30,
}


def scoring(cloud: Cloud) -> BatchScoring:
    workspace = Workspace.model_validate(cloud.options()["workspace"])
    return BatchScoring(workspace, BatchSettings.model_validate(SETTINGS))


def test_a_release_is_deployed_and_scores_the_store(cloud: Cloud) -> None:
    batch = scoring(cloud)

    name = batch.deploy(RELEASE)
    job = batch.invoke()

    assert name == "version-3"
    (made,) = cloud.arm.asked("PUT", f"/batchEndpoints/digits-batch/deployments/{name}")
    said = made.body["properties"]
    assert said["model"]["assetId"].endswith(f"/models/{MODEL}/versions/7")
    assert said["codeConfiguration"]["scoringScript"] == "score_files.py"
    assert said["compute"].endswith("/computes/cpu-cluster")
    assert said["miniBatchSize"] == 100
    assert said["retrySettings"]["maxRetries"] == 3
    endpoint = cloud.arm.workspace.endpoints["batch", "digits-batch"]
    assert endpoint["properties"]["defaults"]["deploymentName"] == name
    (asked,) = cloud.arm.asked("POST", "/batch/digits-batch/jobs")
    text = json.dumps(asked.body)
    assert SETTINGS["images"] in text
    folder = job.output.rpartition("/")[2]
    assert f"{SETTINGS['output']}/{folder}/" in text
    assert batch.status(job.name) == "Completed"


def test_a_job_that_fails_and_an_azure_that_refuses_are_said(cloud: Cloud) -> None:
    batch = scoring(cloud)
    batch.deploy(RELEASE)
    job = batch.invoke()
    cloud.arm.workspace.jobs[job.name]["properties"]["status"] = "Failed"

    with pytest.raises(EndpointError, match="is Failed"):
        batch.status(job.name)
    cloud.arm.faults.append(Fault("POST", "/batch/", 403, "no role"))
    with pytest.raises(EndpointError, match=r"Starting a job.*no role.*Data Scientist"):
        batch.invoke()


def test_what_is_asked_fits_the_librarys_own_schema(
    cloud: Cloud, tmp_path: Path
) -> None:
    settings = read_settings(cloud.options()).deployment
    assert settings is not None
    environment = serving_environment()
    with code_folder() as code:
        online = deployment_entity(NAME, "blue", RELEASE, settings, environment, code)
        batch = batch_entity(
            BatchSettings.model_validate(SETTINGS), RELEASE, environment, code
        )

        same = load_online_deployment(_as_yaml(online))
        other = load_model_batch_deployment(_as_yaml(batch))

    assert same.model == f"azureml:{MODEL}:7" or same.model.endswith(f"{MODEL}:7")
    assert same.request_settings.max_concurrent_requests_per_instance == 8
    assert other.settings.mini_batch_size == 100


def test_tags_say_which_release_it_is() -> None:
    tags = release_tags(RELEASE)

    assert release_of(tags) == RELEASE
    assert max(len(value) for value in tags.values()) <= 256
    assert release_of({"made": "by hand"}) is None


def test_the_code_is_the_package_and_its_entry_scripts() -> None:
    with code_folder() as code:
        top = {path.name for path in code.iterdir()}
        assert {"active_learning", "score.py", "score_files.py"} <= top
        assert "swagger3.json" in top
        assert not list(code.rglob("*.pyc"))


def _as_yaml(entity: object) -> io.StringIO:
    said = entity._to_dict()  # type: ignore[attr-defined]
    return io.StringIO(yaml.safe_dump(json.loads(json.dumps(said))))
