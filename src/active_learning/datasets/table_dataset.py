"""A table as a folder of Parquet parts."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from active_learning.errors import SchemaError
from active_learning.files import replacing
from active_learning.schemas import TABLES, empty_frame, to_arrow


class TableDataset(AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """``TableDataset`` appends rows to a table and reads all of it.

    A table is a folder of Parquet parts. Each save adds one part, written to a
    temporary name and renamed: many processes may append while others read, and a
    killed writer leaves nothing behind. No part yet is an empty table, not an error.

    Args:
        table: A name in ``active_learning.schemas.TABLES``; gives columns and types.
        path: The folder.
        part: The name of the only part this dataset speaks of, saved once more by
            replacing it; ``None`` adds a new part at each save and reads all.
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
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the folder; it is made by the first save."""
        if table not in TABLES:
            raise DatasetError(
                f"No table is called {table!r}; there are {sorted(TABLES)}."
            )
        self._table = table
        self._schema, self._key = TABLES[table]
        self._path = Path(path)
        self._part = part
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Read the rows, once each: a row that was appended twice counts once.

        Raises:
            SchemaError: A part is damaged; it is named, with what to do about it.
        """
        parts = self._parts()
        if not parts:
            return empty_frame(self._schema)
        rows = pa.concat_tables([self._read(part) for part in parts])
        frame: pd.DataFrame = rows.to_pandas()
        if self._key is None:
            return frame
        return frame.drop_duplicates(self._key, ignore_index=True)

    def save(self, data: pd.DataFrame) -> None:
        """Append the rows as one part; no rows, no part, unless it has a name."""
        rows = to_arrow(data, self._schema)
        if self._part is None and not len(data):
            return
        name = self._part or uuid4().hex
        with replacing(self._path / f"{name}.parquet") as temporary:
            pq.write_table(rows, temporary)

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first rows, for Kedro-Viz."""
        head = self.load().head(nrows).astype(str)
        return TablePreview(head.to_dict(orient="split"))

    def _read(self, part: Path) -> pa.Table:
        try:
            rows = pq.read_table(part)
        except (pa.ArrowInvalid, OSError) as exc:
            raise SchemaError(
                f"The part {part.name!r} of the table {self._table!r} in "
                f"{self._path} cannot be read: {exc}. Move it out of the folder; "
                "the other parts hold their own rows."
            ) from exc
        missing = [n for n in self._schema.names if n not in rows.column_names]
        if missing:
            raise SchemaError(
                f"The part {part.name!r} of the table {self._table!r} lacks {missing}."
            )
        return rows.select(self._schema.names).cast(self._schema)

    def _parts(self) -> list[Path]:
        if self._part is not None:
            part = self._path / f"{self._part}.parquet"
            return [part] if part.exists() else []
        return sorted(
            part
            for part in self._path.glob("*.parquet")
            if not part.name.startswith(".")
        )

    def _exists(self) -> bool:
        return bool(self._parts())

    def _describe(self) -> dict[str, Any]:
        return {"table": self._table, "path": str(self._path), "part": self._part}
