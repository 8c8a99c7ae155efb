"""Azurite, Microsoft's emulator of Azure Storage, for as long as a test session."""

import json
import os
import re
import secrets
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pytest
from tests.standins.identity import Identity
from tests.standins.tls import Tls

NODE_MODULES = Path(__file__).parent / "node" / "node_modules"

# It dies with whoever holds the other end of its standard input, even by SIGKILL.
_LEASH = "data:text/javascript,process.stdin.resume().on('close',()=>process.exit())"
_LISTENS = re.compile(r"successfully listens on (https?)://127\.0\.0\.1:(\d+)")


class Azurite:
    """Blobs, and queues where asked for, in memory, on free ports of 127.0.0.1.

    With ``tls`` it speaks https and takes tokens; the real DefaultAzureCredential gets
    them from the identity. Without, it speaks http and takes the account's key.

    Args:
        tls: The certificate to show.
        identity: Who gives tokens; only for ``environment``.
        services: ``blob``, ``queue``.

    Attributes:
        account: The storage account's name.
        key: Its key, new each time: it may be found in no log.
        ports: Where each service listens.
    """

    def __init__(
        self,
        tls: Tls | None = None,
        identity: Identity | None = None,
        services: tuple[str, ...] = ("blob", "queue"),
    ) -> None:
        """Name an account; nothing is started yet."""
        self.account = "alteststorage"
        self.key = b64encode(secrets.token_bytes(64)).decode()
        self.ports: dict[str, int] = {}
        self._tls = tls
        self._identity = identity
        self._services = services
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def start(self) -> Self:
        """Start the services and wait until they listen."""
        try:
            self._processes = [self._begin(service) for service in self._services]
            with ThreadPoolExecutor() as pool:
                ports = pool.map(_port, self._processes)
                self.ports = dict(zip(self._services, ports, strict=True))
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End the services; a second time does nothing."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()
        self._processes = []

    @property
    def host(self) -> str:
        """What ``AL_STORAGE_HOST`` and adlfs call ``account_host``."""
        return f"127.0.0.1:{self.ports['blob']}/{self.account}"

    @property
    def url(self) -> str:
        """The account's blobs."""
        return self.service_url("blob")

    def service_url(self, service: str) -> str:
        """The account's blobs or queues."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.ports[service]}/{self.account}"

    def connection_string(self, **ports: int) -> str:
        """How clients with a key reach it.

        Args:
            ports: Of proxies that stand before a service, by its name.
        """
        endpoints = "".join(
            f"{service.title()}Endpoint=http://127.0.0.1:{port}/{self.account};"
            for service, port in {**self.ports, **ports}.items()
        )
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account};"
            f"AccountKey={self.key};{endpoints}"
        )

    def storage_options(self, **ports: int) -> dict[str, Any]:
        """What fsspec takes to reach the blobs, with the key."""
        return {"connection_string": self.connection_string(**ports)}

    def environment(self) -> dict[str, str]:
        """Variables by which a process of its own reaches the blobs.

        ``FSSPEC_ABFS`` is what fsspec itself reads when it is imported. With TLS it
        names no credential, so that adlfs asks DefaultAzureCredential; with a key, that
        is in it.
        """
        if self._tls is None:
            return {"FSSPEC_ABFS": json.dumps(self.storage_options())}
        named = {"account_name": self.account, "account_host": self.host, "anon": False}
        tokens = {} if self._identity is None else self._identity.environment()
        return {
            **self._tls.environment(),
            **tokens,
            "AL_STORAGE_ACCOUNT": self.account,
            "AL_STORAGE_HOST": self.host,
            "FSSPEC_ABFS": json.dumps(named),
        }

    def place(self, container: str, path: str = "") -> str:
        """The URL of a place in a container, as the catalog writes it."""
        root = f"abfs://{container}@{self.account}.dfs.core.windows.net"
        return f"{root}/{path}" if path else root

    def make_container(self, name: str | None = None) -> str:
        """Make a container, with a name that nobody has by default."""
        from azure.storage.blob import BlobServiceClient

        name = name or f"c{uuid4().hex}"
        verify = True if self._tls is None else str(self._tls.authority)
        with BlobServiceClient(
            self.url, credential=self.credential, connection_verify=verify
        ) as client:
            client.create_container(name)
        return name

    def signed(self, container: str) -> str:
        """A container's URL with leave to write there for two hours."""
        from azure.storage.blob import (
            AccountSasPermissions,
            ResourceTypes,
            generate_account_sas,
        )

        signature = generate_account_sas(
            self.account,
            self.key,
            ResourceTypes(container=True, object=True),
            AccountSasPermissions(
                read=True, write=True, create=True, list=True, add=True
            ),
            datetime.now(UTC) + timedelta(hours=2),
        )
        return f"{self.url}/{container}?{signature}"

    @property
    def credential(self) -> Any:
        """The account and its key, for clients of the test itself."""
        from azure.core.credentials import AzureNamedKeyCredential

        return AzureNamedKeyCredential(self.account, self.key)

    def _begin(self, service: str) -> subprocess.Popen[str]:
        command = [
            *("node", "--import", _LEASH),
            str(NODE_MODULES / ".bin" / f"azurite-{service}"),
            *(f"--{service}Host", "127.0.0.1", f"--{service}Port", "0"),
            *("--inMemoryPersistence", "--disableTelemetry", "--silent"),
            "--skipApiVersionCheck",
        ]
        if self._tls is not None:
            command += ["--oauth", "basic"]
            command += ["--cert", str(self._tls.certificate)]
            command += ["--key", str(self._tls.key)]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "AZURITE_ACCOUNTS": f"{self.account}:{self.key}"},
        )


def missing() -> str | None:
    """Why Azurite cannot be started here; ``None`` where it can."""
    if shutil.which("node") is None:
        return "node is not installed"
    if not (NODE_MODULES / ".bin" / "azurite-blob").exists():
        return "Azurite is not installed: npm ci --prefix tests/standins/node"
    return None


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """Blobs and queues over http, by key."""
    if reason := missing():
        pytest.skip(reason)
    with Azurite() as started:
        yield started


@pytest.fixture(scope="session")
def azurite_oauth(tls: Tls, identity: Identity) -> Iterator[Azurite]:
    """Blobs and queues over https, by token."""
    if reason := missing():
        pytest.skip(reason)
    with Azurite(tls, identity) as started:
        yield started


@pytest.fixture
def container(azurite: Azurite) -> str:
    """A container of the test's own."""
    return azurite.make_container()


def _port(process: "subprocess.Popen[str]") -> int:
    said = []
    for line in process.stdout or ():
        said.append(line)
        if found := _LISTENS.search(line):
            return int(found[2])
    raise RuntimeError(f"Azurite did not start:\n{''.join(said)}")
