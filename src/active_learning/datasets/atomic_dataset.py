"""A dataset of another library, saved to a temporary name and renamed."""

from collections.abc import Callable
from copy import deepcopy
from functools import wraps
from pathlib import PurePath
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from active_learning.files import file_at, is_local

# Among the arguments for a file system, those for opening a file in it.
_OF_THE_FILE = "open_args"


class AtomicDataset(AbstractDataset[Any, Any]):
    """``AtomicDataset`` saves what it wraps whole or not at all.

    ``kedro run --only-missing-outputs`` believes that a file which exists is
    complete; most datasets write in place, so a killed run would leave half a file
    that is never made again. What lies elsewhere is copied here to be read, and
    uploaded when it is whole: the wrapped dataset sees local files alone.

    Args:
        dataset: The wrapped dataset's catalog entry. Its ``filepath`` is a path, or a
            URL such as ``abfs://loop@account...``; ``credentials`` and ``fs_args`` are
            for the file system of that.
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
        options: dict[str, Any] = {}
        if not is_local(self.filepath):
            options = self._config.pop("credentials", None) or {}
            for name, value in (self._config.pop("fs_args", None) or {}).items():
                if name.startswith(_OF_THE_FILE):
                    self._config.setdefault("fs_args", {})[name] = value
                else:
                    options[name] = value
        self._file = file_at(self.filepath, options)

    def load(self) -> Any:
        """Load as the wrapped dataset does, or what ``absent`` says."""
        if self._absent is not None and not self._file.exists():
            return deepcopy(self._absent)
        try:
            with self._file.reading() as path:
                return self._wrapped(path).load()
        except FileNotFoundError as exc:
            raise DatasetError(f"There is no file at {self._file}.") from exc

    def save(self, data: Any) -> None:
        """Save beside the place, then rename, or upload in one step."""
        with self._file.replacing() as path:
            self._wrapped(path).save(data)

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
        path = PurePath(self.filepath)
        if not is_local(self.filepath):
            path = PurePath(path.name)
        shown: Callable[..., Any] = getattr(self._wrapped(path), "preview")  # noqa: B009
        if is_local(self.filepath):
            return shown

        @wraps(shown)
        def preview(*arguments: Any, **options: Any) -> Any:
            with self._file.reading() as copy:
                return self._wrapped(copy).preview(*arguments, **options)

        return preview

    def _wrapped(self, path: PurePath) -> Any:
        # Built on demand: a simulation declares thousands and touches a few at a time.
        return AbstractDataset.from_config(
            path.name, {**deepcopy(self._config), "filepath": path.as_posix()}
        )

    def _exists(self) -> bool:
        return not self._remake and self._file.exists()

    def _describe(self) -> dict[str, Any]:
        return {
            "filepath": self._config["filepath"],
            "type": self._config["type"],
            "remake": self._remake,
        }
