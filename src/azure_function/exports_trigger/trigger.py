"""From a message to a run of the workflow, once for each state of an export."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError, HttpResponseError
from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from exports_trigger.errors import (
    RefusedError,
    SettingsError,
    TriggerError,
    code_of,
)
from exports_trigger.events import CREATED, BlobEvent, read_message
from exports_trigger.github import Repository
from exports_trigger.ledger import Ledger
from exports_trigger.poison import Poison

# The prefix of the function's connection, whose settings the host reads too.
CONNECTION = "LABELS_STORAGE"
LEDGER = "label-events"
# What label-ingest reads; an MLTable comes with one of them.
SUFFIXES = (".json", ".jsonl", ".csv")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exports:
    """Where label exports appear.

    Attributes:
        prefix: How their names begin, inside the container.
        container: In which they are; any where it is empty.
    """

    prefix: str = "Labeling/"
    container: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """What ``AL_EXPORTS_PREFIX`` and ``AL_LABELING_CONTAINER`` say, if they do."""
        return cls(
            prefix=environ.get("AL_EXPORTS_PREFIX", cls.prefix),
            container=environ.get("AL_LABELING_CONTAINER", cls.container),
        )

    def why_not(self, event: BlobEvent) -> str:
        """Why an event is none of a label export; empty when it is."""
        if event.kind != CREATED:
            return f"it is a {event.kind}"
        if self.container and event.container != self.container:
            return f"it is not in the container {self.container!r}"
        if not event.name.startswith(self.prefix):
            return f"its name does not begin with {self.prefix!r}"
        if not event.name.lower().endswith(SUFFIXES):
            return f"its name ends with none of {', '.join(SUFFIXES)}"
        if event.size == 0:
            return "it is empty; another event comes when it is written"
        return ""


class Trigger:
    """Starts a run for each new export that a message tells of.

    Args:
        environ: The app settings that say which repository and which exports; they
            are read for each message, so that a missing one is told of with it.
        ledger: Of the runs that were started.
        poison: For what no retry helps.
        attempts: With the last of so many, a message is set aside.
    """

    def __init__(
        self, environ: Mapping[str, str], ledger: Ledger, poison: Poison, attempts: int
    ) -> None:
        """Nothing is asked of anybody yet."""
        self._environ = environ
        self._ledger = ledger
        self._poison = poison
        self._attempts = attempts

    def handle(self, body: bytes, attempt: int) -> None:
        """Start what is new in a message, or set it aside with the reason.

        Args:
            body: Of the message, as it came.
            attempt: How often it was delivered, this time included.

        Raises:
            TriggerError: Something is in the way now; another try may help.
            AzureError: The storage is.
        """
        try:
            flaws = self._start_all(body)
        except (TriggerError, AzureError) as exc:
            if attempt < self._attempts:
                raise
            flaws = [f"{_told(exc)} That was attempt {attempt} of {self._attempts}."]
        if flaws:
            more = f"{len(flaws)} parts of it are of no use; the first: "
            self._poison.put(body, f"{more if len(flaws) > 1 else ''}{flaws[0]}")

    def _start_all(self, body: bytes) -> list[str]:
        """Start what can be; return why the rest never can."""
        message = read_message(body)
        exports = Exports.from_environment(self._environ)
        flaws = list(message.flaws)
        for kind in message.others:
            logger.info("Passed over an event that is about no blob: %r", kind)
        for event in message.events:
            reason = exports.why_not(event)
            if reason:
                logger.info("Passed over %r: %s", event.url, reason)
                continue
            try:
                self._start(event)
            except RefusedError as exc:
                flaws.append(str(exc))
        return flaws

    def _start(self, event: BlobEvent) -> None:
        repository = Repository.from_environment(self._environ)
        claim = self._ledger.claim(event.identity)
        if claim is None:
            logger.info("Passed over %r: it has started a run before", event.url)
            return
        payload = {
            "url": event.url,
            "etag": event.etag,
            "event_id": event.event_id,
            "time": event.time,
        }
        try:
            repository.dispatch(payload)
        except BaseException:
            claim.give_back()
            raise
        claim.done(payload)
        logger.info("Started a run for %r", event.url)


def connect(environ: Mapping[str, str], queue: str, attempts: int) -> Trigger:
    """A trigger on the storage that the function's connection names.

    Args:
        environ: ``LABELS_STORAGE__blobServiceUri`` and ``__queueServiceUri`` with a
            managed identity, whose ``__clientId`` is told where it is user-assigned;
            or ``LABELS_STORAGE``, a connection string, on a laptop.
        queue: Whose messages are handled.
        attempts: Of the host.

    Raises:
        SettingsError: None of them is set.
    """
    connection = environ.get(CONNECTION, "")
    if connection:
        blobs = BlobServiceClient.from_connection_string(connection)
        queues = QueueServiceClient.from_connection_string(connection)
    else:
        identity = _identity(environ)
        blobs = BlobServiceClient(_uri(environ, "blob"), credential=identity)
        queues = QueueServiceClient(_uri(environ, "queue"), credential=identity)
    return Trigger(
        environ,
        Ledger(blobs.get_container_client(LEDGER)),
        Poison(queues.get_queue_client(f"{queue}-poison")),
        attempts,
    )


def _identity(environ: Mapping[str, str]) -> TokenCredential:
    client = environ.get(f"{CONNECTION}__clientId")
    said = {"managed_identity_client_id": client} if client else {}
    return DefaultAzureCredential(**said)


def _uri(environ: Mapping[str, str], service: str) -> str:
    name = f"{CONNECTION}__{service}ServiceUri"
    uri = environ.get(name, "").strip()
    if not uri:
        raise SettingsError(
            f"The app setting {name} is missing: https://ACCOUNT.{service}.core."
            "windows.net."
        )
    return uri


def _told(exc: Exception) -> str:
    """What happened; of the storage's own words the code alone, as they hold URLs."""
    if isinstance(exc, HttpResponseError):
        return f"The storage answered {exc.status_code} ({code_of(exc)})."
    if isinstance(exc, AzureError):
        return f"The storage could not be asked: {type(exc).__name__}."
    return str(exc)
