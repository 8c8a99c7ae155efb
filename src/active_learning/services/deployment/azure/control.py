"""The endpoint and its deployments in Azure Resource Manager."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from azure.core.exceptions import AzureError, ResourceNotFoundError

from active_learning.errors import EndpointError
from active_learning.services.azure import workspace_client
from active_learning.services.deployment.azure.code import code_folder
from active_learning.services.deployment.azure.entities import (
    AUTHENTICATION,
    deployment_entity,
    endpoint_entity,
    environment_entity,
    release_of,
)
from active_learning.services.deployment.azure.refusals import told
from active_learning.services.deployment.azure.settings import (
    DeploymentSettings,
    EndpointSettings,
)
from active_learning.services.deployment.state import Color, Release
from active_learning.services.environments import EnvironmentSpec, serving_environment
from active_learning.services.redaction import redacted

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

logger = logging.getLogger(__name__)

# Tags of the endpoint, written in one request with its traffic.
CHAMPION = "champion"
BACK = "back"
ROLLING_OUT = "rolling_out"

_LOG_LINES = 100
_LOG_TAIL = 1500
# Beside what ``redacted`` knows: a container's log is anybody's text.
_KEY = re.compile(r"(?i)(\w*key=)[^;\s]+|\beyJ[\w-]+\.[\w-]+\.[\w-]*")

# Of one request; azure-core tries again after 429, 5xx and silence.
PATIENCE = {
    "retry_total": 4,
    "retry_backoff_max": 20,
    "connection_timeout": 20,
    "read_timeout": 60,
}


class Deployed(NamedTuple):
    """An endpoint as it is now.

    Attributes:
        url: Where requests go.
        traffic: Percent for each deployment that has any.
        tags: Of the endpoint.
        up: The release of each deployment; ``None`` for one that we did not make.
    """

    url: str
    traffic: Mapping[str, int]
    tags: Mapping[str, str]
    up: Mapping[str, Release | None]


class ControlPlane:
    """Asks Azure Resource Manager; every change has ended when a call returns.

    Args:
        settings: Which endpoint.
        timeout_s: So long may a change take.
    """

    def __init__(self, settings: EndpointSettings, timeout_s: float) -> None:
        """Describe the endpoint; nothing is asked yet."""
        self._settings = settings
        self._name = settings.name
        self._timeout_s = timeout_s

    @cached_property
    def client(self) -> MLClient:
        """Of the workspace."""
        with quiet(), told("Reaching Azure ML"):
            return workspace_client(self._settings.workspace, **PATIENCE)

    def look(self) -> Deployed | None:
        """The endpoint as it is; ``None`` where there is none.

        Raises:
            EndpointError: It cannot be asked.
        """
        with told(f"Asking about the endpoint {self._name!r}"):
            try:
                found = self.client.online_endpoints.get(self._name)
            except ResourceNotFoundError:
                return None
            listed = list(self.client.online_deployments.list(self._name))
        return Deployed(
            str(found.scoring_uri),
            {name: int(share) for name, share in found.traffic.items() if share},
            dict(found.tags or {}),
            {one.name: release_of(one.tags) for one in listed},
        )

    def ensure(self, settings: DeploymentSettings) -> None:
        """Make the endpoint where there is none.

        Raises:
            EndpointError: It cannot be made, or takes keys instead of tokens.
        """
        what = f"Making the endpoint {self._name!r}"
        with told(what):
            try:
                found = self.client.online_endpoints.get(self._name)
            except ResourceNotFoundError:
                found = None
        if found is None:
            entity = endpoint_entity(self._name, settings.identity)
            with self._changing(what) as waited:
                waited(self.client.online_endpoints.begin_create_or_update(entity))
        elif found.auth_mode != AUTHENTICATION:
            raise EndpointError(
                f"The endpoint {self._name!r} signs callers in by {found.auth_mode!r}, "
                f"and this project knows no keys: set its auth_mode to "
                f"{AUTHENTICATION!r}, or delete it and deploy again."
            )

    def deploy(
        self, color: Color, release: Release, settings: DeploymentSettings
    ) -> None:
        """Bring a release up as a color, without traffic.

        Raises:
            EndpointError: It did not come up; the end of its log is in the message.
        """
        environment = serving_environment()
        self._register(environment)
        what = f"Bringing {release.name!r} up as {color!r}"
        with code_folder() as code:
            entity = deployment_entity(
                self._name, color, release, settings, environment, code
            )
            try:
                with self._changing(what) as waited:
                    deployments = self.client.online_deployments
                    waited(deployments.begin_create_or_update(entity))
            except EndpointError as exc:
                raise EndpointError(f"{exc}{self._log_of(color)}") from exc

    def route(self, traffic: Mapping[str, int], tags: Mapping[str, str]) -> None:
        """Set traffic and tags in one request; tags that are not given are dropped.

        Raises:
            EndpointError: Azure refuses, and all is as before, or does not answer.
        """
        what = f"Giving the traffic of {self._name!r} to {dict(traffic)}"
        with told(what):
            endpoint = self.client.online_endpoints.get(self._name)
        endpoint.traffic = dict(traffic)
        kept = {k: v for k, v in (endpoint.tags or {}).items() if k not in _OURS}
        endpoint.tags = {**kept, **tags}
        with self._changing(what) as waited:
            waited(self.client.online_endpoints.begin_create_or_update(endpoint))

    def remove(self, deployment: str) -> None:
        """Delete a deployment that has no traffic.

        Raises:
            EndpointError: It is still there.
        """
        with self._changing(f"Deleting the deployment {deployment!r}") as waited:
            try:
                waited(
                    self.client.online_deployments.begin_delete(deployment, self._name)
                )
            except ResourceNotFoundError:
                return

    def _register(self, environment: EnvironmentSpec) -> None:
        with told(f"Registering the environment {environment.reference!r}"):
            try:
                self.client.environments.get(environment.name, environment.version)
            except ResourceNotFoundError:
                entity = environment_entity(environment)
                self.client.environments.create_or_update(entity)

    def _log_of(self, color: Color) -> str:
        """The end of a container's log, for a message; nothing where there is none."""
        for container in ("inference-server", "storage-initializer"):
            try:
                with quiet():
                    text = self.client.online_deployments.get_logs(
                        color, self._name, _LOG_LINES, container_type=container
                    )
            except AzureError as exc:
                logger.warning("No log of %s: %s", color, redacted(exc))
                continue
            if text.strip():
                lines = [redacted(ValueError(line)) for line in text.splitlines()]
                shown = _KEY.sub(r"\1...", "\n".join(lines))[-_LOG_TAIL:]
                return f" The end of its log ({container}):\n{shown}"
        return ""

    @contextmanager
    def _changing(self, what: str) -> Iterator[Any]:
        """Give what waits for a change to its end."""

        def waited(poller: Any) -> None:
            deadline = time.monotonic() + self._timeout_s
            poller.wait(max(deadline - time.monotonic(), 0))
            if not poller.done():
                raise EndpointError(
                    f"{what} has not ended after {self._timeout_s:g} s. Give it longer "
                    "in deploy.load_timeout_s, or see the endpoint in the studio."
                )
            poller.result()

        with told(what), quiet():
            yield waited


_OURS = frozenset({CHAMPION, BACK, ROLLING_OUT})


class _WithoutDots:
    """A stream that drops what is a dot and nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if text == "." else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def quiet() -> Iterator[None]:
    """The client prints a dot for every look at what is under way."""
    with redirect_stdout(_WithoutDots(sys.stdout)):
        yield
