"""From a message in the queue to one run of the workflow, whatever goes wrong."""

import base64
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import (
    BlobClient,
    BlobLeaseClient,
    BlobServiceClient,
    ContainerClient,
)
from azure.storage.queue import QueueClient, QueueServiceClient
from tests.azure_function.messages import HANDSHAKE, blob_created, cloud_event
from tests.standins.azurite import Azurite, azurite, azurite_oauth
from tests.standins.function_host import FUNCTION, FunctionHost, Loop, load
from tests.standins.github import TOKEN, GitHub, github
from tests.standins.identity import Identity, identity
from tests.standins.tls import tls

__all__ = ["azurite", "azurite_oauth", "github", "identity", "tls"]

QUEUE = "label-exports"
PATIENCE_S = 120


class Estate:
    """The storage and the GitHub that a function works between."""

    def __init__(self, azurite: Azurite, github: GitHub) -> None:
        self.github = github
        connection = azurite.connection_string()
        queues = QueueServiceClient.from_connection_string(connection)
        blobs = BlobServiceClient.from_connection_string(connection)
        self.queue = empty(queues.get_queue_client(QUEUE))
        self.poison = empty(queues.get_queue_client(f"{QUEUE}-poison"))
        self.ledger = blobs.get_container_client("label-events")
        forget(self.ledger)
        self.settings = {"LABELS_STORAGE": connection, **github.environment()}

    def send(self, *messages: Any) -> None:
        for message in messages:
            text = message if isinstance(message, str) else json.dumps(message)
            self.queue.send_message(text)

    def set_aside(self) -> list[dict[str, str]]:
        messages = self.poison.receive_messages(visibility_timeout=1)
        return [json.loads(message.content) for message in messages]

    def is_done(self) -> bool:
        return not self.queue.get_queue_properties().approximate_message_count


def empty(queue: QueueClient) -> QueueClient:
    try:
        queue.create_queue()
    except ResourceExistsError:
        queue.clear_messages()
    return queue


def forget(ledger: ContainerClient) -> None:
    try:
        for blob in ledger.list_blobs():
            client = ledger.get_blob_client(blob.name)
            if blob.lease.state == "leased":
                run_out(client)
            client.delete_blob()
    except ResourceNotFoundError:
        return


def run_out(blob: BlobClient) -> None:
    """End a lease at once, as its time would."""
    BlobLeaseClient(blob).break_lease(lease_break_period=0)


def wait_until(condition: Callable[[], bool], told: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


@pytest.fixture
def estate(
    azurite: Azurite,
    github: GitHub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Estate]:
    estate = Estate(azurite, github)
    for name, value in estate.settings.items():
        monkeypatch.setenv(name, value)
    caplog.set_level(logging.INFO)
    yield estate
    assert TOKEN not in caplog.text
    assert azurite.key not in caplog.text


def test_the_host_finds_one_function_on_the_queue() -> None:
    (function,) = load(FUNCTION).get_functions()

    (binding,) = json.loads(str(function))["bindings"]
    assert function.get_function_name() == "on_label_export"
    assert binding["type"] == "queueTrigger"
    assert binding["queueName"] == QUEUE
    assert binding["connection"] == "LABELS_STORAGE"


def test_it_stands_alone_in_a_flat_folder(tmp_path: Path, estate: Estate) -> None:
    deployed = tmp_path / "wwwroot"
    shutil.copytree(FUNCTION, deployed, ignore=shutil.ignore_patterns("__pycache__"))
    estate.send(blob_created())

    with FunctionHost(estate.settings, tmp_path / "log.txt", folder=deployed) as host:
        wait_until(estate.is_done, host.log)

    assert len(estate.github.dispatched) == 1
    code = "".join(path.read_text() for path in deployed.glob("**/*.py"))
    assert "active_learning" not in code


def test_what_it_requires_is_what_the_tests_use() -> None:
    lines = (FUNCTION / "requirements.txt").read_text().split()

    pinned = dict(line.split("==") for line in lines)

    assert pinned == {name: version(name) for name in pinned}
    code = "".join(path.read_text() for path in FUNCTION.glob("**/*.py"))
    found = re.findall(r"^(?:import|from) (azure\.\w+(?:\.\w+)?|requests)", code, re.M)
    roots = {name.replace("azure.core.credentials", "azure.core") for name in found}
    roots = {name.replace(".", "-") for name in roots} - {"azure-core-exceptions"}
    # azure-core comes with each of the others.
    assert roots - {"azure-core"} == set(pinned)


@pytest.mark.parametrize("shape", [lambda e: e, lambda e: [e], cloud_event])
@pytest.mark.parametrize(
    "encode", [str, lambda text: base64.b64encode(text.encode()).decode()]
)
def test_a_new_export_starts_one_run(estate: Estate, shape: Any, encode: Any) -> None:
    event = blob_created(query="?sig=Secret")
    estate.send(encode(json.dumps(shape(event))))

    Loop().drain()

    assert estate.github.dispatched == [
        {
            "url": event["data"]["url"].partition("?")[0],
            "etag": "0x8DD1",
            "event_id": event["id"],
            "time": "2026-01-01T00:00:00Z",
        }
    ]
    assert not estate.set_aside()


def test_an_event_delivered_three_times_starts_one_run(estate: Estate) -> None:
    event = blob_created()
    # In a message of its own, twice in a list, and once more by another id.
    estate.send(event, [event, event], {**event, "id": "another"})

    Loop().drain()
    estate.send(event)
    Loop().drain()

    assert len(estate.github.dispatched) == 1
    assert not estate.set_aside()


def test_an_export_that_is_written_anew_starts_another_run(estate: Estate) -> None:
    estate.send(blob_created(etag="0x1"), blob_created(etag="0x2"))

    Loop().drain()

    assert [each["etag"] for each in estate.github.dispatched] == ["0x1", "0x2"]


def test_two_instances_at_once_start_one_run_for_each(
    estate: Estate, tmp_path: Path
) -> None:
    events = [blob_created(etag=f"0x{number}") for number in range(12)]
    hosts = [FunctionHost(estate.settings, tmp_path / f"{n}.txt") for n in (1, 2)]

    with hosts[0], hosts[1]:
        estate.send(*(event for event in events for _ in range(3)))
        wait_until(estate.is_done, hosts[0].log)

    etags = sorted(each["etag"] for each in estate.github.dispatched)
    assert etags == sorted(event["data"]["eTag"] for event in events)
    assert not estate.set_aside()
    for host in hosts:
        assert "Started a run" in host.log()
        assert TOKEN not in host.log()


def test_two_at_one_export_at_one_moment_start_one_run(
    estate: Estate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    event = blob_created()
    estate.github.faults.append("hang")
    with FunctionHost(estate.settings, tmp_path / "first.txt") as first:
        estate.send(event)
        wait_until(lambda: bool(estate.github.requests), first.log)

        # The first is between its claim and the answer; the second sees the claim.
        estate.send(event)
        Loop().turn()

        assert len(estate.github.requests) == 1
        assert not estate.is_done()
        assert "Another message about the same export is at work" in caplog.text
        first.kill()


def test_killed_between_claim_and_dispatch_it_loses_nothing(
    estate: Estate, tmp_path: Path
) -> None:
    estate.github.faults.append("hang")
    with FunctionHost(estate.settings, tmp_path / "log.txt", lease_s=1) as host:
        estate.send(blob_created())
        wait_until(lambda: bool(estate.github.requests), host.log)
        host.kill()

    (claimed,) = estate.ledger.list_blobs()
    assert claimed.lease.state == "leased"
    assert not estate.github.dispatched
    run_out(estate.ledger.get_blob_client(claimed.name))
    Loop().drain()

    assert len(estate.github.dispatched) == 1
    assert not estate.set_aside()


def test_a_claim_runs_out_by_itself(estate: Estate) -> None:
    load(FUNCTION)
    from exports_trigger.errors import BusyError
    from exports_trigger.ledger import Ledger

    ledger = Ledger(estate.ledger, claim_s=15)
    assert ledger.claim("a" * 64) is not None
    with pytest.raises(BusyError, match="within 15 s"):
        ledger.claim("a" * 64)

    def is_free() -> bool:
        try:
            return ledger.claim("a" * 64) is not None
        except BusyError:
            return False

    wait_until(is_free, lambda: "the claim does not end")


def test_a_claim_that_ran_out_is_done_all_the_same(estate: Estate) -> None:
    load(FUNCTION)
    from exports_trigger.ledger import Ledger

    ledger = Ledger(estate.ledger)
    claim = ledger.claim("b" * 64)
    assert claim is not None
    run_out(claim.blob)

    claim.done({"url": "u"})

    assert ledger.claim("b" * 64) is None


@pytest.mark.parametrize("fault", [401, 403, 404, 429, 500, 503, "drop", "redirect"])
def test_what_github_does_not_take_is_tried_again(
    estate: Estate, fault: int | str
) -> None:
    estate.github.faults.extend([fault, fault])
    estate.send(blob_created())

    Loop().drain()

    assert len(estate.github.requests) == 3
    assert len(estate.github.dispatched) == 1
    assert not estate.set_aside()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (401, "renew the secret behind AL_GITHUB_TOKEN"),
        (403, "'contents: write'"),
        (500, "GitHub answered 500"),
        ("echo", "403"),
        ("drop", "gave no answer"),
    ],
)
def test_after_the_last_attempt_it_lies_aside_with_the_reason(
    estate: Estate, fault: int | str, told: str
) -> None:
    estate.github.faults.extend([fault] * 5)
    event = blob_created()
    estate.send(event)

    Loop().drain()

    (aside,) = estate.set_aside()
    assert len(estate.github.requests) == 5
    assert told in aside["reason"]
    assert "attempt 5 of 5" in aside["reason"]
    assert json.loads(aside["message"]) == event
    assert TOKEN[:12] not in json.dumps(aside)

    # Put back as it is, it is taken up where it was left.
    estate.send(aside)
    Loop().drain()
    assert len(estate.github.dispatched) == 1


def test_what_was_set_aside_does_not_expire(estate: Estate) -> None:
    estate.send("hello!")

    Loop().drain()

    (message,) = estate.poison.peek_messages()
    assert message.expires_on.year == 9999


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("hello!", "neither JSON nor base64"),
        ('{"eventType": "Microsoft.Storage.BlobCreated"}', "names no blob"),
        (base64.b64encode(b"\xff\x00").decode(), "no JSON"),
        ("?" * 60_000, "neither JSON nor base64"),
    ],
    ids=["text", "no blob", "bytes", "long"],
)
def test_what_no_retry_can_help_is_set_aside_at_once(
    estate: Estate, body: str, told: str
) -> None:
    estate.send(body)

    loop = Loop()
    loop.turn()

    assert estate.is_done()
    (aside,) = estate.set_aside()
    assert told in aside["reason"]
    assert aside["message"] == body


def test_an_event_that_github_refuses_is_set_aside_at_once(estate: Estate) -> None:
    estate.github.faults.append(422)
    estate.send([blob_created(etag="0x1"), blob_created(etag="0x2")])

    Loop().turn()

    assert estate.is_done()
    (aside,) = estate.set_aside()
    assert "GitHub answered 422" in aside["reason"]
    # The other event of the message was not in its way.
    assert [each["etag"] for each in estate.github.dispatched] == ["0x2"]


def test_a_bad_event_keeps_no_good_one_from_starting_a_run(estate: Estate) -> None:
    estate.send([{"id": "x"}, blob_created(), 7])

    Loop().turn()

    assert len(estate.github.dispatched) == 1
    (aside,) = estate.set_aside()
    assert "2 parts of it are of no use; the first: event 1 of 3" in aside["reason"]


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (blob_created("images/a.json"), "does not begin with 'Labeling/'"),
        (blob_created("Labeling/export/x/MLTable"), "ends with none of"),
        (blob_created("Labeling/export/x/labels.txt"), "ends with none of"),
        (blob_created(size=0), "it is empty"),
        (blob_created(kind="Microsoft.Storage.BlobDeleted"), "BlobDeleted"),
        (blob_created(container="elsewhere"), "not in the container"),
        (HANDSHAKE, "SubscriptionValidationEvent"),
    ],
)
def test_what_is_no_label_export_is_passed_over(
    estate: Estate,
    event: dict[str, Any],
    told: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AL_LABELING_CONTAINER", "azureml-blobstore")
    estate.send(event)

    Loop().turn()

    assert estate.is_done()
    assert not estate.github.requests
    assert not estate.set_aside()
    assert f"{told}" in caplog.text
    assert "Passed over" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AL_GITHUB_TOKEN", ""),
        ("AL_GITHUB_REPOSITORY", "nobody"),
        ("AL_GITHUB_API", "http://api.github.example"),
    ],
)
def test_a_wrong_setting_is_named_beside_the_message(
    estate: Estate, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    estate.send(blob_created())

    Loop().drain()

    (aside,) = estate.set_aside()
    assert name in aside["reason"]
    assert not list(estate.ledger.list_blobs()) or not estate.github.requests


def test_a_storage_that_fails_for_a_while_loses_nothing(
    estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = estate.settings["LABELS_STORAGE"]
    bad = re.sub(r"AccountKey=[^;]+", "AccountKey=bm90IHRoZSBrZXk=", good)
    estate.send(blob_created())
    loop = Loop()
    # The host reaches its queue; the function, by now, nothing.
    monkeypatch.setenv("LABELS_STORAGE", bad)

    loop.turn()
    assert not estate.github.requests
    assert not estate.is_done()

    monkeypatch.setenv("LABELS_STORAGE", good)
    Loop().drain()
    assert len(estate.github.dispatched) == 1


def test_a_host_that_died_with_the_last_attempt_sets_it_aside(
    estate: Estate,
) -> None:
    event = blob_created()
    estate.send(event)
    for _ in range(5):
        (message,) = estate.queue.receive_messages(visibility_timeout=60)
        estate.queue.update_message(message, visibility_timeout=0)

    Loop().turn()

    assert estate.is_done()
    assert not estate.github.requests
    assert estate.set_aside() == [event]


def test_a_managed_identity_is_enough(
    azurite_oauth: Azurite, identity: Identity, github: GitHub, tmp_path: Path
) -> None:
    settings = {
        **azurite_oauth.environment(),
        **github.environment(),
        "LABELS_STORAGE__queueServiceUri": azurite_oauth.service_url("queue"),
        "LABELS_STORAGE__blobServiceUri": azurite_oauth.service_url("blob"),
    }
    queue = QueueClient(
        azurite_oauth.service_url("queue"),
        QUEUE,
        credential=azurite_oauth.credential,
        connection_verify=settings["REQUESTS_CA_BUNDLE"],
    )
    empty(queue).send_message(json.dumps(blob_created(etag=uuid4().hex)))

    with FunctionHost(settings, tmp_path / "log.txt") as host:
        wait_until(lambda: bool(github.dispatched), host.log)

    assert len(github.dispatched) == 1
    secrets = [TOKEN, azurite_oauth.key, identity.secret, *identity.issued]
    assert not [secret for secret in secrets if secret in host.log()]
