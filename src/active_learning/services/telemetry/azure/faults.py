"""What an error of Azure Data Explorer means: worth another try, or never.

Kusto says so itself with ``@permanent``; throttling, a service on the move and no
answer at all are worth another try, with ever longer pauses. Nothing of an error is
passed on that could hold a signature or a token.
"""

import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import NamedTuple, TypeVar

from azure.core.exceptions import AzureError
from azure.identity import CredentialUnavailableError
from azure.kusto.data.exceptions import (
    KustoApiError,
    KustoAuthenticationError,
    KustoBlobError,
    KustoError,
    KustoMultiApiError,
    KustoNetworkError,
    KustoServiceError,
    KustoThrottlingError,
)
from azure.kusto.ingest.exceptions import KustoQueueError

from active_learning.services.redaction import redacted

SDK_ERRORS = (KustoError, AzureError)

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_LONGEST_TEXT = 500
_jitter = random.SystemRandom()

_T = TypeVar("_T")


class Kind(Enum):
    """What can be done about an error."""

    TRANSIENT = auto()
    EXPIRED = auto()
    FORBIDDEN = auto()
    NO_CLUSTER = auto()
    NO_TABLE = auto()
    NO_STREAMING = auto()
    REFUSED = auto()


class Fault(NamedTuple):
    """An error, understood.

    Attributes:
        kind: What can be done.
        said: What the service said, without secrets.
        pause_s: How long it asked to be left alone.
    """

    kind: Kind
    said: str
    pause_s: float = 0.0


class Patience(NamedTuple):
    """How long is waited, in seconds.

    Attributes:
        answer_s: For the answer to one request.
        retry_s: While one thing is tried again.
        visible_s: Until rows that were queued can be read. The service may take
            minutes where a table's batching policy lets it.
    """

    answer_s: float = 240
    retry_s: float = 120
    visible_s: float = 900


class GivenUp(Exception):  # noqa: N818  # never leaves this package
    """Something that could not be done, and why."""

    def __init__(self, fault: Fault, attempts: int) -> None:
        """Keep both."""
        super().__init__(fault.said)
        self.fault = fault
        self.attempts = attempts


def retried(action: Callable[[], _T], retry_s: float) -> _T:
    """Do something, again while that is worth it.

    A pause is between half and all of twice the one before, or what the service asked
    for; none goes beyond ``retry_s``. A token that was refused as expired is renewed
    once.

    Raises:
        GivenUp: It is not worth another try, or the time is over.
    """
    until = time.monotonic() + retry_s
    longest = _FIRST_PAUSE_S
    attempts = expired = 0
    while True:
        attempts += 1
        try:
            return action()
        except SDK_ERRORS as exc:
            fault = judged(exc)
        is_expired = fault.kind is Kind.EXPIRED
        expired += is_expired
        again = fault.kind is Kind.TRANSIENT or (is_expired and expired == 1)
        pause_s = max(fault.pause_s, _jitter.uniform(longest / 2, longest))
        if not again or time.monotonic() + pause_s > until:
            # The library's own error stays out of the chain: its causes name the
            # address that they were sent to, and an address may be signed.
            raise GivenUp(fault, attempts)
        time.sleep(pause_s)
        longest = min(2 * longest, _LONGEST_PAUSE_S)


def judged(exc: BaseException) -> Fault:
    """What an error of the libraries means."""
    match exc:
        case KustoAuthenticationError():
            return _of_identity(exc)
        case KustoServiceError() if not isinstance(exc, KustoNetworkError):
            return _of_service(exc)
    return Fault(*_of_transport(exc))


def _of_transport(exc: BaseException) -> tuple[Kind, str, float]:
    kind, said, pause_s = Kind.TRANSIENT, "", 0.0
    match exc:
        case KustoThrottlingError():
            said, pause_s = "it is throttled (429)", _asked_pause_s(exc)
        case KustoNetworkError():
            said = "it does not answer"
        case KustoBlobError():
            said = f"rows could not be uploaded ({type(exc.inner).__name__})"
        case KustoQueueError():
            said = "rows could not be queued"
        case AzureError():
            said = f"{type(exc).__name__}: {_clipped(exc)}"
        case _:
            kind, said = Kind.NO_CLUSTER, _clipped(exc)
    return kind, said, pause_s


def _of_service(exc: KustoServiceError) -> Fault:
    # A library's answer to an answer it cannot read has no status.
    status = getattr(exc.http_response, "status_code", None)
    said = _clipped(exc)
    code = ""
    permanent = status is not None and status < 500 and status != 408
    if isinstance(exc, KustoApiError | KustoMultiApiError):
        errors = [exc.error] if isinstance(exc, KustoApiError) else exc.get_api_errors()
        code = errors[0].code or "" if errors else ""
        flags = [error.permanent for error in errors if error.permanent is not None]
        permanent = any(flags) if flags else permanent
        said = f"{code}: {_shortened(errors[0].description or said)}" if code else said
    if status == 401:
        return Fault(Kind.EXPIRED, f"the token was refused (401): {said}")
    if _is_about_streaming(status, code, said):
        return Fault(Kind.NO_STREAMING, said)
    if status == 403 or code.startswith(("Forbidden", "Unauthorized")):
        return Fault(Kind.FORBIDDEN, said)
    if not permanent:
        return Fault(Kind.TRANSIENT, f"{status or 'no status'}, {said}")
    return Fault(Kind.NO_TABLE if _is_no_table(code, said) else Kind.REFUSED, said)


def _of_identity(exc: KustoAuthenticationError) -> Fault:
    inner = exc.exception
    what = f"no token could be had ({type(inner).__name__})"
    if isinstance(inner, CredentialUnavailableError):
        return Fault(Kind.FORBIDDEN, f"{what}: nobody is signed in")
    if isinstance(inner, KustoServiceError):
        return judged(inner)
    return Fault(Kind.TRANSIENT, what)


def _is_about_streaming(status: int | None, code: str, said: str) -> bool:
    text = f"{code} {said}".lower().replace(" ", "")
    off = any(word in text for word in ("notenabled", "disabled", "pleaseenable"))
    too_large = status == 413 or "payloadtoolarge" in text
    return too_large or ("streamingingestion" in text and off)


def _is_no_table(code: str, said: str) -> bool:
    text = f"{code} {said}".lower()
    return any(
        word in text
        for word in (
            "entitynotfound",
            "mappingreferencewasnotfound",
            "mapping reference",
            "sem0100",
            "failed to resolve table",
            "was not found",
            "does not exist",
        )
    )


def _asked_pause_s(exc: KustoThrottlingError) -> float:
    response = next((each for each in exc.args if hasattr(each, "headers")), None)
    asked = "" if response is None else response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return 0.0


def _clipped(exc: BaseException) -> str:
    return _shortened(redacted(exc))


def _shortened(text: str) -> str:
    plain = redacted(Exception(text))
    return plain if len(plain) <= _LONGEST_TEXT else f"{plain[:_LONGEST_TEXT]}..."
