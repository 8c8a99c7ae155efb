"""GitHub's ``repository_dispatch`` on loopback."""

import json
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pytest

REPOSITORY = "team/active-learning-loop"
TOKEN = "github_pat_11ABCDEFG0aVerySecretTokenThatNobodyMaySee"
_SAID = {
    400: "Problems parsing JSON",
    401: "Bad credentials",
    403: "Resource not accessible by personal access token",
    404: "Not Found",
    422: "Invalid request.",
    429: "You have exceeded a secondary rate limit.",
}


@dataclass(frozen=True)
class Request:
    """What a client has sent, and what it was answered; 0 is nothing."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    status: int


class GitHub:
    """Takes dispatches of one repository from who holds its token.

    ``faults`` says what the next requests get instead of an answer of GitHub's: a
    status; ``echo``, a 403 that repeats what was sent; ``drop``, a closed connection;
    ``hang``, nothing until this is closed; ``redirect``, another address.
    """

    def __init__(self, repository: str = REPOSITORY, token: str = TOKEN) -> None:
        """Nothing listens yet."""
        self.repository = repository
        self.token = token
        self.requests: list[Request] = []
        self.faults: deque[int | str] = deque()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Of the API."""
        assert self._server is not None, "start() comes first"
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def dispatched(self) -> list[dict[str, Any]]:
        """The payloads that were taken, in order."""
        taken = [request for request in self.requests if request.status == 204]
        return [request.body["client_payload"] for request in taken]

    def environment(self) -> dict[str, str]:
        """The app settings of a function that talks to it."""
        return {
            "AL_GITHUB_REPOSITORY": self.repository,
            "AL_GITHUB_TOKEN": self.token,
            "AL_GITHUB_API": self.url,
        }

    def start(self) -> Self:
        """Listen on a free port."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def close(self) -> None:
        """Let go of whoever waits, and stop."""
        self._closed.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def answer(self, method: str, path: str, headers: dict[str, str], body: Any) -> int:
        """The status that GitHub would answer."""
        if headers.get("authorization") != f"Bearer {self.token}":
            return 401
        if method != "POST" or path != f"/repos/{self.repository}/dispatches":
            return 404
        payload = body.get("client_payload", {}) if isinstance(body, dict) else None
        if not isinstance(payload, dict) or not body.get("event_type"):
            return 422
        if len(body["event_type"]) > 100 or len(payload) > 10:
            return 422
        return 422 if len(json.dumps(payload)) > 65_535 else 204

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        github = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = json.loads(raw)
                with github._lock:
                    fault = github.faults.popleft() if github.faults else None
                    status = _status(fault)
                    if status is None:
                        status = github.answer("POST", self.path, headers, body)
                    request = Request("POST", self.path, headers, body, status)
                    github.requests.append(request)
                if fault == "hang":
                    github._closed.wait(600)
                if fault in ("hang", "drop"):
                    self.close_connection = True
                    return
                said = {"message": _SAID.get(status, "Server Error")}
                if fault == "echo":
                    said["message"] = headers["authorization"]
                content = b"" if status == 204 else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if status == 429:
                    self.send_header("Retry-After", "60")
                if fault == "redirect":
                    self.send_header("Location", f"{github.url}/repositories/1")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Be silent: ``requests`` has all of it."""

        return Handler


def _status(fault: int | str | None) -> int | None:
    if isinstance(fault, int):
        return fault
    return {"echo": 403, "redirect": 307, "hang": 0, "drop": 0}.get(str(fault))


@pytest.fixture
def github() -> Iterator[GitHub]:
    """A GitHub that has seen nothing yet."""
    with GitHub() as server:
        yield server
