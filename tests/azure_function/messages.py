"""Messages as Event Grid writes them into the queue."""

from typing import Any
from uuid import uuid4

ACCOUNT = "https://acct.blob.core.windows.net"
EXPORT = "Labeling/export/coco/5b1c/labels.json"


def blob_created(
    name: str = EXPORT,
    *,
    container: str = "azureml-blobstore",
    etag: str = "0x8DD1",
    event_id: str | None = None,
    size: int = 10,
    kind: str = "Microsoft.Storage.BlobCreated",
    query: str = "",
) -> dict[str, Any]:
    """An event in Event Grid's own schema."""
    return {
        "topic": "/subscriptions/S/resourceGroups/RG/providers/Microsoft.Storage/"
        "storageAccounts/acct",
        "subject": f"/blobServices/default/containers/{container}/blobs/{name}",
        "eventType": kind,
        "id": event_id or str(uuid4()),
        "eventTime": "2026-01-01T00:00:00Z",
        "dataVersion": "",
        "metadataVersion": "1",
        "data": {
            "api": "PutBlockList",
            "eTag": etag,
            "contentType": "application/json",
            "contentLength": size,
            "blobType": "BlockBlob",
            "url": f"{ACCOUNT}/{container}/{name}{query}",
            "sequencer": "00",
        },
    }


def cloud_event(event: dict[str, Any]) -> dict[str, Any]:
    """The same in the schema of CloudEvents 1.0."""
    return {
        "specversion": "1.0",
        "type": event["eventType"],
        "source": event["topic"],
        "id": event["id"],
        "time": event["eventTime"],
        "subject": event["subject"],
        "data": event["data"],
    }


HANDSHAKE = {
    "id": "2d1781af",
    "topic": "/subscriptions/S",
    "subject": "",
    "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
    "eventTime": "2026-01-01T00:00:00Z",
    "dataVersion": "2",
    "data": {"validationCode": "512d38b6", "validationUrl": "https://validate.me"},
}
