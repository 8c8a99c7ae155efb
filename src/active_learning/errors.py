"""Every error this package raises on purpose.

::

    ActiveLearningError
    ├── DataError              what was read is not what was promised
    │   ├── ImageError         an image that cannot be used, and why
    │   ├── ImageIdError       a name that is no place inside the image store
    │   ├── SchemaError        a table with a missing column or a wrong value
    │   │   └── PredictionsError
    │   ├── LabelsError        labels that contradict each other or the images
    │   └── FrozenError        a second, different value for what is written once
    │       └── TestSetError   the test set leaks into training or selection
    ├── SettingsError          parameters that cannot hold together
    │   └── UnknownNameError   a strategy, model or trainer nobody knows
    ├── CheckpointError        a model file that cannot be trusted or continued
    │   └── ExportError        an inference model that is not what it was made from
    ├── TrainingError          a training elsewhere that failed, or cannot be reached
    ├── EndpointError          a release that could not be made, tested or taken back
    ├── RequestError           a request that cannot be answered, and its HTTP status
    ├── LabelingError          a labeling tool that cannot be started, or refuses
    │   └── LabelingAwayError  it cannot be reached now; worth another try
    ├── TelemetryError         predictions that could not be collected or asked about
    │   ├── SpoolFullError     a prediction that was answered but not collected
    │   ├── SinkAwayError      the table cannot be reached now; worth another try
    │   └── QueryError         a question that the engine does not understand
    └── NoImagesError          there are no images yet, and how to get some
"""

from collections.abc import Iterable
from difflib import get_close_matches


class ActiveLearningError(Exception):
    """Root of every error that this package raises on purpose."""


class DataError(ActiveLearningError):
    """What was read is not what was promised."""


class ImageError(DataError):
    """An image that cannot be used; the message is the reason, for a set-aside list."""


class ImageIdError(DataError):
    """An ``image_id`` that is no place inside the image store."""


class SchemaError(DataError):
    """A table with a missing column or a value outside its promise."""


class PredictionsError(SchemaError):
    """Predictions that are not probability vectors, or not one row per image."""


class LabelsError(DataError):
    """Labels that contradict each other or the images they speak of."""


class FrozenError(DataError):
    """A second, different value for what is written once."""


class TestSetError(FrozenError):
    """The frozen test set leaks into training or selection, or was changed."""

    __test__ = False  # a name that starts with Test is no test of pytest's


class SettingsError(ActiveLearningError):
    """Parameters that cannot hold together."""


class UnknownNameError(SettingsError):
    """A strategy, model or trainer nobody knows."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        """Say what was asked for, what is nearest and all that there is."""
        known = sorted(known)
        near = get_close_matches(name, known, n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        super().__init__(
            f"No {kind} is called {name!r}.{hint} Known: {', '.join(known)}; "
            "a dotted path such as 'my_package.my_module.my_function' works too."
        )


class CheckpointError(ActiveLearningError):
    """A model file that cannot be trusted or continued."""


class ExportError(CheckpointError):
    """An inference model that does not answer as the model it was made from."""


class TrainingError(ActiveLearningError):
    """A training elsewhere that failed, was canceled, or cannot be reached."""


class EndpointError(ActiveLearningError):
    """A release that could not be made, tested or taken back; the old one goes on."""


class RequestError(ActiveLearningError):
    """A request that cannot be answered.

    Attributes:
        status: Of HTTP: 4xx, or 503 where no model is ready.
    """

    def __init__(self, status: int, reason: str) -> None:
        """Keep what the caller is told."""
        super().__init__(reason)
        self.status = status


class LabelingError(ActiveLearningError):
    """A labeling tool that cannot be started, refuses, or holds something else."""


class LabelingAwayError(LabelingError):
    """It cannot be reached now; the same again is worth another try."""


class TelemetryError(ActiveLearningError):
    """Predictions that could not be collected or asked about."""


class SpoolFullError(TelemetryError):
    """A prediction that was answered but not collected: the spool has no room."""


class SinkAwayError(TelemetryError):
    """The table cannot be reached now; the same rows are worth another try."""


class QueryError(TelemetryError):
    """A question that the engine does not understand, or a value it cannot bind."""


class NoImagesError(ActiveLearningError):
    """There are no images yet, and how to get some."""
