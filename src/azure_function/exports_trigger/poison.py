"""Messages that are set aside: what came, and why it did no good."""

import base64
import json
import logging
from contextlib import suppress

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.queue import QueueClient

logger = logging.getLogger(__name__)


class Poison:
    """The queue of what was set aside; the host uses the same.

    A message in it is JSON with ``reason`` and ``message``. Put back into the queue as
    it is, it is read like the message inside.

    Args:
        queue: ``label-exports-poison``; is made when it is missing.
    """

    def __init__(self, queue: QueueClient) -> None:
        """Nothing is asked of the storage yet."""
        self._queue = queue

    def put(self, body: bytes, reason: str) -> None:
        """Set a message aside, for good: it does not expire.

        Args:
            body: As it came.
            reason: Why; without a secret.

        Raises:
            AzureError: It could not be: the storage is away, or the message is too long
                to carry a reason. The host then sets it aside without.
        """
        logger.error("A message is set aside in %s: %s", self._queue.queue_name, reason)
        content = json.dumps({"reason": reason, "message": _text(body)})
        try:
            self._queue.send_message(content, time_to_live=-1)
        except ResourceNotFoundError:
            # Who may only send messages may not make a queue, even one that is there.
            with suppress(ResourceExistsError):
                self._queue.create_queue()
            self._queue.send_message(content, time_to_live=-1)


def _text(body: bytes) -> str:
    """The body; as base64, which is read as well, where it is no text."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(body).decode("ascii")
