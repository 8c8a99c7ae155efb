"""What a message of the queue says happened to blobs."""

import base64
import binascii
import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import unquote, urlsplit

from exports_trigger.errors import MessageError

CREATED = "Microsoft.Storage.BlobCreated"
_STORAGE = "Microsoft.Storage."
_EXCERPT = 60


@dataclass(frozen=True)
class BlobEvent:
    """Something happened to one blob.

    Attributes:
        kind: Event Grid's event type.
        url: The blob's, without the query, which may hold a signature.
        etag: Changes with the blob's content; empty where the event has none.
        event_id: Of this event; a second event for one change may have another.
        time: ISO 8601, as it came.
        size: Bytes; ``None`` where the event does not say.
    """

    kind: str
    url: str
    etag: str
    event_id: str
    time: str
    size: int | None

    @property
    def container(self) -> str:
        """The first part of the blob's path."""
        return self._path[0]

    @property
    def name(self) -> str:
        """The blob's name inside its container."""
        return self._path[1]

    @property
    def identity(self) -> str:
        """64 hexadecimal digits, the same for every event about one state of a blob.

        Without an ETag it is the same for every delivery of one event.
        """
        return sha256(f"{self.url}\0{self.etag or self.event_id}".encode()).hexdigest()

    @property
    def _path(self) -> tuple[str, str]:
        container, _, name = unquote(urlsplit(self.url).path).lstrip("/").partition("/")
        return container, name


@dataclass(frozen=True)
class Message:
    """What a message holds.

    Attributes:
        events: About blobs, in order.
        others: The types of events that are about no blob, such as the handshake of a
            subscription.
        flaws: Why other parts of it cannot be read, a sentence for each.
    """

    events: tuple[BlobEvent, ...]
    others: tuple[str, ...]
    flaws: tuple[str, ...]


def read_message(body: bytes) -> Message:
    """Read a message of any shape that Event Grid or a person may send.

    Event Grid's own schema and CloudEvents 1.0, one event or a list, as JSON or as
    base64 of it; and what was set aside, with its reason, as it is put back into the
    queue. A part that cannot be read keeps no other part from being read.
    """
    try:
        found = _unwrapped(_decoded(body))
    except MessageError as exc:
        return Message((), (), (str(exc),))
    events: list[BlobEvent] = []
    others: list[str] = []
    flaws: list[str] = []
    items = found if isinstance(found, list) else [found]
    for number, item in enumerate(items, 1):
        try:
            kind = _kind(item)
            if kind.startswith(_STORAGE):
                events.append(_event(kind, item))
            else:
                others.append(kind)
        except MessageError as exc:
            flaws.append(f"event {number} of {len(items)}: {exc}")
    if not items:
        flaws.append("it is an empty list")
    return Message(tuple(events), tuple(others), tuple(flaws))


def _decoded(body: bytes) -> Any:
    text = body.removeprefix(b"\xef\xbb\xbf").strip()
    if not text:
        raise MessageError("it is empty")
    if text[:1] not in (b"[", b"{"):
        try:
            text = base64.b64decode(text, validate=True)
        except binascii.Error as exc:
            raise MessageError(
                f"it is neither JSON nor base64; it begins {text[:_EXCERPT]!r}"
            ) from exc
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise MessageError(
            f"it is no JSON: {exc}; it begins {text[:_EXCERPT]!r}"
        ) from (exc)


def _unwrapped(found: Any) -> Any:
    """What was set aside, without the reason beside it."""
    while isinstance(found, dict) and found.keys() == {"reason", "message"}:
        found = _decoded(str(found["message"]).encode())
    return found


def _kind(item: Any) -> str:
    if not isinstance(item, dict):
        raise MessageError(f"it is no object but {str(item)[:_EXCERPT]!r}")
    kind = item.get("eventType", item.get("type"))
    if not isinstance(kind, str):
        raise MessageError(f"it has no type; its keys are {sorted(item)[:10]}")
    return kind


def _event(kind: str, item: dict[str, Any]) -> BlobEvent:
    data = item.get("data")
    url = data.get("url") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(url, str):
        raise MessageError(f"it names no blob; its id is {item.get('id')!r}")
    try:
        urlsplit(url)
    except ValueError as exc:
        raise MessageError(f"{url[:_EXCERPT]!r} is no URL: {exc}") from exc
    etag = str(data.get("eTag") or data.get("etag") or "").strip('"')
    event_id = str(item.get("id") or "")
    if not etag and not event_id:
        raise MessageError("it has neither an id nor an ETag to know it again by")
    size = data.get("contentLength")
    return BlobEvent(
        kind=kind,
        url=url.partition("?")[0],
        etag=etag,
        event_id=event_id,
        time=str(item.get("eventTime") or item.get("time") or ""),
        size=size if isinstance(size, int) else None,
    )
