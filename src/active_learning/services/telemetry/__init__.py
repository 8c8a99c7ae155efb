"""Telemetry: what a model says in production is collected, kept and asked about.

``Sink`` and ``QueryService`` are what the rest relies on; ``local`` gives both on a
folder of Parquet parts, ``azure`` on a database of Azure Data Explorer. ``collector``
takes predictions one at a time, through a durable spool, or a frame of them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pandas as pd
import pyarrow as pa

from active_learning.errors import SettingsError, UnknownNameError

if TYPE_CHECKING:
    from active_learning.services.telemetry.azure.adx import AdxTelemetry


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


_BACKENDS = ["azure", "local"]


def connect(
    backend: str,
    database: str,
    *,
    tables: Mapping[str, str],
    memory: str = "",
    cache: str | None = None,
) -> QueryService:
    """What answers questions about the tables of a database.

    ``tables``, ``memory`` and ``cache`` are for ``local``: on ``azure`` every table is
    in the database, and the service's own limits hold.

    Args:
        backend: ``local`` or ``azure``.
        database: A folder that has a folder for each table, or the URL of a cluster
            with the name of a database behind it.
        tables: Tables that lie in other places, by name.
        memory: How much the engine may use before it puts something on disk, such as
            ``1GB``; empty for its own choice.
        cache: A folder for what a query becomes; ``None`` keeps nothing.

    Raises:
        UnknownNameError: No backend has that name.
        SettingsError: ``database`` is none of that backend's.
    """
    if backend == "local":
        # DuckDB and the KQL parser are for those who ask.
        from active_learning.services.telemetry.local import LocalTelemetry

        elsewhere = {name: Path(place) for name, place in tables.items()}
        return LocalTelemetry(
            Path(database), elsewhere, memory, Path(cache) if cache else None
        )
    if backend == "azure":
        return connect_adx(database)
    raise UnknownNameError("telemetry backend", backend, _BACKENDS)


def connect_sink(backend: str, database: str) -> Sink:
    """Where a service's rows go, a few at a time.

    On ``azure`` they are streamed, or queued where that is not taken. It gives up
    sooner than a pipeline does: its rows wait in a spool meanwhile.

    Args:
        backend: ``local`` or ``azure``.
        database: As for ``connect``.

    Raises:
        UnknownNameError: No backend has that name.
        SettingsError: ``database`` is none of that backend's.
    """
    if backend == "local":
        from active_learning.services.telemetry.local import LocalTelemetry

        return LocalTelemetry(Path(database).absolute())
    if backend == "azure":
        return connect_adx(
            database, streaming=True, patience={"answer_s": 30, "retry_s": 10}
        )
    raise UnknownNameError("telemetry backend", backend, _BACKENDS)


def connect_adx(
    database: str,
    *,
    streaming: bool = False,
    patience: Mapping[str, float] | None = None,
    page_rows: int | None = None,
) -> "AdxTelemetry":
    """A database of Azure Data Explorer; nothing is asked yet.

    Args:
        database: ``https://<cluster>.<region>.kusto.windows.net/<database>``.
        streaming: Append by streaming, and queue what it does not take.
        patience: Seconds, by name: ``answer_s`` for one answer, ``retry_s`` while
            something is tried again, ``visible_s`` until what was queued can be read.
        page_rows: How many rows come in one answer when a whole table is read.

    Raises:
        SettingsError: That is no database, an unknown name, or no time; or the extra
            ``azure`` is not installed.
    """
    try:
        # The libraries take half a second, and are none of a laptop's.
        from active_learning.services.telemetry.azure.adx import AdxTelemetry
        from active_learning.services.telemetry.azure.faults import Patience
    except ModuleNotFoundError as exc:
        raise SettingsError(
            f"Telemetry on 'azure' needs an optional dependency, {exc.name!r}: "
            "pip install 'active-learning-loop[azure]'"
        ) from exc
    said = dict(patience or {})
    wrong = [
        name
        for name, value in said.items()
        if name not in Patience._fields or not value > 0
    ]
    if wrong:
        raise SettingsError(
            f"{len(wrong)} of the times to wait cannot be used; the first is "
            f"{wrong[0]}={said[wrong[0]]!r}. There are {', '.join(Patience._fields)}, "
            "each a number of seconds above 0."
        )
    if page_rows is not None and page_rows < 1:
        raise SettingsError(f"page_rows={page_rows} is no number of rows.")
    more = {} if page_rows is None else {"page_rows": page_rows}
    return AdxTelemetry(
        database, streaming=streaming, patience=Patience(**said), **more
    )
