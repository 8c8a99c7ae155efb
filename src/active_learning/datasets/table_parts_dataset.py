"""A table's parts, to be looked after."""

from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from active_learning.schemas import TABLES
from active_learning.services.telemetry.parts import Parts


class TablePartsDataset(AbstractDataset[NoReturn, Parts]):
    """``TablePartsDataset`` gives the parts of a table, for what merges them.

    Loading reads no row.

    Args:
        table: A name in ``active_learning.schemas.TABLES``.
        path: The folder.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            embedding_parts:
              type: active_learning.datasets.TablePartsDataset
              table: embeddings
              path: data/03_primary/embeddings

        In Python:

        >>> TablePartsDataset(table="embeddings", path="nowhere").load().current()
        []
    """

    def __init__(
        self, *, table: str, path: str, metadata: dict[str, Any] | None = None
    ) -> None:
        """Describe the folder."""
        if table not in TABLES:
            raise DatasetError(
                f"No table is called {table!r}; there are {sorted(TABLES)}."
            )
        self._table = table
        self._path = Path(path)
        self.metadata = metadata

    def load(self) -> Parts:
        """Give the parts; they are looked at when somebody asks."""
        return Parts(self._path, self._table)

    def save(self, data: NoReturn) -> None:
        """Refuse: rows are appended to the table itself."""
        raise DatasetError(
            "TablePartsDataset is read-only: declare a TableDataset on the same folder."
        )

    def _exists(self) -> bool:
        return bool(self.load().current())

    def _describe(self) -> dict[str, Any]:
        return {"table": self._table, "path": str(self._path)}
