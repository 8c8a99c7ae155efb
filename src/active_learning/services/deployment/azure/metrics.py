"""What callers were answered, as Azure Monitor counts it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from azure.core import PipelineClient
from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy
from azure.core.rest import HttpRequest, HttpResponse

from active_learning.errors import EndpointError
from active_learning.services.azure import Workspace, credential
from active_learning.services.deployment.azure.refusals import told

_METRIC = "RequestsPerMinute"
_API = "2018-01-01"
_RETRIES = 4


class Answered(NamedTuple):
    """Requests, and those that failed on our side (5xx)."""

    requests: float
    failed: float


def answered(
    manager: str,
    workspace: Workspace,
    endpoint: str,
    deployment: str,
    since: datetime,
    until: datetime,
) -> Answered:
    """Count what a deployment answered.

    Args:
        manager: URL of Azure Resource Manager.
        workspace: The endpoint's.
        endpoint: Its name.
        deployment: One of its deployments.
        since: UTC; counted from the beginning of its minute.
        until: UTC; to the end of its minute.

    Raises:
        EndpointError: Azure Monitor does not say.
    """
    resource = (
        f"/subscriptions/{workspace.subscription}/resourceGroups/"
        f"{workspace.resource_group}/providers/Microsoft.MachineLearningServices/"
        f"workspaces/{workspace.name}/onlineEndpoints/{endpoint}"
    )
    begin = since.replace(second=0, microsecond=0)
    end = until.replace(second=0, microsecond=0) + timedelta(minutes=1)
    request = HttpRequest(
        "GET",
        f"{manager}{resource}/providers/Microsoft.Insights/metrics",
        params={
            "api-version": _API,
            "metricnames": _METRIC,
            "aggregation": "Average",
            "interval": "PT1M",
            "timespan": f"{begin:%Y-%m-%dT%H:%M:%SZ}/{end:%Y-%m-%dT%H:%M:%SZ}",
            "$filter": f"deployment eq '{deployment}' and statusCodeClass eq '*'",
        },
    )
    with told("Asking Azure Monitor what callers were answered"):
        client: PipelineClient[HttpRequest, HttpResponse] = PipelineClient(
            manager,
            policies=[
                RetryPolicy(retry_total=_RETRIES, retry_backoff_max=10),
                BearerTokenCredentialPolicy(credential(), f"{manager}/.default"),
            ],
        )
        with client:
            response = client.send_request(request)
            response.raise_for_status()
            body = response.json()
    return _counted(body)


def _counted(body: dict[str, Any]) -> Answered:
    requests = failed = 0.0
    try:
        for metric in body["value"]:
            for series in metric["timeseries"]:
                kinds = {
                    one["name"]["value"].lower(): one["value"].lower()
                    for one in series["metadatavalues"]
                }
                n = sum(point.get("average") or 0 for point in series["data"])
                requests += n
                if kinds.get("statuscodeclass", "").startswith("5"):
                    failed += n
    except (KeyError, TypeError, AttributeError) as exc:
        raise EndpointError(
            f"Azure Monitor's answer has no {exc}: what callers were answered is not "
            "known. Set deployment.watch.metrics to false to ask about examples."
        ) from exc
    return Answered(requests, failed)
