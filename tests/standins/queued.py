"""The ingestion service behind a cluster's queue: blobs and messages in Azurite."""

import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import parse_qs
from uuid import uuid4

from tests.standins.azurite import Azurite


class Message(NamedTuple):
    """One blob to be ingested."""

    said: dict[str, Any]
    delete: Any


class Queued:
    """The container and the queue that a cluster lends to its clients."""

    def __init__(self, azurite: Azurite) -> None:
        """Make both, others for each cluster: tests share one Azurite."""
        from azure.storage.blob import BlobServiceClient
        from azure.storage.queue import QueueClient

        own = uuid4().hex[:12]
        self.signatures: list[str] = []
        self._azurite = azurite
        self._blobs = f"{azurite.service_url('blob')}/ingest-{own}"
        self._messages = f"{azurite.service_url('queue')}/ready-{own}"
        # The certificate of a test is its own.
        BlobServiceClient(
            azurite.service_url("blob"),
            credential=azurite.credential,
            connection_verify=False,
        ).create_container(f"ingest-{own}")
        self._queue = QueueClient(
            azurite.service_url("queue"),
            f"ready-{own}",
            credential=azurite.credential,
            connection_verify=False,
        )
        self._queue.create_queue()

    @property
    def sas(self) -> str:
        """Leave to write, as a cluster gives it: no error may hold it."""
        from azure.storage.blob import generate_account_sas

        signed: str = generate_account_sas(
            self._azurite.account,
            account_key=self._azurite.key,
            resource_types="sco",
            permission="rwdlacup",
            expiry=datetime.now(UTC) + timedelta(hours=1),
            services="bq",
        )
        self.signatures += parse_qs(signed)["sig"]
        return signed

    def resources(self) -> list[tuple[str, str]]:
        """As ``.get ingestion resources`` lists them."""
        sas = self.sas
        queues = (
            "SecuredReadyForAggregationQueue",
            "FailedIngestionsQueue",
            "SuccessfulIngestionsQueue",
            "IngestionsStatusTable",
        )
        return [
            ("TempStorage", f"{self._blobs}?{sas}"),
            *((name, f"{self._messages}?{sas}") for name in queues),
        ]

    def waiting(self) -> Iterator[Message]:
        """What clients have queued; a message that is not deleted comes again."""
        for found in self._queue.receive_messages(
            messages_per_page=8, visibility_timeout=5
        ):
            said = json.loads(base64.b64decode(found.content))
            yield Message(said, lambda found=found: self._queue.delete_message(found))

    def n_waiting(self) -> int:
        """How many messages are there, taken and not deleted ones too."""
        return int(self._queue.get_queue_properties().approximate_message_count or 0)

    def blob(self, url: str) -> bytes:
        """The content of a blob by the address in a message."""
        from azure.storage.blob import BlobClient

        content: bytes = (
            BlobClient.from_blob_url(url, connection_verify=False)
            .download_blob()
            .readall()
        )
        return content


def bearer_of(headers: dict[str, str]) -> str:
    """The token of a request; empty without one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token if scheme == "Bearer" else ""


def is_good(token: str) -> bool:
    """Whether a token says that it has not expired; who signed it is not looked at."""
    if token.count(".") != 2:
        return False
    claims = token.split(".")[1]
    said = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return float(said["exp"]) > time.time()
