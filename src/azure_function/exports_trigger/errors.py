"""Every error the function raises on purpose; none of them holds a secret."""

from azure.core.exceptions import HttpResponseError


class TriggerError(Exception):
    """Root of them; a message that meets one is tried again."""


class SettingsError(TriggerError):
    """An app setting that is missing or cannot be; it is named."""


class BusyError(TriggerError):
    """Another message about the same export is at work just now."""


class DispatchError(TriggerError):
    """GitHub did not take the event; worth another try."""


class RefusedError(DispatchError):
    """GitHub will not take this event however often it is tried."""


class MessageError(TriggerError):
    """A message that no retry will make readable; it says why."""


def code_of(exc: HttpResponseError) -> str:
    """The code by which the storage calls what went wrong, such as ``BlobNotFound``."""
    return str(getattr(exc, "error_code", None) or "no code")
