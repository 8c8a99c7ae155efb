"""Telemetry on one machine: Parquet parts, asked in KQL by an embedded DuckDB."""

import logging
import re
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from active_learning.errors import QueryError, SinkAwayError
from active_learning.schemas import TABLES
from active_learning.services.telemetry.kql import translated
from active_learning.services.telemetry.parts import Parts

logger = logging.getLogger(__name__)


class LocalTelemetry:
    """Tables as folders of Parquet parts; both a ``Sink`` and a ``QueryService``.

    No process holds a database file: each question opens a DuckDB in memory, which
    sees the parts that are there at that moment as views. So many may append while
    others ask.

    Args:
        folder: Has a folder for each table.
        elsewhere: Tables that lie in other places, by name: a folder of parts, or one
            Parquet file.
        memory: What DuckDB may use before it puts something on disk, as it writes it.
        cache: A folder for the SQL of queries, which takes longer to make than many a
            query takes to run; ``None`` makes it each time.
    """

    def __init__(
        self,
        folder: Path,
        elsewhere: Mapping[str, Path] | None = None,
        memory: str = "",
        cache: Path | None = None,
    ) -> None:
        """Describe the places; nothing is read yet."""
        self._folder = folder
        self._elsewhere = dict(elsewhere or {})
        self._memory = memory
        self._cache = cache

    def append(self, table: str, rows: pa.Table, batch: str) -> None:
        """Add rows as one part, which the same batch again replaces by itself."""
        try:
            self.parts(table).append(rows, batch)
        except OSError as exc:
            raise SinkAwayError(
                f"{rows.num_rows} rows could not be added to {table!r} in "
                f"{self._folder}: {exc.strerror or exc}"
            ) from exc

    def query(self, text: str, parameters: Mapping[str, str | int]) -> pd.DataFrame:
        """Run one query on the parts that are there now."""
        while True:
            files = self._files(text)
            try:
                return self._ask(text, parameters, files)
            except duckdb.Error as exc:
                listed = [file for of_table in files.values() for file in of_table]
                if all(file.exists() for file in listed):
                    raise QueryError(f"The query cannot be answered: {exc}") from exc
            # A compaction deleted a part that was still listed: its rows are in
            # another one now.
            logger.info("A part was gone; asking again")

    def parts(self, table: str) -> Parts:
        """One table's parts."""
        return Parts(self._place(table), table)

    def _place(self, table: str) -> Path:
        return self._elsewhere.get(table, self._folder / table)

    def _files(self, text: str) -> dict[str, list[Path]]:
        """The files of each table that the text names."""
        named = [table for table in TABLES if re.search(rf"\b{table}\b", text)]
        return {
            table: [place] if place.is_file() else self.parts(table).current()
            for table, place in ((table, self._place(table)) for table in named)
        }

    def _ask(
        self,
        text: str,
        parameters: Mapping[str, str | int],
        files: Mapping[str, list[Path]],
    ) -> pd.DataFrame:
        translation = translated(text, self._cache)
        values = translation.bind(parameters)
        with (
            tempfile.TemporaryDirectory(prefix="duckdb-") as spill,
            duckdb.connect(config={"temp_directory": spill}) as connection,
        ):
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET preserve_insertion_order = false")
            # A notebook without widgets has no bar and refuses to be told so.
            shown = "SELECT current_setting('enable_progress_bar')"
            if connection.execute(shown).fetchall()[0][0]:
                connection.execute("SET enable_progress_bar = false")
            if self._memory:
                connection.execute(f"SET memory_limit = {_quoted(self._memory)}")
            for table, of_table in files.items():
                connection.execute(_view(table, of_table, connection))
            # Of a question about predictions that are not there yet, little is left.
            unscored = files.get("predictions") == []
            sql = translation.inlined() if unscored else translation.sql
            answer: pd.DataFrame = connection.execute(sql, values).df()
        return answer


def _view(table: str, files: list[Path], connection: duckdb.DuckDBPyConnection) -> str:
    blank = _blank(table)
    # The first file has no rows: it has the columns that older parts lack.
    listed = ", ".join(_quoted(str(file)) for file in (blank, *files))
    typed = connection.read_parquet(str(blank))
    # A cast to the type that a column has already costs nothing.
    columns = ", ".join(
        f'CAST("{name}" AS {kind}) AS "{name}"'
        for name, kind in zip(typed.columns, typed.types, strict=True)
    )
    empty = "" if files else " WHERE false"
    return (
        # Names of this package and quoted paths; a user's text is never in it.
        f'CREATE VIEW "{table}" AS SELECT {columns} '  # noqa: S608
        f"FROM read_parquet([{listed}], union_by_name = true){empty}"
    )


@cache
def _blanks() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="active-learning-")


@cache
def _blank(table: str) -> Path:
    """A part without rows, which knows the columns and their types."""
    path = Path(_blanks().name, f"{table}.parquet")
    pq.write_table(TABLES[table].schema.empty_table(), path)
    return path


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
