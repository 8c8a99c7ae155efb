"""A file system of blobs that waits, tells errors apart and lists by pages."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from adlfs import AzureBlobFileSystem
from azure.core.credentials import AzureSasCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.storage.blob.aio import BlobServiceClient, ExponentialRetry
from fsspec.asyn import sync, sync_wrapper

_TOO_MANY = 429
_TRANSIENT = {408, _TOO_MANY}
_NOT_ALLOWED = {401, 403}
_CHANGED = "it changes while it is read"

# Azure's clients tell thirty lines of each request where a run tells what it does.
_REQUESTS = logging.getLogger("azure.core.pipeline.policies.http_logging_policy")
if _REQUESTS.level == logging.NOTSET:
    _REQUESTS.setLevel(logging.WARNING)

# How often a blob that changes while it is read is read from its beginning.
_READ_AGAIN = 3
_LONGEST_WAIT_S = 30.0


class BlobFileSystem(AzureBlobFileSystem):  # type: ignore[misc]
    """adlfs's file system, for runs that nobody watches.

    What passes is waited for: 408, 429, 5xx, a connection that is refused, reset or
    silent. What stays is one of the errors that a local disk raises too, and says
    which account and container it was: ``FileNotFoundError``, ``PermissionError``,
    ``ConnectionError`` for a service that is away, ``OSError`` with ``ESTALE`` for a
    blob that changes at every try to read it.

    Args:
        arguments: Of adlfs's.
        retries: After the first try.
        back_off_s: Seconds before the first of them; each wait is twice the one before,
            up to half a minute.
        at_once: Requests that those who read and write many files have under way.
        options: Of adlfs's.
    """

    def __init__(
        self,
        *arguments: Any,
        retries: int = 6,
        back_off_s: float = 0.5,
        at_once: int = 16,
        **options: Any,
    ) -> None:
        """Describe the account; nothing is asked yet."""
        self._retry = _Retry(retries, back_off_s)
        self._retries = retries
        self.at_once = at_once
        super().__init__(*arguments, **options)

    def do_connect(self) -> None:
        """Make the client as adlfs does, but with our own patience."""
        super().do_connect()
        if self.connection_string is not None:
            self.service_client = BlobServiceClient.from_connection_string(
                self.connection_string, retry_policy=self._retry
            )
            return
        credential = self.credential or self.account_key
        if credential is None and self.sas_token is not None:
            credential = AzureSasCredential(self.sas_token.lstrip("?"))
        self.service_client = BlobServiceClient(
            self.account_url, credential=credential, retry_policy=self._retry
        )

    def pages(self, path: str) -> Iterator[list[dict[str, Any]]]:
        """Everything below a path, a page of the service's after the other.

        Yields:
            What ``info`` says of each; folders only where the account keeps them.

        Raises:
            FileNotFoundError: There is no such container.
        """
        container, prefix, _ = self.split_path(f"{path.strip('/')}/")
        client = self.service_client.get_container_client(container)
        pager = client.list_blobs(
            include=["metadata"], name_starts_with=prefix
        ).by_page()
        while (page := sync(self.loop, self._page, pager, container)) is not None:
            yield page

    async def _page(self, pager: Any, container: str) -> list[dict[str, Any]] | None:
        async with self._told(container):
            try:
                page = await anext(pager)
            except StopAsyncIteration:
                return None
            found: list[dict[str, Any]] = await self._details([b async for b in page])
            return found

    async def _exists(self, path: str, **options: Any) -> bool:
        container, blob, _ = self.split_path(path)
        if not container or blob:
            try:
                await self._info(path, **options)
            except FileNotFoundError:
                return False
            return True
        # Whoever may list a container's blobs need not be allowed its properties.
        client = self.service_client.get_container_client(container)
        pager = client.list_blobs(results_per_page=1).by_page()
        try:
            await self._page(pager, container)
        except FileNotFoundError:
            return False
        return True

    async def _info(
        self, path: str, refresh: bool = True, **options: Any
    ) -> dict[str, Any]:
        async with self._told(path):
            found: dict[str, Any] = await super()._info(path, refresh, **options)
            return found

    async def _cat_file(
        self,
        path: str,
        start: int | None = None,
        end: int | None = None,
        **options: Any,
    ) -> bytes:
        # The client asks for every further block of the version it began with.
        async with self._told(path):
            for _ in range(_READ_AGAIN - 1):
                try:
                    return bytes(await super()._cat_file(path, start, end, **options))
                except ResourceModifiedError:
                    continue
            return bytes(await super()._cat_file(path, start, end, **options))

    async def _pipe_file(self, path: str, value: bytes, **options: Any) -> Any:
        async with self._told(path):
            return await super()._pipe_file(path, value, **options)

    pipe_file = sync_wrapper(_pipe_file)

    async def _rm_file(self, path: str, **options: Any) -> None:
        async with self._told(path):
            await super()._rm_file(path, **options)

    @asynccontextmanager
    async def _told(self, path: str) -> AsyncIterator[None]:
        try:
            yield
        except FileNotFoundError as exc:
            raise self._not_found(path, exc.__cause__ or exc) from exc
        except AzureError as exc:
            raise self._as_os_error(path, exc) from exc

    def _not_found(self, path: str, exc: BaseException) -> OSError:
        container = self.split_path(path)[0]
        if getattr(exc, "error_code", None) == "ContainerNotFound":
            account = self.service_client.account_name
            return FileNotFoundError(
                errno.ENOENT,
                f"there is no container {container!r} in the storage account "
                f"{account!r}. Create it, or mend the URL that names it",
                path,
            )
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def _as_os_error(self, path: str, exc: AzureError) -> OSError:
        """What a disk would raise.

        What Azure itself says is left out but for its code: it may quote the request.
        """
        status = getattr(exc, "status_code", None)
        code = str(getattr(exc, "error_code", None) or type(exc).__name__)
        account = self.service_client.account_name
        if isinstance(exc, ResourceNotFoundError):
            return self._not_found(path, exc)
        if isinstance(exc, ResourceModifiedError):
            return OSError(errno.ESTALE, _CHANGED, path)
        if isinstance(exc, ResourceExistsError):
            return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if isinstance(exc, ClientAuthenticationError) or status in _NOT_ALLOWED:
            return PermissionError(
                errno.EACCES,
                f"the storage account {account!r} does not let us in ({code}). Sign in "
                "with `az login`, or give this identity the role 'Storage Blob Data "
                "Contributor' on the container",
                path,
            )
        away = isinstance(exc, (ServiceRequestError, ServiceResponseError))
        if away or status in _TRANSIENT or (status or 0) >= 500:
            what = f"answers {status} ({code})" if status else "cannot be reached"
            return ConnectionError(
                errno.ECONNABORTED,
                f"the storage account {account!r} {what}, after {self._retries} "
                "retries too; what was written before is there, so run it again later",
                path,
            )
        said = f"{status}, {code}" if isinstance(exc, HttpResponseError) else code
        return OSError(errno.EIO, f"storage account {account!r} says {said}", path)


class _Retry(ExponentialRetry):
    """Exponential, in seconds rather than quarters of a minute; 429 is one more."""

    def __init__(self, retries: int, back_off_s: float) -> None:
        super().__init__(retry_total=retries)
        self._back_off_s = back_off_s

    def get_backoff_time(self, settings: dict[str, Any]) -> float:
        return self._wait_s(settings["count"])

    def increment(self, settings: dict[str, Any], *args: Any, **options: Any) -> bool:
        # Who we are does not change by waiting.
        if isinstance(options.get("error"), ClientAuthenticationError):
            return False
        return bool(super().increment(settings, *args, **options))

    # The client's own is no coroutine's by its annotation, and untyped.
    async def send(self, request: Any) -> Any:  # type: ignore[override]
        send: Callable[[Any], Awaitable[Any]] = super().send
        for count in range(self.total_retries):
            response = await send(request)
            if response.http_response.status_code != _TOO_MANY:
                return response
            await asyncio.sleep(self._wait_s(count))
        return await send(request)

    def _wait_s(self, count: int) -> float:
        # Many that were refused at once shall not come back at once.
        longest = min(self._back_off_s * 2**count, _LONGEST_WAIT_S)
        return random.uniform(longest / 2, longest)  # noqa: S311
