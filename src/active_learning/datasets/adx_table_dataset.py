"""A table in a database of Azure Data Explorer."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from active_learning.schemas import TABLES, empty_frame, to_arrow
from active_learning.services.telemetry import connect_adx

if TYPE_CHECKING:
    from active_learning.services.telemetry.azure.adx import AdxTelemetry


class AdxTableDataset(AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """``AdxTableDataset`` appends rows to a table of Azure Data Explorer.

    It gives and takes the frames that ``TableDataset`` does. A save returns when its
    rows can be read. It names them by what they hold, so that the same rows saved
    again count once, also in a table without a key. A text that is missing is empty
    when it comes back: Azure Data Explorer has no null among texts.

    Args:
        table: A name in ``active_learning.schemas.TABLES``; gives columns and types.
        database: ``https://<cluster>.<region>.kusto.windows.net/<database>``.
        inbox: Load what ``predictions`` does not have yet. A node that ``confirms``
            this dataset has nothing to delete: the table's retention does.
        load_args: ``page_rows``, how many rows come in one answer, and the times to
            wait, in seconds: ``answer_s`` for an answer, ``retry_s`` while something is
            tried again, ``visible_s`` until saved rows can be read.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            label_requests:
              type: active_learning.datasets.AdxTableDataset
              table: label_requests
              database: ${globals:telemetry.database}

        In Python:

        >>> place = "https://loop.westeurope.kusto.windows.net/loop"
        >>> AdxTableDataset(table="labels", database=place)._describe()["table"]
        'labels'
    """

    def __init__(
        self,
        *,
        table: str,
        database: str,
        inbox: bool = False,
        load_args: Mapping[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the table; nothing is connected yet."""
        if table not in TABLES:
            raise DatasetError(
                f"No table is called {table!r}; there are {sorted(TABLES)}."
            )
        if inbox and TABLES[table].key != TABLES["predictions"].key:
            raise DatasetError(
                f"The table {table!r} is no inbox of predictions: its key is "
                f"{TABLES[table].key}."
            )
        self._table = table
        self._schema = TABLES[table].schema
        self._database = database
        self._inbox = inbox
        self._load_args = dict(load_args or {})
        self._connected: AdxTelemetry | None = None
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Read the rows, once each.

        Raises:
            QueryError: The table is not there.
            SchemaError: It has other columns or types.
            SinkAwayError: The service cannot be reached now.
        """
        rows = self._telemetry().rows(self._table, inbox=self._inbox)
        frame: pd.DataFrame = (
            rows.to_pandas() if len(rows) else empty_frame(self._schema)
        )
        return frame

    def save(self, data: pd.DataFrame) -> None:
        """Append the rows, and return when they can be read.

        Raises:
            SchemaError: The rows do not fit, or the table is not what the code has.
            SinkAwayError: The service cannot be reached now; save the same once more.
        """
        rows = to_arrow(data, self._schema)
        if len(data):
            self._telemetry().append(self._table, rows)

    def confirm(self) -> None:
        """Do nothing: what was passed on is no longer loaded.

        Raises:
            DatasetError: This is no inbox.
        """
        if not self._inbox:
            raise DatasetError(
                f"The table {self._table!r} is no inbox: there is nothing to confirm. "
                "Declare it with 'inbox: true'."
            )

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first rows, for Kedro-Viz."""
        head = self._telemetry().head(self._table, nrows).to_pandas().astype(str)
        return TablePreview(head.to_dict(orient="split"))

    def _telemetry(self) -> "AdxTelemetry":
        if self._connected is None:
            said = dict(self._load_args)
            pages = said.pop("page_rows", None)
            self._connected = connect_adx(
                self._database, patience=said, page_rows=pages
            )
        return self._connected

    def _exists(self) -> bool:
        return bool(len(self._telemetry().head(self._table, 1)))

    def _describe(self) -> dict[str, Any]:
        return {
            "table": self._table,
            "database": self._database,
            "inbox": self._inbox,
        }
