"""A table that is replaced whole at each run."""

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from active_learning import schemas
from active_learning.files import file_at
from active_learning.services.telemetry.parts import fit


class SnapshotDataset(AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """``SnapshotDataset`` keeps the present state of something as one Parquet file.

    Unlike a ``TableDataset`` it does not grow: a save replaces what was there, whole or
    not at all. No file yet is a table without rows, not an error.

    Args:
        schema: The name of a schema in ``active_learning.schemas``.
        filepath: The file: a path, or a URL such as ``abfs://loop@account...``.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            disputed_labels:
              type: active_learning.datasets.snapshot_dataset.SnapshotDataset
              schema: DISPUTED_LABELS
              filepath: data/03_primary/disputed_labels.parquet

        In Python:

        >>> from tempfile import mkdtemp
        >>> path = f"{mkdtemp()}/disputed_labels.parquet"
        >>> disputes = SnapshotDataset(schema="DISPUTED_LABELS", filepath=path)
        >>> disputes.load().empty
        True
    """

    def __init__(
        self, *, schema: str, filepath: str, metadata: dict[str, Any] | None = None
    ) -> None:
        """Describe the file; nothing is read yet."""
        found = getattr(schemas, schema, None)
        if not isinstance(found, pa.Schema):
            raise DatasetError(f"active_learning.schemas has no schema {schema!r}.")
        self._name = schema
        self._schema = found
        self._file = file_at(filepath)
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Read the rows; none where nothing was saved yet.

        Raises:
            SchemaError: A column has another type than the schema's.
        """
        if not self._file.exists():
            return schemas.empty_frame(self._schema)
        with self._file.reading() as path:
            rows = fit(pq.read_table(path), self._schema, str(self._file))
        frame: pd.DataFrame = rows.to_pandas()
        return frame

    def save(self, data: pd.DataFrame) -> None:
        """Put these rows in the place of those that were there."""
        rows = schemas.to_arrow(data, self._schema)
        with self._file.replacing() as temporary:
            pq.write_table(rows, temporary)

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first rows, for Kedro-Viz."""
        head = self.load().head(nrows).astype(str)
        return TablePreview(head.to_dict(orient="split"))

    def _exists(self) -> bool:
        return self._file.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._file), "schema": self._name}
