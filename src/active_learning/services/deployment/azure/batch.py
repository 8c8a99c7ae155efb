"""The batch endpoint: the champion scores the image store on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from azure.ai.ml import Input, Output
from azure.ai.ml.entities import (
    BatchEndpoint,
    BatchRetrySettings,
    CodeConfiguration,
    ModelBatchDeployment,
    ModelBatchDeploymentSettings,
    ResourceConfiguration,
)
from azure.core.exceptions import ResourceNotFoundError
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from active_learning.errors import EndpointError
from active_learning.parameters import Parameters
from active_learning.services.azure import Workspace, workspace_client
from active_learning.services.deployment.azure.code import BATCH, code_folder
from active_learning.services.deployment.azure.control import PATIENCE, quiet
from active_learning.services.deployment.azure.entities import (
    environment_entity,
    model_id,
    release_tags,
)
from active_learning.services.deployment.azure.refusals import told
from active_learning.services.deployment.state import Release
from active_learning.services.environments import EnvironmentSpec, serving_environment

if TYPE_CHECKING:
    from pathlib import Path

    from azure.ai.ml import MLClient

_OVER = ("Completed", "Failed", "Canceled", "NotResponding")


class BatchSettings(Parameters):
    """How images are scored in batches; ``conf/azure`` is the values' one home.

    Attributes:
        name: The batch endpoint's, unique in its region.
        registered_model: In the workspace's model registry.
        compute: The cluster.
        instance_count: Nodes of it.
        processes: That score on each node.
        mini_batch_size: Files that ``run()`` is given at once.
        max_retries: Of a mini batch that fails.
        timeout_s: Of a mini batch.
        error_threshold: Files that may fail before the job does; -1 is all.
        images: The image store, as Azure ML names it; the root of a container is
            ``azureml://datastores/<name>/paths//``.
        output: The folder for jobs' outputs, as Azure ML names it.
        output_url: The same folder as a URL of blobs.
        max_pixels: A larger image is set aside before it is unpacked.
        wait_s: So long may a change of the endpoint take.
    """

    name: str
    registered_model: str
    compute: str
    instance_count: PositiveInt
    processes: PositiveInt
    mini_batch_size: PositiveInt
    max_retries: NonNegativeInt
    timeout_s: PositiveInt
    error_threshold: int = Field(ge=-1)
    images: str = Field(pattern=r"^azureml://.*/paths/.+$")
    output: str = Field(pattern=r"^azureml://.*/paths/.+[^/]$")
    output_url: str
    max_pixels: PositiveInt
    wait_s: PositiveFloat


class Job(NamedTuple):
    """A job that was started, and the URL of the folder that it writes to."""

    name: str
    output: str


class BatchScoring:
    """A batch endpoint of a workspace.

    Args:
        workspace: Where it is.
        settings: How it scores.
    """

    def __init__(self, workspace: Workspace, settings: BatchSettings) -> None:
        """Describe it; nothing is asked yet."""
        self._workspace = workspace
        self._settings = settings

    def deploy(self, release: Release) -> str:
        """Let the endpoint score with a release; make the endpoint where there is none.

        Returns:
            The deployment's name.

        Raises:
            EndpointError: The release is not registered, or Azure refuses.
        """
        settings, environment = self._settings, serving_environment()
        what = f"Bringing {release.name!r} up for batches"
        with told(what), quiet(), code_folder() as code:
            client = self._client()
            try:
                client.environments.get(environment.name, environment.version)
            except ResourceNotFoundError:
                client.environments.create_or_update(environment_entity(environment))
            try:
                endpoint = client.batch_endpoints.get(settings.name)
            except ResourceNotFoundError:
                endpoint = client.batch_endpoints.begin_create_or_update(
                    BatchEndpoint(name=settings.name)
                ).result(settings.wait_s)
            entity = batch_entity(settings, release, environment, code)
            client.batch_deployments.begin_create_or_update(entity).result(
                settings.wait_s
            )
            endpoint.defaults = {"deployment_name": entity.name}
            client.batch_endpoints.begin_create_or_update(endpoint).result(
                settings.wait_s
            )
        return str(entity.name)

    def invoke(self) -> Job:
        """Score the image store with the deployment that is the default one.

        Raises:
            EndpointError: Azure refuses.
        """
        folder = f"scored-{uuid4().hex}"
        with told(f"Starting a job of {self._settings.name!r}"), quiet():
            started = self._client().batch_endpoints.invoke(
                self._settings.name,
                inputs={"images": Input(type="uri_folder", path=self._settings.images)},
                outputs={
                    "score": Output(
                        type="uri_folder", path=f"{self._settings.output}/{folder}/"
                    )
                },
            )
        return Job(str(started.name), f"{self._settings.output_url}/{folder}")

    def status(self, job: str) -> str:
        """How a job is.

        Raises:
            EndpointError: Azure does not say, or it has failed.
        """
        with told(f"Asking about the job {job!r}"), quiet():
            found = self._client().jobs.get(job).status
        status = str(getattr(found, "value", found))
        if status in _OVER[1:]:
            raise EndpointError(
                f"The job {job!r} is {status}. See its log in the studio, and start "
                "another one: images that it has scored count once."
            )
        return status

    def _client(self) -> MLClient:
        return workspace_client(self._workspace, **PATIENCE)


def batch_entity(
    settings: BatchSettings, release: Release, environment: EnvironmentSpec, code: Path
) -> ModelBatchDeployment:
    """A deployment of a release; one for each version, so that an earlier one stays.

    Raises:
        EndpointError: The release was not registered.
    """
    return ModelBatchDeployment(
        name=f"version-{release.model_version}",
        endpoint_name=settings.name,
        model=model_id(release, settings.registered_model),
        environment=environment.reference,
        code_configuration=CodeConfiguration(code=str(code), scoring_script=BATCH),
        compute=settings.compute,
        resources=ResourceConfiguration(instance_count=settings.instance_count),
        tags=release_tags(release),
        settings=ModelBatchDeploymentSettings(
            max_concurrency_per_instance=settings.processes,
            mini_batch_size=settings.mini_batch_size,
            # The parts that run() leaves are the output; a line each would be text.
            output_action="summary_only",
            retry_settings=BatchRetrySettings(
                max_retries=settings.max_retries, timeout=settings.timeout_s
            ),
            error_threshold=settings.error_threshold,
            environment_variables={"AL_MAX_PIXELS": str(settings.max_pixels)},
        ),
    )
