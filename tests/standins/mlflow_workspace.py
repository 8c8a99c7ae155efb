"""A workspace's MLflow: MLflow's own server behind what Azure ML makes of it.

Below ``/mlflow/v2.0/subscriptions/...`` lies MLflow's REST API without what Azure ML
does not have; below ``/history/v1.0/subscriptions/...`` the run history, to which its
plugin sends artifacts; the blobs themselves are beside them, behind a SAS.
"""

import base64
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import Request, urlopen

import pytest
from tests.standins.identity import Identity
from tests.standins.tls import Tls

SCOPE = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg"
    "/providers/Microsoft.MachineLearningServices/workspaces/ws"
)
SAS_SECRET = "c2VjcmV0LW9mLXRoZS1zYXM"

_MLFLOW = re.compile(rf"/mlflow/v[12]\.0{re.escape(SCOPE)}(?P<rest>/api/.*)")
_HISTORY = re.compile(
    rf"/history/v1\.0{re.escape(SCOPE)}"
    r"/experiments/(?P<experiment>[^/]+)/runs/(?P<run>[^/]+)/artifacts(?P<rest>/.*)?"
)
# The plugin downloads from the cloud's own hosts alone; a path can look like one.
_BLOBS = "/account.blob.core.windows.net/azureml/"
_MISSING = (
    re.compile(r"/logged-models"),
    re.compile(r"/api/3\.0/"),
    re.compile(r"/registered-models/(alias|rename|delete)\b"),
    re.compile(r"/traces\b"),
)
# https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity; the
# number of parameters is from azure-sdk-for-python issue 35685.
_LIMITS = {"tags": 50, "params": 200, "metrics": 50}
_TAG_LENGTH = 1000
_METRIC_ROWS = 250
_SKEW_S = 300


class Answer(NamedTuple):
    """What goes back over the wire."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Fault:
    """Answers ``status`` in place of the next ``times`` requests to a matching path.

    A ``status`` of 0 cuts the connection. With ``done``, what was asked is done all the
    same and only its answer is lost.
    """

    status: int
    path: str = ""
    times: int = 1
    done: bool = False


class MlflowWorkspace:
    """A workspace that real clients reach over HTTPS.

    Args:
        root: For the server's database and its log.
        tls: The certificate to show.
        identity: Who gives tokens; only for ``environment``.

    Attributes:
        log: Method, path without scope and status of each request.
        tokens: Every bearer token that was sent.
        faults: What is answered instead, used up in order.
        blobs: Uploaded artifacts by run and path.
    """

    def __init__(self, root: Path, tls: Tls, identity: Identity) -> None:
        """Describe the servers; nothing is started yet."""
        self._root = root
        self._tls = tls
        self._identity = identity
        self._server: subprocess.Popen[bytes] | None = None
        self._proxy: ThreadingHTTPServer | None = None
        self._lock = threading.Lock()
        self._used: dict[tuple[str, str], set[str]] = {}
        self.log: list[tuple[str, str, int]] = []
        self.tokens: list[str] = []
        self.faults: list[Fault] = []
        self.blobs: dict[tuple[str, str], bytes] = {}

    def start(self) -> Self:
        """Start both servers and wait until they answer."""
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def _start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._upstream = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / "server.log").open("wb") as log:
            self._server = subprocess.Popen(
                _command(self._root, self._upstream),
                cwd=self._root,
                env=_environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._proxy.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._tls.certificate, self._tls.key)
        self._proxy.socket = context.wrap_socket(
            self._proxy.socket, server_side=True, do_handshake_on_connect=False
        )
        threading.Thread(target=self._proxy.serve_forever, args=(0.05,)).start()
        self._wait_for_server()

    def close(self) -> None:
        """Stop both servers; a second time does nothing."""
        if self._proxy is not None:
            self._proxy.shutdown()
            self._proxy.server_close()
            self._proxy = None
        if self._server is not None:
            # It has started processes of its own.
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def host(self) -> str:
        """Of the proxy, with its port."""
        assert self._proxy is not None
        return f"127.0.0.1:{self._proxy.server_address[1]}"

    @property
    def url(self) -> str:
        """The tracking URI."""
        return f"azureml://{self.host}/mlflow/v2.0{SCOPE}"

    def environment(self) -> dict[str, str]:
        """Variables by which MLflow and its plugin find it.

        Beside ``arm``, ``AZUREML_CURRENT_CLOUD`` has to name the cloud of that.
        """
        return {
            **self._tls.environment(),
            **self._identity.environment(),
            "MLFLOW_TRACKING_URI": self.url,
            "AZUREML_CURRENT_CLOUD": "AzureCloud",  # else it is looked up
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
            "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
        }

    def requests(self, path: str, status: int | None = None) -> int:
        """How many requests went to a path that holds this, with this answer."""
        return sum(
            path in asked and status in (None, said) for _, asked, said in self.log
        )

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        """Answer one request; the log keeps it."""
        made = self._answer(method, path, headers, body)
        asked = path.replace(SCOPE, "").partition("?")[0]
        with self._lock:
            self.log.append((method, asked, made.status))
        return made

    def _answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        fault = self._fault(path)
        if fault is None:
            return self._route(method, path, headers, body)
        if fault.done:
            self._route(method, path, headers, body)
        return Answer(fault.status, b"the stand-in was told to say so")

    def _fault(self, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def _route(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        place = urlsplit(path).path
        if place.startswith(_BLOBS):
            return self._blob(method, path, headers, body)
        if not self._knows(headers.get("Authorization", "")):
            return _refusal(401, "UNAUTHENTICATED", "the token is missing or expired")
        if asked := _HISTORY.fullmatch(place):
            return self._history(asked, path, body)
        return self._mlflow(method, path, body)

    def _mlflow(self, method: str, path: str, body: bytes) -> Answer:
        asked = _MLFLOW.match(path)
        if asked is None or any(each.search(asked["rest"]) for each in _MISSING):
            return Answer(404)
        said = json.loads(body) if body else {}
        if refusal := self._limit(asked["rest"], said):
            return refusal
        if asked["rest"].endswith("/experiments/create"):
            # A run's artifacts belong to the workspace's storage.
            said["artifact_location"] = f"azureml://experiments/{said['name']}/runs"
            body = json.dumps(said).encode()
        return self._forward(method, asked["rest"], body)

    def _knows(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" or token.count(".") != 2:
            return False
        self.tokens.append(token)
        # Clocks may differ by five minutes, as for Azure's own services.
        return float(claims(token)["exp"]) + _SKEW_S > time.time()

    def _limit(self, rest: str, said: dict[str, Any]) -> Answer | None:
        if rest.endswith("/experiments/create") and said.get("artifact_location"):
            return _invalid("artifact_location is the workspace's to choose")
        tags, params, metrics = _sent(rest, said)
        long = [tag["key"] for tag in tags if len(tag["value"]) > _TAG_LENGTH]
        if long:
            return _invalid(f"The value of tag {long[0]} is over 1000 characters")
        if len(metrics) > _METRIC_ROWS:
            return _invalid("A batch holds more than 250 metric rows")
        run = said.get("run_id", said.get("run_uuid", ""))
        for kind, sent in (("tags", tags), ("params", params), ("metrics", metrics)):
            names = {each["key"] for each in sent if "mlflow." not in each["key"]}
            with self._lock:
                used = self._used.setdefault((run, kind), set())
                if len(used | names) > _LIMITS[kind]:
                    return _invalid(
                        "A field of the entity is over the size limit. "
                        f"FieldName={kind}, Limit={_LIMITS[kind]}"
                    )
                used |= names
        return None

    def _history(self, asked: re.Match[str], path: str, body: bytes) -> Answer:
        run, rest = asked["run"], asked["rest"]
        if rest is None:
            kept = [name for owner, name in self.blobs if owner == run]
            return _json(200, {"value": [{"path": name} for name in kept]})
        if rest == "/contentinfo":
            name = parse_qs(urlsplit(path).query)["path"][0]
            if (run, name) not in self.blobs:
                return _json(404, {"error": {"code": "UserError"}})
            return _json(200, self._content(run, name))
        made: dict[str, Any] = {}
        errors: dict[str, Any] = {}
        for each in json.loads(body)["paths"]:
            name = each["path"]
            if (run, name) in self.blobs:
                message = f"Resource Conflict: ArtifactId {name} already exists."
                error = {"code": "UserError", "message": message}
                errors[name] = {"error": error}
            else:
                made[name] = self._content(run, name)
        content = {"artifactContentInformation": made, "errors": errors}
        return _json(200, content)

    def _content(self, run: str, name: str) -> dict[str, str]:
        uri = f"https://{self.host}{_BLOBS}{run}/{name}?sv=2023&sig={SAS_SECRET}"
        return {"contentUri": uri, "container": run, "path": name}

    def _blob(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        parts = urlsplit(path)
        query = parse_qs(parts.query)
        if query.get("sig") != [SAS_SECRET]:
            return Answer(403)
        run, _, name = unquote(parts.path.removeprefix(_BLOBS)).partition("/")
        stamp = (("ETag", '"1"'), ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT"))
        if method == "PUT":
            if (run, name) in self.blobs and headers.get("If-None-Match") == "*":
                return Answer(409, b"", (("x-ms-error-code", "BlobAlreadyExists"),))
            self.blobs[run, name] = body
            return Answer(201, b"", stamp)
        content = self.blobs[run, name]
        kind = ("x-ms-blob-type", "BlockBlob")
        wanted = headers.get("x-ms-range", headers.get("Range"))
        if not content or wanted is None:
            status = 416 if wanted and not content else 200
            return Answer(status, content, (*stamp, kind))
        first, last = wanted.removeprefix("bytes=").split("-")
        cut = content[int(first) : int(last) + 1]
        span = f"bytes {first}-{int(first) + len(cut) - 1}/{len(content)}"
        return Answer(206, cut, (*stamp, kind, ("Content-Range", span)))

    def _forward(self, method: str, rest: str, body: bytes) -> Answer:
        request = Request(
            self._upstream + rest,
            data=body or None,
            method=method,
            headers={"Content-Type": "application/json"},
        )
        try:
            with urlopen(request) as answer:
                return Answer(answer.status, answer.read())
        except HTTPError as exc:
            return Answer(exc.code, exc.read())

    def _wait_for_server(self) -> None:
        assert self._server is not None
        while True:
            try:
                with urlopen(f"{self._upstream}/health", timeout=5):
                    return
            except (URLError, OSError):
                log = self._root / "server.log"
                assert self._server.poll() is None, log.read_text()
                time.sleep(0.05)


def claims(token: str) -> dict[str, Any]:
    """What a JSON web token says."""
    payload = token.split(".")[1]
    padded = payload + "=" * (-len(payload) % 4)
    said: dict[str, Any] = json.loads(base64.urlsafe_b64decode(padded))
    return said


def _command(root: Path, upstream: str) -> list[str]:
    options = {
        "--backend-store-uri": f"sqlite:///{root}/mlflow.db",
        "--default-artifact-root": "azureml://experiments/Default/runs",
        "--host": "127.0.0.1",
        "--port": upstream.rpartition(":")[2],
        "--workers": "1",
    }
    listed = [part for option in options.items() for part in option]
    return [sys.executable, "-m", "mlflow", "server", "--no-serve-artifacts", *listed]


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "AZUREML_", "ARM_"))
    }
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true"}


def _sent(rest: str, said: dict[str, Any]) -> tuple[list[Any], list[Any], list[Any]]:
    kind = {"set-tag": 0, "log-parameter": 1, "log-metric": 2}
    name = rest.rpartition("/")[2]
    if "/runs/" not in rest:
        return [], [], []
    if name in kind:
        sent: list[list[Any]] = [[], [], []]
        sent[kind[name]] = [said]
        return sent[0], sent[1], sent[2]
    return said.get("tags", []), said.get("params", []), said.get("metrics", [])


def _invalid(message: str) -> Answer:
    return _refusal(400, "INVALID_PARAMETER_VALUE", message)


def _refusal(status: int, code: str, message: str) -> Answer:
    return _json(status, {"error_code": code, "message": message})


def _json(status: int, content: dict[str, Any]) -> Answer:
    kind = ("Content-Type", "application/json")
    return Answer(status, json.dumps(content).encode(), (kind,))


def _handler(workspace: MlflowWorkspace) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """The log is the workspace's."""

        def _respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            made = workspace.answer(self.command, self.path, self.headers, body)
            if not made.status:
                self.close_connection = True
                return
            self.send_response(made.status)
            for name, value in made.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(made.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(made.body)

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"):
        setattr(Handler, f"do_{method}", Handler._respond)
    return Handler


@pytest.fixture(scope="session")
def mlflow_workspace(
    tmp_path_factory: pytest.TempPathFactory, tls: Tls, identity: Identity
) -> Iterator[MlflowWorkspace]:
    """A workspace that trusts the identity."""
    root = tmp_path_factory.mktemp("mlflow_workspace")
    with MlflowWorkspace(root, tls, identity) as started:
        yield started


@pytest.fixture
def workspace(
    mlflow_workspace: MlflowWorkspace, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MlflowWorkspace]:
    """The workspace as this process's tracking server, with an empty log."""
    import mlflow

    for name, value in mlflow_workspace.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ARM_CLOUD_METADATA_URL", raising=False)
    from azureml.mlflow._common._cloud.cloud import KNOWN_CLOUDS

    # The plugin learned of clouds when it was imported, maybe by another test.
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", next(iter(KNOWN_CLOUDS)))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(mlflow_workspace.url)
    mlflow_workspace.log.clear()
    mlflow_workspace.tokens.clear()
    yield mlflow_workspace
    mlflow_workspace.faults.clear()
    mlflow.end_run()
    mlflow.set_tracking_uri(before)
