"""Telemetry on Azure Data Explorer: the same tables, asked and filled by HTTP."""

import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from io import BytesIO
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
from azure.kusto.data import ClientRequestProperties
from azure.kusto.data.data_format import DataFormat, IngestionMappingKind
from azure.kusto.ingest import IngestionProperties, StreamDescriptor

from active_learning.errors import QueryError, SchemaError, SinkAwayError
from active_learning.schemas import TABLES
from active_learning.services.adx_tables.commands import landing, mapping
from active_learning.services.adx_tables.names import columns
from active_learning.services.telemetry.azure import questions
from active_learning.services.telemetry.azure.clients import (
    APPLICATION,
    Clients,
    Database,
    clients,
)
from active_learning.services.telemetry.azure.faults import (
    Fault,
    GivenUp,
    Kind,
    Patience,
    retried,
)
from active_learning.services.telemetry.azure.wire import (
    Answer,
    check_numbers,
    compressed,
    to_frame,
    to_lines,
    to_table,
)
from active_learning.services.telemetry.declarations import declared
from active_learning.services.telemetry.kql import Translation
from active_learning.services.telemetry.parts import once

logger = logging.getLogger(__name__)

# So many rows make one blob: a batch of millions is never in memory as text.
_PART_ROWS = 50_000
# What the service takes by streaming in one request; more is queued.
STREAMED_BYTES = 4 * 1024 * 1024
_MAKE_TABLES = "Make the tables with `make azure-tables ARGS=--apply`."
_WAYS_OUT = {
    Kind.FORBIDDEN: "Sign in with `az login`, or let the identity that runs this be "
    "both viewer and ingestor of the database.",
    Kind.EXPIRED: "Sign in again with `az login`; a clock that is wrong does this too.",
    Kind.NO_TABLE: _MAKE_TABLES,
    Kind.NO_CLUSTER: "Look at AL_ADX_CLUSTER and AL_ADX_DATABASE.",
}
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.05, 10.0


class AdxTelemetry:
    """A database of Azure Data Explorer; both a ``Sink`` and a ``QueryService``.

    Rows of a table with a key go to its landing table, and whoever asks the table sees
    each key once. Before the first rows of a process the cluster's columns are compared
    with ``schemas.TABLES``.

    Args:
        database: ``https://<cluster>.<region>.kusto.windows.net/<database>``.
        streaming: Append by streaming ingestion, whose rows can be read at once; what
            it does not take is queued. Without it, all is queued.
        patience: How long is waited for what.
        page_rows: How many rows come in one answer when a whole table is read.
    """

    def __init__(
        self,
        database: str,
        *,
        streaming: bool = False,
        patience: Patience = Patience(),  # noqa: B008  # immutable
        page_rows: int = 50_000,
    ) -> None:
        """Describe the place; nothing is asked yet."""
        self._database = Database.of(database)
        self._streaming = streaming
        self._patience = patience
        self._page_rows = page_rows
        self._checked: set[str] = set()

    def query(self, text: str, parameters: Mapping[str, str | int]) -> pd.DataFrame:
        """Run one query; values are bound as parameters, never pasted in.

        Raises:
            QueryError: The text or a parameter does not fit, or the service refuses it.
            SinkAwayError: The service cannot be reached now.
        """
        known = Translation(text, declared(text))
        return to_frame(self._ask(text, known.bind(parameters)))

    def append(self, table: str, rows: pa.Table, batch: str | None = None) -> None:
        """Add rows and wait until they can be read.

        What was queued and is not seen in time was not lost: the service still has it,
        and the same batch sent again counts once.

        Args:
            table: A name in ``active_learning.schemas.TABLES``.
            rows: In its columns and types.
            batch: Names these rows; ``None`` names them by all that they hold.

        Raises:
            SinkAwayError: The table cannot be reached now, or the rows cannot be seen
                yet; send the same rows again under the same name.
            SchemaError: The rows will never fit, or the cluster's table is not what
                the code has; nothing was added. A table that differs is no fault of
                rows that come by streaming: they wait, by ``SinkAwayError``.
        """
        self._refuse_other_columns(table, rows)
        if not rows.num_rows:
            return
        check_numbers(rows)
        self._check_once(table)
        queued: list[tuple[pa.Table, str]] = []
        for start in range(0, rows.num_rows, _PART_ROWS):
            part = rows.slice(start, _PART_ROWS)
            lines = to_lines(part)
            name = batch or questions.batch_of(part, lines)
            name = f"{name}-{start}" if start else name
            if self._streaming and self._streamed(table, part, lines, name):
                continue
            self._queue(table, part, lines, name)
            queued.append((part, name))
        for part, name in queued:
            self._wait_until_seen(table, part, name)

    def rows(self, table: str, *, inbox: bool = False) -> pa.Table:
        """All rows of a table, once each, in the order of their names.

        What one answer cannot hold is read in pages, so that neither the service's
        limits on an answer (500,000 rows, 64 MB) nor memory for its text are met. Rows
        that are added meanwhile may be among them.

        Args:
            table: A name in ``active_learning.schemas.TABLES``.
            inbox: Leave out what ``predictions`` has already.

        Raises:
            QueryError: The table is not there.
            SchemaError: It has other columns or types.
            SinkAwayError: The service cannot be reached now.
        """
        schema, key = TABLES[table]
        every = questions.rows_of(table, inbox)
        n_rows = int(self._ask(f"{every}\n| count", {}).rows[0][0])
        texts = (
            questions.page_of(table, inbox, digits) if digits else every
            for digits in questions.pages(n_rows, self._page_rows)
        )
        found = [to_table(self._ask(text, {}), schema) for text in texts]
        every_row = once(pa.concat_tables([schema.empty_table(), *found]), key)
        # The service gives rows in no order; a run is to be repeatable.
        return every_row.sort_by(
            [(name, "ascending") for name in questions.identity(table)]
        )

    def head(self, table: str, n_rows: int) -> pa.Table:
        """Some rows of a table."""
        answer = self._ask(f"{table}\n| take {int(n_rows)}", {})
        return to_table(answer, TABLES[table].schema)

    def has(self, table: str, rows: pa.Table) -> bool:
        """Whether these rows can be read, by their names; a sample of many."""
        if not rows.num_rows:
            return True
        question, wanted = questions.missing_of(table, rows)
        return int(self._ask(question.text, question.values).rows[0][0]) == wanted

    def check(self, table: str) -> None:
        """Compare the cluster's columns with the code's.

        Raises:
            SchemaError: A column is missing, unknown or of another type; all are named.
            QueryError: The table is not there.
        """
        wanted = columns(TABLES[table].schema)
        wrong: list[str] = []
        for place in dict.fromkeys((landing(table, TABLES[table]), table)):
            answer = self._ask(questions.columns_of(place), {})
            there = {str(name): str(kind) for name, kind in answer.rows}
            wrong += _differences(place, wanted, there)
        if wrong:
            raise SchemaError(
                f"{len(wrong)} columns of {table!r} in {self._database} are not what "
                f"the code has: {'; '.join(wrong)}. Nothing was added. {_MAKE_TABLES} "
                "It adds what is missing; a changed type needs a new name."
            )

    # --- one request ---

    def _ask(self, text: str, values: Mapping[str, str | int]) -> Answer:
        def ask() -> Answer:
            said = self._properties()
            # A table may be larger than what the service cuts answers at.
            said.set_option("notruncation", value=True)
            said.set_option("request_readonly", value=True)
            for name, value in values.items():
                said.set_parameter(name, str(value))
            found = self._clients().engine.execute_query(
                self._database.name, text, said
            )
            (answer,) = found.primary_results
            kinds = [(each.column_name, each.column_type) for each in answer.columns]
            return Answer(kinds, answer.raw_rows)

        try:
            return retried(ask, self._patience.retry_s)
        except GivenUp as exc:
            raise self._unanswered(exc) from exc

    def _properties(self) -> ClientRequestProperties:
        # The library leaves it without types.
        make: Any = ClientRequestProperties
        said: ClientRequestProperties = make()
        said.client_request_id = f"{APPLICATION};{uuid4()}"
        said.application = APPLICATION
        said.set_option(
            ClientRequestProperties.request_timeout_option_name,
            timedelta(seconds=self._patience.answer_s),
        )
        return said

    def _clients(self) -> Clients:
        return clients(self._database.cluster, self._patience.answer_s)

    # --- appending ---

    def _refuse_other_columns(self, table: str, rows: pa.Table) -> None:
        schema = TABLES[table].schema
        if not rows.schema.equals(schema):
            raise SchemaError(
                f"{rows.num_rows} rows do not fit the table {table!r}: it has "
                f"{_listed(schema)}, they have {_listed(rows.schema)}."
            )

    def _check_once(self, table: str) -> None:
        if table in self._checked:
            return
        try:
            self.check(table)
        except (QueryError, SchemaError) as exc:
            if self._streaming or isinstance(exc, QueryError):
                raise SinkAwayError(
                    f"No row can be added to {table!r}: {exc} What waits stays."
                ) from exc
            raise
        self._checked.add(table)

    def _streamed(self, table: str, rows: pa.Table, lines: bytes, batch: str) -> bool:
        """Whether the service took the rows; else they are to be queued."""
        if len(lines) > STREAMED_BYTES:
            return False
        content = compressed(lines)

        def stream() -> None:
            self._clients().engine.execute_streaming_ingest(
                self._database.name,
                landing(table, TABLES[table]),
                BytesIO(content),
                None,
                DataFormat.JSON,
                self._properties(),
                mapping(table),
            )

        try:
            # What is left of the time is for the queue.
            retried(stream, self._patience.retry_s / 2)
        except GivenUp as exc:
            if exc.fault.kind in {Kind.NO_STREAMING, Kind.TRANSIENT}:
                logger.warning(
                    "%d rows for %r are queued, as they cannot be streamed: %s",
                    rows.num_rows,
                    table,
                    exc.fault.said,
                )
                return False
            if exc.fault.kind is Kind.REFUSED:
                raise SchemaError(self._not_added(table, rows, batch, exc)) from exc
            raise SinkAwayError(self._not_added(table, rows, batch, exc)) from exc
        return True

    def _queue(self, table: str, rows: pa.Table, lines: bytes, batch: str) -> None:
        content = compressed(lines)

        def queue() -> None:
            self._clients().queue.ingest_from_stream(
                StreamDescriptor(
                    BytesIO(content),
                    is_compressed=True,
                    stream_name="rows.json.gz",
                    size=len(lines),
                ),
                IngestionProperties(
                    self._database.name,
                    landing(table, TABLES[table]),
                    data_format=DataFormat.JSON,
                    ingestion_mapping_kind=IngestionMappingKind.JSON,
                    ingestion_mapping_reference=mapping(table),
                    ingest_by_tags=[batch],
                    ingest_if_not_exists=[batch],
                    # Somebody waits for these; a batch here is not one row.
                    flush_immediately=True,
                ),
            )

        try:
            retried(queue, self._patience.retry_s)
        except GivenUp as exc:
            # No row is looked at before it is queued: it is none's fault.
            raise SinkAwayError(self._not_added(table, rows, batch, exc)) from exc

    def _wait_until_seen(self, table: str, rows: pa.Table, batch: str) -> None:
        until = time.monotonic() + self._patience.visible_s
        pause_s = _FIRST_LOOK_S
        try:
            while not self.has(table, rows):
                if time.monotonic() + pause_s > until:
                    raise SinkAwayError(
                        f"{rows.num_rows} rows of the batch {batch!r} were queued for "
                        f"{table!r} in {self._database} and cannot be read after "
                        f"{self._patience.visible_s:g} s. They are not lost; the same "
                        "rows may be sent again and count once. If they never come, "
                        "`.show ingestion failures` in the database says why."
                    )
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_LOOK_S)
        except QueryError as exc:
            raise SinkAwayError(
                f"{rows.num_rows} rows of the batch {batch!r} were queued for "
                f"{table!r}, and whether they can be read is not known: {exc}"
            ) from exc

    # --- what is said of an error ---

    def _unanswered(self, exc: GivenUp) -> QueryError | SinkAwayError:
        fault = exc.fault
        if fault.kind in {Kind.REFUSED, Kind.NO_TABLE, Kind.NO_STREAMING}:
            return QueryError(
                f"{self._database} refuses the query: {_ended(fault.said)}"
                f"{_way_out(fault)}"
            )
        return SinkAwayError(
            f"{self._database} cannot be asked now, after {exc.attempts} attempts: "
            f"{_ended(fault.said)}{_way_out(fault)}"
        )

    def _not_added(self, table: str, rows: pa.Table, batch: str, exc: GivenUp) -> str:
        said = (
            f"{rows.num_rows} rows of the batch {batch!r} could not be added to "
            f"{table!r} in {self._database}, after {exc.attempts} attempts: "
            f"{_ended(exc.fault.said)}{_way_out(exc.fault)}"
        )
        if exc.fault.kind is Kind.REFUSED:
            return said
        return f"{said} The same rows may be sent again and count once."


def _differences(
    place: str, wanted: Mapping[str, str], there: Mapping[str, str]
) -> list[str]:
    return [
        *(
            f"{place}.{name} is missing"
            if name not in there
            else f"{place}.{name} is {there[name]}, not {kind}"
            for name, kind in wanted.items()
            if there.get(name) != kind
        ),
        *(
            f"{place}.{name} ({kind}) is not in the code"
            for name, kind in there.items()
            if name not in wanted
        ),
    ]


def _ended(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _way_out(fault: Fault) -> str:
    out = _WAYS_OUT.get(fault.kind)
    return f" {out}" if out else ""


def _listed(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
