"""The answer to a question in KQL."""

from collections.abc import Mapping
from typing import Any, Literal, NoReturn

import pandas as pd
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from active_learning.errors import QueryError
from active_learning.queries import names, query_text
from active_learning.services.telemetry import connect


class KqlDataset(AbstractDataset[NoReturn, pd.DataFrame]):
    """``KqlDataset`` reads the answer to a KQL query.

    One query text runs on Azure Data Explorer and on an embedded DuckDB; ``backend``
    chooses, and no node can tell which.

    Args:
        query: The name of a query in ``active_learning.queries``, or KQL itself.
        backend: ``local``, files asked by DuckDB, or ``azure``, a database of Azure
            Data Explorer.
        database: Where the tables are: the folder that has a folder for each, or
            ``https://<cluster>.<region>.kusto.windows.net/<database>``.
        tables: Tables that lie in other places, by name: a folder of parts, or one
            Parquet file. Only of ``local``: on ``azure`` all are in the database.
        parameters: Values for what the query declares, by name; bound, never pasted
            in. A query's parameters are ``string`` or ``long``: other numbers are
            given as text, nothing as empty text, yes and no as 1 and 0.
        load_args: For the backend; ``local`` takes ``memory``, such as ``1GB``, and
            ``cache``, a folder. Both mean nothing to ``azure``.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            daily_volume:
              type: active_learning.datasets.KqlDataset
              query: activity
              backend: local
              database: data/03_primary
              parameters: {window_days: 7, until: ""}

        In Python:

        >>> query = "print N = 6 * 7"
        >>> answer = KqlDataset(query=query, backend="local", database="nowhere").load()
        >>> answer["N"].item()
        42
    """

    def __init__(
        self,
        *,
        query: str,
        backend: Literal["local", "azure"],
        database: str,
        tables: Mapping[str, str] | None = None,
        parameters: Mapping[str, object] | None = None,
        load_args: Mapping[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the question; nothing is connected yet."""
        self._query = query
        self._backend = backend
        self._database = database
        self._tables = dict(tables or {})
        self._parameters = {
            name: _bindable(name, value) for name, value in (parameters or {}).items()
        }
        self._load_args = dict(load_args or {})
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Run the query; values are bound as parameters, never pasted in.

        Raises:
            QueryError: The text or a parameter does not fit.
            SinkAwayError: The service cannot be reached now.
        """
        service = connect(
            self._backend, self._database, tables=self._tables, **self._load_args
        )
        text = query_text(self._query) if self._query in names() else self._query
        return service.query(text, self._parameters)

    def save(self, data: NoReturn) -> None:
        """Refuse: a query is not a place."""
        raise DatasetError(
            f"{type(self).__name__} is read-only: a query is not a place to save to. "
            "Declare a TableDataset on the same folder, or an AdxTableDataset on the "
            "same database."
        )

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first rows, for Kedro-Viz."""
        head = self.load().head(nrows).astype(str)
        return TablePreview(head.to_dict(orient="split"))

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {
            "query": self._query,
            "backend": self._backend,
            "database": self._database,
            "parameters": self._parameters,
        }


def _bindable(name: str, value: object) -> str | int:
    match value:
        case bool() | int():
            return int(value)
        case str():
            return value
        case float():
            return repr(value)
        case None:
            return ""
    raise QueryError(
        f"The parameter {name!r} holds {value!r}; a query binds text and numbers. "
        "Give a list as JSON text and take it apart with parse_json()."
    )
