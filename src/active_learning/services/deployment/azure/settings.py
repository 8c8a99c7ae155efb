"""What deployments on Azure ML are told; ``conf/azure`` is the values' one home."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from active_learning.errors import SettingsError
from active_learning.parameters import Parameters
from active_learning.services.azure import Workspace
from active_learning.services.scoring.settings import ServingSettings

_SECRET = re.compile(r"(?i)key$|secret|password|token|connection_?string|\bsas\b|_sas$")
# Azure ML's own rule for endpoints.
_NAME = r"^[a-zA-Z][a-zA-Z0-9-]{1,30}[a-zA-Z0-9]$"


class Identity(Parameters):
    """The user-assigned managed identity that a deployment acts as.

    ``resource_id`` is the identity's in Azure Resource Manager, ``client_id`` what its
    tokens are asked by.
    """

    resource_id: str
    client_id: str


class Probe(Parameters):
    """When a container counts as alive or ready; seconds, and failures in a row."""

    initial_delay_s: PositiveInt
    period_s: PositiveInt
    timeout_s: PositiveInt
    failures: PositiveInt


class WatchSettings(Parameters):
    """What is counted while a step of the traffic lasts.

    Attributes:
        max_failed: More of the requests than this share failed on our side, and the
            roll-out ends.
        metrics: Whether Azure Monitor is asked what callers were answered. Its figures
            are of whole minutes. Where it is not, the release is asked about examples
            all the while.
        delay_s: So late Azure Monitor's figures may be.
        every_s: Between two examples.
    """

    max_failed: float = Field(ge=0, lt=1)
    metrics: bool
    delay_s: NonNegativeFloat
    every_s: PositiveFloat


class DeploymentSettings(Parameters):
    """How a release is brought up.

    Attributes:
        registered_model: Its name in the workspace's model registry.
        instance_type: Of the virtual machines.
        instance_count: How many.
        workers: Processes that answer, on each.
        threads: Requests at once in each process.
        request_timeout_ms: A request that takes longer is ended.
        max_queue_wait_ms: One that waits longer is refused with 429.
        liveness: A container that fails it is started again.
        readiness: One that fails it gets no requests.
        identity: Who it acts as; ``None`` is the endpoint's own identity.
        variables: Of its environment beside ``AL_SERVING``; no secrets.
        serving: What the scoring service is told, see ``ServingSettings``.
        watch: What is counted during a step.
    """

    registered_model: str
    instance_type: str
    instance_count: PositiveInt
    workers: PositiveInt
    threads: PositiveInt
    request_timeout_ms: PositiveInt
    max_queue_wait_ms: PositiveInt
    liveness: Probe
    readiness: Probe
    identity: Identity | None = None
    variables: Mapping[str, str] = {}
    serving: ServingSettings
    watch: WatchSettings

    @field_validator("variables")
    @classmethod
    def _hold_no_secret(cls, variables: Mapping[str, str]) -> Mapping[str, str]:
        return without_secrets(variables)

    @property
    def concurrency(self) -> int:
        """Requests that one machine answers at once."""
        return self.workers * self.threads

    @model_validator(mode="after")
    def _keep_within_azure(self) -> Self:
        if self.request_timeout_ms > 180_000:
            raise ValueError(
                f"request_timeout_ms {self.request_timeout_ms} is more than the "
                "180000 that a managed online endpoint allows"
            )
        return self


class EndpointSettings(Parameters):
    """Which endpoint it is, and how releases are brought up there.

    Attributes:
        workspace: Where it is.
        name: The endpoint's, unique in its region.
        cache: A folder of this machine for releases' files.
        deployment: ``None`` where the endpoint is only read.
    """

    workspace: Workspace
    name: str = Field(pattern=_NAME)
    cache: str
    deployment: DeploymentSettings | None = None


def read_settings(options: Mapping[str, Any]) -> EndpointSettings:
    """The options of a catalog entry.

    Raises:
        SettingsError: They do not hold together.
    """
    try:
        return EndpointSettings.model_validate(dict(options))
    except ValidationError as exc:
        # The values themselves stay out of the message.
        flaws = exc.errors(include_url=False, include_input=False)
        first = flaws[0]
        where = ".".join(map(str, first["loc"]))
        raise SettingsError(
            f"{len(flaws)} of the endpoint's options cannot be used; the first is "
            f"{where!r}: {first['msg']}. See conf/azure/deploy/catalog.yml."
        ) from None


def without_secrets(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Variables of an environment that anybody may read who may see the deployment.

    Raises:
        ValueError: One is called as a secret is.
    """
    secret = sorted(name for name in variables if _SECRET.search(name))
    if secret:
        raise ValueError(
            f"{len(secret)} variables are called as secrets are; the first is "
            f"{secret[0]!r}. A deployment signs in by its managed identity"
        )
    return variables
