"""A dataset of another library, saved to a temporary name and renamed."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro.io.core import get_protocol_and_path

from active_learning.files import replacing


class AtomicDataset(AbstractDataset[Any, Any]):
    """``AtomicDataset`` saves what it wraps whole or not at all.

    ``kedro run --only-missing-outputs`` believes that a file which exists is
    complete; most datasets write in place, so a killed run would leave half a file
    that is never made again. An object store replaces a blob in one step anyway, so
    there the wrapped dataset is used as it is.

    Args:
        dataset: The wrapped dataset's catalog entry, with a ``filepath``.
        remake: Say that the file does not exist, so that a run with
            ``--only-missing-outputs`` makes it anew: for a report on what may have
            grown since.
        absent: What loads where there is no file; ``None`` makes that an error.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            evaluation:
              type: active_learning.datasets.AtomicDataset
              dataset:
                type: json.JSONDataset
                filepath: data/07_model_output/evaluation.json

        In Python:

        >>> from tempfile import mkdtemp
        >>> target = {"type": "json.JSONDataset", "filepath": f"{mkdtemp()}/a.json"}
        >>> dataset = AtomicDataset(dataset=target)
        >>> dataset.save({"accuracy": 0.5})
        >>> dataset.load()
        {'accuracy': 0.5}
    """

    def __init__(
        self,
        *,
        dataset: dict[str, Any],
        remake: bool = False,
        absent: Any = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the place; nothing is touched before ``load`` or ``save``."""
        self._config = deepcopy(dataset)
        self._remake = remake
        self._absent = absent
        self.metadata = metadata
        protocol, path = get_protocol_and_path(dataset["filepath"])
        self._filepath = Path(path) if protocol == "file" else None

    def load(self) -> Any:
        """Load as the wrapped dataset does, or what ``absent`` says."""
        if self._absent is not None and not self._wrapped().exists():
            return deepcopy(self._absent)
        return self._wrapped().load()

    def save(self, data: Any) -> None:
        """Save beside the place, then rename."""
        if self._filepath is None:
            self._wrapped().save(data)
            return
        with replacing(self._filepath) as temporary:
            self._wrapped(filepath=temporary.as_posix()).save(data)

    @property
    def filepath(self) -> str:
        """Where the wrapped dataset is."""
        return str(self._config["filepath"])

    @property
    def preview(self) -> Callable[..., Any]:
        """The wrapped dataset's own, whose annotation tells Kedro-Viz what it shows.

        Raises:
            AttributeError: It cannot be shown.
        """
        # A property, so that hasattr says no where the wrapped dataset has none.
        shown: Callable[..., Any] = getattr(self._wrapped(), "preview")  # noqa: B009
        return shown

    def _wrapped(self, **changes: str) -> AbstractDataset[Any, Any]:
        # Built on demand: a simulation declares thousands and touches a few at a time.
        return AbstractDataset.from_config(
            self._filepath.name if self._filepath else "wrapped",
            {**deepcopy(self._config), **changes},
        )

    def _exists(self) -> bool:
        if self._remake:
            return False
        if self._filepath is not None:
            return self._filepath.exists()
        return self._wrapped().exists()

    def _describe(self) -> dict[str, Any]:
        return {
            "filepath": self._config["filepath"],
            "type": self._config["type"],
            "remake": self._remake,
        }
