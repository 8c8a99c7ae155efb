"""An Azure Data Explorer cluster: its REST API over DuckDB, which runs the KQL.

Queries, management commands and streaming ingestion come over HTTP; what is queued
comes through Azurite, as in the cloud: clients put a blob and a message, a thread here
takes them. Tables, mappings and materialized views are made by the same commands.
"""

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import duckdb
import pyarrow as pa
import pytest
from duckdb_kql.server import RestColumn, Result, v1_response, v2_response
from tests.standins.azurite import Azurite
from tests.standins.kusto_faults import Asked, Fault, RefusedError
from tests.standins.kusto_tables import DATABASE, Tables, texts
from tests.standins.queued import Queued, bearer_of, is_good


class Kusto(Tables):
    """A cluster of one database.

    Args:
        azurite: Where clients put blobs and messages; without it nothing is queued.
        tables: Make the tables of ``schemas.TABLES``, as a cluster that was set up.
        check_tokens: Refuse a request whose bearer token is missing or has expired.

    Attributes:
        requests: Every request in its order.
        faults: What is answered instead, used up in order.
        streaming: Whether streaming ingestion is on.
        paused: What is queued stays where it is while this is set.
        failures: What was queued and could not be ingested, with the reason.
        outwaited: How often a client still waited for an answer after a minute.
        spoiled: Clients are given leave to upload that the storage does not accept.
    """

    def __init__(
        self,
        azurite: Azurite | None = None,
        tables: bool = True,
        check_tokens: bool = False,
    ) -> None:
        super().__init__()
        self.requests: list[Asked] = []
        self.faults: list[Fault] = []
        self.failures: list[str] = []
        self.streaming = True
        self.spoiled = False
        self.outwaited = 0
        self.paused = threading.Event()
        self.check_tokens = check_tokens
        self._queued = Queued(azurite) if azurite is not None else None
        self._tags: dict[str, set[str]] = {}
        self._closing = threading.Event()
        self._server: _Server | None = None
        self._threads: list[threading.Thread] = []
        self._port = 0
        if tables:
            self.make_tables()

    def start(self) -> Self:
        """Listen; after ``close``, on the same port again."""
        self._closing.clear()
        self._server = _Server(("127.0.0.1", self._port), _handler(self))
        self._port = self._server.server_address[1]
        self._threads = [threading.Thread(target=self._server.serve_forever)]
        if self._queued is not None:
            self._threads.append(threading.Thread(target=self._ingest_always))
        for thread in self._threads:
            thread.daemon = True
            thread.start()
        return self

    def close(self) -> None:
        """Listen no more; the tables stay."""
        self._closing.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.hang_up()
            self._server = None
        for thread in self._threads:
            thread.join(30)
        self._threads = []

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        self.forget()

    @property
    def url(self) -> str:
        """The cluster's."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def database(self) -> str:
        """The database's: the cluster's and a name."""
        return f"{self.url}/{DATABASE}"

    def asked(self, route: str) -> list[Asked]:
        """The requests to one route."""
        return [each for each in self.requests if each.route == route]

    @property
    def signatures(self) -> list[str]:
        """Every signature that was given away: none may be found in a log."""
        return [] if self._queued is None else self._queued.signatures

    @property
    def n_queued(self) -> int:
        """How many messages wait."""
        return 0 if self._queued is None else self._queued.n_waiting()

    @property
    def settled(self) -> bool:
        """Whether nothing that was queued is left to ingest."""
        return self.n_queued == 0

    def until(self, holds: Callable[[], bool], seconds: float = 30) -> None:
        """Wait for a condition.

        Raises:
            TimeoutError: It did not come true.
        """
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError("The condition did not come true.")
            time.sleep(0.01)

    # --- what the handler asks for ---

    def fault_for(self, asked: Asked) -> Fault | None:
        """The fault that this request is to meet."""
        with self.lock:
            self.requests.append(asked)
            for fault in self.faults:
                if fault.fits(asked):
                    fault.times -= 1
                    return fault
        return None

    def answer(self, asked: Asked) -> Any:
        """Do what was asked.

        Raises:
            RefusedError: It cannot be done.
        """
        if self.check_tokens and not is_good(bearer_of(asked.headers)):
            message = "The token is missing or has expired"
            raise RefusedError(message, "Unauthorized", 401)
        if asked.route == "query":
            said = self.query(asked.text, asked.properties.get("Parameters") or {})
            return v2_response(said, asked.headers.get("x-ms-client-request-id", ""))
        if asked.route == "mgmt":
            return v1_response(self.command(asked.text))
        return self._stream(asked)

    def _stream(self, asked: Asked) -> Any:
        if not self.streaming:
            message = "Streaming ingestion is disabled on this table"
            raise RefusedError(message, "BadRequest_StreamingIngestionPolicyNotEnabled")
        parts = urlsplit(asked.path)
        *_, database, table = parts.path.split("/")
        said = {
            name.lower(): values[0] for name, values in parse_qs(parts.query).items()
        }
        if database != DATABASE:
            raise RefusedError(f"Database {database!r} was not found", "NotFound", 400)
        n_rows = self.insert(table, asked.body, said.get("mappingname"))
        return v1_response(
            Result([RestColumn.derived("ConsumedRecordsCount", "long")], [(n_rows,)])
        )

    def _ingest_always(self) -> None:
        assert self._queued is not None
        while not self._closing.wait(0.02):
            if self.paused.is_set():
                continue
            for message in self._queued.waiting():
                with suppress(Exception):
                    self._ingest(message.said)
                    message.delete()

    def _ingest(self, said: dict[str, Any]) -> None:
        more = said["AdditionalProperties"]
        table = said["TableName"]
        tags = set(json.loads(more.get("tags", "[]")))
        once = json.loads(more.get("ingestIfNotExists", "[]"))
        with self.lock:
            there = self._tags.setdefault(table, set())
            if any(f"ingest-by:{each}" in there for each in once):
                return
            assert self._queued is not None
            lines = gzip.decompress(self._queued.blob(said["BlobPath"]))
            try:
                self.insert(table, lines, more.get("ingestionMappingReference"))
            except (RefusedError, duckdb.Error, pa.ArrowException) as exc:
                self.failures.append(str(exc))
                return
            there |= tags

    def resources(self) -> Result:
        """Where clients put what is to be queued."""
        if self._queued is None:
            raise RefusedError("This cluster ingests nothing that is queued")
        listed = self._queued.resources()
        if self.spoiled:
            listed = [(kind, f"{place}AAAA") for kind, place in listed]
        return texts("ResourceTypeName StorageRoot", listed)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, *told: Any) -> None:
        super().__init__(*told)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End what clients keep open for their next request."""
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _handler(kusto: Kusto) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Or every answer waits for the one before it to be acknowledged.
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            asked = Asked("metadata", self.path, dict(self.headers), b"", "", {})
            self._meet(asked, lambda: _METADATA)

        def do_POST(self) -> None:
            asked = self._read()
            self._meet(asked, lambda: kusto.answer(asked))

        def _read(self) -> Asked:
            body = self._body()
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            place = urlsplit(self.path).path
            route = "streaming" if "/rest/ingest/" in place else place.split("/")[-1]
            text, properties = "", {}
            if route != "streaming":
                said = json.loads(body)
                text, properties = said["csl"], said.get("properties") or {}
                # The library sends its properties as text.
                if isinstance(properties, str):
                    properties = json.loads(properties)
            headers = {name.lower(): value for name, value in self.headers.items()}
            return Asked(route, self.path, headers, body, text, properties)

        def _body(self) -> bytes:
            if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _meet(self, asked: Asked, answer: Callable[[], Any]) -> None:
            fault = kusto.fault_for(asked)
            if fault is not None and not fault.after and fault.status > 0:
                self._send(fault.status, fault.body, fault.headers)
                return
            if fault is None or fault.after:
                try:
                    status, body = 200, answer()
                except RefusedError as exc:
                    status, body = exc.status, exc.body
                if fault is None:
                    self._send(status, body, {})
                    return
            if fault.status < 0:
                self._wait_for_the_end()
            self.close_connection = True

        def _wait_for_the_end(self) -> None:
            """Say nothing until the client hangs up."""
            self.connection.settimeout(60)
            try:
                self.connection.recv(1)
            except TimeoutError:
                kusto.outwaited += 1
            except OSError:
                pass

        def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            """Nothing on the terminal: ``requests`` has it."""

    return Handler


_METADATA = {
    "AzureAD": {
        "LoginEndpoint": "https://login.microsoftonline.com",
        "LoginMfaRequired": False,
        "KustoClientAppId": "db662dc1-0cfe-4e1c-a843-19a68e65be58",
        "KustoClientRedirectUri": "http://localhost",
        "KustoServiceResourceId": "https://kusto.kusto.windows.net",
        "FirstPartyAuthorityUrl": "https://login.microsoftonline.com/common",
    }
}


@pytest.fixture
def kusto() -> Iterator[Kusto]:
    """A cluster with every table; nothing can be queued."""
    with Kusto() as cluster:
        yield cluster


@pytest.fixture
def queued_kusto(azurite: Azurite) -> Iterator[Kusto]:
    """A cluster with every table that takes what is queued too."""
    with Kusto(azurite) as cluster:
        yield cluster
