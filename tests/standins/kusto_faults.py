"""What a cluster of Azure Data Explorer answers when something is wrong."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from duckdb_kql.server import RestColumn, Result, v2_response


class Asked(NamedTuple):
    """One request."""

    route: str
    path: str
    headers: dict[str, str]
    body: bytes
    text: str
    properties: dict[str, Any]


@dataclass
class Fault:
    """What the next request to a route is answered instead; see the functions below."""

    route: str = ""
    status: int = 0
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    text: str = ""
    after: bool = False
    content: bytes = b""

    def fits(self, asked: Asked) -> bool:
        """Whether it is meant for this request."""
        return (
            self.times > 0
            and self.route in {"", asked.route}
            and self.text in asked.text
            and self.content in asked.body
        )


def throttled(
    route: str = "", times: int = 1, retry_after: str = "0", text: str = ""
) -> Fault:
    """429, as a cluster over its limits says it."""
    said = _error("Too many requests", "ControlCommandThrottled", permanent=False)
    return Fault(route, 429, said, {"Retry-After": retry_after}, times, text)


def unavailable(
    route: str = "", times: int = 1, status: int = 503, text: str = ""
) -> Fault:
    """Away for a moment."""
    said = _error("The engine is being moved", "ServiceUnavailable", permanent=False)
    return Fault(route, status, said, {}, times, text)


def refused(
    message: str,
    route: str = "",
    code: str = "BadRequest_Refused",
    status: int = 400,
    times: int = 1,
    text: str = "",
    body: bytes = b"",
) -> Fault:
    """Permanent: the same again will be refused again."""
    said = _error(message, code, permanent=True)
    return Fault(route, status, said, {}, times, text, content=body)


def silent(
    route: str = "", times: int = 1, after: bool = False, text: str = ""
) -> Fault:
    """No answer until the client gives up; ``after`` does what was asked first."""
    return Fault(route, -1, None, {}, times, text, after)


def cut(route: str = "", times: int = 1, after: bool = False, text: str = "") -> Fault:
    """The connection ends; ``after`` does what was asked before it ends."""
    return Fault(route, 0, None, {}, times, text, after)


def partial(message: str, times: int = 1) -> Fault:
    """200, half of the rows, and an error at the end of the answer."""
    frames = v2_response(Result([RestColumn.derived("n", "long")], [(1,)]), "partial")
    error = _error(message, "Query_Aborted", permanent=True)
    frames[-1] = {
        "FrameType": "DataSetCompletion",
        "HasErrors": True,
        "Cancelled": False,
        "OneApiErrors": [error],
    }
    return Fault("query", 200, frames, {}, times)


def _error(message: str, code: str, permanent: bool) -> dict[str, Any]:
    return {
        "error": {
            "code": code,
            "message": "Request is invalid or cannot be executed.",
            "@type": f"Kusto.{code}Exception",
            "@message": message,
            "@context": {"service": "stand-in"},
            "@permanent": permanent,
        }
    }


class RefusedError(Exception):
    """What a request is answered when it cannot be done."""

    def __init__(self, message: str, code: str = "BadRequest", status: int = 400):
        super().__init__(message)
        self.status = status
        self.body = _error(message, code, permanent=True)
