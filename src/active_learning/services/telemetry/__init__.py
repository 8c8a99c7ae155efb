"""Telemetry: what a model says in production is collected, kept and asked about.

``Sink`` and ``QueryService`` are what the rest relies on; ``local`` gives both on a
folder of Parquet parts. ``collector`` takes predictions one at a time, through a
durable spool, or a frame of them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pandas as pd
import pyarrow as pa

from active_learning.errors import UnknownNameError


class Sink(Protocol):
    """Where rows of a table go."""

    def append(self, table: str, rows: pa.Table, batch: str) -> None:
        """Add rows.

        Args:
            table: A name in ``active_learning.schemas.TABLES``.
            rows: In its columns and types.
            batch: Names these rows. The same batch sent again counts once.

        Raises:
            SinkAwayError: The table cannot be reached now; nothing was added.
            SchemaError: The rows will never fit; nothing was added.
        """


class QueryService(Protocol):
    """What answers questions in KQL."""

    def query(self, text: str, parameters: Mapping[str, str | int]) -> pd.DataFrame:
        """Run one query.

        Args:
            text: KQL with ``declare query_parameters``.
            parameters: Values by name; bound, never pasted in.

        Raises:
            QueryError: The text or a parameter does not fit.
        """


def connect(
    backend: str,
    database: str,
    *,
    tables: Mapping[str, str],
    memory: str = "",
    cache: str | None = None,
) -> QueryService:
    """What answers questions about the tables of a database.

    Args:
        backend: ``local``.
        database: A folder that has a folder for each table.
        tables: Tables that lie in other places, by name.
        memory: How much the engine may use before it puts something on disk, such as
            ``1GB``; empty for its own choice.
        cache: A folder for what a query becomes; ``None`` keeps nothing.

    Raises:
        UnknownNameError: No backend has that name.
    """
    if backend == "local":
        # DuckDB and the KQL parser are for those who ask.
        from active_learning.services.telemetry.local import LocalTelemetry

        elsewhere = {name: Path(place) for name, place in tables.items()}
        return LocalTelemetry(
            Path(database), elsewhere, memory, Path(cache) if cache else None
        )
    raise UnknownNameError("telemetry backend", backend, ["local"])
