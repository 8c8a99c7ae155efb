"""A table as a folder of Parquet parts."""

from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from active_learning.schemas import TABLES, UNLIKE, empty_frame, to_arrow
from active_learning.services.telemetry.parts import Parts
from active_learning.texts import to_frame


class TableDataset(AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """``TableDataset`` appends rows to a table and reads all of it.

    A table is a folder of Parquet parts. Each save adds one part, written to a
    temporary name and renamed: many processes may append while others read, and a
    killed writer leaves nothing behind. The same rows saved again are the same part. No
    part yet is an empty table, not an error.

    Args:
        table: A name in ``active_learning.schemas.TABLES``; gives columns and types.
        path: The folder.
        part: The name of the only part this dataset speaks of, saved once more by
            replacing it; ``None`` adds a new part at each save and reads all.
        texts: Who holds them once they are loaded: ``python``, as objects, or
            ``arrow``, where they lie: a fraction of the time, for nodes that look at
            columns and never at single rows.
        inbox: A node that ``confirms`` this dataset has passed its rows on: the parts
            that were loaded are deleted then, and not before.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            label_requests:
              type: active_learning.datasets.TableDataset
              table: label_requests
              path: data/03_primary/label_requests

        In Python:

        >>> from tempfile import mkdtemp
        >>> table = TableDataset(table="set_aside", path=mkdtemp())
        >>> table.save(pd.DataFrame({"image_id": ["a.png"], "reason": ["empty"]}))
        >>> table.save(pd.DataFrame({"image_id": ["b.png"], "reason": ["cut off"]}))
        >>> sorted(table.load()["image_id"])
        ['a.png', 'b.png']
    """

    def __init__(
        self,
        *,
        table: str,
        path: str,
        part: str | None = None,
        texts: Literal["python", "arrow"] = "python",
        inbox: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the folder; it is made by the first save."""
        if table not in TABLES:
            raise DatasetError(
                f"No table is called {table!r}; there are {sorted(TABLES)}."
            )
        self._table = table
        self._path = Path(path)
        self._parts = Parts(self._path, table)
        self._part = part
        self._texts = texts
        self._inbox = inbox
        self._loaded: list[Path] = []
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Read the rows, once each: a row that was appended twice counts once.

        Raises:
            SchemaError: A part does not fit; it is named, with what to do about it.
        """
        rows = self._read()
        if not len(rows):
            return empty_frame(self._parts.schema)
        if self._texts == "arrow":
            return to_frame(rows)
        # Equal texts become one object, where there are some.
        columns = {
            name: rows.column(name).to_pandas(deduplicate_objects=name not in UNLIKE)
            for name in rows.column_names
        }
        return pd.DataFrame(columns, copy=False)

    def save(self, data: pd.DataFrame) -> None:
        """Append the rows as one part; no rows, no part, unless it has a name."""
        rows = to_arrow(data, self._parts.schema)
        if self._part is not None or len(data):
            self._parts.append(rows, self._part)

    def confirm(self) -> None:
        """Delete the parts that were loaded: their rows are safe elsewhere.

        Raises:
            DatasetError: This is no inbox.
        """
        if not self._inbox:
            raise DatasetError(
                f"The table {self._table!r} in {self._path} is no inbox: nothing is "
                "deleted from it. Declare it with 'inbox: true'."
            )
        self._parts.remove(self._loaded)
        self._loaded = []

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first rows, for Kedro-Viz."""
        head = self._read().slice(0, nrows).to_pandas().astype(str)
        return TablePreview(head.to_dict(orient="split"))

    def _read(self) -> pa.Table:
        if self._part is None and not self._inbox:
            # Reads once more what a compaction replaces meanwhile.
            return self._parts.read()
        self._loaded = self._current()
        return self._parts.read(self._loaded)

    def _current(self) -> list[Path]:
        if self._part is None:
            return self._parts.current()
        part = self._path / f"{self._part}.parquet"
        return [part] if part.exists() else []

    def _exists(self) -> bool:
        return bool(self._current())

    def _describe(self) -> dict[str, Any]:
        return {
            "table": self._table,
            "path": str(self._path),
            "part": self._part,
            "inbox": self._inbox,
        }
