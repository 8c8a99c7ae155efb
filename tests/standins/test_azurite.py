"""The stand-ins for storage and identity do what the real ones do, and go away."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from base64 import urlsafe_b64decode
from pathlib import Path
from urllib.error import HTTPError

import pytest
from tests.standins.azurite import Azurite, azurite, azurite_oauth
from tests.standins.identity import Identity, identity
from tests.standins.tls import tls

__all__ = ["azurite", "azurite_oauth", "identity", "tls"]

pytestmark = pytest.mark.azure

HOLD = """
import sys
from tests.standins.azurite import Azurite

with Azurite(services=("blob",)) as azurite:
    print(azurite.ports["blob"], flush=True)
    sys.stdin.read()
"""
LOOK = """
import sys
from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

credential = DefaultAzureCredential()
blobs = BlobServiceClient(sys.argv[1], credential=credential)
print([container.name for container in blobs.list_containers()])
queues = QueueServiceClient(sys.argv[2], credential=credential)
queues.create_queue("exports").send_message("hello")
print(queues.get_queue_client("exports").receive_message().content)
"""


def listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_it_goes_away_with_whoever_started_it_even_when_that_is_killed(
    azurite: Azurite,
) -> None:
    assert listens(azurite.ports["blob"])
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        port = int(holder.stdout.readline())
        assert listens(port)
        holder.kill()

    given_up = time.monotonic() + 60
    while listens(port):
        assert time.monotonic() < given_up
        time.sleep(0.05)


def test_the_real_credential_is_let_in_by_token(
    azurite_oauth: Azurite, identity: Identity
) -> None:
    name = azurite_oauth.make_container()
    n_issued = len(identity.issued)

    ran = subprocess.run(
        [sys.executable, "-c", LOOK]
        + [azurite_oauth.service_url(service) for service in ("blob", "queue")],
        env={**azurite_oauth.environment()},
        capture_output=True,
        text=True,
        check=True,
    )

    containers, message = ran.stdout.splitlines()
    assert name in containers
    assert message == "hello"
    assert len(identity.issued) > n_issued
    assert identity.requests[-1].resource == "https://storage.azure.com"


def test_an_identity_gives_tokens_for_the_audience_to_those_who_know_its_header() -> (
    None
):
    with Identity(lifetime_s=60) as identity:
        answer = ask(identity, identity.secret)
        claims = json.loads(
            urlsafe_b64decode(answer["access_token"].split(".")[1] + "==")
        )
        assert claims["aud"] == "https://storage.azure.com"
        assert claims["exp"] - time.time() < 61
        assert int(answer["expires_on"]) == int(claims["exp"])

        with pytest.raises(HTTPError, match="401"):
            ask(identity, "a guess")
        identity.faults.append((503, "{}"))
        with pytest.raises(HTTPError, match="503"):
            ask(identity, identity.secret)
        ask(identity, identity.secret)

        assert [asked.status for asked in identity.requests] == [200, 401, 503, 200]
        assert len(identity.issued) == 2


def ask(identity: Identity, header: str) -> dict[str, str]:
    query = "?api-version=2019-08-01&resource=https://storage.azure.com"
    request = urllib.request.Request(
        identity.url + query, headers={"X-IDENTITY-HEADER": header}
    )
    with urllib.request.urlopen(request) as answer:
        said: dict[str, str] = json.load(answer)
    return said
