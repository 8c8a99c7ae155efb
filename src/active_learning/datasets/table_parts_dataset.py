"""A table's parts, to be looked after."""

from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from kedro.io import AbstractDataset, DatasetError

from active_learning.schemas import TABLES
from active_learning.services.telemetry.parts import Compaction, Parts


class EngineParts(NamedTuple):
    """Parts that their engine merges by itself, as Azure Data Explorer its extents."""

    table: str

    def current(self) -> list[Path]:
        """None that anybody else could touch."""
        return []

    def compact(self, at_least: int, target_rows: int, grace_s: float) -> Compaction:
        """Do nothing: nothing is left to merge or to delete."""
        return Compaction(merged=0, n_rows=0, doubles=0, deleted=0)


class TablePartsDataset(AbstractDataset[NoReturn, Parts | EngineParts]):
    """``TablePartsDataset`` gives the parts of a table, for what merges them.

    Loading reads no row.

    Args:
        table: A name in ``active_learning.schemas.TABLES``.
        path: The folder; ``None`` for a table whose engine merges its parts itself.
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
        self, *, table: str, path: str | None, metadata: dict[str, Any] | None = None
    ) -> None:
        """Describe the folder."""
        if table not in TABLES:
            raise DatasetError(
                f"No table is called {table!r}; there are {sorted(TABLES)}."
            )
        self._table = table
        self._path = None if path is None else Path(path)
        self.metadata = metadata

    def load(self) -> Parts | EngineParts:
        """Give the parts; they are looked at when somebody asks."""
        if self._path is None:
            return EngineParts(self._table)
        return Parts(self._path, self._table)

    def save(self, data: NoReturn) -> None:
        """Refuse: rows are appended to the table itself."""
        raise DatasetError(
            "TablePartsDataset is read-only: declare a TableDataset on the same folder."
        )

    def _exists(self) -> bool:
        return self._path is None or bool(self.load().current())

    def _describe(self) -> dict[str, Any]:
        return {
            "table": self._table,
            "path": None if self._path is None else str(self._path),
        }
