"""Requests to the deployments themselves."""

from __future__ import annotations

from functools import cached_property
from http import HTTPStatus

from azure.core import PipelineClient
from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy
from azure.core.rest import HttpRequest, HttpResponse

from active_learning.services.azure import credential
from active_learning.services.deployment.azure.refusals import told
from active_learning.services.deployment.state import Color
from active_learning.services.scoring import COLLECT_HEADER, DEPLOYMENT_HEADER

_SCOPE = "https://ml.azure.com/.default"
_ANSWER_TIMEOUT_S = 90
# A deployment that has just come up may refuse its first requests.
_RETRIES = 5
_NONE = 0


class DataPlane:
    """Asks a deployment by its color, as whoever runs this.

    Args:
        url: The endpoint's scoring URL.
    """

    def __init__(self, url: str) -> None:
        """Describe the endpoint; nothing is asked yet."""
        self.url = url

    def ask(self, color: Color, content: bytes) -> tuple[int, str]:
        """Score an image's file; the prediction is not kept.

        What passes is waited for: 429, 503 and connections that fail.

        Returns:
            The status of HTTP and the answer's text.

        Raises:
            EndpointError: Nobody answers, or no token is to be had.
        """
        with told(f"Asking {self.url} for {color!r}"):
            response = self._client.send_request(_request(self.url, color, content))
            return response.status_code, response.text()

    def failed(self, color: Color, content: bytes) -> bool:
        """Whether one request fails on our side: 5xx, 429, or no answer.

        Raises:
            EndpointError: No token is to be had.
        """
        with told(f"Asking {self.url} for {color!r}"):
            try:
                response = self._client.send_request(
                    _request(self.url, color, content), retry_total=_NONE
                )
            except (ServiceRequestError, ServiceResponseError):
                return True
        status = response.status_code
        refused = status == HTTPStatus.TOO_MANY_REQUESTS
        return bool(refused or status >= HTTPStatus.INTERNAL_SERVER_ERROR)

    @cached_property
    def _client(self) -> PipelineClient[HttpRequest, HttpResponse]:
        return PipelineClient(
            self.url,
            policies=[
                RetryPolicy(retry_total=_RETRIES, retry_backoff_max=10),
                BearerTokenCredentialPolicy(credential(), _SCOPE),
            ],
            connection_timeout=_ANSWER_TIMEOUT_S,
            read_timeout=_ANSWER_TIMEOUT_S,
        )


def _request(url: str, color: Color, content: bytes) -> HttpRequest:
    headers = {
        "Content-Type": "application/octet-stream",
        DEPLOYMENT_HEADER: color,
        COLLECT_HEADER: "false",
    }
    return HttpRequest("POST", url, headers=headers, content=content)
