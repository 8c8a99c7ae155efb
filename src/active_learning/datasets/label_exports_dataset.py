"""What came back from the labelers."""

from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from active_learning.errors import SchemaError


class LabelExportsDataset(AbstractDataset[NoReturn, dict[str, pd.DataFrame]]):
    r"""``LabelExportsDataset`` reads the CSV files that labelers leave in a folder.

    Each file is a batch, named by its stem. It has a header with at least
    ``image_id`` and ``label``; ``labeler``, ``labeled_at`` (ISO 8601) and
    ``request_id`` are used where they are given. No folder is no answer yet.

    Args:
        path: The folder.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            label_exports:
              type: active_learning.datasets.LabelExportsDataset
              path: data/01_raw/label_exports

        In Python:

        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp())
        >>> _ = (folder / "monday.csv").write_text("image_id,label\na.png,cat\n")
        >>> LabelExportsDataset(path=str(folder)).load()["monday"]["label"].item()
        'cat'
    """

    def __init__(self, *, path: str, metadata: dict[str, Any] | None = None) -> None:
        """Describe the folder; it is read by ``load``."""
        self._path = Path(path)
        self.metadata = metadata

    def load(self) -> dict[str, pd.DataFrame]:
        """Read every file; the answers by the name of their batch.

        Raises:
            SchemaError: A file is no CSV, or lacks a column; it is named.
        """
        return {file.stem: _read(file) for file in sorted(self._path.glob("*.csv"))}

    def save(self, data: NoReturn) -> None:
        """Refuse: answers come from labelers."""
        raise DatasetError(
            f"LabelExportsDataset is read-only: put a CSV file into {self._path}."
        )

    def _exists(self) -> bool:
        return any(self._path.glob("*.csv"))

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path)}


def _read(file: Path) -> pd.DataFrame:
    try:
        # "NA" and "null" are class names like any other.
        answers = pd.read_csv(
            file, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError) as exc:
        raise SchemaError(f"The label export {file.name!r} is no CSV: {exc}") from exc
    missing = [c for c in ("image_id", "label") if c not in answers.columns]
    if missing:
        raise SchemaError(
            f"The label export {file.name!r} lacks the columns {missing}; "
            f"it has {list(answers.columns)}."
        )
    return answers.assign(source="csv")
