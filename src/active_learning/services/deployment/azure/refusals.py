"""What Azure refuses, as errors of this package that hold no secret."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
)

from active_learning.errors import EndpointError
from active_learning.services.redaction import cause, redacted

_LONGEST = 600


@contextmanager
def told(what: str) -> Iterator[None]:
    """Tell what could not be done, why, and the way out.

    Raises:
        EndpointError: In place of what Azure's libraries raise.
    """
    from azure.ai.ml.exceptions import MlException

    try:
        yield
    except (AzureError, MlException, OSError) as exc:
        reason = redacted(exc)[:_LONGEST].rstrip(". ")
        raise EndpointError(f"{what} failed: {reason}. {_way_out(exc)}") from cause(exc)


def _way_out(exc: BaseException) -> str:
    status = exc.status_code if isinstance(exc, HttpResponseError) else None
    if isinstance(exc, ClientAuthenticationError) or status == HTTPStatus.UNAUTHORIZED:
        return "Sign in with `az login`, or let this machine have a managed identity."
    if status == HTTPStatus.FORBIDDEN or isinstance(exc, PermissionError):
        return (
            "Give this identity the roles 'AzureML Data Scientist' on the workspace "
            "and 'Storage Blob Data Contributor' on the container 'loop'."
        )
    if status == HTTPStatus.CONFLICT:
        return "Another operation is under way there: run again when it is over."
    if status is not None and HTTPStatus.BAD_REQUEST <= status < 429:
        return "Mend what it names, and run again."
    return "What was there before goes on; run again later."
