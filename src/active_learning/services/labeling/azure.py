"""Labeling projects of an Azure Machine Learning workspace, by their preview API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from azure.core import PipelineClient
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.policies import (
    BearerTokenCredentialPolicy,
    RequestIdPolicy,
    RetryPolicy,
)
from azure.core.polling import LROPoller
from azure.core.rest import HttpRequest
from azure.mgmt.core.polling.arm_polling import ARMPolling

from active_learning.errors import LabelingAwayError, LabelingError
from active_learning.services.azure import Workspace, credential, workspace_client
from active_learning.services.labeling.azureml import (
    Export,
    Project,
    export_of,
    project_of,
    same_folder,
)
from active_learning.services.redaction import cause, redacted

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

_API = "2024-04-01-preview"
_LONGEST_WAIT_S = 30


class LabelingProjects:
    """The labeling projects of a workspace.

    Args:
        workspace: Which one.
        timeout_s: For each answer, and for an export to be written.
        poll_s: Between two looks at an export.
        retries: Of a question that is not answered, ever later.
    """

    def __init__(
        self, workspace: Workspace, *, timeout_s: float, poll_s: float, retries: int
    ) -> None:
        """Describe the workspace; it is not asked yet."""
        self._workspace = workspace
        self._timeout_s = timeout_s
        self._poll_s = poll_s
        self._retries = retries

    def find(self, project: str) -> Project:
        """The project of that id or title, with its classes where the API tells them.

        Raises:
            LabelingError: There is none, or two have the title.
            LabelingAwayError: Azure does not answer.
        """
        with self._told(f"Looking for the labeling project {project!r}"):
            client = self._client()
            with client:
                found = self._get(client, project) or self._by_title(client, project)
        return project_of(found)

    def export(self, project: Project, format: str) -> Export:  # noqa: A002
        """Have the labels of a project exported, and wait until they are written.

        Raises:
            LabelingError: Azure refuses, or the export fails.
            LabelingAwayError: It does not answer, or not in time.
        """
        with self._told(f"Exporting the labels of {project.title!r}"):
            client = self._client()
            with client:
                place = f"{self._jobs}/{quote(project.id)}/exportLabels"
                request = HttpRequest(
                    "POST",
                    client.format_url(place),
                    params={"api-version": _API},
                    json={"format": format},
                )
                first = client.send_request(request, _return_pipeline_response=True)
                first.http_response.raise_for_status()
                polling = ARMPolling(
                    self._poll_s, lro_options={"final-state-via": "location"}
                )
                poller = LROPoller(client, first, _content, polling)
                poller.wait(self._timeout_s)
                if not poller.done():
                    raise LabelingAwayError(
                        f"The export of {project.title!r} is not written after "
                        f"{self._timeout_s:g} s. It may be later: label-ingest takes "
                        "it when it is there."
                    )
                return export_of(poller.result() or {})

    def watch(self, asset: str, folder: str) -> str:
        """Have a data asset of a folder; one that is there stays.

        Args:
            asset: Its name.
            folder: A path in a datastore of the workspace.

        Returns:
            The version of the asset.

        Raises:
            LabelingError: Azure refuses.
            LabelingAwayError: It does not answer.
        """
        from azure.ai.ml.constants import AssetTypes
        from azure.ai.ml.entities import Data

        with self._told(f"Registering the data asset {asset!r}"):
            client = workspace_client(self._workspace, retry_total=self._retries)
            versions = _versions(client, asset)
            for known in versions:
                if same_folder(str(known.path), folder):
                    return str(known.version)
            numbers = [int(v.version) for v in versions if str(v.version).isdecimal()]
            made = client.data.create_or_update(
                Data(
                    name=asset,
                    version=str(max(numbers, default=0) + 1),
                    type=AssetTypes.URI_FOLDER,
                    path=folder,
                    description="Images that are asked about; a labeling project "
                    "watches them.",
                )
            )
            return str(made.version)

    @property
    def _jobs(self) -> str:
        place = self._workspace
        return (
            f"/subscriptions/{quote(place.subscription)}"
            f"/resourceGroups/{quote(place.resource_group)}"
            "/providers/Microsoft.MachineLearningServices"
            f"/workspaces/{quote(place.name)}/labelingJobs"
        )

    def _client(self) -> PipelineClient[Any, Any]:
        # MLClient knows the cloud's Resource Manager; it has nothing for labeling.
        manager = workspace_client(self._workspace)._base_url
        return PipelineClient(
            manager,
            policies=[
                RequestIdPolicy(),
                RetryPolicy(
                    retry_total=self._retries, retry_backoff_max=_LONGEST_WAIT_S
                ),
                BearerTokenCredentialPolicy(credential(), f"{manager}/.default"),
            ],
            connection_timeout=self._timeout_s,
            read_timeout=self._timeout_s,
        )

    def _get(self, client: PipelineClient[Any, Any], name: str) -> dict[str, Any]:
        asked = {
            "api-version": _API,
            "includeLabelCategories": "true",
            "includeJobInstructions": "false",
        }
        place = client.format_url(f"{self._jobs}/{quote(name)}")
        response = client.send_request(HttpRequest("GET", place, params=asked))
        if response.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST):
            # A title is no id, and may be no name at all.
            return {}
        return _said(response)

    def _by_title(self, client: PipelineClient[Any, Any], title: str) -> dict[str, Any]:
        every = list(self._pages(client))
        titles = [each.get("properties", {}).get("displayName") for each in every]
        found = [
            each for each, said in zip(every, titles, strict=True) if said == title
        ]
        if len(found) == 1:
            return self._get(client, found[0]["name"]) or found[0]
        if found:
            raise LabelingError(
                f"{len(found)} labeling projects are called {title!r}: "
                f"{', '.join(each['name'] for each in found)}. Set "
                "azure_labeling.project to the id of one of them."
            )
        known = sorted(said for said in titles if said)
        there = f"There are: {', '.join(known)}." if known else "There is none."
        raise LabelingError(
            f"No labeling project is called {title!r} in the workspace "
            f"{self._workspace.name!r}. {there} Make one in the studio, on the data "
            "asset that this command registers, with incremental refresh."
        )

    def _pages(self, client: PipelineClient[Any, Any]) -> Iterator[dict[str, Any]]:
        place = client.format_url(self._jobs)
        request = HttpRequest("GET", place, params={"api-version": _API})
        page = _said(client.send_request(request))
        yield from page.get("value", [])
        while page.get("nextLink"):
            page = _said(client.send_request(HttpRequest("GET", page["nextLink"])))
            yield from page.get("value", [])

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        from azure.ai.ml.exceptions import MlException

        try:
            yield
        except (ServiceRequestError, ServiceResponseError) as exc:
            raise LabelingAwayError(
                f"{what} failed: {redacted(exc)} Try again later."
            ) from cause(exc)
        except (AzureError, MlException) as exc:
            status = exc.status_code if isinstance(exc, HttpResponseError) else None
            kind = LabelingAwayError if _is_away(status) else LabelingError
            raise kind(f"{what} failed: {redacted(exc)} {_way_out(exc)}") from cause(
                exc
            )


def _versions(client: MLClient, asset: str) -> list[Any]:
    try:
        return list(client.data.list(name=asset))
    except ResourceNotFoundError:
        return []


def _content(response: Any) -> dict[str, Any]:
    return dict(response.http_response.json() or {})


def _said(response: Any) -> dict[str, Any]:
    response.raise_for_status()
    try:
        said = response.json()
    except ValueError as exc:
        raise LabelingError("Azure ML's answer is no JSON.") from exc
    if not isinstance(said, dict):
        raise LabelingError("Azure ML's answer is JSON, but no object.")
    return said


def _is_away(status: int | None) -> bool:
    return status is not None and (status == 429 or status >= 500)


def _way_out(exc: BaseException) -> str:
    status = exc.status_code if isinstance(exc, HttpResponseError) else None
    if isinstance(exc, ClientAuthenticationError) or status == HTTPStatus.UNAUTHORIZED:
        return "Sign in with `az login`, or let this machine have a managed identity."
    if status == HTTPStatus.FORBIDDEN:
        return "Give this identity the role 'AzureML Data Scientist' on the workspace."
    if _is_away(status):
        return "Try again later."
    return (
        "Labeling projects have a preview API only: if it is not there, export in the "
        "studio, and label-ingest finds it."
    )
