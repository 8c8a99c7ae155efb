"""A proxy before a service over http: what happens on the way happens in it."""

import http.client
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_OF_THE_CONNECTION = {"connection", "content-length", "keep-alive", "transfer-encoding"}


class Fault(Enum):
    """What is no status."""

    CUT = "the connection ends without an answer"


CUT = Fault.CUT


@dataclass
class Crossing:
    """Counts requests that are under way at the same time.

    Attributes:
        most: So many were.
    """

    most: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> None:
        """One more."""
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def __exit__(self, *_: object) -> None:
        """One less."""
        with self._lock:
            self._now -= 1


class Proxy:
    """Passes requests on, unless a fault is in line.

    Args:
        port: Of the service on 127.0.0.1.

    Attributes:
        requests: Method and path with query, of every request.
        faults: What the next requests meet: a status to answer, ``CUT``, something to
            call before the request is passed on, or ``None`` for nothing.
        on: Which requests meet faults; all by default.
        headers: Sent with a fault's status.
        crossing: How many were under way at once.
    """

    def __init__(self, port: int) -> None:
        """Remember where to pass requests on; nothing listens yet."""
        self.requests: list[tuple[str, str]] = []
        self.faults: deque[Any] = deque()
        self.on: Callable[[str, str], bool] = lambda method, path: True
        self.headers: dict[str, str] = {}
        self.crossing = Crossing()
        self._upstream = port
        self._server: ThreadingHTTPServer | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def start(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}
        ).start()
        return self

    def close(self) -> None:
        """Stop listening; a second time does nothing."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._server is None:
            raise RuntimeError("The proxy was not started.")
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def fault(self, method: str, path: str) -> Any:
        """Note a request; what it meets."""
        with self._lock:
            self.requests.append((method, path))
            return (
                self.faults.popleft() if self.faults and self.on(method, path) else None
            )

    def pass_on(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """The service's own answer: status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients that go away are what it is for."""


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with proxy.crossing:
                fault = proxy.fault(self.command, self.path)
                if fault is CUT:
                    self.close_connection = True
                    return
                if isinstance(fault, int):
                    self._answer(fault, list(proxy.headers.items()), b"")
                    return
                if fault is not None:
                    fault()
                answer = proxy.pass_on(
                    self.command, self.path, dict(self.headers.items()), body
                )
            self._answer(*answer)

        def __getattr__(self, name: str) -> Any:
            # Every method is served alike.
            if name.startswith("do_"):
                return self.do_GET
            raise AttributeError(name)

        def _answer(
            self, status: int, headers: list[tuple[str, str]], body: bytes
        ) -> None:
            self.send_response_only(status)
            length = str(len(body))
            for name, value in headers:
                if name.lower() == "content-length" and self.command == "HEAD":
                    length = value
                if name.lower() not in _OF_THE_CONNECTION:
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing: the log of requests is enough."""

    return Handler
