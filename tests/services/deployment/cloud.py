"""An endpoint on stand-ins of Azure: Resource Manager, blobs, identities."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import (
    BlobClient,
    BlobLeaseClient,
)
from flask import Request
from fsspec.config import conf
from tests.services.deployment.builders import taken_in
from tests.services.scoring.serving import told
from tests.standins.arm import GROUP, SUBSCRIPTION, WORKSPACE, Answer, Arm, Asked
from tests.standins.arm_resources import Resource, Scorer
from tests.standins.azurite import Azurite
from tests.standins.identity import Identity
from tests.standins.tls import Tls
from werkzeug.test import EnvironBuilder

from active_learning.files import filesystem_at
from active_learning.services.azure import credential
from active_learning.services.deployment.azure import AzureEndpoint, read_settings
from active_learning.services.deployment.state import Release
from active_learning.services.scoring.service import ScoringService
from active_learning.services.scoring.settings import SETTINGS, ServingSettings

NAME = "digits"
MODEL = "digits-model"
PROBE = {"initial_delay_s": 10, "period_s": 10, "timeout_s": 2, "failures": 30}
WATCH = {"max_failed": 0.1, "metrics": False, "delay_s": 0, "every_s": 0.01}


class Cloud:
    """The stand-ins, and endpoints on them.

    Attributes:
        arm: Has the endpoint.
        place: URL of the endpoint's blobs.
        folder: What this machine keeps.
    """

    def __init__(
        self, arm: Arm, azurite: Azurite, container: str, folder: Path
    ) -> None:
        self.arm = arm
        self.azurite = azurite
        self.container = container
        self.place = azurite.place(container, "endpoint")
        self.folder = folder
        self._services: list[ScoringService] = []
        arm.workspace.scorer = self._scorer

    def options(self, **changes: Any) -> dict[str, Any]:
        """Of a catalog entry; ``changes`` are of the deployment."""
        deployment = {
            "registered_model": MODEL,
            "instance_type": "Standard_DS3_v2",
            "instance_count": 1,
            "workers": 2,
            "threads": 4,
            "request_timeout_ms": 5000,
            "max_queue_wait_ms": 500,
            "liveness": PROBE,
            "readiness": PROBE,
            "serving": json.loads(told(self.folder / "serving")),
            "watch": WATCH,
            **changes,
        }
        workspace = {
            "subscription": SUBSCRIPTION,
            "resource_group": GROUP,
            "name": WORKSPACE,
        }
        cache = str(self.folder / "cache")
        return {
            "workspace": workspace,
            "name": NAME,
            "cache": cache,
            "deployment": deployment,
        }

    def endpoint(self, timeout_s: float = 30, **changes: Any) -> AzureEndpoint:
        options = copy.deepcopy(self.options(**changes))
        return AzureEndpoint(self.place, read_settings(options), timeout_s)

    def released(self, version: int, weights: int = 0) -> Release:
        """A release that is a version of the model registry."""
        release = taken_in(self.endpoint(), version, weights)
        return release.model_copy(update={"registry_version": str(version)})

    def live(self, version: int, weights: int = 0) -> Release:
        """Put a release in production without further ado."""
        release = self.released(version, weights)
        endpoint = self.endpoint()
        with endpoint.exclusive():
            endpoint.promote(endpoint.stage(release), back=False)
        return release

    def overwrite(self, path: str, content: bytes) -> None:
        """Put something else in a blob's place."""
        filesystem, place = filesystem_at(self.azurite.place(self.container, path))
        filesystem.pipe_file(place, content)

    def break_lock(self) -> None:
        """End the lease at once, as time would."""
        options = {"credential": self.azurite.credential}
        with BlobClient(
            self.azurite.url, self.container, "endpoint/lock.json", **options
        ) as blob:
            BlobLeaseClient(blob).break_lease(0)

    @property
    def traffic(self) -> Mapping[str, int]:
        return self.arm.workspace.traffic(NAME)

    @property
    def up(self) -> set[str]:
        return self.arm.workspace.up(NAME)

    def close(self) -> None:
        for service in self._services:
            service.close()

    def _scorer(self, deployment: Resource) -> Scorer:
        """The real service, told what the deployment tells it, on the real files."""
        properties = deployment["properties"]
        name = deployment["tags"]["release"]
        model = properties["model"]
        assert model.endswith(f"/models/{MODEL}/versions/{int(name[:6])}"), model
        said = properties["environmentVariables"][SETTINGS]
        service = ScoringService.of(
            ServingSettings.model_validate_json(said), self.folder / "cache" / name
        )
        self._services.append(service)
        return answering(service)


def answering(service: ScoringService) -> Callable[[Asked], Answer]:
    """Requests of a stand-in, answered by a scoring service in this process."""

    def answer(asked: Asked) -> Answer:
        builder = EnvironBuilder(
            "/score", method="POST", data=asked.body, headers=dict(asked.headers)
        )
        response = service.respond(Request(builder.get_environ()))
        return Answer(response.status_code, response.get_data())

    return answer


@contextmanager
def signed_in(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be who the identity says, with no token from before."""
    for name, value in identity.environment().items():
        monkeypatch.setenv(name, value)
    credential.cache_clear()
    yield
    credential.cache_clear()


@pytest.fixture(scope="session")
def code_url(azurite: Azurite) -> str:
    """Where code is uploaded to, once for all tests: with a signature."""
    return azurite.signed(azurite.make_container())


@pytest.fixture
def cloud(
    tls: Tls,
    identity: Identity,
    azurite: Azurite,
    code_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cloud]:
    """A workspace without an endpoint, and an empty container."""
    monkeypatch.setitem(conf, "abfs", azurite.storage_options())
    with (
        Arm(code_url, tls) as arm,
        signed_in(identity, monkeypatch),
    ):
        for name, value in arm.environment().items():
            monkeypatch.setenv(name, value)
        # What the client library found of a cloud, it keeps in the environment.
        monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "")
        monkeypatch.delenv("AZUREML_CURRENT_CLOUD")
        made = Cloud(arm, azurite, azurite.make_container(), tmp_path)
        yield made
        made.close()
