"""Which exports have started a run: a blob for each, that all instances see."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobClient, BlobLeaseClient, ContainerClient

from exports_trigger.errors import BusyError, code_of

logger = logging.getLogger(__name__)

# Seconds; the most that a lease of a blob can last. A dispatch takes 25 at most.
CLAIM_S = 60


@dataclass(frozen=True)
class Claim:
    """The right to start a run for one export; it ends by itself.

    Attributes:
        blob: Of the export in the ledger.
        lease: On it, which ends when a process that holds it has died.
    """

    blob: BlobClient
    lease: BlobLeaseClient

    def done(self, note: Mapping[str, str]) -> None:
        """Say that its run was started: no later event starts another.

        Args:
            note: For a person who looks into the ledger.
        """
        content = json.dumps(dict(note))
        try:
            self.blob.upload_blob(content, overwrite=True, lease=self.lease)
        except HttpResponseError as exc:
            # The lease has run out. It was started all the same, and is told so
            # unless somebody else is at it, who then tells it.
            logger.warning("A claim ran out before it was done: %s", code_of(exc))
            self.blob.upload_blob(content, overwrite=True)
            return
        self._release()

    def give_back(self) -> None:
        """Say that it was not: the next event may, at once."""
        self._release()

    def _release(self) -> None:
        try:
            self.lease.release()
        except AzureError as exc:
            logger.warning("A claim is left to run out: %s", type(exc).__name__)


class Ledger:
    """A container in which a blob stands for one state of an export.

    The blob is created once (``If-None-Match: *``) and empty, leased while somebody
    starts the run, and has content when the run was started. A process that dies
    between the two leaves a lease that runs out by the clock of the storage.

    Args:
        container: Is made when it is missing.
        claim_s: How long a claim lasts, 15 to 60.
    """

    def __init__(self, container: ContainerClient, claim_s: int = CLAIM_S) -> None:
        """Nothing is asked of the storage yet."""
        self._container = container
        self._claim_s = claim_s

    def claim(self, identity: str) -> Claim | None:
        """Take an export up.

        Args:
            identity: Of the state it is in.

        Returns:
            ``None`` when its run was started before.

        Raises:
            BusyError: Somebody is at it just now.
            AzureError: The storage does not answer.
        """
        blob = self._container.get_blob_client(identity)
        self._create(blob)
        try:
            lease = blob.acquire_lease(lease_duration=self._claim_s)
        except HttpResponseError as exc:
            if code_of(exc) != "LeaseAlreadyPresent":
                raise
            raise BusyError(
                "Another message about the same export is at work: it is looked at "
                f"again; a claim that was left behind ends within {self._claim_s} s."
            ) from None
        claim = Claim(blob, lease)
        if blob.download_blob().readall():
            claim.give_back()
            return None
        return claim

    def _create(self, blob: BlobClient) -> None:
        try:
            blob.upload_blob(b"", overwrite=False)
        except ResourceNotFoundError:
            self._make_container()
            self._create(blob)
        except HttpResponseError as exc:
            # There already, and perhaps claimed: a lease is looked at first.
            if code_of(exc) not in ("BlobAlreadyExists", "LeaseIdMissing"):
                raise

    def _make_container(self) -> None:
        try:
            self._container.create_container()
        except ResourceExistsError:
            logger.debug("Another instance has made the ledger")
