"""A lock that one process in the world has, and that a killed one loses."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from getpass import getuser
from typing import Any

from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError
from fsspec.asyn import sync

from active_learning.errors import EndpointError
from active_learning.files import filesystem_at
from active_learning.services.deployment.azure.refusals import told
from active_learning.services.redaction import redacted

logger = logging.getLogger(__name__)

# Azure's longest for a lease that ends by itself: so long a killed process keeps it.
_LEASE_S = 60
_GONE = (404, 409, 412)


class Lease:
    """The lease of a blob, renewed as long as it is held.

    Args:
        url: Of the blob, which says who holds it; it is made, and stays.
        lease_s: It ends by itself after so long without renewal; 15 to 60 s.
    """

    def __init__(self, url: str, lease_s: int = _LEASE_S) -> None:
        """Describe the blob; nothing is asked yet."""
        self._url = url
        self._lease_s = lease_s
        self._held: Any = None
        self._lost: str | None = None
        self._renewed = 0.0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lease; nobody else does meanwhile.

        Raises:
            EndpointError: Somebody else holds it; who and since when is said.
        """
        with told(f"Locking {self._url!r}"):
            self._acquire()
        done = threading.Event()
        renewing = threading.Thread(
            target=self._renew, args=(done,), name="lease", daemon=True
        )
        renewing.start()
        try:
            yield
        finally:
            done.set()
            renewing.join()
            self._release()

    def check(self) -> None:
        """Make sure that it is still held, before something is changed.

        Raises:
            EndpointError: It is not.
        """
        if self._held is None:
            raise EndpointError(
                f"{self._url!r} is not locked: what changes an endpoint is called "
                "inside exclusive()."
            )
        if self._lost is None:
            self._try_to_renew()
        if self._lost is not None:
            raise EndpointError(
                f"The lock {self._url!r} was lost ({self._lost}), and somebody else "
                "may have it. Nothing more is changed; run again."
            )

    def _acquire(self) -> None:
        filesystem, path = filesystem_at(self._url)
        container, _, blob = path.partition("/")
        self._loop = filesystem.loop
        client = filesystem.service_client.get_blob_client(container, blob)
        try:
            sync(self._loop, client.upload_blob, b"{}", overwrite=False)
        except ResourceExistsError:
            pass
        except HttpResponseError as exc:
            # Who holds the lease may write alone.
            if exc.status_code != 412:
                raise
        try:
            held = sync(self._loop, client.acquire_lease, lease_duration=self._lease_s)
        except ResourceExistsError as exc:
            raise EndpointError(
                f"Another process deploys to {self._url!r} now: "
                f"{self._holder(client)}. Wait for its end; where it was killed, the "
                f"lock ends by itself within {self._lease_s} s."
            ) from exc
        self._held, self._lost, self._renewed = held, None, time.monotonic()
        text = json.dumps(_myself()).encode()
        sync(self._loop, client.upload_blob, text, overwrite=True, lease=held)

    def _holder(self, client: Any) -> str:
        async def read() -> bytes:
            return bytes(await (await client.download_blob()).readall())

        try:
            said = json.loads(sync(self._loop, read))
        except (AzureError, ValueError):
            return "it has not said who it is"
        return ", ".join(f"{name} {value}" for name, value in said.items()) or "unnamed"

    def _renew(self, done: threading.Event) -> None:
        while not done.wait(self._lease_s / 4) and self._lost is None:
            self._try_to_renew()

    def _try_to_renew(self) -> None:
        asked = time.monotonic()
        try:
            sync(self._loop, self._held.renew)
        except (AzureError, OSError) as exc:
            logger.warning("The lock %r is not renewed: %s", self._url, redacted(exc))
            # An answer, not a silence: somebody has broken the lease, or has it.
            answered = getattr(exc, "status_code", None) in _GONE
            if answered or asked - self._renewed > self._lease_s * 0.9:
                self._lost = redacted(exc)
        else:
            self._renewed = asked

    def _release(self) -> None:
        held, self._held = self._held, None
        try:
            sync(self._loop, held.release)
        except (AzureError, OSError) as exc:
            logger.warning("The lock %r ends by itself: %s", self._url, redacted(exc))


def _myself() -> dict[str, str]:
    try:
        user = getuser()
    except (KeyError, OSError):  # a container may have no name for it
        user = str(os.getuid())
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "user": user,
        "host": socket.gethostname(),
        "process": str(os.getpid()),
        "since": now,
    }
