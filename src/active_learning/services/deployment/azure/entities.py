"""What is asked of Azure ML, as its own library words it; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from azure.ai.ml.entities import (
    CodeConfiguration,
    Environment,
    IdentityConfiguration,
    ManagedIdentityConfiguration,
    ManagedOnlineDeployment,
    ManagedOnlineEndpoint,
    OnlineRequestSettings,
    ProbeSettings,
)

from active_learning.errors import EndpointError
from active_learning.services.deployment.azure.code import ONLINE
from active_learning.services.deployment.azure.settings import (
    DeploymentSettings,
    Identity,
    Probe,
)
from active_learning.services.deployment.state import Color, Release
from active_learning.services.environments import EnvironmentSpec
from active_learning.services.scoring.settings import SETTINGS

AUTHENTICATION = "aad_token"


def endpoint_entity(name: str, identity: Identity | None) -> ManagedOnlineEndpoint:
    """The endpoint, which takes tokens and no keys."""
    return ManagedOnlineEndpoint(
        name=name,
        auth_mode=AUTHENTICATION,
        description="Champion and challenger of the active learning loop",
        identity=identity_entity(identity),
    )


def identity_entity(identity: Identity | None) -> IdentityConfiguration:
    """The endpoint's own identity, or one that was made before."""
    if identity is None:
        return IdentityConfiguration(type="system_assigned")
    return IdentityConfiguration(
        type="user_assigned",
        user_assigned_identities=[
            ManagedIdentityConfiguration(
                resource_id=identity.resource_id, client_id=identity.client_id
            )
        ],
    )


def deployment_entity(
    endpoint: str,
    color: Color,
    release: Release,
    settings: DeploymentSettings,
    environment: EnvironmentSpec,
    code: Path,
) -> ManagedOnlineDeployment:
    """A deployment of a release.

    Args:
        endpoint: Its endpoint's name.
        color: Its own.
        release: A version of the model registry.
        settings: How it is brought up.
        environment: What it runs in.
        code: The folder with the entry script.

    Raises:
        EndpointError: The release was not registered.
    """
    return ManagedOnlineDeployment(
        name=color,
        endpoint_name=endpoint,
        model=model_id(release, settings.registered_model),
        environment=environment.reference,
        code_configuration=CodeConfiguration(code=str(code), scoring_script=ONLINE),
        instance_type=settings.instance_type,
        instance_count=settings.instance_count,
        environment_variables=variables(settings),
        request_settings=OnlineRequestSettings(
            request_timeout_ms=settings.request_timeout_ms,
            max_concurrent_requests_per_instance=settings.concurrency,
            max_queue_wait_ms=settings.max_queue_wait_ms,
        ),
        liveness_probe=_probe(settings.liveness),
        readiness_probe=_probe(settings.readiness),
        tags=release_tags(release),
    )


def model_id(release: Release, registered_model: str) -> str:
    """A registered model as deployments name it.

    Raises:
        EndpointError: The release was not registered.
    """
    if release.registry_version is None:
        raise EndpointError(
            f"{release.name!r} is no version of {registered_model!r} in the model "
            "registry, and Azure ML deploys nothing else. Deploy the challenger again: "
            "'kedro run --pipelines deploy' registers it first."
        )
    return f"azureml:{registered_model}:{release.registry_version}"


def variables(settings: DeploymentSettings) -> dict[str, str]:
    """The environment of a container: what to do and where, and no secret."""
    said = dict(settings.variables)
    said[SETTINGS] = settings.serving.model_dump_json()
    said["WORKER_COUNT"] = str(settings.workers)
    # The image starts gunicorn itself and has no setting for threads.
    said["GUNICORN_CMD_ARGS"] = f"--worker-class gthread --threads {settings.threads}"
    if settings.identity is not None:
        said["AZURE_CLIENT_ID"] = settings.identity.client_id
    return said


def environment_entity(environment: EnvironmentSpec) -> Environment:
    """An environment, to be registered under its own version."""
    return Environment(
        name=environment.name,
        version=environment.version,
        image=environment.image,
        conda_file=json.loads(json.dumps(environment.conda)),
    )


def release_tags(release: Release) -> dict[str, str]:
    """A release as tags of its deployment; a tag holds up to 256 characters."""
    said = release.model_dump(mode="json", exclude_none=True)
    return {"release": said.pop("name"), **{name: str(v) for name, v in said.items()}}


def release_of(tags: Mapping[str, str] | None) -> Release | None:
    """The release that a deployment's tags name; ``None`` where we did not make it."""
    if not tags or not {"release", "fingerprint", "model_version"} <= tags.keys():
        return None
    return Release(
        name=tags["release"],
        model_name=tags.get("model_name", ""),
        model_version=int(tags["model_version"]),
        fingerprint=tags["fingerprint"],
        registry_version=tags.get("registry_version"),
    )


def _probe(probe: Probe) -> ProbeSettings:
    return ProbeSettings(
        initial_delay=probe.initial_delay_s,
        period=probe.period_s,
        timeout=probe.timeout_s,
        failure_threshold=probe.failures,
        success_threshold=1,
    )
