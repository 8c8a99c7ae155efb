"""The managed identity of an App Service: whoever knows its header gets tokens."""

import json
import secrets
import threading
import time
from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

TENANT = "00000000-0000-0000-0000-0000000000aa"
CLIENT = "00000000-0000-0000-0000-0000000000bb"


@dataclass(frozen=True)
class Asked:
    """One request: the audience that it asked for, and how it was answered."""

    resource: str
    status: int


class Identity:
    """Answers DefaultAzureCredential as an App Service's identity endpoint does.

    The tokens are JWTs without a signature, which Azurite and stand-ins take.

    Args:
        lifetime_s: Of the tokens that it gives from now on; may be set at any time.
        grace_s: Services take a token for so much longer than its client is told, so
            that a test of short lives does not depend on how fast it runs.

    Attributes:
        requests: What was asked.
        issued: Every token that was given: none may be found in a log.
        faults: What the next requests get instead: a status and a body.
    """

    def __init__(self, lifetime_s: float = 3600, grace_s: float = 0) -> None:
        """Choose a secret; nothing listens yet."""
        self.lifetime_s = lifetime_s
        self.grace_s = grace_s
        self.requests: list[Asked] = []
        self.issued: list[str] = []
        self.faults: deque[tuple[int, str]] = deque()
        self.secret = secrets.token_hex(16)
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def start(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
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
    def url(self) -> str:
        """Where it listens."""
        if self._server is None:
            raise RuntimeError("The identity endpoint was not started.")
        return f"http://127.0.0.1:{self._server.server_address[1]}/msi/token"

    def environment(self) -> dict[str, str]:
        """Variables by which DefaultAzureCredential finds it, first of all."""
        return {"IDENTITY_ENDPOINT": self.url, "IDENTITY_HEADER": self.secret}

    def answer(self, path: str, header: str | None) -> tuple[int, str]:
        """The status and body for a request."""
        asked = parse_qs(urlsplit(path).query)
        resource = asked.get("resource", [""])[0]
        if self.faults:
            status, body = self.faults.popleft()
        elif header != self.secret:
            status, body = HTTPStatus.UNAUTHORIZED, '{"message": "unknown header"}'
        elif not resource or "api-version" not in asked:
            status, body = HTTPStatus.BAD_REQUEST, '{"message": "no resource"}'
        else:
            status, body = HTTPStatus.OK, json.dumps(self._token(resource))
        self.requests.append(Asked(resource, int(status)))
        return int(status), body

    def _token(self, resource: str) -> dict[str, Any]:
        now = time.time()
        expires_on = now + self.lifetime_s
        claims = {
            "aud": resource,
            "iss": f"https://sts.windows.net/{TENANT}/",
            "iat": int(now) - 5,
            "nbf": int(now) - 5,
            "exp": expires_on + self.grace_s,
            "appid": CLIENT,
            "oid": CLIENT,
            "tid": TENANT,
            "jti": uuid4().hex,
        }
        # Azurite wants three parts and looks at the middle one.
        parts = ({"alg": "none", "typ": "JWT"}, claims, {"not": "a signature"})
        token = ".".join(_encoded(part) for part in parts)
        self.issued.append(token)
        return {
            "access_token": token,
            "client_id": CLIENT,
            "expires_on": str(int(expires_on)),
            "resource": resource,
            "token_type": "Bearer",
        }


@pytest.fixture(scope="session")
def identity() -> Iterator[Identity]:
    """An identity whose tokens last an hour."""
    with Identity() as started:
        yield started


def _encoded(part: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def _handler(identity: Identity) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = identity.answer(
                self.path, self.headers.get("X-IDENTITY-HEADER")
            )
            content = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing: the log of requests is enough."""

    return Handler
