"""Clients of a cluster, one each for a process, and none that waits for ever."""

import os
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from azure.kusto.data import KustoClient, KustoConnectionStringBuilder

# The library asks each cluster for its cloud, and gives no other way to say how long.
from azure.kusto.data._cloud_settings import CloudSettings
from azure.kusto.data.exceptions import KustoMultiApiError, KustoServiceError
from azure.kusto.data.response import KustoResponseDataSet
from azure.kusto.ingest import QueuedIngestClient

from active_learning.errors import SettingsError
from active_learning.services.azure import credential

APPLICATION = "active-learning"


class Database(NamedTuple):
    """A database of a cluster."""

    cluster: str
    name: str

    @classmethod
    def of(cls, place: str) -> "Database":
        """Take ``https://cluster.region.kusto.windows.net/database`` apart.

        Raises:
            SettingsError: It is none.
        """
        parts = urlsplit(place)
        name = parts.path.strip("/")
        local = parts.hostname in {"127.0.0.1", "localhost"}
        scheme = parts.scheme == "https" or (local and parts.scheme == "http")
        if not (scheme and parts.netloc and name) or "/" in name or parts.query:
            raise SettingsError(
                "A database of Azure Data Explorer is written https://<cluster>."
                f"<region>.kusto.windows.net/<database>; {_shown(place)!r} is none. "
                "conf/azure makes it of AL_ADX_CLUSTER and AL_ADX_DATABASE."
            )
        return cls(f"{parts.scheme}://{parts.netloc}", name)

    def __str__(self) -> str:
        return f"{self.cluster}/{self.name}"


class Client(KustoClient):
    """The library's client with a bound on every wait, which sees every error."""

    def __init__(self, kcsb: KustoConnectionStringBuilder, answer_s: float) -> None:
        """Describe the cluster; nothing is asked yet."""
        super().__init__(kcsb)
        bound = timedelta(seconds=answer_s)
        # The library waits an hour for some answers and has no setting for it.
        vars(self).update(
            _query_default_timeout=bound,
            _mgmt_default_timeout=bound,
            _streaming_ingest_default_timeout=bound,
            _client_server_delta=timedelta(seconds=max(1.0, min(30.0, answer_s / 8))),
        )

    @staticmethod
    def _kusto_parse_by_endpoint(
        endpoint: str, response_json: Any
    ) -> KustoResponseDataSet:
        # The library looks at tables alone: an error at the end is lost on it.
        if isinstance(response_json, list):
            failed = [each for each in response_json if each.get("HasErrors")]
            if failed:
                raise KustoMultiApiError(failed)
        return KustoClient._kusto_parse_by_endpoint(endpoint, response_json)

    @staticmethod
    def _handle_http_error(
        exception: Exception,
        endpoint: str | None,
        payload: Any,
        response: Any,
        status: int,
        response_json: Any,
        response_text: str | None,
    ) -> Any:
        # A gateway before the cluster has other ways to say that something is wrong.
        said = response_json if isinstance(response_json, Mapping) else {}
        if not isinstance(said.get("error"), Mapping):
            response_json = None
        if status >= 500 and response_json is None:
            raise KustoServiceError(f"status {status}", response) from exception
        return KustoClient._handle_http_error(
            exception,
            endpoint,
            payload,
            response,
            status,
            response_json,
            response_text,
        )


class Clients(NamedTuple):
    """A client for questions and streaming, and one for what is queued."""

    engine: Client
    queue: QueuedIngestClient


def clients(cluster: str, answer_s: float) -> Clients:
    """The clients of a cluster, kept for the process.

    Raises:
        KustoServiceError: The cluster does not say which cloud it is of.
    """
    # A fork must not share its parent's connections.
    made = _clients(cluster, answer_s, os.getpid())
    for url in {cluster, QueuedIngestClient.get_ingestion_endpoint(cluster)}:
        CloudSettings.get_cloud_info_for_cluster(url, session=_Bounded(answer_s))
    return made


@cache
def _clients(cluster: str, answer_s: float, process: int) -> Clients:
    engine = Client(_connection(cluster), answer_s)
    queue = QueuedIngestClient(_connection(cluster))
    place = QueuedIngestClient.get_ingestion_endpoint(cluster)
    queue._resource_manager._kusto_client = Client(_connection(place), answer_s)
    return Clients(engine, queue)


def _connection(cluster: str) -> KustoConnectionStringBuilder:
    made = KustoConnectionStringBuilder.with_azure_token_credential(
        cluster, credential()
    )
    made._set_connector_details(APPLICATION, "1")
    return made


class _Bounded(requests.Session):
    """A session that waits for no answer longer than this."""

    def __init__(self, answer_s: float) -> None:
        super().__init__()
        self._answer_s = answer_s

    def request(self, *args: Any, **said: Any) -> requests.Response:
        said["timeout"] = said.get("timeout") or self._answer_s
        return super().request(*args, **said)


def _shown(place: str) -> str:
    # Whoever put a key into an address does not want to read it in an error.
    return place.split("?", maxsplit=1)[0].rsplit("@", maxsplit=1)[-1]
