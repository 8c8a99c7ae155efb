"""Any message that Event Grid or a person may send is read, or says why not."""

import base64
import json
from typing import Any

import pytest
from exports_trigger.events import read_message
from tests.azure_function.messages import (
    ACCOUNT,
    EXPORT,
    HANDSHAKE,
    blob_created,
    cloud_event,
)

EVENT = blob_created(event_id="831e1650")
SHAPES: dict[str, Any] = {
    "an event": EVENT,
    "a list": [EVENT],
    "a CloudEvent": cloud_event(EVENT),
    "a list of CloudEvents": [cloud_event(EVENT)],
    "set aside before": {"reason": "GitHub was away", "message": json.dumps(EVENT)},
    "set aside twice": {
        "reason": "again",
        "message": json.dumps({"reason": "first", "message": json.dumps([EVENT])}),
    },
}


def in_base64(text: str) -> bytes:
    return base64.b64encode(text.encode())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    "encode", [str.encode, in_base64, lambda text: b"\xef\xbb\xbf" + text.encode()]
)
def test_every_shape_tells_of_the_same_blob(encode: Any, shape: Any) -> None:
    message = read_message(encode(json.dumps(shape)))

    assert not message.flaws
    (event,) = message.events
    assert event.url == f"{ACCOUNT}/azureml-blobstore/{EXPORT}"
    assert event.container == "azureml-blobstore"
    assert event.name == EXPORT
    assert (event.etag, event.event_id) == ("0x8DD1", "831e1650")
    assert (event.time, event.size) == ("2026-01-01T00:00:00Z", 10)
    assert event.identity == read_message(json.dumps(EVENT).encode()).events[0].identity


def test_a_signature_in_the_address_goes_no_further() -> None:
    signed = blob_created(query="?sv=2025&sig=Secret")

    (event,) = read_message(json.dumps(signed).encode()).events

    assert "Secret" not in repr(event)


def test_one_state_of_a_blob_is_one_whatever_the_event_is_called() -> None:
    def identity(**said: Any) -> str:
        (event,) = read_message(json.dumps(blob_created(**said)).encode()).events
        return event.identity

    assert identity(event_id="a") == identity(event_id="b")
    assert identity(etag='"0x8DD1"') == identity(etag="0x8DD1")
    assert identity(etag="0x1") != identity(etag="0x2")
    assert identity(name="Labeling/a.json") != identity(name="Labeling/b.json")
    assert identity(etag="", event_id="a") == identity(etag="", event_id="a")
    assert identity(etag="", event_id="a") != identity(etag="", event_id="b")


def test_a_name_is_read_as_people_write_it() -> None:
    spelled = blob_created("Labeling/export/My%20labels%23%C3%A9.csv")

    (event,) = read_message(json.dumps(spelled).encode()).events

    assert event.name == "Labeling/export/My labels#é.csv"


def test_the_handshake_of_a_subscription_is_no_event_of_a_blob() -> None:
    message = read_message(json.dumps([HANDSHAKE, EVENT]).encode())

    assert message.others == (HANDSHAKE["eventType"],)
    assert len(message.events) == 1
    assert not message.flaws


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"hello, world!", "neither JSON nor base64; it begins b'hello, world!'"),
        (b"\xff\xfe\x00", "neither JSON nor base64"),
        (base64.b64encode(b"hello"), "no JSON"),
        (base64.b64encode(b"\xff\xfe\x00"), "no JSON"),
        (b'{"id": ', "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "empty list"),
        (b"[7]", "event 1 of 1: it is no object but '7'"),
        (b'{"id": "x", "data": {}}', "no type; its keys are ['data', 'id']"),
        (b'{"eventType": 5}', "no type"),
        (b'{"eventType": "Microsoft.Storage.BlobCreated", "id": "x"}', "'x'"),
        (
            b'{"eventType": "Microsoft.Storage.BlobCreated", "data": {"url": 7}}',
            "names no blob",
        ),
        (
            b'{"type": "Microsoft.Storage.BlobCreated", "data": {"url": "https://a/b"}}',
            "neither an id nor an ETag",
        ),
        (
            b'{"type": "Microsoft.Storage.BlobCreated", "id": "x", '
            b'"data": {"url": "https://[a/b"}}',
            "is no URL",
        ),
        (b'{"reason": "r", "message": "hello!"}', "neither JSON nor base64"),
    ],
)
def test_what_cannot_be_read_says_why(body: bytes, told: str) -> None:
    message = read_message(body)

    assert not message.events
    (flaw,) = message.flaws
    assert told in flaw


def test_a_bad_event_keeps_no_good_one_from_being_read() -> None:
    message = read_message(json.dumps([EVENT, {"id": "x"}, 7]).encode())

    assert len(message.events) == 1
    assert [flaw.partition(":")[0] for flaw in message.flaws] == [
        "event 2 of 3",
        "event 3 of 3",
    ]
