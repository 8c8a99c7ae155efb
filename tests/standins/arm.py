"""Azure Resource Manager with one Azure ML workspace, in memory, for the real MLClient.

It is found in two ways::

    with Arm() as arm:  # HTTPS on loopback, under the variables of arm.environment()
        ...
    MLClient(..., transport=Arm().transport())  # no socket at all

``requests`` is what it was asked, ``faults`` what it answers next instead, ``expired``
are tokens that it takes no longer, and ``add`` takes routes for what is not here.
Resources are in ``arm_resources``.
"""

import base64
import io
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
import urllib3
from azure.core.pipeline.transport import RequestsTransport
from tests.standins.tls import Tls, make_tls

SUBSCRIPTION = "00000000-0000-0000-0000-00000000c0de"
GROUP = "rg-loop"
WORKSPACE = "aml-loop"

# As long as clocks may differ, a token is taken after its time.
_SKEW_S = 60

_PROVIDER = r"/providers/Microsoft\.MachineLearningServices/workspaces/[^/]+"
_WORKSPACE = re.compile(rf"(?i)^/subscriptions/[^/]+/resourceGroups/[^/]+{_PROVIDER}")


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        method: Of HTTP.
        path: Below the workspace; the whole one where it is outside of it.
        query: The first value of each name.
        body: JSON read, other bytes as they came.
        headers: By lower-case names.
        host: Scheme and host, to make links with.
        scope: The workspace's own path; empty outside of it.
        found: The pattern's groups.
    """

    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    headers: Mapping[str, str]
    host: str
    scope: str = ""
    found: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What goes back; a body of bytes goes as it is, anything else as JSON."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Asked], Answer]


@dataclass(frozen=True)
class Fault:
    """What is answered instead, once.

    Attributes:
        method: Of the request that meets it.
        path: A pattern that its path matches from the start.
        status: 0 hangs up without an answer.
        message: In the error.
        headers: Such as ``Retry-After``.
        done: What was asked is done all the same, and only the answer is lost.
    """

    method: str
    path: str
    status: int
    message: str = "made to happen"
    headers: Mapping[str, str] = field(default_factory=dict)
    done: bool = False


def refused(status: int, code: str, message: str, **headers: str) -> Answer:
    """An error as ARM words it."""
    return Answer(status, {"error": {"code": code, "message": message}}, headers)


class HungUpError(Exception):
    """The connection ends without an answer."""


class Arm:
    """See the module.

    Args:
        storage: URL of a blob container with a signature that may write: where code
            that is uploaded goes. None can be uploaded without.
        tls: The certificate to listen with, where other stand-ins share its authority;
            one is made without.
    """

    def __init__(self, storage: str | None = None, tls: Tls | None = None) -> None:
        """Nothing is there but the workspace."""
        from tests.standins.arm_resources import Workspace

        self.requests: list[Asked] = []
        self.faults: list[Fault] = []
        self.expired: set[str] = set()
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []
        self._lock = threading.RLock()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._tls = tls
        self._files: TemporaryDirectory[str] | None = None
        self.workspace = Workspace(self, storage)

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Answer a path; a later route goes before an earlier one.

        Args:
            method: Of HTTP; ``*`` is any.
            pattern: Of the whole path below the workspace, or of the whole path.
            handler: Gives the answer; ``Asked.found`` are the pattern's groups.
        """
        self._routes.insert(0, (method, re.compile(rf"(?i){pattern}"), handler))

    def asked(self, method: str, pattern: str) -> list[Asked]:
        """What was asked of some paths, in order."""
        return [
            one
            for one in list(self.requests)
            if one.method == method and re.fullmatch(rf"(?i){pattern}", one.path)
        ]

    def answer(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        """Answer one request.

        Raises:
            HungUpError: It gets none.
        """
        said = _read(method, url, headers, body)
        with self._lock:
            self.requests.append(said)
            fault = self._fault(said)
        if fault is None:
            return self._routed(said)
        if fault.done:
            self._routed(said)
        if not fault.status:
            raise HungUpError
        return refused(fault.status, "Fault", fault.message, **fault.headers)

    def transport(self) -> RequestsTransport:
        """For ``MLClient(transport=...)``: its requests come here without a socket."""
        session = requests.Session()
        session.mount("https://", _Adapter(self))
        return RequestsTransport(session=session, session_owner=False)

    def start(self) -> Self:
        """Listen on a free port of loopback."""
        if self._tls is None:
            self._files = TemporaryDirectory(prefix="arm-")
            self._tls = make_tls(Path(self._files.name))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._tls.certificate, self._tls.key)
        handler = type("Handler", (_Handler,), {"arm": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def close(self) -> None:
        """Listen no longer."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None
        if self._files is not None:
            self._files.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        assert self._server is not None
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def environment(self) -> dict[str, str]:
        """Variables under which the real MLClient of a process finds it."""
        assert self._tls is not None
        return {
            "ARM_CLOUD_METADATA_URL": f"{self.url}/metadata/endpoints",
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "AZURE_RESOURCE_GROUP": GROUP,
            "AZUREML_WORKSPACE_NAME": WORKSPACE,
            **self._tls.environment(),
        }

    def _fault(self, said: Asked) -> Fault | None:
        for number, fault in enumerate(self.faults):
            if fault.method == said.method and re.match(fault.path, said.path):
                return self.faults.pop(number)
        return None

    def _routed(self, said: Asked) -> Answer:
        token = said.headers.get("authorization", "").removeprefix("Bearer ")
        if token in self.expired or _has_expired(token):
            return refused(401, "ExpiredAuthenticationToken", "The token is expired.")
        for method, pattern, handler in list(self._routes):
            found = pattern.fullmatch(said.path)
            if method in ("*", said.method) and found:
                return handler(
                    Asked(**{**vars(said), "found": tuple(found.groups(default=""))})
                )
        return refused(501, "NotHere", f"{said.method} {said.path} has no stand-in")


def _read(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None
) -> Asked:
    parts = urlsplit(url)
    path = re.sub("/+", "/", parts.path)
    scope = _WORKSPACE.match(path)
    low = {name.lower(): value for name, value in headers.items()}
    read: Any = body
    if body and "json" in low.get("content-type", ""):
        read = json.loads(body)
    return Asked(
        method=method,
        path=path[scope.end() :] if scope else path,
        query=dict(parse_qsl(parts.query, keep_blank_values=True)),
        body=read,
        headers=low,
        host=f"{parts.scheme}://{parts.netloc}",
        scope=scope[0] if scope else "",
    )


def _has_expired(token: str) -> bool:
    """Whether its time is over; only of a token that can be read."""
    parts = token.split(".")
    if len(parts) < 2:
        return False
    padded = parts[1] + "=" * (-len(parts[1]) % 4)
    claims = json.loads(base64.urlsafe_b64decode(padded))
    return float(claims["exp"]) < time.time() - _SKEW_S


class _Adapter(requests.adapters.BaseAdapter):
    def __init__(self, arm: Arm) -> None:
        super().__init__()
        self._arm = arm

    def send(  # type: ignore[override]
        self, request: requests.PreparedRequest, **_: Any
    ) -> requests.Response:
        body = request.body
        content = body.encode() if isinstance(body, str) else body
        try:
            answer = self._arm.answer(
                str(request.method), str(request.url), request.headers, content
            )
        except HungUpError as exc:
            raise requests.ConnectionError("hung up") from exc
        data, headers = _encoded(answer)
        response = requests.Response()
        response.status_code = answer.status
        response.request, response.url = request, str(request.url)
        response.headers = requests.structures.CaseInsensitiveDict(headers)
        response.raw = urllib3.HTTPResponse(
            io.BytesIO(data), headers, answer.status, preload_content=False
        )
        return response

    def close(self) -> None:
        """There is nothing to close."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    arm: Arm

    def log_message(self, *_: Any) -> None:
        """``Arm.requests`` is the log."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        headers = dict(self.headers.items())
        try:
            answer = self.arm.answer(
                self.command, f"{self.arm.url}{self.path}", headers, body
            )
        except HungUpError:
            self.close_connection = True
            return
        data, sent = _encoded(answer)
        self.send_response(answer.status)
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = _answer  # noqa: N815
    do_PUT = _answer  # noqa: N815
    do_POST = _answer  # noqa: N815
    do_PATCH = _answer  # noqa: N815
    do_DELETE = _answer  # noqa: N815


def _encoded(answer: Answer) -> tuple[bytes, dict[str, str]]:
    plain = isinstance(answer.body, bytes)
    data = answer.body if plain else json.dumps(answer.body).encode()
    kind = "application/octet-stream" if plain else "application/json"
    headers = {"Content-Type": kind, **answer.headers}
    return data, {**headers, "Content-Length": str(len(data))}


@pytest.fixture
def arm(tls: Tls) -> Iterator[Arm]:
    """One that listens, with nothing in its workspace."""
    with Arm(tls=tls) as listening:
        yield listening
